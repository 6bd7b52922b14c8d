"""A* for the one move that a plain search would take first: on many states in lockstep, or alone.

Where several moves are optimal, which of them a search finds depends on its ties. This is the
search with: neighbours in the order UP, DOWN, LEFT, RIGHT; Manhattan distance as estimate; the
cell with the least f = g + h first and, among equal f, the one that was put in line first; the
goal recognised when it is taken out; a cell's way replaced only by a strictly shorter one.

Every state does the same thing at the same time: take out its least cell, put in up to four. The
estimate is consistent, so a cell's older entry is never the lesser one, and one entry per cell
(overwritten) stands for the heap of a plain search. Finding the least cell takes time with the
size of the map, so on large maps each state is searched alone, with a heap.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.gridnav.grids import STEPS, Bools, Ints

_AT_ONCE = 1 << 21  # entries of the open lists held at a time
_LARGE = 600  # cells from which on a heap is faster, measured on walls and mazes


def first_moves(free: Bools, goal: Ints, which: Ints, start: Ints) -> NDArray[np.uint8]:
    """Return the first move of A* from each start, (N,) of 0..3.

    free (B, H, W), goal (B, 2); which (N,) is the map of each state, start (N, 2). Every start
    must have a way to its goal and differ from it.
    """
    cells = free.shape[1] * free.shape[2]
    found = np.zeros(len(which), np.uint8)
    if cells >= _LARGE:
        for row, i in enumerate(which):
            found[row] = _alone(free[i], tuple(start[row].tolist()), tuple(goal[i].tolist()))
        return found
    chunk = max(1, _AT_ONCE // (cells + 1))
    for begin in range(0, len(which), chunk):
        part = slice(begin, begin + chunk)
        found[part] = _Search(free, goal, which[part], start[part]).run()
    return found


class _Search:
    """The open lists of N searches; row n, column = cell, the last column lies outside the map."""

    def __init__(self, free: Bools, goal: Ints, which: Ints, start: Ints) -> None:
        height, width = free.shape[1:]
        cells, count = height * width, len(which)
        self.neighbours = _neighbours(height, width)
        # f <= 2 cells, and at most 4 entries for each cell taken out
        self.shift = int(4 * cells + 4).bit_length()
        kind = np.int32 if (2 * cells).bit_length() + self.shift < 31 else np.int64
        self.none = np.iinfo(kind).max
        self.key = np.full((count, cells + 1), self.none, kind)  # f, then order of entry
        self.cost = np.full((count, cells + 1), -1, np.int32)  # g; -1 is never improved on
        self.cost[:, :-1] = np.where(free[which].reshape(count, -1), cells + 1, -1)
        self.first = np.zeros((count, cells + 1), np.uint8)
        self.goal = goal[which, 0] * width + goal[which, 1]
        at = np.arange(cells + 1)
        self.row, self.column = at // width, at % width
        begin = start[:, 0] * width + start[:, 1]
        rows = np.arange(count)
        self.key[rows, begin], self.cost[rows, begin] = 0, 0
        self.state = rows  # whose search each row is; rows of finished ones are dropped

    def run(self) -> NDArray[np.uint8]:
        """Search until every goal is taken out; returns the first moves, (N,)."""
        found = np.zeros(len(self.state), np.uint8)
        turn = 0
        while len(self.state):
            rows = np.arange(len(self.state))
            cell = self.key.argmin(1)
            arrived = cell == self.goal
            if arrived.any():
                found[self.state[arrived]] = self.first[rows[arrived], cell[arrived]]
                self._drop(arrived)
                cell = cell[~arrived]
                rows = rows[: len(cell)]
            self.key[rows, cell] = self.none
            for move in range(4):
                self._enter(rows, cell, move, turn)
            turn += 1
        return found

    def _enter(self, rows: Ints, cell: Ints, move: int, turn: int) -> None:
        there = self.neighbours[move, cell]
        cost = self.cost[rows, cell] + 1
        better = np.flatnonzero(cost < self.cost[rows, there])
        there, cell, cost = there[better], cell[better], cost[better]
        goal = self.goal[better]
        estimate = abs(self.row[there] - self.row[goal]) + abs(
            self.column[there] - self.column[goal]
        )
        self.cost[better, there] = cost
        self.key[better, there] = ((cost + estimate) << self.shift) + (4 * turn + move)
        self.first[better, there] = self.first[better, cell] if turn else move

    def _drop(self, gone: Bools) -> None:
        keep = ~gone
        self.key, self.cost, self.first = self.key[keep], self.cost[keep], self.first[keep]
        self.goal, self.state = self.goal[keep], self.state[keep]


def _neighbours(height: int, width: int) -> Ints:
    """Return the cell that each of four moves leads to, (4, H * W + 1); H * W is outside."""
    row, column = np.divmod(np.arange(height * width), width)
    found = np.full((4, height * width + 1), height * width, np.int64)
    for move in range(4):
        r, c = row + STEPS[move, 0], column + STEPS[move, 1]
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        found[move, :-1][inside] = (r * width + c)[inside]
    return found


def _alone(free: Bools, start: tuple[int, ...], goal: tuple[int, ...]) -> int:
    """Return the first move of one search on one map (H, W).

    Cells are numbers of a map with walls around it, and an entry of the heap is one number too: f,
    then the order of entry, then the cell.
    """
    width = free.shape[1] + 2
    padded = np.pad(free, 1)
    bits = padded.size.bit_length()
    walls = (~padded).ravel().tolist()
    end, begin = ((r + 1) * width + c + 1 for r, c in (goal, start))
    row, column = goal[0] + 1, goal[1] + 1
    steps = tuple(enumerate((-width, width, -1, 1)))
    cost, first, line, order = {begin: 0}, {begin: 0}, [begin], 0
    while line:
        cell = heappop(line) & ((1 << bits) - 1)
        if cell == end:
            break
        if walls[cell]:
            continue
        walls[cell] = True  # taken out: neither this entry nor an older one counts again
        reached = cost[cell] + 1
        for move, step in steps:
            there = cell + step
            if not walls[there] and reached < cost.get(there, reached + 1):
                cost[there] = reached
                first[there] = first[cell] if cell != begin else move
                order += 1
                down, right = divmod(there, width)
                away = reached + abs(down - row) + abs(right - column)
                heappush(line, ((away << bits + 2 | order) << bits) | there)
    return first[end]
