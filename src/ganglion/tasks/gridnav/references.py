"""The shortest path and the baselines as policies: scored by the same code as a trained net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Array, Arrays, Policy, Signature, TensorSpec
from ganglion.tasks.gridnav import paths
from ganglion.tasks.gridnav.grids import STAY, STEPS, UNKNOWN, Bools, Ints

GRID = ("height", "width")
FREE = TensorSpec(GRID, low=0.0, high=1.0)  # 1 where free
GOAL = TensorSpec(GRID, low=0.0, high=1.0, one_hot=True)  # 1 at the goal, 0 elsewhere
MOVES = TensorSpec(GRID, "int64", low=0, high=5)  # UP DOWN LEFT RIGHT STAY UNKNOWN


def references() -> Mapping[str, Policy]:
    """Return every reference by name."""
    return {"oracle": Oracle(), "greedy": Greedy(), "random": Random()}


def signature(more: Mapping[str, TensorSpec] | None = None) -> Signature:
    """Return what policies take and give: map and goal in, a move for every cell out."""
    return Signature({"free": FREE, "goal": GOAL, **(more or {})}, {"moves": MOVES})


def inputs(free: Bools, goal: Ints) -> dict[str, Array]:
    """Return maps (B, H, W) and goals (B, 2) as a policy takes them, float32."""
    marked = np.zeros(free.shape, np.float32)
    marked[np.arange(len(free)), goal[:, 0], goal[:, 1]] = 1.0
    return {"free": free.astype(np.float32), "goal": marked}


def read(given: Arrays) -> tuple[Bools, Ints]:
    """Return maps (B, H, W) and goals (B, 2) of what a policy was given.

    A cell is free above 0.5, the goal is where its input is greatest.
    """
    free = np.asarray(given["free"]) > 0.5
    marked = np.asarray(given["goal"]).reshape(len(free), -1)
    return free, np.stack(np.divmod(marked.argmax(1), free.shape[2]), 1)


@dataclass(frozen=True)
class Oracle:
    """The shortest path: of several optimal moves the first of UP, DOWN, LEFT, RIGHT."""

    @property
    def signature(self) -> Signature:
        return signature()

    def act(self, inputs: Arrays) -> Arrays:
        """Return an optimal move of each cell, UNKNOWN where there is no way."""
        best = paths.optimal_moves(paths.distances(*read(inputs)))
        return {"moves": _FIRST[best]}


@dataclass(frozen=True)
class Greedy:
    """The free neighbour that is nearest to the goal as the crow flies, by rows and columns.

    It sees one step ahead, so it goes to and fro in front of a wall that it ought to walk around.
    """

    @property
    def signature(self) -> Signature:
        return signature()

    def act(self, inputs: Arrays) -> Arrays:
        """Return a move of each cell, UNKNOWN where it is walled in; the first of equals."""
        free, goal = read(inputs)
        row, column = np.ogrid[: free.shape[1], : free.shape[2]]
        away = abs(row - goal[:, 0, None, None]) + abs(column - goal[:, 1, None, None])
        beside = _beside(np.where(free, away, _FAR), _FAR)
        moves = np.where(beside.min(0) < _FAR, beside.argmin(0), UNKNOWN)
        return {"moves": np.where(free, np.where(away == 0, STAY, moves), UNKNOWN)}


@dataclass(frozen=True)
class Random:
    """A free neighbour by chance for every cell, from an explicit input in [0, 1)."""

    @property
    def signature(self) -> Signature:
        return signature({"noise": TensorSpec(GRID, low=0.0, high=1.0, role="uniform")})

    def act(self, inputs: Arrays) -> Arrays:
        """Return a move of each cell, STAY at the goal, UNKNOWN where it is walled in."""
        free, goal = read(inputs)
        beside = _beside(free.astype(np.int64), 0)
        ways = beside.sum(0)
        chosen = np.minimum(np.asarray(inputs["noise"]) * ways, ways - 1).astype(np.int64)
        moves = (np.cumsum(beside, 0) > chosen).argmax(0)
        moves = np.where((ways > 0) & free, moves, UNKNOWN)
        rows = np.arange(len(free))
        at_goal = free[rows, goal[:, 0], goal[:, 1]]
        moves[rows[at_goal], goal[at_goal, 0], goal[at_goal, 1]] = STAY
        return {"moves": moves}


_FAR = 1 << 30
_FIRST = np.array([UNKNOWN, *((s & -s).bit_length() - 1 for s in range(1, 32))])  # lowest bit


def _beside(value: Ints, outside: int) -> Ints:
    """Return the value of each cell's four neighbours, (4, B, H, W); `outside` beyond the edge."""
    padded = np.pad(value, ((0, 0), (1, 1), (1, 1)), constant_values=outside)
    height, width = value.shape[1:]
    return np.stack(
        [padded[:, 1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in STEPS[:4]]
    )
