"""Dynamic programming for a pole on a cart: a global plan, from which a local solver begins.

The table is over angle and rate of the pole, position and velocity of the cart, for so much time
that the pole stands. Neither position nor velocity of the cart act on anything but themselves, so a
force moves all carts of one pole by the same (dx, dv), after they have rolled on by v dt: what a
force leads to is a small stencil, the same for all of them. Source: Bellman, Dynamic Programming,
1957, chapter III; cubic interpolation over the pole as in Falcone and Ferretti, Semi-Lagrangian
Approximation Schemes, 2013, section 3.4. Shapes: B cases, N steps, P poles (angle-major), V
velocities, X positions, U forces; states are (position, angle, velocity, rate).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_are
from scipy.sparse import csr_array

from ganglion.tasks.control.plants.base import Course, Floats, Plant
from ganglion.tasks.control.riccati import linearised

_ANGLES, _RATES, _VELOCITIES, _POSITIONS = 40, 35, 13, 11
_FASTEST, _QUICKEST, _FURTHEST = 11.0, 5.0, 3.0  # rad/s, m/s, m; flat beyond
_FORCES, _TRIED = 5, 21  # of the table, of a plan
_SWEEPS = 24, 32  # steps left of the tables: the pole stands by then, wherever it began
Table = NDArray[np.float32]  # (P, V, X)


def plans(plant: Plant, x0: Floats, target: Floats) -> list[Course]:
    """Return a plan from x0 to target (B, 4) by each table.

    Each table is followed greedily. Coarse as they are, they err in different cases: polished,
    either alone is 0.3-0.4 % above the best known, the better of the two less than 0.04 %.
    """
    grid = _grid(replace(plant, num_steps=1))
    whole = sorted({min(plant.num_steps, sweeps) for sweeps in _SWEEPS})
    return [_follow(plant, grid, grid.tables[sweeps - 1], x0, target) for sweeps in whole]


def _follow(plant: Plant, grid: _Grid, table: Table, x0: Floats, target: Floats) -> Course:
    forces = np.linspace(plant.low[0], plant.high[0], _TRIED)
    goals, tried = np.tile(target, (_TRIED, 1)), np.repeat(forces, len(x0))[:, None]
    states, controls = [x0], []
    for _ in range(plant.num_steps):
        after = plant.error(plant.step(np.tile(states[-1], (_TRIED, 1)), tried), goals)
        total = grid.cost(table, after) + plant.control_cost(tried)
        controls.append(forces[total.reshape(_TRIED, -1).argmin(0)][:, None])
        states.append(plant.step(states[-1], controls[-1]))
    return Course(np.stack(states, 1), np.stack(controls, 1))


@dataclass(frozen=True)
class _Axis:
    """Equally spaced points."""

    low: float
    step: float
    count: int

    @property
    def points(self) -> Floats:
        return np.asarray(self.low + self.step * np.arange(self.count), np.float64)


def _axis(reach: float, count: int, least: float = 0.0) -> _Axis:
    """Points from -reach to reach, further where they would be less than `least` apart."""
    step = max(2.0 * reach / (count - 1), least)
    return _Axis(-0.5 * step * (count - 1), step, count)


@dataclass(frozen=True)
class _Move:
    """What a force does: poles mixed (P, P), stencils (3, P, 1, 1) of velocity and (3, P, V, 1) of
    position, and the cost (P, V X) that needs no table.
    """

    mix: Any
    across: Table
    along: Table
    known: Table


class _Grid:
    """The cost to go of `plant` by steps left, from 1 up: tables, each plus a cart's quadratic.

    The quadratic is exact, so that interpolation only meets what differs from it.
    """

    def __init__(self, plant: Plant) -> None:
        a, b = linearised(plant)
        p = solve_discrete_are(a, b, np.diag(plant.q), np.diag(plant.r))
        self.weights = p[0, 0], 2.0 * p[0, 2], p[2, 2]
        self.angles = _Axis(-np.pi, 2.0 * np.pi / _ANGLES, _ANGLES)
        self.rates = _axis(_FASTEST, _RATES)
        self.pole = [a.ravel() for a in np.meshgrid(
            self.angles.points, self.rates.points, indexing="ij")]  # fmt: skip
        ends = [self._after(plant, u) for u in (plant.low[0], plant.high[0])]
        dx, dv = (1.05 * float(max(np.abs(e[:, i]).max() for e in ends)) for i in (0, 2))
        self.velocities = _axis(_QUICKEST, _VELOCITIES, dv)
        roll = 1.05 * plant.dt * -self.velocities.low
        self.positions = _axis(_FURTHEST, _POSITIONS, roll + dx)
        self.cart = [a.ravel() for a in np.meshgrid(
            self.velocities.points, self.positions.points, indexing="ij")]  # fmt: skip
        self.tables = self._solve(plant)

    def cost(self, table: Table, e: Floats) -> Floats:
        """Return the cost to go (B,) of errors e (B, 4)."""
        index, weight = self._around(e[:, 1], e[:, 3])
        (j, fv), (i, fx) = _cell(self.velocities, e[:, 2]), _cell(self.positions, e[:, 0])
        flat = table.reshape(len(table), -1)
        total = self._quadratic(e[:, 0], e[:, 2])
        for dj, wv in ((0, 1.0 - fv), (1, fv)):
            for di, wx in ((0, 1.0 - fx), (1, fx)):
                column = ((j + dj) * _POSITIONS + i + di)[:, None]
                total += wv * wx * (flat[index, column] * weight).sum(1)
        return total

    def _quadratic(self, x: Floats, v: Floats) -> Floats:
        xx, xv, vv = self.weights
        return np.asarray(xx * x * x + xv * x * v + vv * v * v)

    def _around(self, angle: Floats, rate: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Return the 16 poles around each angle and rate, and their cubic weights, (B, 16)."""
        a = (angle - self.angles.low) / self.angles.step
        i = np.floor(a)
        j, f = _cell(self.rates, rate)
        inner = np.clip(j, 1, _RATES - 3)
        near = np.arange(-1, 3)
        rows = (i.astype(np.intp)[:, None] + near) % _ANGLES
        columns = inner[:, None] + near
        both = _cubic(a - i)[:, :, None] * _cubic(f + j - inner)[:, None, :]
        index = rows[:, :, None] * _RATES + columns[:, None, :]
        return index.reshape(len(angle), -1), both.reshape(len(angle), -1)

    def _solve(self, plant: Plant) -> list[Table]:
        (angle, rate), (v, x) = self.pole, self.cart
        forces = np.linspace(plant.low[0], plant.high[0], _FORCES)
        moves = [self._move(plant, float(u)) for u in forces]

        def weighed(weights: Floats) -> Table:
            pole = weights[1] * 2.0 * (1.0 - np.cos(angle)) + weights[3] * rate**2
            cart = weights[0] * x * x + weights[2] * v * v - self._quadratic(x, v)
            return np.asarray(pole[:, None] + cart, np.float32)

        shape = len(angle), _VELOCITIES, _POSITIONS
        stage, table, found = weighed(plant.q), weighed(plant.qf), []
        for _ in range(_SWEEPS[-1]):
            table = stage + np.minimum.reduce([_moved(table.reshape(shape), m) for m in moves])
            found.append(table.reshape(shape))
        return found

    def _after(self, plant: Plant, u: float) -> Floats:
        """Return the states (P, 4) a step after force u, of carts that stood at 0."""
        angle, rate = self.pole
        none = np.zeros_like(angle)
        start = np.stack([none, angle, none, rate], 1)
        return np.asarray(plant.step(start, np.full((len(angle), 1), u)))

    def _move(self, plant: Plant, u: float) -> _Move:
        after, (v, x) = self._after(plant, u), self.cart
        index, weight = self._around(after[:, 1], after[:, 3])
        begin = np.arange(0, index.size + 1, index.shape[1])
        parts = weight.astype(np.float32).ravel(), index.ravel(), begin
        dx, dv = after[:, :1], after[:, 2:3]
        roll = dx + plant.dt * self.velocities.points
        pay = float(plant.control_cost(np.array([u])))
        known = self._quadratic(x + plant.dt * v + dx, v + dv) + pay
        return _Move(
            csr_array(parts, (len(after), len(after))),
            _stencil(dv / self.velocities.step)[..., None],
            _stencil(roll / self.positions.step)[..., None],
            known.astype(np.float32),
        )


def _moved(table: Table, move: _Move) -> Table:
    """Return the cost to go (P, V X) after a force, from that of a step later (P, V, X)."""
    mixed = (move.mix @ table.reshape(len(table), -1)).reshape(table.shape)
    wide, count = np.concatenate([mixed[:, :1], mixed, mixed[:, -1:]], 1), table.shape[1]
    shifted = sum(w * wide[:, k : k + count] for k, w in enumerate(move.across))
    wide = np.concatenate([shifted[:, :, :1], shifted, shifted[:, :, -1:]], 2)
    count = table.shape[2]
    total = sum(w * wide[:, :, k : k + count] for k, w in enumerate(move.along))
    return np.asarray(total.reshape(move.known.shape) + move.known)


def _stencil(shift: Floats) -> Table:
    """Linear weights (3, ...) of the points before, at and after, for shifts within (-1, 1)."""
    if np.abs(shift).max() >= 1.0:
        raise ValueError("a move passes more than one point: the axes are made wider than that")
    ahead, back = np.maximum(shift, 0.0), np.maximum(-shift, 0.0)
    return np.stack([back, 1.0 - ahead - back, ahead]).astype(np.float32)


def _cell(axis: _Axis, at: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return the point before each position (clamped to the axis) and the share of the way on."""
    place = np.clip((at - axis.low) / axis.step, 0.0, axis.count - 1.0)
    before = np.minimum(place.astype(np.intp), axis.count - 2)
    return before, place - before


def _cubic(f: Floats) -> Floats:
    """Lagrange weights (..., 4) of the points -1, 0, 1, 2 at f in [0, 1]."""
    return np.stack([
        -f * (f - 1) * (f - 2) / 6, (f + 1) * (f - 1) * (f - 2) / 2,
        -(f + 1) * f * (f - 2) / 2, (f + 1) * f * (f - 1) / 6,
    ], -1)  # fmt: skip


@lru_cache(maxsize=2)
def _grid(plant: Plant) -> _Grid:
    return _Grid(plant)
