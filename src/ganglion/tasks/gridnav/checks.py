"""Re-derive labels and tokens of a dataset from its maps: nothing in it is taken on trust."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import paths, records, tokens
from ganglion.tasks.gridnav.grids import MOVES, Bools, Bytes, Ints
from ganglion.tasks.gridnav.records import Records

_AT_ONCE = 1 << 20  # cells that are derived anew


def check(arrays: Arrays, *, first: bool = True) -> None:
    """Verify the arrays of `records.make`; DataError names the first fault by row and cell.

    Of every row: names, shapes, cells inside their maps; goal and start are free and connected, the
    sets of moves are the optimal ones, the label is that of A* (`first`) or, in imported data, any
    optimal move, and tokens, where the maps are square, read back as the same state.
    """
    for part, rows in _parts(records.read(arrays)):
        _check_part(part, rows, first)


def _parts(whole: Records) -> Iterator[tuple[Records, Ints]]:
    count, cells = len(whole.free), whole.free[:1].size
    size = max(1, _AT_ONCE // max(1, cells))
    for begin in range(0, count, size):
        rows = np.arange(begin, min(begin + size, count))
        yield Records(
            whole.free[rows], whole.goal[rows], whole.start[rows], whole.moves[rows],
            whole.label[rows],
        ), rows  # fmt: skip


def _check_part(part: Records, rows: Ints, first: bool) -> None:
    each = np.arange(len(rows))
    _check_free(part, rows, "goal", part.goal)
    _check_free(part, rows, "start", part.start)
    distance = paths.distances(part.free, part.goal)
    lost = distance[each, part.start[:, 0], part.start[:, 1]] < 0
    _refuse(lost, rows, lambda i: f"no way leads from its start {_at(part.start[i])} to its goal")
    _check_moves(part, paths.optimal_moves(distance), rows)
    _check_labels(part, rows, first)
    if part.free.shape[1] == part.free.shape[2]:
        _check_tokens(part, rows)


def _check_free(part: Records, rows: Ints, name: str, cell: Ints) -> None:
    walled = ~part.free[np.arange(len(rows)), cell[:, 0], cell[:, 1]]
    _refuse(walled, rows, lambda i: f"its {name} {_at(cell[i])} is a wall")


def _check_moves(part: Records, best: Bytes, rows: Ints) -> None:
    off = np.argwhere(part.moves != best)
    if off.size:
        i, row, column = (int(n) for n in off[0])
        raise DataError(
            f"moves[{rows[i]}, {row}, {column}] is {_set(part.moves[i, row, column])}, but optimal "
            f"there is {_set(best[i, row, column])}. The data was edited or damaged."
        )


def _check_labels(part: Records, rows: Ints, first: bool) -> None:
    each = np.arange(len(rows))
    best = part.moves[each, part.start[:, 0], part.start[:, 1]]
    wrong = best >> part.label & 1 == 0
    _refuse(wrong, rows, lambda i: f"its label {MOVES[part.label[i]]} is not optimal at its start")
    if first:
        own = records.first_at(part.free, part.goal, part.start, part.moves)
        _refuse(
            own != part.label, rows,
            lambda i: f"its label is {MOVES[part.label[i]]}, but A* goes {MOVES[own[i]]} first",
        )  # fmt: skip


def _check_tokens(part: Records, rows: Ints) -> None:
    back = tokens.decode(tokens.encode(part.free, part.start, part.goal))
    for found, held in zip(back, (part.free, part.start, part.goal), strict=True):
        off = (found != held).reshape(len(rows), -1).any(1)
        _refuse(off, rows, lambda _: "its tokens do not read back as the same state")


def _refuse(wrong: Bools, rows: Ints, why: Callable[[int], str]) -> None:
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DataError(f"Row {rows[i]}: {why(i)}. The data was edited or damaged.")


def _at(cell: Array) -> str:
    return f"({cell[0]}, {cell[1]})"


def _set(moves: int) -> str:
    names = [name for i, name in enumerate(MOVES) if moves >> i & 1]
    return " or ".join(names) or "no move"
