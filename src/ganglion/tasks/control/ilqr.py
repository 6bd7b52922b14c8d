"""Control-limited differential dynamic programming, many problems at once, in float64.

Source: Tassa, Mansard, Todorov, Control-Limited Differential Dynamic Programming, ICRA 2014, with
the Gauss-Newton Hessian of iLQR (Li and Todorov, ICINCO 2004), which is positive definite: a ridge
is needed only where a step reaches further than the expansion holds, and is raised before the line
search fails. Shapes: B cases, N steps; arrays are time-major (N, B, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.control import boxqp
from ganglion.tasks.control.plant import Course, Floats, Plant

_SHARES = tuple(0.5 ** np.arange(*ends, dtype=float) for ends in ((0, 1), (1, 4), (4, 10)))
_SHORT, _RAISE, _LOWER = 0.3, 4.0, 0.3  # a share that raises the ridge, and by what it changes
_PATIENCE = 8  # iterations without a fall, each with a larger ridge
_FALL = 1e-6  # of the cost: less is none, where convergence is not asked for
Rows = NDArray[np.intp]


@dataclass
class _Paths:
    """A batch of trajectories: states (N + 1, B, n), controls (N, B, m), target, cost (B,)."""

    states: Floats
    controls: Floats
    target: Floats
    cost: Floats

    def take(self, rows: Rows) -> _Paths:
        return _Paths(
            self.states[:, rows], self.controls[:, rows], self.target[rows], self.cost[rows]
        )

    def put(self, rows: Rows, other: _Paths) -> None:
        self.states[:, rows], self.controls[:, rows] = other.states, other.controls
        self.cost[rows] = other.cost


@dataclass
class _Update:
    """Feed-forward (N, B, m), gains (N, B, m, n) and the slope of the cost along them (B,)."""

    forward: Floats
    gains: Floats
    slope: Floats

    def take(self, rows: Rows) -> _Update:
        return _Update(self.forward[:, rows], self.gains[:, rows], self.slope[rows])


@dataclass(frozen=True)
class Expansion:
    """Q(x + dx, u + du) - Q = g'du + du' H du / 2 + du' C dx + ..., of the cost to go by each step.

    gradient (N, B, m), hessian (N, B, m, m), cross (N, B, m, n); the other terms move no control.
    """

    gradient: Floats
    hessian: Floats
    cross: Floats


def solve(
    plant: Plant, begin: Course, target: Floats,
    tol: float = 1e-9, iterations: int = 500, strict: bool = True,
) -> Course:  # fmt: skip
    """Minimise the cost of each case within the bounds, from the guess `begin`, which obeys them.

    Converged where no control would move by more than tol times its bound. What is found is a local
    optimum, which for Van der Pol is the one that an interior-point solver finds. ArithmeticError
    where a case does not converge; not strict, a case is left where its cost has stopped falling,
    or the iterations end.
    """
    states, guess = (np.array(a.transpose(1, 0, 2), order="C") for a in begin)
    paths = _Paths(states, guess, target, _cost(plant, states, guess, target))
    cases = len(target)
    todo, ridge, stalled = np.arange(cases), np.zeros(cases), np.zeros(cases, np.intp)
    for _ in range(iterations):
        now = paths.take(todo)
        before = now.cost.copy()
        update = _backward(plant, now, ridge[todo])
        moves = (np.abs(update.forward) / plant.bound).max((0, 2))
        shares = _search(plant, now, update, moves)
        paths.put(todo, now)
        # A larger ridge turns the update into a short step along the projected gradient.
        old, least = ridge[todo], float(2.0 * plant.r.max())
        fallen = np.where(old > least, _LOWER * old, 0.0)
        ridge[todo] = np.where(shares < _SHORT, np.maximum(_RAISE * old, least),
                               np.where(shares < 1.0, old, fallen))  # fmt: skip
        falling = before - now.cost > _FALL * np.abs(before)
        stalled[todo] = np.where(falling, 0, stalled[todo] + 1)
        more = (moves > tol) | (old > 0.0)
        todo = todo[more if strict else more & (stalled[todo] < _PATIENCE)]
        if not todo.size:
            break
    if strict and todo.size:
        raise ArithmeticError(f"{todo.size} optimal-control problems did not converge.")
    return Course(paths.states.transpose(1, 0, 2), paths.controls.transpose(1, 0, 2))


def feedback(plant: Plant, course: Course, target: Floats) -> Floats:
    """Return the gains K (B, N, m, n) of u = u* + K (x - x*) around optimal courses, 0 at bounds.

    The linear-quadratic regulator along the way (Anderson and Moore, Optimal Control, section 2.4).
    """
    return _around(plant, course, target)[0].gains.transpose(1, 0, 2, 3)


def expansion(plant: Plant, course: Course, target: Floats) -> Expansion:
    """Return how the cost of optimal courses answers to changes, batch-major (B, N, ...)."""
    found = _around(plant, course, target)[1]
    gradient, hessian, cross = found.gradient, found.hessian, found.cross
    return Expansion(gradient.swapaxes(0, 1), hessian.swapaxes(0, 1), cross.swapaxes(0, 1))


def _around(plant: Plant, course: Course, target: Floats) -> tuple[_Update, Expansion]:
    states, controls = (np.array(a.transpose(1, 0, 2), order="C") for a in course)
    paths = _Paths(states, controls, target, np.zeros(len(target)))
    (steps, cases, m), n = controls.shape, states.shape[2]
    found = Expansion(*(np.empty((steps, cases, m, *more)) for more in ((), (m,), (n,))))
    return _backward(plant, paths, np.zeros(cases), found), found


def _cost(plant: Plant, states: Floats, controls: Floats, target: Floats) -> Floats:
    return np.asarray(plant.cost(states.transpose(1, 0, 2), controls.transpose(1, 0, 2), target))


def _backward(
    plant: Plant, paths: _Paths, ridge: Floats, record: Expansion | None = None
) -> _Update:  # fmt: skip
    """Expand the cost-to-go backwards in time (Tassa et al. 2014, eq. 5-11); ridge (B,) on Q_uu.

    The expansion by each step's control is left in `record`.
    """
    steps, cases, m = paths.controls.shape
    n = plant.n
    flat = paths.states[:-1].reshape(-1, n), paths.controls.reshape(-1, m)
    a, b = (j.reshape(steps, cases, n, -1) for j in plant.jacobians(*flat))
    at, bt = a.swapaxes(2, 3), b.swapaxes(2, 3)
    e = plant.error(paths.states, paths.target)
    eye, quu = np.eye(n), np.diag(2.0 * plant.r)
    slopes, bends = 2.0 * plant.slopes(e), 2.0 * plant.bends(e)
    lx, lu = plant.q * slopes, 2.0 * plant.r * (paths.controls - plant.centre)
    vx = (plant.qf * slopes[-1])[..., None]
    vxx = (plant.qf * bends[-1])[..., None] * eye
    qxx = (plant.q * bends)[..., None] * eye
    update = _Update(np.empty((steps, cases, m)), np.empty((steps, cases, m, n)), np.zeros(cases))
    damping = ridge[:, None, None] * np.eye(m)
    low, high = plant.low - paths.controls, plant.high - paths.controls
    for t in range(steps - 1, -1, -1):
        va, vb = vxx @ a[t], vxx @ b[t]
        gx, gu = lx[t][..., None] + at[t] @ vx, lu[t][..., None] + bt[t] @ vx
        hxx, huu, hux = qxx[t] + at[t] @ va, quu + bt[t] @ vb, bt[t] @ va
        if record:
            record.gradient[t], record.hessian[t], record.cross[t] = gu[..., 0], huu, hux
        k, free = boxqp.stage(huu + damping, gu[..., 0], low[t], high[t])
        gain = _gains(huu + damping, hux, free)
        update.forward[t], update.gains[t] = k, gain
        update.slope += (gu[..., 0] * k).sum(1)
        k, gain_t, hxu = k[..., None], gain.swapaxes(1, 2), hux.swapaxes(1, 2)
        vx = gx + hxu @ k + gain_t @ (gu + huu @ k)
        vxx = hxx + gain_t @ (huu @ gain + hux) + hxu @ gain
        vxx = 0.5 * (vxx + vxx.swapaxes(1, 2))  # rounding grows over an unstable plant's horizon
    return update


def _gains(huu: Floats, hux: Floats, free: boxqp.Flags) -> Floats:
    """Return -H_ff^-1 H_fx on the free controls and 0 on the held ones, (B, m, n)."""
    m = huu.shape[1]
    if m == 1:
        return np.where(free[..., None], -hux / huu, 0.0)
    both = free[:, :, None] & free[:, None, :]
    if m == 2:  # by Cramer's rule, many times faster than a batched solve
        a, c = (np.where(free[:, i], huu[:, i, i], 1.0)[:, None] for i in (0, 1))
        b = np.where(free.all(1), huu[:, 0, 1], 0.0)[:, None]
        first, second = np.where(free[..., None], hux, 0.0).swapaxes(0, 1)
        rows = np.stack([c * first - b * second, a * second - b * first], 1)
        return np.asarray(-rows / (a * c - b * b)[..., None])
    return -np.linalg.solve(np.where(both, huu, np.eye(m)), np.where(free[..., None], hux, 0.0))


def _search(plant: Plant, paths: _Paths, update: _Update, moves: Floats) -> Floats:
    """Move every path along its update, by the largest share that lowers its cost enough.

    Few paths need more than the full step, so the smaller shares are tried some at once. Returns
    the shares (B,), 0 for paths that stay.
    """
    taken = np.zeros(len(moves))
    left = np.arange(len(moves))
    for shares in _SHARES:
        many = np.tile(left, len(shares))
        each = np.repeat(shares, len(left))
        tried = _forward(plant, paths.take(many), update.take(many), each)
        enough = paths.cost[many] + 1e-4 * each * update.slope[many]
        # Close to the optimum rounding hides the descent; the full step is the better point there.
        close = (moves[many] < 1e-6) & (tried.cost <= paths.cost[many] * (1.0 + 1e-9))
        good = ((tried.cost <= enough) | close).reshape(len(shares), -1)
        found = good.any(0)
        first = good.argmax(0)[found]
        taken[left[found]] = shares[first]
        paths.put(left[found], tried.take(first * len(left) + np.flatnonzero(found)))
        left = left[~found]
        if not left.size:
            break
    return taken


def _forward(plant: Plant, paths: _Paths, update: _Update, share: Floats) -> _Paths:
    """Simulate with u + share k + K (x - x_old), clipped to the bounds; share (B,)."""
    states, controls = np.empty_like(paths.states), np.empty_like(paths.controls)
    states[0] = paths.states[0]
    planned = paths.controls + share[:, None] * update.forward
    for t in range(len(controls)):
        shift = (update.gains[t] * (states[t] - paths.states[t])[:, None, :]).sum(2)
        controls[t] = plant.clip(planned[t] + shift)
        states[t + 1] = plant.step(states[t], controls[t])
    return _Paths(states, controls, paths.target, _cost(plant, states, controls, paths.target))
