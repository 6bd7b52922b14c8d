"""The optimum within the actuator bounds, for batches of cases of any horizon.

Linear plants: the whole problem as one quadratic program in the controls (`boxqp`). Others by their
`method`. exact: control-limited DDP (`ilqr`) from a clipped LQR guess. grid: dynamic programming on
a grid (`grid`), polished by DDP. best_known: the best of some starts of DDP (`multistart`), which
need not be the optimum: a gap against it is a lower bound. Shapes: B cases, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ganglion.tasks.control import boxqp, grid, ilqr, multistart
from ganglion.tasks.control.plant import Course, Floats, Plant
from ganglion.tasks.control.riccati import clipped_rollout, tracking_gains

_CLOSE = 1e-4  # of the bound: where a plan is only a teacher
_EFFORTS = (1.0, 100.0, 1000.0)  # the harder the start, the gentler the guess that ends well


@dataclass(frozen=True)
class Solution:
    """Optimal trajectories: controls (B, N, m), states (B, N + 1, n), cost (B,)."""

    controls: Floats
    states: Floats
    cost: Floats


def solve(
    plant: Plant, x0: Floats, target: Floats, guess: Floats | None = None, tol: float = 1e-9,
    iterations: int = 500,
) -> Solution:  # fmt: skip
    """Minimise J within the bounds for each case: x0 (B, n), target (B, n), both float64.

    guess (B, N, m) is where the solver of a nonlinear plant begins (clipped LQR by default),
    tol where it ends: no control would move by more than this share of its bound.
    ArithmeticError where a case does not converge in so many iterations; methods other than exact
    know neither tol nor this error, they keep the best they have.
    """
    if plant.matrices() is not None:
        problem = condensed(plant)
        g = problem.linear_term(x0, target)
        low, high = (np.tile(side, plant.num_steps) for side in (plant.low, plant.high))
        flat = boxqp.solve(problem.h, g, low, high)
        controls = flat.reshape(len(x0), plant.num_steps, plant.m)
        states = plant.rollout(x0, controls)
    else:
        if guess is None:
            begin = _begin(plant, x0, target)
        else:
            begin = Course(plant.rollout(x0, plant.clip(guess)), plant.clip(guess))
        if plant.method == "exact":
            states, controls = ilqr.solve(plant, begin, target, tol, iterations)
        else:
            states, controls = multistart.polished(plant, begin, target, iterations)
    return Solution(controls, states, np.asarray(plant.cost(states, controls, target)))


def plan(plant: Plant, x0: Floats, target: Floats, iterations: int) -> Course:
    """Return trajectories close to the best known, after so many iterations from where it begins.

    For a nonlinear plant, x0 and target (B, n): what is left to gain is a small share of a per
    cent after 25 iterations.
    """
    return ilqr.solve(plant, _begin(plant, x0, target), target, _CLOSE, iterations, strict=False)


def _begin(plant: Plant, x0: Floats, target: Floats) -> Course:
    """Return trajectories from which DDP finds the optimum, as far as anyone knows."""
    if plant.method == "grid":
        return grid.plan(plant, x0, target)
    if plant.method == "exact":
        return _gentle(plant, x0, target, 1.0)
    guesses = plant.guesses(x0, target)
    # Gentle feedback keeps far from where linearisation fails (a quadrotor that tips over).
    guesses = guesses or [_gentle(plant, x0, target, effort) for effort in _EFFORTS]
    return multistart.best(plant, target, guesses)


def _gentle(plant: Plant, x0: Floats, target: Floats, effort: float) -> Course:
    gains = tracking_gains(plant, plant.num_steps, effort)
    return Course(*clipped_rollout(plant, gains, x0, target))


def remembered(plant: Plant, x0: Floats, target: Floats) -> Solution:
    """Return `solve` of the cases, remembered for the last few sets of them."""
    state, goal = (np.ascontiguousarray(a, np.float64).tobytes() for a in (x0, target))
    return _remembered(plant, state, goal)


@lru_cache(maxsize=12)
def _remembered(plant: Plant, state: bytes, target: bytes) -> Solution:
    x0, goal = (np.frombuffer(raw).reshape(-1, plant.n) for raw in (state, target))
    return solve(plant, x0, goal)


@dataclass(frozen=True)
class Condensed:
    """J as a quadratic of the controls alone: J = 1/2 u'Hu + g'u + const, u (N m,) time-major.

    The errors are e = free x0 + forced u - target, stacked over t = 0..N. h (N m, N m).
    """

    h: Floats
    free: Floats  # (N + 1, n, n)
    forced: Floats  # ((N + 1) n, N m)
    weighted: Floats  # 2 forced' W, (N m, (N + 1) n)

    def linear_term(self, x0: Floats, target: Floats) -> Floats:
        """Return g (B, N m) = 2 forced' W (free x0 - target)."""
        drift = np.einsum("tij,bj->bti", self.free, x0) - target[:, None]
        return np.asarray(drift.reshape(len(x0), -1) @ self.weighted.T)


@lru_cache(maxsize=256)
def condensed(plant: Plant) -> Condensed:
    """Eliminate the states of a linear plant (Rawlings, Mayne, Diehl, MPC, section 8.8.4)."""
    found = plant.matrices()
    if found is None:
        raise ValueError(f"{plant.name} is not linear.")
    a, b = found
    steps, n, m = plant.num_steps, plant.n, plant.m
    powers = [np.eye(n)]
    for _ in range(steps):
        powers.append(a @ powers[-1])
    forced = np.zeros((steps + 1, n, steps, m))
    for t in range(1, steps + 1):
        for s in range(t):
            forced[t, :, s] = powers[t - 1 - s] @ b
    flat = forced.reshape((steps + 1) * n, steps * m)
    weights = np.concatenate([np.tile(plant.q, steps), plant.qf])
    weighted = 2.0 * flat.T * weights
    h = weighted @ flat + 2.0 * np.diag(np.tile(plant.r, steps))
    return Condensed(0.5 * (h + h.T), np.array(powers), flat, weighted)


def shortened(plant: Plant, steps: int) -> Plant:
    """Return the same plant with `steps` steps left (at least one)."""
    return replace(plant, num_steps=max(1, steps))


def admm(plant: Plant, x0: Floats, target: Floats, iterations: int, rho: float = 10.0) -> Floats:
    """Return the controls (B, N, m) after some iterations of ADMM, for linear plants; not learned.

    Splits the quadratic from the box, in units of the bound (rho is per squared control unit):
    u = (H + rho I)^-1 (rho (z - y) - g), v = 1.6 u - .6 z, z = clip(v + y), y += v - z, beginning
    at the unconstrained optimum with its excess in y. Source: Boyd et al., Distributed Optimization
    and Statistical Learning via ADMM, 2011, sections 5.2 and 3.4.3 (over-relaxation).
    """
    problem, bound = condensed(plant), np.tile(plant.bound, plant.num_steps)
    h, g = problem.h * bound[:, None] * bound, problem.linear_term(x0, target) * bound
    weight = rho * bound**2
    inverse = np.linalg.inv(h + np.diag(weight))
    v = -np.linalg.solve(h, g.T).T
    z = np.clip(v, -1.0, 1.0)
    y = v - z
    for _ in range(iterations):
        v = 1.6 * ((weight * (z - y) - g) @ inverse) - 0.6 * z
        z = np.clip(v + y, -1.0, 1.0)
        y = y + v - z
    return np.asarray(z * bound).reshape(len(x0), plant.num_steps, plant.m)
