"""The words of the world: arrays of maps and cells, and the five moves.

Shapes: B maps, H rows, W columns. A cell is (row, column), row 0 at the top.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError

Bools = NDArray[np.bool_]  # free (B, H, W): True where the robot may stand
Ints = NDArray[np.int64]  # cells (B, 2)
Bytes = NDArray[np.uint8]  # sets of moves (B, H, W), packed bits
Distances = NDArray[np.int32]  # (B, H, W)

UP, DOWN, LEFT, RIGHT, STAY, UNKNOWN = range(6)
MOVES: Final = ("UP", "DOWN", "LEFT", "RIGHT", "STAY")  # index = move = bit of a set
STEPS: Final = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])  # (5, 2) row, column


def as_maps(free: NDArray[Any]) -> Bools:
    """Return `free` as (B, H, W) bool; DataError where it has another shape or no cell."""
    found = np.asarray(free)
    if found.ndim != 3 or 0 in found.shape[1:]:
        raise DataError(f"Maps have shape {found.shape}; (maps, rows, columns) was expected.")
    return found.astype(bool, copy=False)


def as_cells(cells: NDArray[Any], free: Bools) -> Ints:
    """Return `cells` as (B, 2) int64; DataError names the first that lies outside its map."""
    found = np.asarray(cells)
    if found.shape != (len(free), 2):
        raise DataError(f"Cells have shape {found.shape}; {(len(free), 2)} was expected.")
    found = found.astype(np.int64, copy=False)
    outside = ((found < 0) | (found >= free.shape[1:])).any(1)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"Cell {tuple(found[row].tolist())} of map {row} lies outside its "
            f"{free.shape[1]} x {free.shape[2]} cells."
        )
    return found
