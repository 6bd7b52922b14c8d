"""The eight symmetries of the square, with the moves that turn along.

Symmetry k: for k in 4..7 first mirrored left to right, then k % 4 quarter turns clockwise. A map
of H x W becomes one of W x H where k is odd.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError
from ganglion.tasks.gridnav.grids import DOWN, LEFT, RIGHT, UP, Bools, Bytes, Ints

COUNT: Final = 8


def _moves() -> NDArray[np.int64]:
    turned = {UP: RIGHT, RIGHT: DOWN, DOWN: LEFT, LEFT: UP}
    mirrored = {LEFT: RIGHT, RIGHT: LEFT}
    table = np.tile(np.arange(6), (COUNT, 1))
    for k in range(COUNT):
        for move in (UP, DOWN, LEFT, RIGHT):
            to = mirrored.get(move, move) if k >= 4 else move
            for _ in range(k % 4):
                to = turned[to]
            table[k, move] = to
    return table


MOVES: Final = _moves()  # (8, 6): what each move becomes; STAY and UNKNOWN stay what they are


def _sets() -> Bytes:
    table = np.zeros((COUNT, 32), np.uint8)
    members = np.arange(32)[:, None] >> np.arange(5) & 1
    for k in range(COUNT):
        table[k] = (members << MOVES[k, :5]).sum(1)
    return table


SETS: Final = _sets()  # (8, 32): what each set of moves, as bits, becomes


def turn(k: int, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return an array (..., H, W) under symmetry k; its values stay as they are."""
    mirrored = array[..., ::-1] if _known(k) >= 4 else array
    return np.ascontiguousarray(np.rot90(mirrored, -(k % 4), axes=(-2, -1)))


def cells(k: int, where: Ints, height: int, width: int) -> Ints:
    """Return where cells (..., 2) of an H x W map are under symmetry k."""
    row, column = where[..., 0], where[..., 1]
    if _known(k) >= 4:
        column = width - 1 - column
    for _ in range(k % 4):  # clockwise: the top row becomes the last column
        row, column = column, height - 1 - row
        height, width = width, height
    return np.stack([row, column], -1)


def transform(k: int, free: Bools, goal: Ints, masks: Bytes) -> tuple[Bools, Ints, Bytes]:
    """Return maps (B, H, W), goals (B, 2) and sets of moves (B, H, W) under symmetry k.

    DataError where k is none of 0..7. What is optimal before is optimal after.
    """
    height, width = free.shape[-2:]
    turned = SETS[_known(k)][turn(k, masks)]
    return np.asarray(turn(k, free), bool), cells(k, goal, height, width), turned


def inverse(k: int) -> int:
    """Return the symmetry that undoes k: a mirroring undoes itself."""
    return k if _known(k) >= 4 else -k % 4


def compose(first: int, second: int) -> int:
    """Return the symmetry that does what `first` and then `second` do."""
    turns, mirror = first % 4, _known(first) >= 4
    if _known(second) >= 4:  # mirroring after turning is turning the other way after mirroring
        turns, mirror = -turns, not mirror
    return (turns + second) % 4 + 4 * mirror


def _known(k: int) -> int:
    if not 0 <= k < COUNT:
        raise DataError(f"There is no symmetry {k}; there are {COUNT}, 0 to {COUNT - 1}.")
    return k
