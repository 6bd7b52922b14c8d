"""Control-limited differential dynamic programming, many problems at once, in float64.

Source: Tassa, Mansard, Todorov, Control-Limited Differential Dynamic Programming, ICRA 2014, with
the Gauss-Newton Hessian of iLQR (Li and Todorov, ICINCO 2004), which is positive definite: a ridge
is needed only where feedback runs into a bound and the line search fails. Shapes: B cases, N steps;
arrays are time-major (N, B, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.control import boxqp
from ganglion.tasks.control.plant import Floats, Plant

_SHARES = 0.5 ** np.arange(16.0)
_PATIENCE = 8  # iterations without a fall, each with a larger ridge
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


def solve(
    plant: Plant, x0: Floats, target: Floats, controls: Floats,
    tol: float = 1e-9, iterations: int = 500, strict: bool = True,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Minimise the cost of each case within the bounds, from the guess `controls` (B, N, m).

    Converged where no control would move by more than tol times its bound. Returns states
    (B, N + 1, n) and controls (B, N, m): a local optimum, which for Van der Pol is the one that an
    interior-point solver finds. ArithmeticError where a case does not converge; not strict, a case
    is left where its cost has stopped falling, or the iterations end.
    """
    guess = np.ascontiguousarray(plant.clip(controls).transpose(1, 0, 2))
    states = np.ascontiguousarray(plant.rollout(x0, guess.transpose(1, 0, 2)).transpose(1, 0, 2))
    paths = _Paths(states, guess, target, _cost(plant, states, guess, target))
    todo, ridge, stalled = np.arange(len(x0)), np.zeros(len(x0)), np.zeros(len(x0), np.intp)
    for _ in range(iterations):
        now = paths.take(todo)
        before = now.cost.copy()
        update = _backward(plant, now, ridge[todo])
        moves = (np.abs(update.forward) / plant.bound).max((0, 2))
        failed = _search(plant, now, update, moves)
        paths.put(todo, now)
        # A larger ridge turns the update into a short step along the projected gradient.
        old, least = ridge[todo], float(2.0 * plant.r.max())
        fallen = np.where(old > 1e-3 * least, 0.1 * old, 0.0)
        ridge[todo] = np.where(failed, np.maximum(10.0 * old, least), fallen)
        falling = before - now.cost > 1e-8 * np.abs(before)
        stalled[todo] = np.where(falling, 0, stalled[todo] + 1)
        more = (moves > tol) | (old > 0.0)
        todo = todo[more if strict else more & (stalled[todo] < _PATIENCE)]
        if not todo.size:
            break
    if strict and todo.size:
        raise ArithmeticError(f"{todo.size} optimal-control problems did not converge.")
    return paths.states.transpose(1, 0, 2), paths.controls.transpose(1, 0, 2)


def _cost(plant: Plant, states: Floats, controls: Floats, target: Floats) -> Floats:
    return np.asarray(plant.cost(states.transpose(1, 0, 2), controls.transpose(1, 0, 2), target))


def _backward(plant: Plant, paths: _Paths, ridge: Floats) -> _Update:
    """Expand the cost-to-go backwards in time (Tassa et al. 2014, eq. 5-11); ridge (B,) on Q_uu."""
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
        k, free = boxqp.stage(huu + damping, gu[..., 0], low[t], high[t])
        gain = _gains(huu + damping, hux, free)
        update.forward[t], update.gains[t] = k, gain
        update.slope += (gu[..., 0] * k).sum(1)
        k, gain_t, hxu = k[..., None], gain.swapaxes(1, 2), hux.swapaxes(1, 2)
        vx = gx + hxu @ k + gain_t @ (gu + huu @ k)
        vxx = hxx + gain_t @ (huu @ gain + hux) + hxu @ gain
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


def _search(plant: Plant, paths: _Paths, update: _Update, moves: Floats) -> boxqp.Flags:
    """Move every path along its update, by the largest share that lowers its cost enough.

    Returns which paths (B,) found no such share and stay.
    """
    failed = np.zeros(len(moves), bool)
    left = np.arange(len(moves))
    for share in _SHARES:
        tried = _forward(plant, paths.take(left), update.take(left), float(share))
        enough = paths.cost[left] + 1e-4 * share * update.slope[left]
        # Close to the optimum rounding hides the descent; the full step is the better point there.
        good = (tried.cost <= enough) | (moves[left] < 1e-6)
        paths.put(left[good], tried.take(np.flatnonzero(good)))
        left = left[~good]
        if not left.size:
            break
    failed[left] = True
    return failed


def _forward(plant: Plant, paths: _Paths, update: _Update, share: float) -> _Paths:
    """Simulate with u + share k + K (x - x_old), clipped to the bounds."""
    states, controls = np.empty_like(paths.states), np.empty_like(paths.controls)
    states[0] = paths.states[0]
    planned = paths.controls + share * update.forward
    for t in range(len(controls)):
        shift = (update.gains[t] * (states[t] - paths.states[t])[:, None, :]).sum(2)
        controls[t] = plant.clip(planned[t] + shift)
        states[t + 1] = plant.step(states[t], controls[t])
    return _Paths(states, controls, paths.target, _cost(plant, states, controls, paths.target))
