"""Fuel-optimal landings for batches of starts, by the dual of the landing at fixed final time.

At fixed t_f and thrust bounds u_k, least h sum |a_k| subject to the linear terminal and ground
constraints is convex, and its dual has one multiplier per constraint: with the primer vector
p_k = y_v + c_k y_r + (ground), part k thrusts along p_k where |p_k| exceeds the price of fuel.
Around it: bounds and prices follow from the mass that the last solution leaves, and t_f is where
the optimum's slope vanishes. Landings that would dig into the ground are solved again with a
multiplier per node, under a logarithmic barrier. Source: Lawden, Optimal Trajectories for Space
Navigation, 1963, chapter 3 (primer vector); Acikmese and Ploen, JGCD 30(5), 2007 (convexity).
Shapes: B cases, N parts, D multipliers: 6 of the terminal point, then N - 1 of the ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Array
from ganglion.tasks.control.rocket.world import Flags, Floats, Rocket, magnitude

LANDED_M, LANDED_M_S = 1e-2, 1e-2  # what counts as solved: far below a landing's own tolerance
OVER, GROUND_M = 1e-6, 1e-2

_SHORTEST_S, _LONGEST_S = 15.0, 115.0
_FIRST, _SHARP = 0.1, 1e-4  # s^2/m: smoothing, the curvature that the fuel is given
# smoothing, bisections of the final time, and by how many seconds the bracket is widened before
_STAGES = (
    (_FIRST, 4, 0.0), (0.03, 5, 3.0), (0.01, 4, 0.6), (2e-3, 8, 0.2), (5e-4, 6, 0.05),
    (_SHARP, 8, 0.02),
)  # fmt: skip
_DETOUR_S = 30.0
_BARRIER = 0.3  # m/s, times the smoothing
_MET = 1e-9  # m/s: largest residual of the constraints
_HOPELESS = 1e3  # multipliers of landings that exist are far below
_NEWTON = 60  # steps at most
_BLOCK = 250  # cases at once: their arrays fit in the cache


@dataclass(frozen=True)
class Landing:
    """Plans: controls (B, N, 3), final_time_s (B, 1), fuel_kg (B,), solved (B,).

    Where `solved` is False the plan misses the ground, the thrust bound or the terminal point.
    """

    controls: Floats
    final_time_s: Floats
    fuel_kg: Floats
    solved: Flags


def solve(rocket: Rocket, state: Floats) -> Landing:
    """Land from each state (B, 7), float64."""
    parts = [_solve(rocket, state[i : i + _BLOCK]) for i in range(0, len(state), _BLOCK)]
    return Landing(
        np.concatenate([p.controls for p in parts]),
        np.concatenate([p.final_time_s for p in parts]),
        np.concatenate([p.fuel_kg for p in parts]),
        np.concatenate([p.solved for p in parts]),
    )


def remembered(rocket: Rocket, state: Array) -> Landing:
    """`solve`, remembering the last few batches of starts: every policy meets the same."""
    return _remembered(rocket, np.ascontiguousarray(state, np.float64).tobytes())


@lru_cache(maxsize=16)
def _remembered(rocket: Rocket, state: bytes) -> Landing:
    return solve(rocket, np.frombuffer(state).reshape(-1, 7))


def _solve(rocket: Rocket, state: Floats) -> Landing:
    first = _Dual(rocket, state, ground=False)
    count = len(state)
    found = _search(first, np.full(count, _SHORTEST_S), np.full(count, _LONGEST_S))
    again = np.flatnonzero(~found.solved)
    if len(again):
        second = _Dual(rocket, state[again], ground=True)
        second.begin_at(first, again)
        t = found.final_time_s[again, 0]  # the ground only makes a landing longer
        better = _search(second, t - 2.0, t + _DETOUR_S)
        found.controls[again], found.final_time_s[again] = better.controls, better.final_time_s
        found.fuel_kg[again], found.solved[again] = better.fuel_kg, better.solved
    return found


def _search(problem: _Dual, low: Floats, high: Floats) -> Landing:
    """Bisect the final time, first on a smooth problem, then on sharper ones."""
    for smoothing, steps, widen in _STAGES:
        low, high = low - widen, high + widen  # a smoother problem's optimum lies elsewhere
        for _ in range(steps):
            t = 0.5 * (low + high)
            late = problem.settle(t, smoothing, 3) > 0.0
            high, low = np.where(late, t, high), np.where(late, low, t)
    problem.settle(high, _SHARP, 12)
    return problem.landing(high)


class _Dual:
    """The dual problems of B starts, and where each has got to."""

    def __init__(self, rocket: Rocket, state: Floats, ground: bool) -> None:
        n, count = rocket.num_steps, len(state)
        self.rocket, self.state = rocket, state
        nodes, parts = np.arange(1, n)[:, None], np.arange(n)
        # what the speed gained in part k does for each constraint, as a share of t_f
        self.plane = np.stack([np.ones(n), rocket.shares()])  # (2, N), on every axis
        self.lift = np.where(parts < nodes, nodes - parts - 0.5, 0.0) / n  # (N - 1, N), on z
        self.lift = self.lift if ground else self.lift[:0]
        self.y = np.zeros((count, 6 + len(self.lift)))
        self.y[:, 2] = 1.0 + _FIRST * rocket.gravity
        self.y[:, 6:] = 1e-2
        self.room = np.repeat(rocket.thrust / state[:, 6:7], n, 1)
        self.price = np.ones((count, n))
        self.a = np.zeros((count, n, 3))

    def begin_at(self, other: _Dual, rows: NDArray[np.intp]) -> None:
        """Take over where other, which knows no ground, has got to in these rows."""
        self.y[:, :6] = other.y[rows]
        self.room, self.price, self.a = other.room[rows], other.price[rows], other.a[rows]

    def settle(self, t: Floats, smoothing: float, rounds: int) -> Floats:
        """Solve at t (B,) and return the slope dV/dt_f, -infinity where there is no solution.

        Where there is none, everything stays as it was at the last t that had one.
        """
        kept = self.y.copy(), self.room.copy(), self.price.copy(), self.a.copy()
        for _ in range(rounds):
            met = self._newton(t, smoothing)
            self._weigh(t, smoothing, met)
        met = self._newton(t, smoothing)
        slope = np.where(met, self._slope(t, smoothing), -np.inf)
        for now, old in zip((self.y, self.room, self.price, self.a), kept, strict=True):
            now[~met] = old[~met]
        return slope

    def landing(self, t: Floats) -> Landing:
        """Return the plans as they are, and judge them."""
        rocket, times = self.rocket, t[:, None]
        flight = rocket.fly(self.state, self.a, times)
        solved = (
            (magnitude(flight.position[:, -1]) < LANDED_M)
            & (magnitude(flight.velocity[:, -1]) < LANDED_M_S)
            & (rocket.throttle(self.state, self.a, times).max(1) < 1.0 + OVER)
            & (flight.position[:, :, 2].min(1) > -GROUND_M)
        )
        return Landing(self.a, times, rocket.fuel(self.state, self.a, times), solved)

    def _required(self, t: Floats, state: Floats) -> Floats:
        """Right-hand sides of all constraints in m/s, (B, D)."""
        b = self.rocket.terminal(state, t[:, None]).reshape(len(t), 6)
        n = self.rocket.num_steps
        node = t[:, None] * np.arange(1, n)[: len(self.lift)] / n
        free = state[:, 2:3] + state[:, 5:6] * node - 0.5 * self.rocket.gravity * node**2
        return np.concatenate([b, -free / t[:, None]], 1)

    def _primer(self, y: Floats) -> Floats:
        p: Floats = y[:, None, :3] + self.plane[1][:, None] * y[:, None, 3:6]
        if len(self.lift):
            p[:, :, 2] += y[:, 6:] @ self.lift
        return p

    def _newton(self, t: Floats, smoothing: float) -> Flags:
        """Ascend the dual by damped Newton steps, (B,) whether the constraints are met."""
        met, todo = np.zeros(len(t), bool), np.arange(len(t))
        required = self._required(t, self.state)
        for _ in range(_NEWTON):
            one = _Ascent(self, todo, required[todo], t[todo], smoothing)
            self.a[todo] = one.a
            met[todo] = one.residual < _MET
            hopeless = np.abs(self.y[todo]).max(1) > _HOPELESS
            left = ~met[todo] & ~hopeless
            if not left.any():
                break
            self.y[todo] = one.climb()
            todo = todo[left]
        return met

    def _weigh(self, t: Floats, smoothing: float, met: Flags) -> None:
        """Update thrust bounds and the price of fuel from the accelerations.

        A kilogram burnt earlier leaves more acceleration later: with nu_k the multiplier of the
        bound of part k, the price is 1 - (h / c) sum_{j>k} nu_j u_j.
        """
        masses = self.rocket.masses(self.state, self.a, t[:, None])[:, :-1]
        room = self.rocket.thrust / masses
        ratio = t / (self.rocket.num_steps * self.rocket.exhaust)
        size, later = magnitude(self._primer(self.y)), np.zeros(len(t))
        price = np.ones_like(self.price)
        for k in range(self.rocket.num_steps - 1, -1, -1):
            price[:, k] = np.maximum(1.0 - ratio * later, 0.2)
            nu = np.maximum(size[:, k] - price[:, k] - smoothing * room[:, k], 0.0)
            later = later + nu * room[:, k]
        # without a solution the price means nothing, but the mass still falls
        self.room = np.where(met[:, None], room, np.minimum(room, 1.25 * room[:, :1]))
        self.price = np.where(met[:, None], price, self.price)

    def _slope(self, t: Floats, smoothing: float) -> Floats:
        """Return dV/dt_f by the envelope theorem."""
        n, shift = self.rocket.num_steps, 1e-4
        size, a = magnitude(self._primer(self.y)), magnitude(self.a)
        more, less = (self._required(t + d, self.state) for d in (shift, -shift))
        moved = (self.y * (more - less)).sum(1) / (2.0 * shift)
        paid = a + 0.5 * smoothing * a**2 - size * a
        nu = np.maximum(size - self.price - smoothing * self.room, 0.0)
        before = np.cumsum(a, 1) - a
        lighter = (t / n) * (nu * self.room * before).sum(1) / (n * self.rocket.exhaust)
        return np.asarray(moved + paid.sum(1) / n - lighter)


class _Ascent:
    """One Newton step of some cases: the dual, its gradient and its curvature.

    The dual is y'b - h sum phi*(p_k) + kappa sum log(y_ground), phi*(p) = max_a p.a - price |a| -
    eps/2 |a|^2 over |a| <= u.
    """

    def __init__(
        self, dual: _Dual, rows: NDArray[np.intp], required: Floats, t: Floats, eps: float
    ) -> None:
        self.dual, self.required, self.eps = dual, required, eps
        self.y, self.price, self.room = dual.y[rows], dual.price[rows], dual.room[rows]
        self.h = t / dual.rocket.num_steps
        self.barrier = _BARRIER * eps
        p = dual._primer(self.y)
        self.size = magnitude(p) + 1e-12
        self.unit = p / self.size[..., None]
        self.excess = self.size - self.price
        self.length = np.clip(self.excess / eps, 0.0, self.room)
        self.a = self.length[..., None] * self.unit
        gained = np.einsum("ik,bkx->bix", dual.plane, self.a).reshape(len(t), 6)
        lifted = self.a[:, :, 2] @ dual.lift.T
        self.gradient = required - self.h[:, None] * np.concatenate([gained, lifted], 1)
        self.gradient[:, 6:] += self.barrier / self.y[:, 6:]
        self.residual = np.abs(self.gradient).max(1)

    def climb(self) -> Floats:
        """Return y after the longest of 1, 1/2, 1/4, ... of Newton's step that rises enough."""
        curvature = self._curvature()
        index = np.arange(curvature.shape[1])
        curvature[:, index, index] += 1e-7 + 1e-2 * magnitude(self.gradient)[:, None]
        curvature[:, index[6:], index[6:]] += self.barrier / self.y[:, 6:] ** 2
        step = np.linalg.solve(curvature, self.gradient[..., None])[..., 0]
        rise = (step * self.gradient).sum(1)
        now, share = self._value(self.y), self._inside(step)
        for _ in range(14):
            low = self._value(self.y + share[:, None] * step) < (
                now + 1e-4 * share * rise - 1e-11 * np.abs(now)
            )
            if not low.any():
                break
            share = np.where(low, 0.5 * share, share)
        return np.asarray(self.y + share[:, None] * step)

    def _inside(self, step: Floats) -> Floats:
        """Return the share of the step, at most 1, that keeps the ground's multipliers positive."""
        if not len(self.dual.lift):
            return np.ones(len(step))
        fall = np.maximum(-step[:, 6:] / self.y[:, 6:], 1e-12).max(1)
        return np.asarray(np.minimum(1.0, 0.95 / fall))

    def _value(self, y: Floats) -> Floats:
        excess = magnitude(self.dual._primer(y)) - self.price
        a = np.clip(excess / self.eps, 0.0, self.room)
        phi = (excess * a - 0.5 * self.eps * a**2).sum(1)
        bar = self.barrier * np.log(y[:, 6:]).sum(1)
        return np.asarray((y * self.required).sum(1) - self.h * phi + bar)

    def _curvature(self) -> Floats:
        """Return h sum_k C_k' (da/dp) C_k, (B, D, D)."""
        dual, count = self.dual, len(self.h)
        between = (self.excess > 0.0) & (self.excess < self.eps * self.room)
        along = self.h[:, None] * np.where(between, 1.0 / self.eps, 0.0)
        across = self.h[:, None] * self.length / self.size
        j = (along - across)[..., None, None] * self.unit[..., :, None] * self.unit[..., None, :]
        j[..., (0, 1, 2), (0, 1, 2)] += across[..., None]
        powers = np.stack([np.ones_like(dual.plane[1]), dual.plane[1], dual.plane[1] ** 2])
        m = (powers @ j.reshape(count, -1, 9)).reshape(count, 3, 3, 3)
        out = np.empty((count, self.y.shape[1], self.y.shape[1]))
        out[:, :3, :3], out[:, :3, 3:6] = m[:, 0], m[:, 1]
        out[:, 3:6, :3], out[:, 3:6, 3:6] = m[:, 1], m[:, 2]
        if len(dual.lift):
            side = [np.einsum("jk,bkx->bxj", dual.lift * w, j[..., 2]) for w in dual.plane]
            out[:, :6, 6:] = np.concatenate(side, 1)
            out[:, 6:, :6] = out[:, :6, 6:].swapaxes(1, 2)
            out[:, 6:, 6:] = (dual.lift * j[:, None, :, 2, 2]) @ dual.lift.T
        return out
