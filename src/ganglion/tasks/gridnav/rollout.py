"""Closed loops by look-up: what becomes of a robot at every cell that follows a map of moves.

Shapes: B maps, H x W cells, N = H * W. All starts of all maps go at once: the cell reached after
2^k moves follows from that after 2^(k-1) by looking it up in itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.gridnav.grids import STAY, STEPS, Bools, Ints

_CELLS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Outcome:
    """Of each start (B, H, W): whether it arrives, whether it runs into a wall, and its moves.

    A move into a wall or out of the map ends the way. Who neither arrives nor collides goes round
    in a loop (standing still is one). moves is how many it takes to arrive, 0 for all others.
    """

    arrived: Bools
    collided: Bools
    moves: NDArray[np.int32]


def follow(moves: Ints, free: Bools, goal: Ints) -> Outcome:
    """Follow maps of moves (B, H, W) of 0..5 from every cell until it is known how it ends.

    free (B, H, W), goal (B, 2). A way that arrives visits no cell twice, so fewer than N moves
    decide. Blocked cells are no starts: all is False there.
    """
    batch, height, width = free.shape
    most = max(1, _CELLS_AT_ONCE // (height * width))
    parts = [
        _follow(moves[i : i + most], free[i : i + most], goal[i : i + most])
        for i in range(0, batch, most)
    ]
    return Outcome(
        np.concatenate([p.arrived for p in parts]),
        np.concatenate([p.collided for p in parts]),
        np.concatenate([p.moves for p in parts]),
    )


def _follow(moves: Ints, free: Bools, goal: Ints) -> Outcome:
    batch, height, width = free.shape
    cells, wall = height * width, height * width  # the last node stands for a collision
    rows = np.arange(batch)
    target = (goal[:, 0] * width + goal[:, 1])[:, None]
    after = np.full((batch, cells + 1), wall, np.int64)
    after[:, :cells] = _successors(moves, free).reshape(batch, cells)
    after[rows[:, None], target] = target
    length = np.ones((batch, cells + 1), np.int32)
    length[:, wall] = 0
    length[rows[:, None], target] = 0
    done = 1
    while done < cells:
        length += np.take_along_axis(length, after, 1)
        after = np.take_along_axis(after, after, 1)
        done *= 2
    after, length = after[:, :cells], length[:, :cells]
    shape = free.shape
    arrived = (after == target).reshape(shape) & free
    collided = (after == wall).reshape(shape) & free
    return Outcome(arrived, collided, np.where(arrived, length.reshape(shape), 0))


def _successors(moves: Ints, free: Bools) -> Ints:
    """Return the cell that each cell's move leads to, flat, (B, H, W); N for a collision."""
    batch, height, width = free.shape
    row, column = np.ogrid[:height, :width]
    step = STEPS[np.minimum(moves, STAY)]  # UNKNOWN stands still
    to_row, to_column = row + step[..., 0], column + step[..., 1]
    inside = (to_row >= 0) & (to_row < height) & (to_column >= 0) & (to_column < width)
    to_row, to_column = to_row.clip(0, height - 1), to_column.clip(0, width - 1)
    open_there = free[np.arange(batch)[:, None, None], to_row, to_column]
    return np.asarray(np.where(inside & open_there & free, to_row * width + to_column,
                               height * width))  # fmt: skip
