"""The exact optimum within the actuator bounds, for batches of cases of any horizon.

Linear plants: the whole problem as one quadratic program in the controls (`boxqp`). Others:
control-limited DDP (`ilqr`) from a clipped LQR guess. Shapes: B cases, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ganglion.tasks.control import boxqp, ilqr
from ganglion.tasks.control.plant import Floats, Plant
from ganglion.tasks.control.riccati import clipped_rollout, tracking_gains


@dataclass(frozen=True)
class Solution:
    """Optimal trajectories: controls (B, N, m), states (B, N + 1, n), cost (B,)."""

    controls: Floats
    states: Floats
    cost: Floats


def solve(
    plant: Plant, x0: Floats, target: Floats, guess: Floats | None = None, tol: float = 1e-9
) -> Solution:
    """Minimise J within the bounds for each case: x0 (B, n), target (B, n), both float64.

    guess (B, N, m) is where the solver of a nonlinear plant begins (clipped LQR by default),
    tol where it ends: no control would move by more than this share of its bound.
    ArithmeticError where a case does not converge.
    """
    if plant.matrices() is not None:
        problem = condensed(plant)
        g = problem.linear_term(x0, target)
        bound = np.tile(plant.bound, plant.num_steps)
        flat = boxqp.solve(problem.h, g, -bound, bound)
        controls = flat.reshape(len(x0), plant.num_steps, plant.m)
        states = plant.rollout(x0, controls)
    else:
        if guess is None:
            gains = tracking_gains(plant, plant.num_steps)
            guess = clipped_rollout(plant, gains, x0, target)[1]
        states, controls = ilqr.solve(plant, x0, target, guess, tol)
    return Solution(controls, states, np.asarray(plant.cost(states, controls, target)))


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
