"""What a row of the data holds: a map, its goal, a start, and the optimal moves of every cell.

free   uint8 (B, ceil(H * W / 8))   packed bits, see `packing`
goal   int32 (B, 2)                 row, column
start  int32 (B, 2)                 the robot of the sample that the row stands for
moves  uint8 (B, H, W)              set of optimal moves of each cell, see `paths.optimal_moves`
label  int64 (B,)                   the one move of a plain A* at the start; imported: the file's
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError, unknown
from ganglion.tasks.gridnav import astar, packing, paths
from ganglion.tasks.gridnav.grids import MOVES, STAY, Bools, Bytes, Distances, Ints, as_cells

UNITS: Final[Mapping[str, str]] = {
    "free": "packed bits", "goal": "cell", "start": "cell", "moves": "set of moves as bits",
    "label": "move",
}  # fmt: skip


@dataclass(frozen=True)
class Records:
    """Rows of the data, unpacked: free (B, H, W), goal and start (B, 2), moves, label (B,)."""

    free: Bools
    goal: Ints
    start: Ints
    moves: Bytes
    label: Ints


def make(
    free: Bools, goal: Ints, start: Ints, distance: Distances | None = None,
    label: Ints | None = None,
) -> dict[str, Array]:  # fmt: skip
    """Return the arrays of maps (B, H, W) with goals and starts (B, 2).

    distance (B, H, W) and label (B,) are derived where they are not given. Every start must have a
    way to its goal (DataError).
    """
    found = paths.distances(free, goal) if distance is None else distance
    moves = paths.optimal_moves(found)
    rows = np.arange(len(free))
    lost = found[rows, start[:, 0], start[:, 1]] < 0
    if lost.any():
        row = int(np.argmax(lost))
        raise DataError(
            f"Row {row}: no way leads from the start {tuple(start[row].tolist())} to the goal "
            f"{tuple(goal[row].tolist())}."
        )
    return {
        "free": packing.pack(free),
        "goal": goal.astype(np.int32),
        "start": start.astype(np.int32),
        "moves": moves,
        "label": first_at(free, goal, start, moves) if label is None else label.astype(np.int64),
    }


def first_at(free: Bools, goal: Ints, start: Ints, moves: Bytes) -> Ints:
    """Return the first move of A* from one start in each map, (B,); STAY at the goal."""
    rows = np.arange(len(free))
    best = moves[rows, start[:, 0], start[:, 1]]
    label = np.where(best >> STAY & 1, STAY, 0).astype(np.int64)
    going = rows[label != STAY]
    label[going] = astar.first_moves(free, goal, going, start[going])
    return label


def read(arrays: Arrays) -> Records:
    """Unpack rows; DataError names what is missing, of another shape, or no cell or move."""
    for name in UNITS:
        if name not in arrays:
            raise DataError(f"The data has no array {name!r}; {unknown('array', name, arrays)}")
    moves, label = np.asarray(arrays["moves"]), np.asarray(arrays["label"], np.int64)
    if moves.dtype != np.uint8 or moves.ndim != 3:
        raise DataError(
            f"moves are {moves.dtype}{moves.shape}; uint8 (rows, height, width) was expected."
        )
    free = packing.unpack(np.asarray(arrays["free"]), *moves.shape[1:])
    if label.shape != (len(moves),) or len(free) != len(moves):
        raise DataError(
            f"free, moves and label have {len(free)}, {len(moves)} and {len(label)} rows; equal "
            "numbers were expected."
        )
    known = (label >= 0) & (label < len(MOVES))
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(f"label[{row}] is {label[row]}; a move, 0 to {STAY}, was expected.")
    places = {}
    for name in ("goal", "start"):
        try:
            places[name] = as_cells(np.asarray(arrays[name]), free)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    return Records(free, places["goal"], places["start"], moves, label)
