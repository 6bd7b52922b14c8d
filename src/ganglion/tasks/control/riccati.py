"""Linear-quadratic control in closed form: Riccati gains, clipped roll-outs, minimum energy.

Shapes: B cases, N steps, n states, m controls; A (n, n), B (n, m) of x+ = A x + B u.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.linalg import solve_discrete_are

from ganglion.tasks.control.plant import Floats, Plant


def finite_gains(
    a: Floats, b: Floats, q: Floats, r: Floats, qf: Floats, steps: int
) -> tuple[Floats, Floats]:
    """Return gains (N, m, n) of u_t = -K_t x_t and values (N + 1, n, n) of x'P_t x.

    q (n, n), r (m, m), qf (n, n). P_N = Q_f, K = (R + B'PB)^-1 B'PA, P_t = Q + A'P(A - BK).
    Source: Anderson and Moore, Optimal Control: Linear Quadratic Methods, section 2.4.
    """
    values, gains = [qf], []
    for _ in range(steps):
        p = values[-1]
        gain = np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
        p = q + a.T @ p @ (a - b @ gain)
        values.append(0.5 * (p + p.T))
        gains.append(gain)
    return np.array(gains[::-1]).reshape(steps, b.shape[1], len(a)), np.array(values[::-1])


def steady_gain(a: Floats, b: Floats, q: Floats, r: Floats) -> Floats:
    """Return the infinite-horizon gain K (m, n) of u = -K x, by the algebraic Riccati equation."""
    p = solve_discrete_are(a, b, q, r)
    return np.asarray(np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a))


def linearised(plant: Plant) -> tuple[Floats, Floats]:
    """Return (A, B) of a linear plant, or those of any plant at the origin in mid-range."""
    found = plant.matrices()
    if found is not None:
        return found
    a, b = plant.jacobians(np.zeros((1, plant.n)), plant.centre[None])
    return a[0], b[0]


@lru_cache(maxsize=256)
def tracking_gains(plant: Plant, steps: int, effort: float = 1.0) -> Floats:
    """Return gains (N, m, 2n) of u_t = -K_t [e_t, target]: finite horizon, constant target.

    e+ = A e + B u + (A - I) target, so the constant target joins the state with no cost of its own.
    The optimum of a linear plant where no bound is reached. effort multiplies R: a larger one is
    gentler.
    """
    a, b = linearised(plant)
    n = plant.n
    wide_a = np.block([[a, a - np.eye(n)], [np.zeros((n, n)), np.eye(n)]])
    wide_b = np.concatenate([b, np.zeros_like(b)])
    q, qf = np.zeros((2, 2 * n, 2 * n))
    q[:n, :n], qf[:n, :n] = np.diag(plant.q), np.diag(plant.qf)
    return finite_gains(wide_a, wide_b, q, effort * np.diag(plant.r), qf, steps)[0]


@lru_cache(maxsize=64)
def steady_tracking_gain(plant: Plant) -> Floats:
    """Return the infinite-horizon gain (1, m, n) of u = -K e (the original's labels use it)."""
    return steady_gain(*linearised(plant), np.diag(plant.q), np.diag(plant.r))[None]


def clipped_rollout(
    plant: Plant, gains: Floats, x0: Floats, target: Floats
) -> tuple[Floats, Floats]:
    """Close the loop with u_t = clip(c - K_t [e_t, target]) on the plant itself, c in mid-range.

    gains (N, m, n) or (N, m, 2n); the last one is held where there are fewer than num_steps.
    Returns states (B, N + 1, n) and controls (B, N, m), views of time-major arrays.
    """
    n, centre = plant.n, plant.centre[:, None]
    low, high = plant.low[:, None], plant.high[:, None]
    found, goal = plant.matrices(), np.ascontiguousarray(target.T)
    states = np.empty((plant.num_steps + 1, n, len(x0)))
    controls = np.empty((plant.num_steps, plant.m, len(x0)))
    states[0] = x0.T
    for t in range(plant.num_steps):
        gain = gains[min(t, len(gains) - 1)]
        u = controls[t]
        e = states[t] - goal if found else plant.error(states[t].T, target).T
        np.matmul(-gain[:, :n], e, out=u)
        if gain.shape[1] > n:
            u -= gain[:, n:] @ goal
        if found is None:
            u += centre
        np.clip(u, low, high, out=u)
        if found is None:
            states[t + 1] = plant.step(states[t].T, u.T).T
        else:
            np.matmul(found[0], states[t], out=states[t + 1])
            states[t + 1] += found[1] @ u
    return states.transpose(2, 0, 1), controls.transpose(2, 0, 1)


def minimum_energy(a: Floats, b: Floats, x0: Floats, target: Floats, steps: int) -> Floats:
    """Return the controls (B, N, m) of least sum u'u that reach `target` (B, n) exactly.

    u_t = B'(A')^(N-1-t) W^-1 (target - A^N x0) with the Gramian W = sum_k A^k B B' A'^k.
    Source: Kailath, Linear Systems, section 2.3 (discrete time). LinAlgError where (A, B) cannot
    reach every state in N steps.
    """
    reach = [b]  # A^k B
    for _ in range(steps - 1):
        reach.append(a @ reach[-1])
    columns = np.array(reach[::-1])  # (N, n, m), in the order of time
    gramian = np.einsum("tij,tkj->ik", columns, columns)
    gap = target - x0 @ np.linalg.matrix_power(a, steps).T
    weights = np.linalg.solve(gramian, gap.T).T  # (B, n)
    return np.asarray(np.einsum("tij,bi->btj", columns, weights))
