"""Mazes, many at once: perfect by depth-first search, braided, with openings; and rooms.

A maze of H x W cells has a lattice of nodes at every second cell, (H + 1) // 2 x (W + 1) // 2 of
them, and passages between. It has no border of its own: the edge of the map is one. An odd side
is filled by nodes at 0, 2, ..., H - 1; an even side has one row left over, which is all wall and
lies at the top or at the bottom, by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.gridnav.grids import STEPS, Bools, Bytes, Ints

_LOOK = 8  # steps between looks whether every maze is complete
_OUTCOMES = 12  # least common multiple of 1, 2, 3, 4: a draw among any number of ways is fair
_BITS = 1 << np.arange(4)


def _table() -> NDArray[np.intp]:
    """Return the way chosen for a set of ways (4 bits) and a draw of 0..11; 4 where none."""
    found = np.full((16, _OUTCOMES), 4, np.intp)
    for ways in range(1, 16):
        members = [i for i in range(4) if ways >> i & 1]
        found[ways] = np.array(members)[np.arange(_OUTCOMES) % len(members)]
    return found


_CHOICE = _table()


@dataclass(frozen=True)
class Lattice:
    """The nodes of B mazes and the ways out of each as bits, UP 0, DOWN 1, LEFT 2, RIGHT 3.

    inside (R, C): the ways that lead to another node. open (B, R, C): those without a wall.
    """

    inside: Bytes
    open: Bytes

    def opened(self, more: Bytes) -> Lattice:
        """Return the lattice with further ways (B, R, C) opened, each from both its sides."""
        both = more.copy()
        both[:, 1:] |= (more[:, :-1] >> 1 & 1) << 0  # down, seen from below, is up
        both[:, :-1] |= (more[:, 1:] >> 0 & 1) << 1
        both[:, :, 1:] |= (more[:, :, :-1] >> 3 & 1) << 2
        both[:, :, :-1] |= (more[:, :, 1:] >> 2 & 1) << 3
        return Lattice(self.inside, self.open | both)


def draw(
    count: int, height: int, width: int, rng: np.random.Generator,
    braid: float | NDArray[np.float64] = 0.0, openings: float | NDArray[np.float64] = 0.0,
) -> Bools:  # fmt: skip
    """Draw `count` mazes, (count, height, width) bool, True where free.

    A perfect maze has one way between any two cells. braid, a number or (count,), is the
    probability that a dead end is opened towards a neighbour; openings, likewise, the share of
    all walls between nodes that are opened.
    """
    lattice = carve(count, (height + 1) // 2, (width + 1) // 2, rng)
    if np.any(braid):
        lattice = _braided(lattice, _each(braid, count), rng)
    if np.any(openings):
        lattice = _loosened(lattice, _each(openings, count), rng)
    return _cells(lattice, height, width, rng)


def _each(value: float | NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(value, np.float64), (count,))[:, None, None]


def carve(count: int, rows: int, columns: int, rng: np.random.Generator) -> Lattice:
    """Carve perfect mazes by randomised depth-first search, all in lockstep.

    Each maze stands at one node. It goes on to a fresh neighbour, chosen fairly, and notes where
    it came from; where there is none it goes back. So one array of steps serves as all the stacks.
    """
    stride = columns + 2
    offsets = STEPS[:4] @ (stride, 1)
    size = (rows + 2) * stride
    fresh = np.zeros((count, rows + 2, stride), bool)
    fresh[:, 1:-1, 1:-1] = True
    flat = fresh.reshape(-1)
    back = np.zeros(flat.size, np.intp)  # the step that leads back, 0 at the start and if fresh
    corner = rng.integers(rows, size=count) * stride + rng.integers(columns, size=count)
    node = np.arange(count) * size + corner + stride + 1
    flat[node] = False
    draws = np.zeros((0, count), np.int64)
    turn = 0
    while rows * columns > 1:
        if turn % _LOOK == 0:
            if not fresh.any():
                break
            draws = rng.integers(_OUTCOMES, size=(_LOOK, count))
        ways = flat[node[:, None] + offsets] @ _BITS
        way = _CHOICE[ways, draws[turn % _LOOK]]
        onward = np.flatnonzero(way < 4)
        step = back[node]
        step[onward] = offsets[way[onward]]
        node = node + step
        there = node[onward]
        flat[there] = False
        back[there] = -step[onward]
        turn += 1
    came = back.reshape(count, rows + 2, stride)[:, 1:-1, 1:-1]
    towards = sum((came == offset) * bit for offset, bit in zip(offsets, _BITS, strict=True))
    closed = Lattice(_inside(rows, columns), np.zeros((count, rows, columns), np.uint8))
    return closed.opened(np.asarray(towards, np.uint8))


def _inside(rows: int, columns: int) -> Bytes:
    found = np.full((rows, columns), 15, np.uint8)
    found[0] &= 14
    found[-1] &= 13
    found[:, 0] &= 11
    found[:, -1] &= 7
    return found


def _braided(lattice: Lattice, share: NDArray[np.float64], rng: np.random.Generator) -> Lattice:
    """Open one more way of each dead end, chosen fairly, with probability `share` (B, 1, 1)."""
    shape = lattice.open.shape
    dead = np.isin(lattice.open, _BITS)  # one way in, none further
    chosen = dead & (rng.random(shape) < share)
    way = _CHOICE[lattice.inside & ~lattice.open, rng.integers(_OUTCOMES, size=shape)]
    more = np.where(chosen & (way < 4), 1 << np.minimum(way, 3), 0)
    return lattice.opened(more.astype(np.uint8))


def _loosened(lattice: Lattice, share: NDArray[np.float64], rng: np.random.Generator) -> Lattice:
    """Open each wall between nodes with probability `share` (B, 1, 1)."""
    shape = lattice.open.shape
    down = (rng.random(shape) < share).astype(np.uint8) << 1
    right = (rng.random(shape) < share).astype(np.uint8) << 3
    return lattice.opened(((down | right) & lattice.inside).astype(np.uint8))


def _cells(lattice: Lattice, height: int, width: int, rng: np.random.Generator) -> Bools:
    """Turn a lattice into maps; where a side is even, its spare row lies first or last."""
    count, rows, columns = lattice.open.shape
    free = np.zeros((count, 2 * rows, 2 * columns), bool)
    free[:, ::2, ::2] = True
    free[:, 1::2, ::2] = lattice.open >> 1 & 1  # down
    free[:, ::2, 1::2] = lattice.open >> 3 & 1  # right
    for axis, side in ((1, height), (2, width)):
        if side % 2 == 0:
            free = np.where(_coin(count, rng), np.roll(free, 1, axis), free)
    return np.ascontiguousarray(free[:, :height, :width])


def _coin(count: int, rng: np.random.Generator) -> Bools:
    return np.asarray(rng.integers(2, size=count) == 1)[:, None, None]


def draw_rooms(
    count: int, height: int, width: int, rng: np.random.Generator,
    sides: tuple[int, int] = (3, 7), doors: float = 0.3,
) -> Bools:  # fmt: skip
    """Draw rooms with walls of one cell between them, (count, height, width) bool.

    sides: the least and the greatest side of a room (a last one may be shorter). Every room has a
    door to the room above it or to the left of it, so that all are connected; any other pair of
    neighbours has one with probability `doors`.
    """
    top, tall = _bands(count, height, sides, rng)
    left, wide = _bands(count, width, sides, rng)
    free = np.ones((count, height, width), bool)
    maps = np.arange(count)[:, None]
    for walls, side, view in ((top, height, free), (left, width, free.transpose(0, 2, 1))):
        at = walls - 1  # the wall before each room but the first
        some = (at >= 0) & (at < side)
        view[np.broadcast_to(maps, at.shape)[some], at[some]] = False
    real = (tall > 0)[:, :, None] & (wide > 0)[:, None, :]
    up_first = rng.random(real.shape) < 0.5
    up_first[:, :, 0], up_first[:, 0] = True, False
    extra = rng.random((2, *real.shape)) < doors
    place = rng.random((2, *real.shape))
    above = real & (up_first | extra[0])
    above[:, 0] = False
    before = real & (~up_first | extra[1])
    before[:, :, 0] = False
    b, i, j = np.nonzero(above)
    free[b, top[b, i] - 1, left[b, j] + (place[0][b, i, j] * wide[b, j]).astype(np.int64)] = True
    b, i, j = np.nonzero(before)
    free[b, top[b, i] + (place[1][b, i, j] * tall[b, i]).astype(np.int64), left[b, j] - 1] = True
    return free


def _bands(
    count: int, side: int, sides: tuple[int, int], rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Cut a side into rooms: where each begins and how long it is, (count, K); 0 where none is."""
    most = side // (sides[0] + 1) + 1
    length = rng.integers(sides[0], sides[1] + 1, size=(count, most))
    begin = np.cumsum(length + 1, 1) - length - 1
    return begin, np.clip(side - begin, 0, length)
