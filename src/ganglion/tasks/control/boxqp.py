"""Many convex quadratic programs within boxes at once: projected Newton with an active set.

Source: Bertsekas, Projected Newton Methods for Optimization Problems with Simple Constraints,
SIAM J. Control Optim. 20(2), 1982. Problems that share a Hessian and, at an iteration, a set of
held variables share one factorisation, which is what makes thousands of them cheap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ganglion.tasks.control.plant import Floats

Flags = NDArray[np.bool_]
_HALVINGS = 40


def solve(
    h: Floats, g: Floats, low: Floats, high: Floats, tol: float = 1e-11, iterations: int = 100
) -> Floats:
    """Minimise 1/2 u'Hu + g'u over low <= u <= high for each row of g.

    h (k, k) positive definite, g (B, k), low and high (k,). Returns u (B, k), exact up to
    `residual` <= tol times the width of the box. ArithmeticError where that is not reached.
    """
    width = float(np.max(high - low))
    u: Floats = np.clip(-cho_solve(cho_factor(h), g.T).T, low, high)
    todo = np.arange(len(g))
    for _ in range(iterations):
        todo = todo[residual(h, g[todo], low, high, u[todo]) > tol * width]
        if not todo.size:
            return u
        u[todo] = _newton_step(h, g[todo], low, high, u[todo], width)
    raise ArithmeticError(f"{todo.size} box-constrained problems did not converge.")


def residual(h: Floats, g: Floats, low: Floats, high: Floats, u: Floats) -> Floats:
    """Return how far u (B, k) is from optimal, (B,): the largest projected Jacobi step."""
    step = np.clip(u - (u @ h + g) / np.diag(h), low, high) - u
    return np.asarray(np.abs(step).max(1))


def _newton_step(
    h: Floats, g: Floats, low: Floats, high: Floats, u: Floats, width: float
) -> Floats:
    gradient = u @ h + g
    held = ((u <= low) & (gradient > 0)) | ((u >= high) & (gradient < 0))
    direction = _free_newton(h, gradient, held)
    slope = (gradient * direction).sum(1)
    start = _value(h, g, u)
    out = np.clip(u + direction, low, high)
    # Where the step is tiny the set of held variables is final and rounding hides the descent.
    settled = np.abs(direction).max(1) < 1e-7 * width
    left = np.flatnonzero(~settled)
    share = np.ones(len(g))
    for _ in range(_HALVINGS):
        moved = np.where(held[left], 0.0, gradient[left] * (out[left] - u[left])).sum(1)
        enough = start[left] + 1e-4 * np.minimum(moved, share[left] * slope[left] * 1e-3)
        left = left[_value(h, g[left], out[left]) > enough]
        if not left.size:
            break
        share[left] *= 0.5
        out[left] = np.clip(u[left] + share[left, None] * direction[left], low, high)
    return out


def _free_newton(h: Floats, gradient: Floats, held: Flags) -> Floats:
    """Return -H_ff^-1 g_f on the free variables of each row and 0 on the held ones."""
    direction = np.zeros_like(gradient)
    packed = np.ascontiguousarray(np.packbits(held, axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, member = np.unique(keys, return_inverse=True)
    order = np.argsort(member, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(member))[:-1]):
        free = np.flatnonzero(~held[rows[0]])
        if free.size:
            factor = cho_factor(h[np.ix_(free, free)], check_finite=False)
            part = cho_solve(factor, gradient[np.ix_(rows, free)].T, check_finite=False)
            direction[np.ix_(rows, free)] = -part.T
    return direction


def _value(h: Floats, g: Floats, u: Floats) -> Floats:
    return np.asarray(((0.5 * (u @ h) + g) * u).sum(1))


def stage(h: Floats, g: Floats, low: Floats, high: Floats) -> tuple[Floats, Flags]:
    """Solve small problems that each have a Hessian: h (B, m, m), g, low and high (B, m).

    Returns u (B, m) and which controls are free (B, m). One or two controls are solved in closed
    form.
    """
    if g.shape[1] == 1:
        whole = -g / h[:, :, 0]
        u = np.clip(whole, low, high)
        return u, (low < whole) & (whole < high)
    if g.shape[1] == 2:
        return _pair(h, g, low, high)
    return _many(h, g, low, high)


def _pair(h: Floats, g: Floats, low: Floats, high: Floats) -> tuple[Floats, Flags]:
    """Two controls: the free optimum, else the best of the optima on the four sides of the box."""
    (a, b), (_, c) = h[:, 0].T, h[:, 1].T
    det = a * c - b * b
    free = np.stack([b * g[:, 1] - c * g[:, 0], b * g[:, 0] - a * g[:, 1]], 1) / det[:, None]
    tried = [np.clip(free, low, high)]
    for side in (low, high):
        second = np.clip(-(g[:, 1] + b * side[:, 0]) / c, low[:, 1], high[:, 1])
        first = np.clip(-(g[:, 0] + b * side[:, 1]) / a, low[:, 0], high[:, 0])
        tried += [np.stack([side[:, 0], second], 1), np.stack([first, side[:, 1]], 1)]
    points = np.stack(tried)
    inside = ((free > low) & (free < high)).all(1)
    value = 0.5 * (a * points[..., 0] ** 2 + c * points[..., 1] ** 2)
    value = value + b * points[..., 0] * points[..., 1] + (g * points).sum(-1)
    chosen = np.where(inside, 0, 1 + value[1:].argmin(0))
    u = points[chosen, np.arange(len(g))]
    return u, (u > low) & (u < high)


def _many(h: Floats, g: Floats, low: Floats, high: Floats) -> tuple[Floats, Flags]:
    u = np.clip(np.zeros_like(g), low, high)
    for _ in range(50):  # each change of the held set lowers the value; few are needed
        gradient = np.matmul(h, u[..., None])[..., 0] + g
        held = ((u <= low) & (gradient > 0)) | ((u >= high) & (gradient < 0))
        both = ~held[:, :, None] & ~held[:, None, :]
        masked = np.where(both, h, np.eye(g.shape[1]))
        step = np.linalg.solve(masked, np.where(held, 0.0, -gradient)[..., None])[..., 0]
        new = _stage_search(h, g, low, high, u, step)
        if np.abs(new - u).max() <= 1e-13 * np.abs(high - low).max():
            break
        u = new
    return u, ~held


def _stage_search(
    h: Floats, g: Floats, low: Floats, high: Floats, u: Floats, step: Floats
) -> Floats:
    def value(at: Floats) -> Floats:
        return np.asarray(((0.5 * np.matmul(h, at[..., None])[..., 0] + g) * at).sum(1))

    best, best_value = u, value(u)
    for share in 0.5 ** np.arange(20.0):
        tried = np.clip(u + share * step, low, high)
        found = value(tried)
        lower = found < best_value
        best = np.where(lower[:, None], tried, best)
        best_value = np.where(lower, found, best_value)
    return best
