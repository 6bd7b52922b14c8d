"""Maps as text, and plain searches that the tests compare with."""

from __future__ import annotations

import heapq
import itertools
from collections import deque

import numpy as np

STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
STAY, UNKNOWN = 4, 5


def drawn(*rows: str) -> np.ndarray:
    """One map of rows of `.` and `#`, (1, H, W) bool."""
    return np.array([[[cell != "#" for cell in row] for row in rows]])


def random_maps(
    count: int, height: int, width: int, density: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Maps with goals anywhere, also in walls."""
    rng = np.random.default_rng(seed)
    free = rng.random((count, height, width)) >= density
    return free, np.stack([rng.integers(height, size=count), rng.integers(width, size=count)], 1)


def around(free: np.ndarray, cell: tuple[int, int]) -> list[tuple[int, tuple[int, int]]]:
    """Moves to free neighbours with their cells, UP, DOWN, LEFT, RIGHT."""
    found = []
    for move, (down, right) in enumerate(STEPS):
        row, column = cell[0] + down, cell[1] + right
        if 0 <= row < free.shape[0] and 0 <= column < free.shape[1] and free[row, column]:
            found.append((move, (row, column)))
    return found


def breadth_first(free: np.ndarray, goal: tuple[int, int]) -> np.ndarray:
    """Distances of one map (H, W), cell by cell."""
    found = np.full(free.shape, -1)
    if not free[goal]:
        return found
    found[goal] = 0
    line = deque([goal])
    while line:
        cell = line.popleft()
        for _, there in around(free, cell):
            if found[there] < 0:
                found[there] = found[cell] + 1
                line.append(there)
    return found


def a_star(free: np.ndarray, start: tuple[int, int], goal: tuple[int, int]) -> list[int] | None:
    """The moves of a plain A* on one map, None where there is no way.

    A heap of (f, order of entry, cell); a cell is taken out once; its way is replaced only by a
    strictly shorter one.
    """
    order = itertools.count()
    line = [(0, next(order), start)]
    cost = {start: 0}
    came: dict[tuple[int, int], tuple[tuple[int, int], int]] = {}
    done: set[tuple[int, int]] = set()
    while line:
        cell = heapq.heappop(line)[2]
        if cell == goal:
            moves = []
            while cell != start:
                cell, move = came[cell]
                moves.append(move)
            return moves[::-1]
        if cell in done:
            continue
        done.add(cell)
        for move, there in around(free, cell):
            if cost[cell] + 1 < cost.get(there, 1 << 30):
                cost[there] = cost[cell] + 1
                came[there] = cell, move
                away = abs(there[0] - goal[0]) + abs(there[1] - goal[1])
                heapq.heappush(line, (cost[there] + away, next(order), there))
    return None
