"""The closed loop's cost and its exact gradient, without back-propagating step by step.

Autograd through N steps of plant and net costs a graph of N small pieces. Here the loop runs
without a graph, everything that does not depend on order (net, Jacobians, cost) is differentiated
for all times at once, and only the costate goes backwards in time, one small product a step.
Shapes: B cases, N steps, n states, m controls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ganglion.tasks.control.feedback import Feedback
from ganglion.tasks.control.plant import Plant

Objective = Callable[[Tensor, Tensor], Tensor]  # of states (B, N + 1, n), controls (B, N, m)


class Path(NamedTuple):
    """A run of the closed loop: states (B, N + 1, n), time left (B, N, 1), and what acts (B, N, 1).

    A case waits at its start, uncontrolled, until its time comes.
    """

    states: Tensor
    controls: Tensor
    left: Tensor
    acts: Tensor


def closed_loop_cost(
    module: Feedback, plant: Plant, inputs: tuple[Tensor, Tensor, Tensor], case_clip: float = 0.0
) -> Tensor:
    """Mean cost over the time left of `module` in closed loop, a scalar with its gradient.

    inputs: state, target (B, n) and the steps left (B, 1). Gradient: with h_t = J_u + B_t' l_{t+1}
    and l_t = J_x + A_t' l_{t+1} + K_t' h_t, K_t = d pi / dx, dJ/dtheta = sum_t h_t' d pi / dtheta
    (the adjoint method: Bertsekas, Nonlinear Programming, 1999, section 1.9). The constant cost
    of waiting is part of the value. case_clip, where positive, scales the gradient of a case down
    to this many times the median case's, because one loop that runs away hides all others.
    """
    target = inputs[1]
    with torch.no_grad():
        path = run(module, plant, *inputs)
        value: Tensor = plant.cost(path.states, path.controls, target).mean()
    if not torch.is_grad_enabled():
        return value
    x = path.states[:, :-1].flatten(0, 1).requires_grad_()
    goal = target.unsqueeze(1).expand(-1, plant.num_steps, -1).flatten(0, 1)
    u = module.control(x, goal, path.left.flatten(0, 1))

    def objective(states: Tensor, controls: Tensor) -> Tensor:
        total: Tensor = plant.cost(states, controls, target).sum()
        return total

    pull = pulls(plant, path, objective, jacobian(u, x))
    push = (clipped(pull, case_clip).flatten(0, 1) * u).sum() / len(target)
    return value + push - push.detach()


def clipped(pull: Tensor, most: float) -> Tensor:
    """Scale each case of pull (B, N, m) to at most `most` (0: any) times the median case's norm."""
    if most <= 0.0:
        return pull
    size = pull.flatten(1).norm(dim=1)
    share = (most * size.median() / size.clamp(min=1e-30)).clamp(max=1.0)
    scaled: Tensor = pull * share.view(-1, 1, 1)
    return scaled


def run(module: Feedback, plant: Plant, x: Tensor, target: Tensor, steps: Tensor) -> Path:
    """Return the closed loop of `module` from x to target (B, n) with so many steps left (B, 1)."""
    wait = plant.num_steps - steps
    waits = bool((wait > 0).any())
    times = torch.arange(plant.num_steps, device=x.device)
    left = ((plant.num_steps - times) * plant.dt).to(x.dtype).expand(len(x), -1).unsqueeze(-1)
    acts = (times >= wait).to(x.dtype).unsqueeze(-1)
    states, controls = [x], []
    for t in range(plant.num_steps):
        u = module.control(x, target, left[:, t])
        if waits:
            u = u * acts[:, t]
            x = torch.where(acts[:, t] > 0, plant.step(x, u), x)
        else:
            x = plant.step(x, u)
        states.append(x)
        controls.append(u)
    return Path(torch.stack(states, 1), torch.stack(controls, 1), left, acts)


def pulls(plant: Plant, path: Path, objective: Objective, gain: Tensor) -> Tensor:
    """h (B, N, m), how the objective of the closed loop answers to each control.

    objective gives the sum over cases, a scalar; gain (B N, m, n) is d pi / dx. The path may be of
    any length, and a case may act at its beginning only.
    """
    states, u = path.states.clone().requires_grad_(), path.controls.clone().requires_grad_()
    j_x, j_u = torch.autograd.grad(objective(states, u), (states, u))
    x_flat, u_flat = states[:, :-1].detach().flatten(0, 1), u.detach().flatten(0, 1)
    x_flat.requires_grad_()
    u_flat.requires_grad_()
    moved = plant.step(x_flat, u_flat)
    shape, acts = path.acts.shape[:2], path.acts.unsqueeze(-1)
    eye = torch.eye(plant.n, device=u.device, dtype=u.dtype)
    a = jacobian(moved, x_flat).unflatten(0, shape) * acts + eye * (1.0 - acts)
    b = jacobian(moved, u_flat).unflatten(0, shape) * acts
    k = gain.unflatten(0, shape) * acts
    back = (a + b @ k).mT.contiguous()
    direct = (j_x[:, :-1].unsqueeze(-1) + k.mT @ j_u.unsqueeze(-1)).unbind(1)
    costates = [j_x[:, -1].unsqueeze(-1)]
    for t in range(shape[1] - 1, 0, -1):
        costates.append(torch.baddbmm(direct[t], back[:, t], costates[-1]))
    after = torch.stack(costates[::-1], 1)  # l_1 .. l_N
    pull: Tensor = (j_u + (b.mT @ after).squeeze(-1)) * path.acts
    return pull


def jacobian(y: Tensor, x: Tensor) -> Tensor:
    """Jacobian of row-wise y (R, a) by x (R, b) as (R, a, b); keeps y's graph."""
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(y.shape[1])]
    return torch.stack(rows, 1)
