"""States as the original's tokens: one per cell, then robot and goal.

A state of an N x N map is N * N + 4 tokens (68 for 8 x 8): 1 free or 2 wall, row by row; then the
robot's row and column and the goal's row and column, each + 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError
from ganglion.tasks.gridnav.grids import Bools, Ints

_FREE, _WALL, _OFFSET = 1, 2, 3


def encode(free: Bools, start: Ints, goal: Ints) -> Ints:
    """Return the tokens (B, H * W + 4) of maps (B, H, W), robots (B, 2) and goals (B, 2)."""
    cells = np.where(free, _FREE, _WALL).reshape(len(free), -1)
    return np.concatenate([cells, start + _OFFSET, goal + _OFFSET], 1).astype(np.int64)


def decode(tokens: NDArray[Any]) -> tuple[Bools, Ints, Ints]:
    """Return maps (B, N, N), robots (B, 2) and goals (B, 2) of tokens (B, N * N + 4).

    DataError names the first token that is out of place by row and column, and a robot or goal
    that stands in a wall.
    """
    side = side_of(tokens)
    cells, places = tokens[:, : side * side], tokens[:, side * side :]
    _each((cells == _FREE) | (cells == _WALL), cells, 0, f"{_FREE} (free) or {_WALL} (wall)")
    inside = (places >= _OFFSET) & (places < _OFFSET + side)
    _each(inside, places, side * side, f"a row or column + 3, {_OFFSET} to {_OFFSET + side - 1}")
    free = (cells == _FREE).reshape(-1, side, side)
    start, goal = (places[:, i : i + 2].astype(np.int64) - _OFFSET for i in (0, 2))
    for name, cell in (("robot", start), ("goal", goal)):
        blocked = ~free[np.arange(len(free)), cell[:, 0], cell[:, 1]]
        if blocked.any():
            row = int(np.argmax(blocked))
            raise DataError(f"tokens[{row}]: the {name} at {tuple(cell[row].tolist())} is a wall.")
    return free, start, goal


def side_of(tokens: NDArray[Any]) -> int:
    """Return N of tokens (B, N * N + 4); DataError where they have another form."""
    if tokens.ndim == 2 and tokens.shape[1] > 4 and tokens.dtype.kind in "iu":
        side = math.isqrt(tokens.shape[1] - 4)
        if side * side == tokens.shape[1] - 4:
            return side
    raise DataError(
        f"tokens are {tokens.dtype}{tokens.shape}; whole numbers (states, N * N + 4) were "
        "expected, 68 of them for maps of 8 x 8."
    )


def _each(fine: Bools, tokens: NDArray[Any], first: int, expected: str) -> None:
    if not fine.all():
        row, column = (int(i) for i in np.argwhere(~fine)[0])
        raise DataError(
            f"tokens[{row}, {first + column}] is {tokens[row, column]}; {expected} was expected."
        )
