"""What a recursive controller sees of its own plan: errors, cost gradient, and a safe step.

Shapes: B cases, N steps, n states, M = N * m controls. Plans v (B, M) are in units of the bound
and aligned with the END of the horizon: with k < N steps left the first N - k entries are 0 and
the state waits. Nothing here needs autograd, so all of it exports.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from ganglion.tasks.control.linear_quadratic import Matrix, condense, inverse_factor
from ganglion.tasks.control.plant import Plant
from ganglion.tasks.control.riccati import linearised

SHARES = (1.0, 0.5, 0.2, 0.05, 0.01, 0.0)  # of the model's best step, tried in this order
_FLOOR = 1e-9  # added to the curvature along a step, so that no step has none
_NUDGE = 1e-4  # of the start box; truncation 1e-8, rounding in float64 1e-12


class Problem(NamedTuple):
    """What stays fixed over the cycles of one call.

    state, target (B, n); mask (B, M), 1 where an entry acts; steps (B,), whole steps left. Linear
    plants only: newton (B, M) is p at v = 0, free (B, N * n) the errors at v = 0.
    """

    state: Tensor
    target: Tensor
    mask: Tensor
    steps: Tensor
    newton: Tensor
    free: Tensor


class View(NamedTuple):
    """What one look at a plan gives.

    p (B, M), the damped Newton step of `Simulation`. errors: those of steps 1..N in units of the
    start box (B, N * n), or what they are a linear function of; see `Simulation.sight`. turns
    (B, N, n + m, n): the transposed Jacobians of each step, where the plant is not linear. bends
    (B, N, n): `Plant.bends` of the errors, where it has angles.
    """

    p: Tensor
    errors: Tensor | None = None
    turns: Tensor | None = None
    bends: Tensor | None = None


class Simulation(nn.Module):
    """A plant as a recursive controller uses it; `simulation_of` picks the right kind.

    p below is the damped Newton step (H + damping I)^-1 dJ/dv on the entries that act.
    """

    precision: ClassVar[torch.dtype] = torch.float32
    linear: ClassVar[bool] = False
    bound: Tensor
    bounds: Tensor
    centre: Tensor
    centres: Tensor
    order: Tensor
    mask: Tensor
    factor: Tensor
    factor_transposed: Tensor  # a copy: a loop that is exported may not capture two views of one

    def __init__(self, plant: Plant, damping: float) -> None:
        super().__init__()
        self.num_steps, self.m, self.dt = plant.num_steps, plant.m, plant.dt
        self.damping = damping
        self.centred = not np.any(plant.centre)
        for name, values in (("bound", plant.bound), ("centre", plant.centre)):
            table = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, table, persistent=False)
            self.register_buffer(f"{name}s", table.repeat(plant.num_steps), persistent=False)
        self.register_buffer("order", torch.arange(len(self.bounds)), persistent=False)

    @abstractmethod
    def problem(self, state: Tensor, target: Tensor, steps: Tensor) -> Problem:
        """Gather what stays fixed; steps (B,) is the whole steps left."""

    @abstractmethod
    def sight(self, weight: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """c and A with (errors of steps 1..N) weight = c + `View.errors` A; weight (N * n, d).

        Linear plants keep the product of constants out of the cycles; others give 0 and weight.
        """

    @abstractmethod
    def look(self, v: Tensor, problem: Problem) -> View:
        """Simulate the plan v (B, M)."""

    @abstractmethod
    def share(self, v: Tensor, delta: Tensor, view: View, problem: Problem) -> Tensor:
        """Return alpha in [0, 1], (B, 1), with J(v + alpha delta) <= J(v)."""

    @abstractmethod
    def costs(self, plans: Sequence[Tensor], problem: Problem) -> Tensor:
        """Cost over the time left of several plans, (len, B), with a gradient in the plans."""

    def steps_left(self, time_left_s: Tensor) -> Tensor:
        """Whole steps left (B,), clamped to 1..N, from a time (B, 1) in s."""
        return self.rounded(time_left_s).squeeze(-1).to(torch.int64)

    def rounded(self, time_left_s: Tensor) -> Tensor:
        """Steps left as in `steps_left`, but (B, 1) and of the time's own type."""
        return torch.round(time_left_s * (1.0 / self.dt)).clamp(1, self.num_steps)

    def controls(self, v: Tensor, steps: Tensor) -> Tensor:
        """Plan (B, M) -> controls (B, N, m) in control units, from now on and 0 after the end."""
        # entry 0 becomes the one k from the end
        index = torch.remainder(self.order - steps.unsqueeze(-1) * self.m, len(self.order))
        u = v * self.bounds if self.centred else v * self.bounds + self.centres
        controls: Tensor = u.gather(1, index).unflatten(-1, (self.num_steps, self.m))
        return controls

    def _physical(self, v: Tensor) -> Tensor:
        """Plan (..., M) in units of the bound -> controls (..., N, m)."""
        u: Tensor = self.centre + v.unflatten(-1, (self.num_steps, self.m)) * self.bound
        return u

    def precondition(self, x: Tensor, mask: Tensor) -> Tensor:
        """(H + damping I)^-1 x on the entries that act; x (B, M) is 0 on the others."""
        solved: Tensor = ((x @ self.factor) * mask) @ self.factor_transposed
        return solved

    def _preconditioner(self, hessian: Matrix) -> Matrix:
        factor = inverse_factor(hessian, self.damping)
        self._table("factor", factor)
        self._table("factor_transposed", factor.T)
        return factor

    def _table(self, name: str, values: Matrix) -> None:
        table = torch.tensor(np.ascontiguousarray(values), dtype=self.precision)
        self.register_buffer(name, table, persistent=False)


class LinearSimulation(Simulation):
    """Linear plant, quadratic cost: everything is a product with a constant matrix.

    Why p and not the gradient: float32 holds dJ/dv to 1e-7 of its largest terms, which solving
    with H would amplify; p = v - damping P v + P c needs no such solve (P H = I - damping P), and
    dJ/dv = (H + damping I) p where the line search wants it.
    """

    linear: ClassVar[bool] = True

    hessian: Tensor
    root: Tensor
    floor: Tensor
    downhill: Tensor
    damped: Tensor
    offsets: Tensor
    slope: Tensor
    constant: Tensor
    response: Tensor

    def __init__(self, plant: Plant, damping: float) -> None:
        super().__init__(plant, damping)
        matrices = plant.matrices()
        assert matrices is not None
        q = condense(*matrices, (plant.q, plant.r, plant.qf), plant.bound, plant.num_steps)
        factor = self._preconditioner(q.hessian)
        solved = factor @ ((factor.T @ q.linear) * q.mask[:, :, None])
        unit = np.tile(1.0 / np.asarray(plant.start_box), plant.num_steps)[:, None]
        size = len(q.hessian)
        tables = {
            "mask": q.mask, "hessian": q.hessian, "slope": q.linear, "constant": q.constant,
            "offsets": np.concatenate([solved, q.free * unit], 1),
            "response": (q.response * unit).T,
            "damped": -damping * factor.T,
            "downhill": -(q.hessian + damping * np.eye(size)),
            # one column more than the root of H, for the floor of the curvature
            "root": np.hstack([np.linalg.cholesky(q.hessian), np.zeros((size, 1))]),
            "floor": np.append(np.zeros(size), _FLOOR**0.5),
        }  # fmt: skip
        for name, values in tables.items():
            self._table(name, values)

    def problem(self, state: Tensor, target: Tensor, steps: Tensor) -> Problem:
        row, z = steps - 1, torch.cat([state, target], -1).unsqueeze(-1)
        size = len(self.order)
        at_rest = (self.offsets.index_select(0, row) @ z).squeeze(-1)  # what v = 0 gives
        newton, free = at_rest.split([size, at_rest.shape[-1] - size], -1)
        return Problem(state, target, self.mask.index_select(0, row), steps, newton, free)

    def sight(self, weight: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        return problem.free @ weight, self.response @ weight

    def look(self, v: Tensor, problem: Problem) -> View:
        """View with v in place of the errors, which are linear in it."""
        acting = (v @ self.factor) * problem.mask
        return View(torch.addmm(v + problem.newton, acting, self.damped), v)

    def share(self, v: Tensor, delta: Tensor, view: View, problem: Problem) -> Tensor:
        """Exact minimiser on the segment (Nocedal and Wright, 2006, eq. 3.55), clipped.

        The curvature delta' H delta is a sum of squares: float32 keeps it to 1e-5 of itself along
        the flattest direction too, where the product with H would lose three digits.
        """
        curvature = torch.addmm(self.floor, delta, self.root).square().sum(-1, keepdim=True)
        fall = ((delta @ self.downhill) * view.p).sum(-1, keepdim=True)  # -g . delta
        return (fall / curvature).clamp(0.0, 1.0)

    def costs(self, plans: Sequence[Tensor], problem: Problem) -> Tensor:
        row, z = problem.steps - 1, torch.cat([problem.state, problem.target], -1).unsqueeze(-1)
        slope, weighted = (table[row] @ z for table in (self.slope, self.constant))
        fixed = (weighted * z).sum((-1, -2))
        v = torch.stack(list(plans))
        return ((0.5 * (v @ self.hessian) + slope.squeeze(-1)) * v).sum(-1) + fixed


class RolloutSimulation(Simulation):
    """Any smooth plant with the cost of `Plant`: roll out, adjoint sweep, backtracking.

    The step's Jacobians are central differences, all times and directions in one batched step. The
    preconditioner is the Hessian of the plant linearised at the origin. It works in float64 inside:
    dJ/dv of an unstable plant is a difference of large terms, and in float32 its rounding grows
    over the cycles until an exported file and this module disagree visibly.
    """

    precision: ClassVar[torch.dtype] = torch.float64

    q: Tensor
    r: Tensor
    qf: Tensor
    unit: Tensor
    nudges: Tensor
    shares: Tensor
    ranks: Tensor
    damped: Tensor

    def __init__(self, plant: Plant, damping: float) -> None:
        super().__init__(plant, damping)
        self.plant, self.n = plant, plant.n
        a, b = linearised(plant)
        weights = (plant.q, plant.r, plant.qf)
        q = condense(a, b, weights, plant.bound, plant.num_steps)
        self._preconditioner(q.hessian)
        box = np.asarray(plant.start_box)
        tables = {
            "mask": q.mask, "q": plant.q, "r": plant.r, "qf": plant.qf, "unit": 1.0 / box,
            "nudges": _NUDGE * np.diag(np.concatenate([box, plant.bound])),
            "shares": np.array(SHARES), "ranks": np.arange(len(SHARES), 0.0, -1.0),
            "damped": q.hessian + damping * np.eye(len(q.hessian)),
        }  # fmt: skip
        for name, values in tables.items():
            self._table(name, values)

    def problem(self, state: Tensor, target: Tensor, steps: Tensor) -> Problem:
        mask = self.mask[steps - 1].to(state.dtype)
        none = torch.zeros_like(mask)
        return Problem(state, target, mask, steps, none, none)

    def sight(self, weight: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        return torch.zeros((), dtype=weight.dtype, device=weight.device), weight

    def look(self, v: Tensor, problem: Problem) -> View:
        errors, gradient, turns, bends = self._sweep(v, problem)
        p = self.precondition(gradient, problem.mask)
        return View(p.to(v.dtype), errors.to(v.dtype), turns, bends)

    def share(self, v: Tensor, delta: Tensor, view: View, problem: Problem) -> Tensor:
        """Gauss-Newton's minimiser on the segment, cut back until the true cost falls.

        Cutting back to 0 is allowed, and a fall below rounding does not count as one. Starting
        from a smooth share keeps the answer continuous, so that rounding hardly shows.
        """
        exact = delta.to(self.precision)
        rise = ((exact @ self.damped) * view.p).sum(-1, keepdim=True)  # g . delta
        best = (-rise / self._curvature(exact, view).clamp(min=1e-9)).clamp(0.0, 1.0)
        shares = self.shares.view(-1, 1, 1) * best
        costs = self._cost(v.unsqueeze(0) + shares * exact, problem)
        falls = torch.cat([costs[:-1] <= costs[-1:] * (1.0 - 1e-6), costs[-1:] >= 0.0])
        first = (falls * self.ranks.unsqueeze(-1)).argmax(0)
        return (self.shares[first].unsqueeze(-1) * best).to(v.dtype)

    def _curvature(self, delta: Tensor, view: View) -> Tensor:
        """delta' H delta (B, 1) with the Gauss-Newton Hessian, by the linearised plant."""
        assert view.turns is not None
        turns = view.turns
        du = delta.unflatten(-1, (self.num_steps, self.m)) * self.bound

        def advance(t: Tensor, dx: Tensor) -> Tensor:
            both = torch.cat([dx, du.index_select(1, t).squeeze(1)], -1).unsqueeze(1)
            return (both @ turns.index_select(1, t).squeeze(1)).squeeze(1)

        zero = torch.zeros_like(turns[:, 0, 0])
        dx = _scan(advance, zero, range(self.num_steps)) ** 2
        if view.bends is not None:
            dx = dx * view.bends
        stage = (dx[:, :-1] * self.q).sum((-1, -2)) + (du**2 * self.r).sum((-1, -2))
        bent: Tensor = 2.0 * (stage + (dx[:, -1] * self.qf).sum(-1))
        return bent.unsqueeze(-1)

    def costs(self, plans: Sequence[Tensor], problem: Problem) -> Tensor:
        """Values by rollout, gradients by the explicit adjoint: far cheaper here than autograd."""
        out = []
        for v in plans:
            with torch.no_grad():
                value, gradient = self._cost(v, problem), self._sweep(v, problem)[1]
            out.append((value + (gradient * (v - v.detach())).sum(-1)).to(v.dtype))
        return torch.stack(out)

    def _sweep(self, v: Tensor, problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Errors (B, N * n) as in `View`, dJ/dv (B, M), `View.turns` and `View.bends`."""
        states, u = self._rollout(v, problem)
        errors = self.plant.error(states, problem.target.unsqueeze(1))
        turns = self._jacobians(states[:, :-1], u)
        gradient = self._adjoint(turns, errors, u) * self.bound
        acts = self._acts(problem).transpose(0, 1)
        seen = errors[:, 1:] * self.unit * acts
        bends = self.plant.bends(errors[:, 1:]) if self.plant.angles else None
        return seen.flatten(1), gradient.flatten(1) * problem.mask, turns, bends

    def _acts(self, problem: Problem) -> Tensor:
        """Which steps act, (N, B, 1)."""
        steps: Tensor = problem.mask.unflatten(-1, (self.num_steps, self.m))
        return steps[:, :, :1].transpose(0, 1)

    def _rollout(self, v: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """States (..., B, N + 1, n) and controls (..., B, N, m) of plans v (..., B, M)."""
        acts = self._acts(problem) > 0
        u = self._physical(v.to(self.precision))
        start = problem.state.to(self.precision).expand(*v.shape[:-1], self.n)

        def advance(t: Tensor, x: Tensor) -> Tensor:
            moved = self.plant.step(x, u.index_select(-2, t).squeeze(-2))
            return torch.where(acts.index_select(0, t).squeeze(0), moved, x)  # waits for its time

        states = _scan(advance, start, range(self.num_steps))
        return torch.cat([start.unsqueeze(-2), states], -2), u

    def _cost(self, v: Tensor, problem: Problem) -> Tensor:
        """Cost (..., B) of plans v (..., B, M), without what waiting at the start would cost."""
        states, u = self._rollout(v, problem)
        e: Tensor = self.plant.error(states, problem.target.unsqueeze(1))
        squares: Tensor = self.plant.squares(e)
        stage = (squares[..., :-1, :] * self.q).sum(-1)
        stage = stage + ((u - self.centre) ** 2 * self.r).sum(-1)
        acting = stage * self._acts(problem).squeeze(-1).T
        end: Tensor = (squares[..., -1, :] * self.qf).sum(-1)
        return acting.sum(-1) + end

    def _adjoint(self, turns: Tensor, errors: Tensor, u: Tensor) -> Tensor:
        """dJ/du (B, N, m): l_t = Q d'(e_t) + A_t' l_{t+1}, dJ/du_t = 2 R (u_t - c) + B_t' l_{t+1}.

        Source: Bertsekas, Nonlinear Programming, 1999, section 1.9 (gradient by the adjoint).
        Entries that do not act come out wrong and are masked by the caller.
        """
        slopes: Tensor = self.plant.slopes(errors)
        end, direct = 2.0 * self.qf * slopes[:, -1], 2.0 * self.q * slopes[:, :-1]

        def retreat(t: Tensor, costate: Tensor) -> Tensor:
            pulled = turns.index_select(1, t).squeeze(1) @ costate.unsqueeze(-1)
            return direct.index_select(1, t).squeeze(1) + pulled.squeeze(-1)[:, : self.n]

        before = _scan(retreat, end, range(self.num_steps - 1, 0, -1))
        costates = torch.cat([before, end.unsqueeze(1)], 1)  # l_1 .. l_N
        pulled = (turns[:, :, self.n :] @ costates.unsqueeze(-1)).squeeze(-1)
        slope: Tensor = 2.0 * self.r * (u - self.centre) + pulled
        return slope

    def _jacobians(self, x: Tensor, u: Tensor) -> Tensor:
        """Transposed [A_t B_t] of the step, (B, N, n + m, n): row d is along direction d."""
        xu = torch.cat([x, u], -1).unsqueeze(2)
        ends = [xu + self.nudges, xu - self.nudges]
        up, down = (self.plant.step(end[..., : self.n], end[..., self.n :]) for end in ends)
        turn: Tensor = (up - down) * (0.5 / torch.diagonal(self.nudges)).unsqueeze(-1)
        return turn


def _scan(step: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: range) -> Tensor:
    """All x_t of x <- step(t, x) over `times`, in order of time, (..., len, n).

    A Python loop, or one Loop in an exported graph, where unrolling would give 100,000 nodes.
    """
    stride = times.step
    index = torch.arange(len(times), device=x.device)
    if not torch.compiler.is_exporting():
        clock = torch.tensor(list(times), device=x.device).unbind()
        seen = []
        for t in clock:
            x = step(t.reshape(1), x)
            seen.append(x)
        return torch.stack(seen[::stride], -2)
    first = torch.zeros(*x.shape[:-1], len(times), x.shape[-1], dtype=x.dtype, device=x.device)
    begin, offset, count = times.start, min(times.start, times[-1]), len(times)

    def more(i: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        return i < count

    def body(i: Tensor, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = (begin + stride * i).reshape(1)
        x = step(t, x)
        here = (index == t - offset).unsqueeze(-1)
        return i + 1, x, torch.where(here, x.unsqueeze(-2), seen)

    zero = torch.zeros((), dtype=torch.int64, device=x.device)
    seen_all: Tensor = while_loop(more, body, (zero, x.clone(), first))[2]
    return seen_all


def simulation_of(plant: Plant, damping: float) -> Simulation:
    """Return the cheapest simulation that is exact for `plant`."""
    if plant.matrices() is not None:
        return LinearSimulation(plant, damping)
    return RolloutSimulation(plant, damping)
