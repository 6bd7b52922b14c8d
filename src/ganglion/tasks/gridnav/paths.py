"""The oracle: exact distances to the goal and every optimal move, of many maps at once."""

from __future__ import annotations

import numpy as np

from ganglion.tasks.gridnav import astar
from ganglion.tasks.gridnav.grids import (
    DOWN,
    LEFT,
    RIGHT,
    STAY,
    STEPS,
    UNKNOWN,
    UP,
    Bools,
    Bytes,
    Distances,
    Ints,
    as_cells,
    as_maps,
)

_BIT = np.left_shift(1, np.arange(5)).astype(np.uint8)
_SEVERAL = -1
_ONLY = np.full(32, _SEVERAL)  # set of moves -> its only member
_ONLY[0] = UNKNOWN
_ONLY[_BIT] = np.arange(5)


def distances(free: Bools, goal: Ints) -> Distances:
    """Return the number of moves from each cell to the goal, (B, H, W) int32, exact.

    free (B, H, W), goal (B, 2). -1 where a cell is blocked or has no way; everywhere, where the
    goal itself is blocked. DataError where shapes or cells do not fit.

    The waves of all maps run together through one array, and a step looks only at the cells that
    were just reached: the work is that of every cell once, whatever the length of the paths.
    """
    maps = as_maps(free)
    cells = as_cells(goal, maps)
    batch, height, width = maps.shape
    walled = (batch, height + 2, width + 2)  # walls around each map: no wave runs into the next
    unseen = np.zeros(walled, bool)
    unseen[:, 1:-1, 1:-1] = maps
    found = np.full(walled, -1, np.int32)
    flat, open_cells = found.reshape(-1), unseen.reshape(-1)
    wave = (np.arange(batch) * walled[1] + cells[:, 0] + 1) * walled[2] + cells[:, 1] + 1
    wave = wave[open_cells[wave]]
    open_cells[wave] = False
    step = 0
    flat[wave] = step
    while wave.size:
        step += 1
        parts = []
        for offset in (-walled[2], walled[2], -1, 1):
            reached = wave + offset
            reached = reached[open_cells[reached]]
            open_cells[reached] = False  # so no later direction takes it again
            parts.append(reached)
        wave = np.concatenate(parts)
        flat[wave] = step
    return np.ascontiguousarray(found[:, 1:-1, 1:-1])


def optimal_moves(distance: Distances) -> Bytes:
    """Return the set of optimal moves of each cell as bits, (B, H, W) uint8.

    Bit 0 UP, 1 DOWN, 2 LEFT, 3 RIGHT, 4 STAY, which is right exactly at the goal. 0 where
    `distance` is -1.
    """
    distance = np.asarray(distance)
    # A cell at 0 would find its -1 in every wall: nothing is nearer than the goal.
    nearer = np.where(distance > 0, distance - 1, -2)
    found = np.where(distance == 0, _BIT[STAY], np.uint8(0))
    found[:, 1:] |= (distance[:, :-1] == nearer[:, 1:]) * _BIT[UP]
    found[:, :-1] |= (distance[:, 1:] == nearer[:, :-1]) * _BIT[DOWN]
    found[:, :, 1:] |= (distance[:, :, :-1] == nearer[:, :, 1:]) * _BIT[LEFT]
    found[:, :, :-1] |= (distance[:, :, 1:] == nearer[:, :, :-1]) * _BIT[RIGHT]
    return found


def first_labels(free: Bools, goal: Ints, distance: Distances | None = None) -> Ints:
    """Return the one move per cell that a plain A* takes first, (B, H, W) int64.

    STAY at the goal, UNKNOWN where a cell is blocked or has no way. `astar` says which search is
    meant. Where a single move is optimal there is nothing to search; all other cells are searched.
    """
    maps = as_maps(free)
    cells = as_cells(goal, maps)
    best = optimal_moves(distances(maps, cells) if distance is None else distance)
    found = _ONLY[best]
    which, row, column = np.nonzero(found == _SEVERAL)
    start = np.stack([row, column], 1)
    found[which, row, column] = astar.first_moves(maps, cells, which, start)
    return found


def walk(moves: Ints, start: Ints, goal: Ints, most: int) -> tuple[Ints, Ints]:
    """Follow move maps from a start cell each until the goal or for `most` steps.

    moves (B, H, W) of 0..5, start and goal (B, 2); nothing is checked: a step out of the map stays
    inside it. Returns the cells passed, (B, T + 1, 2), the last repeated after arrival, and the
    number of steps, (B,), -1 where the goal was not reached.
    """
    rows = np.arange(len(start))
    limit = np.array(moves.shape[1:]) - 1
    cell, passed = np.asarray(start, np.int64), [np.asarray(start, np.int64)]
    steps = np.where((cell == goal).all(1), 0, -1)
    for step in range(1, most + 1):
        going = steps < 0
        if not going.any():
            break
        move = np.minimum(moves[rows, cell[:, 0], cell[:, 1]], STAY)
        cell = np.where(going[:, None], np.clip(cell + STEPS[move], 0, limit), cell)
        steps[going & (cell == goal).all(1)] = step
        passed.append(cell)
    return np.stack(passed, 1), steps
