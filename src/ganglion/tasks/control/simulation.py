"""What a recursive controller sees of its own plan: errors, cost gradient, and a safe step.

Shapes: B cases, N steps, n states, M = N * m controls. Plans v (B, M) are in units of the bound
and aligned with the END of the horizon: with k < N steps left the first N - k entries are 0 and
the state waits. Nothing here needs autograd, so all of it exports.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.tasks.control.linear_quadratic import condense, inverse_factor
from ganglion.tasks.control.plant import Plant

Problem = tuple[Tensor, Tensor, Tensor, Tensor]  # state, target (B, n); mask (B, M); slope (B, M)

SHARES = (1.0, 0.7, 0.4, 0.2, 0.1, 0.03, 0.01, 0.0)
_NUDGE = 3e-3  # of the start box; truncation and float32 rounding of a difference are equal here


class Simulation(nn.Module):
    """A plant as a recursive controller uses it; `simulation_of` picks the right kind."""

    bound: Tensor
    table_mask: Tensor
    factor: Tensor
    factor_transposed: Tensor  # a copy: a loop that is exported may not capture two views of one

    def __init__(self, plant: Plant) -> None:
        super().__init__()
        self.num_steps, self.m, self.dt = plant.num_steps, plant.m, plant.dt
        self._table("bound", plant.bound)

    @abstractmethod
    def problem(self, state: Tensor, target: Tensor, steps: Tensor) -> Problem:
        """Gather what stays fixed over the cycles; steps (B,) is the whole steps left."""

    @abstractmethod
    def look(self, v: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Errors of steps 1..N in units of the start box (B, N * n), gradient dJ/dv (B, M)."""

    @abstractmethod
    def gradient(self, v: Tensor, problem: Problem) -> Tensor:
        """dJ/dv, (B, M), alone."""

    @abstractmethod
    def share(self, v: Tensor, delta: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
        """Return alpha in [0, 1], (B, 1), with J(v + alpha delta) <= J(v)."""

    @abstractmethod
    def cost(self, v: Tensor, problem: Problem) -> Tensor:
        """Cost over the time left, (B,), with a gradient in v."""

    def steps_left(self, time_left_s: Tensor) -> Tensor:
        """Whole steps left (B,), clamped to 1..N, from a time (B, 1) in s."""
        steps = torch.round(time_left_s.squeeze(-1) * (1.0 / self.dt))
        return steps.clamp(1, self.num_steps).to(torch.int64)

    def precondition(self, gradient: Tensor, problem: Problem) -> Tensor:
        """(H + damping I)^-1 g on the entries that act, (B, M)."""
        return ((gradient @ self.factor) * problem[2]) @ self.factor_transposed

    def controls(self, v: Tensor, steps: Tensor) -> Tensor:
        """Plan (B, M) -> controls (B, N, m) in control units, from now on and 0 after the end."""
        u = v.unflatten(-1, (self.num_steps, self.m)) * self.bound
        index = torch.arange(self.num_steps, device=v.device) - steps.unsqueeze(-1)
        index = torch.remainder(index, self.num_steps)  # entry 0 becomes the one k from the end
        return u.gather(1, index.unsqueeze(-1).expand_as(u))

    def _preconditioner(self, factor: np.ndarray) -> None:
        self._table("factor", factor)
        self._table("factor_transposed", factor.T)

    def _table(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.tensor(np.ascontiguousarray(values), dtype=torch.float32), persistent=False)


class LinearSimulation(Simulation):
    """Linear plant, quadratic cost: everything is a product with a constant matrix."""

    hessian: Tensor
    linear: Tensor
    constant: Tensor
    response: Tensor
    free: Tensor

    def __init__(self, plant: Plant, damping: float) -> None:
        super().__init__(plant)
        matrices = plant.matrices()
        assert matrices is not None
        q = condense(*matrices, (plant.q, plant.r, plant.qf), plant.bound, plant.num_steps)
        unit = np.tile(1.0 / np.asarray(plant.start_box), plant.num_steps)[:, None]
        self._preconditioner(inverse_factor(q.hessian, damping))
        self._table("table_mask", q.mask)
        self._table("hessian", q.hessian)
        self._table("linear", q.linear)
        self._table("constant", q.constant)
        self._table("response", (q.response * unit).T)
        self._table("free", q.free * unit)

    def problem(self, state: Tensor, target: Tensor, steps: Tensor) -> Problem:
        z = torch.cat([state, target], -1).unsqueeze(-1)
        slope = (self.linear[steps - 1] @ z).squeeze(-1)
        return state, target, self.table_mask[steps - 1], slope

    def look(self, v: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        state, target, mask, _ = problem
        z = torch.cat([state, target], -1).unsqueeze(-1)
        steps = (mask.sum(-1) * (1.0 / self.m)).round().to(torch.int64)
        errors = v @ self.response + (self.free[steps - 1] @ z).squeeze(-1)
        return errors, self.gradient(v, problem)

    def gradient(self, v: Tensor, problem: Problem) -> Tensor:
        return (v @ self.hessian + problem[3]) * problem[2]

    def share(self, v: Tensor, delta: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
        """Exact minimiser on the segment (Nocedal and Wright, 2006, eq. 3.55), clipped."""
        curvature = ((delta @ self.hessian) * delta).sum(-1, keepdim=True)
        fall = -(gradient * delta).sum(-1, keepdim=True)
        return (fall / (curvature + 1e-9)).clamp(0.0, 1.0)

    def cost(self, v: Tensor, problem: Problem) -> Tensor:
        state, target, mask, slope = problem
        z = torch.cat([state, target], -1)
        steps = (mask.sum(-1) * (1.0 / self.m)).round().to(torch.int64)
        fixed = torch.einsum("bi,bij,bj->b", z, self.constant[steps - 1], z)
        return ((0.5 * (v @ self.hessian) + slope) * v).sum(-1) + fixed


class RolloutSimulation(Simulation):
    """Any smooth plant with the quadratic cost of `Plant`: roll out, adjoint sweep, backtracking.

    The step's Jacobians are central differences, all times and directions in one batched step. The
    preconditioner is the Hessian of the plant linearised at the origin.
    """

    q: Tensor
    r: Tensor
    qf: Tensor
    unit: Tensor
    nudges: Tensor

    def __init__(self, plant: Plant, damping: float) -> None:
        super().__init__(plant)
        self.plant, self.n = plant, plant.n
        a, b = plant.jacobians(np.zeros((1, plant.n)), np.zeros((1, plant.m)))
        weights = (plant.q, plant.r, plant.qf)
        q = condense(a[0], b[0], weights, plant.bound, plant.num_steps)
        self._preconditioner(inverse_factor(q.hessian, damping))
        self._table("table_mask", q.mask)
        for name, values in zip("qr", weights, strict=False):
            self._table(name, values)
        self._table("qf", plant.qf)
        box = np.asarray(plant.start_box)
        self._table("unit", 1.0 / box)
        self._table("nudges", _NUDGE * np.diag(np.concatenate([box, plant.bound])))

    def problem(self, state: Tensor, target: Tensor, steps: Tensor) -> Problem:
        mask = self.table_mask[steps - 1]
        return state, target, mask, torch.zeros_like(mask)

    def look(self, v: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        states, u = self._rollout(v, problem)
        target, acts = problem[1], self._acts(problem)
        errors = self.plant.error(states, target.unsqueeze(1))
        gradient = self._adjoint(states, errors, u) * self.bound
        seen = errors[:, 1:] * self.unit * acts
        return seen.flatten(1), gradient.flatten(1) * problem[2]

    def gradient(self, v: Tensor, problem: Problem) -> Tensor:
        return self.look(v, problem)[1]

    def share(self, v: Tensor, delta: Tensor, gradient: Tensor, problem: Problem) -> Tensor:
        """Best of a few shares, 0 among them; a gain below rounding does not count as one."""
        costs = torch.stack([self._cost(v + share * delta, problem) for share in SHARES])
        bar = torch.cat([costs[:-1], costs[-1:] * (1.0 - 1e-6)])
        shares = torch.tensor(SHARES, device=v.device)
        return shares[bar.argmin(0)].unsqueeze(-1)

    def cost(self, v: Tensor, problem: Problem) -> Tensor:
        """Value by rollout, gradient by the explicit adjoint (exact, and far cheaper here)."""
        with torch.no_grad():
            value = self._cost(v, problem)
            _, gradient = self.look(v, problem)
        return value + (gradient * (v - v.detach())).sum(-1)

    def _acts(self, problem: Problem) -> Tensor:
        """Which steps act, (B, N, 1)."""
        return problem[2].unflatten(-1, (self.num_steps, self.m))[:, :, :1]

    def _rollout(self, v: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """States (B, N + 1, n) and controls (B, N, m), the state waiting until its time comes."""
        acts = self._acts(problem)
        u = v.unflatten(-1, (self.num_steps, self.m)) * self.bound
        states = [problem[0]]
        for t in range(self.num_steps):
            moved = self.plant.step(states[-1], u[:, t])
            states.append(torch.where(acts[:, t] > 0, moved, states[-1]))
        return torch.stack(states, 1), u

    def _cost(self, v: Tensor, problem: Problem) -> Tensor:
        states, u = self._rollout(v, problem)
        e = self.plant.error(states, problem[1].unsqueeze(1))
        stage = (e[:, :-1] ** 2 * self.q + 0.0).sum(-1) + (u**2 * self.r).sum(-1)
        waited = stage * self._acts(problem).squeeze(-1)
        return waited.sum(-1) + (e[:, -1] ** 2 * self.qf).sum(-1)

    def _adjoint(self, states: Tensor, errors: Tensor, u: Tensor) -> Tensor:
        """dJ/du (B, N, m): l_t = 2 Q e_t + A_t' l_{t+1}, dJ/du_t = 2 R u_t + B_t' l_{t+1}.

        Source: Bertsekas, Nonlinear Programming, 1999, section 1.9 (gradient by the adjoint).
        Entries that do not act come out wrong and are masked by the caller.
        """
        turns = self._jacobians(states[:, :-1], u)
        costate = 2.0 * self.qf * errors[:, -1]
        slopes = []
        for t in range(self.num_steps - 1, -1, -1):
            pulled = (turns[:, t] * costate.unsqueeze(1)).sum(-1)  # (B, n + m)
            slopes.append(pulled[:, self.n :])
            costate = 2.0 * self.q * errors[:, t] + pulled[:, : self.n]
        return 2.0 * self.r * u + torch.stack(slopes[::-1], 1)

    def _jacobians(self, x: Tensor, u: Tensor) -> Tensor:
        """Transposed [A_t B_t] of the step: row d is the derivative along direction d."""
        xu = torch.cat([x, u], -1).unsqueeze(2)
        ends = [xu + self.nudges, xu - self.nudges]
        up, down = (self.plant.step(end[..., : self.n], end[..., self.n :]) for end in ends)
        turn: Tensor = (up - down) * (0.5 / torch.diagonal(self.nudges)).unsqueeze(-1)
        return turn


def simulation_of(plant: Plant, damping: float) -> Simulation:
    """Return the cheapest simulation that is exact for `plant`."""
    if plant.matrices() is not None:
        return LinearSimulation(plant, damping)
    return RolloutSimulation(plant, damping)
