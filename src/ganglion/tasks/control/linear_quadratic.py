"""A bounded linear-quadratic problem written as one quadratic in its controls.

Shapes: B cases, N steps, n states, m controls, M = N * m. Controls are in units of their bound and
aligned with the END of the horizon: with k steps left the last k entries act and the others are 0.
So the Hessian for k steps left is the trailing block of the one for N, and one matrix serves all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """J = 1/2 v'Hv + v'F_k z + z'C_k z with z = [x0, target] and k steps left.

    hessian (M, M); linear (N, M, 2n) and constant (N, 2n, 2n), row k - 1 for k steps left;
    mask (N, M) is 1 where an entry acts. The errors of steps 1..N, 0 before the start, are
    response v + free_k z with response (N * n, M) and free (N, N * n, 2n).
    """

    hessian: Matrix
    linear: Matrix
    constant: Matrix
    mask: Matrix
    response: Matrix
    free: Matrix


def condense(
    a: Matrix, b: Matrix, weights: tuple[Matrix, Matrix, Matrix], bound: Matrix, steps: int
) -> Quadratic:
    """Eliminate the states of x' = a x + b u, a (n, n), b (n, m), from the quadratic cost.

    weights are the diagonals (q, r, q_f) of sum_{t<N} (e'qe + u'ru) + e_N' q_f e_N, bound (m,).
    Source: Borrelli, Bemporad, Morari, "Predictive Control", 2017, section 8.2 (batch approach).
    """
    q, r, q_final = weights
    n, m = b.shape
    powers = [np.eye(n)]
    for _ in range(steps):
        powers.append(a @ powers[-1])
    response = np.zeros((steps + 1, n, steps, m))
    for t in range(1, steps + 1):
        for j in range(t):
            response[t, :, j] = powers[t - 1 - j] @ b * bound
    stage = np.concatenate([np.tile(q, (steps, 1)), q_final[None]])
    flat: Matrix = response.reshape(steps + 1, n, steps * m)
    hessian = 2 * np.einsum("tni,tn,tnj->ij", flat, stage, flat)
    hessian += np.diag(np.tile(2 * r * bound**2, steps))
    linear, constant, mask, errors = [], [], [], []
    for k in range(1, steps + 1):
        skipped = steps - k
        acts = np.repeat(np.arange(steps) >= skipped, m).astype(np.float64)
        free = np.stack([np.hstack([powers[t], -np.eye(n)]) for t in range(k + 1)])
        tail = stage[skipped:]
        part = 2 * np.einsum("tni,tn,tnz->iz", flat[skipped:], tail, free)
        linear.append(part * acts[:, None])
        constant.append(np.einsum("tny,tn,tnz->yz", free, tail, free))
        mask.append(acts)
        waiting = np.zeros((skipped, n, 2 * n))
        errors.append(np.concatenate([waiting, free[1:]]).reshape(steps * n, 2 * n))
    moves = flat[1:].reshape(steps * n, -1)
    linear_k, constant_k, mask_k, free_k = map(np.stack, (linear, constant, mask, errors))
    return Quadratic(hessian, linear_k, constant_k, mask_k, moves, free_k)


def inverse_factor(hessian: Matrix, damping: float) -> Matrix:
    """Lower-triangular L with L (mask * (L' g)) = (trailing block of H + damping I)^-1 g.

    Why one factor serves every number of steps left: H + damping I = T'T with T lower triangular,
    so its trailing block is T22'T22, whose inverse is the trailing block's product of L = T^-1.
    """
    flipped = (hessian + damping * np.eye(len(hessian)))[::-1, ::-1]
    factor = np.linalg.cholesky(flipped).T[::-1, ::-1]
    return np.asarray(np.linalg.inv(factor))
