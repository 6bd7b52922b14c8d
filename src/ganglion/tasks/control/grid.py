"""Dynamic programming on a grid: a global plan for plants of one angle, its rate and one control.

Source: Bellman, Dynamic Programming, 1957, chapter III; multilinear interpolation as in Munos and
Moore, Variable Resolution Discretization in Optimal Control, Machine Learning 49, 2002. The plan is
0.5-0.7 % above the optimum, and a local solver begins there. Shapes: B cases, N steps, G grid
points, U controls.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ganglion.tasks.control.plants.base import Course, Floats, Plant

_ANGLES, _RATES, _CONTROLS = 300, 301, 31
_SETTLING = 1.5  # of the time in which success is looked at
_BLOCK = 60  # tables are made for multiples of this many steps, so that horizons share them
Values = NDArray[np.float32]  # (steps left, G)


def plan(plant: Plant, x0: Floats, target: Floats) -> Course:
    """Return what follows the table greedily from x0 (B, 2) to the origin."""
    if plant.n != 2 or plant.m != 1 or plant.angles != (0,) or target.any():
        raise ValueError(f"{plant.name} is not one angle and its rate with one control to 0.")
    steps = plant.num_steps
    values = _values(replace(plant, num_steps=1), -(-steps // _BLOCK) * _BLOCK)
    states, controls = [x0], []
    for t in range(steps):
        controls.append(_greedy(plant, values[steps - t - 1], states[-1]))
        states.append(plant.step(states[-1], controls[-1]))
    return Course(np.stack(states, 1), np.stack(controls, 1))


def _greedy(plant: Plant, after: Values, x: Floats) -> Floats:
    """Return the control (B, 1) whose next state is cheapest by the table `after` (G,)."""
    controls = _controls(plant)
    tried = np.repeat(controls, len(x))[:, None]  # every control for every case
    index, weight = _corners(plant, plant.step(np.tile(x, (len(controls), 1)), tried))
    total = plant.control_cost(tried) + (after[index] * weight).sum(1)
    best = total.reshape(len(controls), -1).argmin(0)
    return np.asarray(controls[best][:, None])


def first(plant: Plant, x0: Floats) -> Floats:
    """Return the table's control (B, 1) with the whole time left at x0 (B, 2)."""
    values = _values(replace(plant, num_steps=1), -(-plant.num_steps // _BLOCK) * _BLOCK)
    return _greedy(plant, values[plant.num_steps - 1], x0)


def table(plant: Plant, settling: float = 1.0) -> tuple[Values, Floats, Floats]:
    """Return the cost to go (N + 1, angles, rates) by steps left, and the grid's angles and rates.

    The last angle repeats the first, so that a turn is whole. settling is a factor on the cost of
    states shortly before and during the time in which success is looked at.
    """
    steps = -(-plant.num_steps // _BLOCK) * _BLOCK
    values = _values(replace(plant, num_steps=1), steps, settling)
    whole = values[: plant.num_steps + 1].reshape(-1, _ANGLES, _RATES)
    angles, rates = _axes(plant)
    turn = np.concatenate([whole, whole[:, :1]], 1)
    return turn, np.append(angles, np.pi), rates


@lru_cache(maxsize=3)
def _values(plant: Plant, steps: int, settling: float = 1.0) -> Values:
    """Return the cost to go (steps + 1, G) by the number of steps left; float32, 11 MB for 30."""
    angle, rate = np.meshgrid(*_axes(plant), indexing="ij")
    x = np.stack([angle.ravel(), rate.ravel()], 1)
    controls, here = _controls(plant), np.arange(len(x))
    rows = []
    for u in controls:
        index, weight = _corners(plant, plant.step(x, np.full((len(x), 1), u)))
        begin = np.arange(0, 4 * len(x) + 1, 4)
        parts = weight.astype(np.float32).ravel(), index.astype(np.int32).ravel(), begin
        rows.append(csr_array(parts, (len(here), len(here))))
    pay = np.asarray(plant.control_cost(controls[:, None]), np.float32)
    stage = np.asarray(plant.squares(x) @ plant.q, np.float32)
    values = np.empty((steps + 1, len(x)), np.float32)
    values[0] = plant.final_cost(x)
    late = round(_SETTLING * plant.settle_s / plant.dt)
    for k in range(steps):
        best = np.full(len(x), np.inf, np.float32)
        for cost, move in zip(pay, rows, strict=True):
            np.minimum(best, move @ values[k] + cost, out=best)
        values[k + 1] = stage * (settling if k < late else 1.0) + best
    return values


def _controls(plant: Plant) -> Floats:
    return np.linspace(plant.low[0], plant.high[0], _CONTROLS)


def _axes(plant: Plant) -> tuple[Floats, Floats]:
    """Angles (without pi, which is -pi) and rates of the grid."""
    fastest = _fastest(plant)
    angles = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)
    return angles, np.linspace(-fastest, fastest, _RATES)


def _fastest(plant: Plant) -> float:
    """A rate that no plan exceeds: a fall from the top and a push all the way, and some more.

    The largest acceleration a over half a turn gives w^2 / 2 = a pi at most.
    """
    angles = np.stack([np.linspace(-np.pi, np.pi, 721), np.zeros(721)], 1)
    moved = plant.step(angles, np.broadcast_to(plant.high, (721, 1)))
    return float(1.2 * np.sqrt(2.0 * np.pi * np.abs(moved[:, 1]).max() / plant.dt))


def _corners(plant: Plant, x: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return the four grid points around each x (R, 2) and their weights, both (R, 4)."""
    fastest = _fastest(plant)
    a = (x[:, 0] + np.pi) * (_ANGLES / (2.0 * np.pi))
    b = np.clip((x[:, 1] + fastest) * ((_RATES - 1) / (2.0 * fastest)), 0.0, _RATES - 1.001)
    i, j = np.floor(a), np.floor(b)
    fa, fb = a - i, b - j
    low = i.astype(np.intp) % _ANGLES
    high, rate = (low + 1) % _ANGLES, j.astype(np.intp)
    index = np.stack([low * _RATES + rate, low * _RATES + rate + 1,
                      high * _RATES + rate, high * _RATES + rate + 1], 1)  # fmt: skip
    weight = np.stack([(1 - fa) * (1 - fb), (1 - fa) * fb, fa * (1 - fb), fa * fb], 1)
    return index, weight
