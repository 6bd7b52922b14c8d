"""Maps and scenarios in the format of the Moving AI benchmarks, read with suspicion.

Source of the format: https://movingai.com/benchmarks/formats.html. A map is text: `type octile`,
`height N`, `width N`, `map`, then its rows. A scenario file names a map, a start, a goal and the
length of the shortest octile way in each line. Robots here stand on `.`, `G` and `S` (ground and
swamp); `@`, `O`, `T` and `W` are walls to them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError, OutputError
from ganglion.tasks.gridnav import maps, paths, records
from ganglion.tasks.gridnav.grids import Bools, Ints

FREE: Final = ".GS"
WALL: Final = "@OTW"
DRAWN: Final = 100  # goals and starts for a map that comes without scenarios
_MOST_BYTES = 64 << 20  # of a file
_MOST_CELLS = 1 << 27  # of all rows together
_SIDE = 1 << 14
_AT_ONCE = 64  # goals that ways are measured from together


# ---------------------------------------------------------------- reading


def read_map(path: Path) -> Bools:
    """Return the map of one `.map` file, (H, W); DataError names file, line and character."""
    lines = _lines(path)
    sizes = {}
    for number, name in ((1, "height"), (2, "width")):
        found = re.fullmatch(rf"{name} ([0-9]{{1,6}})", _line(path, lines, number))
        if found is None or not 1 <= int(found[1]) <= _SIDE:
            raise DataError(
                f"{path}, line {number + 1}: {_short(lines[number])} was found; '{name} N' with N "
                f"from 1 to {_SIDE} was expected."
            )
        sizes[name] = int(found[1])
    for number, expected in ((0, "type octile"), (3, "map")):
        if _line(path, lines, number) != expected:
            raise DataError(
                f"{path}, line {number + 1}: {_short(lines[number])} was found; {expected!r} was "
                "expected."
            )
    rows = lines[4 : 4 + sizes["height"]]
    if len(rows) < sizes["height"] or any(line for line in lines[4 + sizes["height"] :]):
        raise DataError(
            f"{path} has {len([r for r in lines[4:] if r])} rows; its header says "
            f"{sizes['height']}."
        )
    return np.stack([_row(path, 5 + i, row, sizes["width"]) for i, row in enumerate(rows)])


def _row(path: Path, number: int, row: str, width: int) -> Bools:
    if len(row) != width:
        raise DataError(
            f"{path}, line {number} has {len(row)} cells; the header says width {width}."
        )
    for column, cell in enumerate(row):
        if cell not in FREE + WALL:
            raise DataError(
                f"{path}, line {number}, column {column + 1}: {cell!r} is no cell; known are "
                f"{' '.join(FREE + WALL)}."
            )
    return np.isin(np.array(list(row)), list(FREE))


def import_map(path: Path) -> dict[str, Array]:
    """Return a hundred cases on one map, drawn by a stream of its contents, as `records.make`."""
    free = read_map(path)
    _limit(path, DRAWN, free)
    seed = int.from_bytes(hashlib.sha256(np.packbits(free).tobytes()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    linked = free & (_shifted(free, 1, 0) | _shifted(free, -1, 0) | _shifted(free, 0, 1)
                     | _shifted(free, 0, -1))  # fmt: skip
    if not linked.any():
        raise DataError(f"{path} has no two free cells side by side.")
    goal = maps.draw_goals(np.broadcast_to(linked, (DRAWN, *free.shape)), rng)
    many = np.broadcast_to(free, (DRAWN, *free.shape))
    distance = paths.distances(many, goal)
    return records.make(many, goal, maps.draw_starts(distance, rng), distance)


def _shifted(free: Bools, down: int, right: int) -> Bools:
    """Return for each cell whether the one `down` below and `right` to its right is free."""
    padded = np.pad(free, 1)
    height, width = free.shape
    return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]


def import_scenarios(path: Path) -> dict[str, Array]:
    """Return the cases of one `.scen` file, whose maps lie beside it, as `records.make`.

    All maps must have one size. DataError names file and line of the first fault.
    """
    lines = _lines(path)
    if not re.fullmatch(r"version 1(\.0?)?", _line(path, lines, 0)):
        raise DataError(f"{path}, line 1: {_short(lines[0])} was found; 'version 1' was expected.")
    known: dict[str, Bools] = {}
    found: list[tuple[Bools, tuple[int, int], tuple[int, int]]] = []
    for number, line in enumerate(lines[1:], start=2):
        if line:
            found.append(_scenario(path, number, line, known))
            _limit(path, len(found), found[0][0])
            if found[-1][0].shape != found[0][0].shape:
                raise DataError(
                    f"{path}, line {number}: a map of {_size(found[-1][0])} cells after one of "
                    f"{_size(found[0][0])}; one dataset has one size. Split the file by maps."
                )
    if not found:
        raise DataError(f"{path} holds no scenario.")
    free = np.stack([f for f, _, _ in found])
    start, goal = (np.array([row[i] for row in found], np.int64) for i in (1, 2))
    try:
        return records.make(free, goal, start)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _scenario(
    path: Path, number: int, line: str, known: dict[str, Bools]
) -> tuple[Bools, tuple[int, int], tuple[int, int]]:
    fields = line.split("\t") if "\t" in line else line.split()
    where = f"{path}, line {number}"
    if len(fields) != 9:
        raise DataError(f"{where} has {len(fields)} fields; nine were expected.")
    if not all(re.fullmatch(r"[0-9]{1,6}", f) for f in fields[2:8]):
        raise DataError(f"{where}: sizes and places are whole numbers; found {_short(line)}.")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", fields[8].strip()):
        raise DataError(f"{where}: the length {_short(fields[8])} is no number.")
    width, height, *places = (int(f) for f in fields[2:8])
    if fields[1] not in known:
        known[fields[1]] = read_map(_beside(path, number, fields[1]))
    free = known[fields[1]]
    if free.shape != (height, width):
        raise DataError(
            f"{where} says {height} x {width} cells, but {fields[1]} has {_size(free)}; maps are "
            "not scaled."
        )
    start, goal = (places[1], places[0]), (places[3], places[2])  # x is the column
    for name, cell in (("start", start), ("goal", goal)):
        if cell[0] >= height or cell[1] >= width or not free[cell]:
            raise DataError(f"{where}: the {name} at row {cell[0]}, column {cell[1]} is not free.")
    return free, start, goal


def _beside(path: Path, number: int, name: str) -> Path:
    """Return the map that a scenario names, below or in the scenario's own folder only."""
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or "\\" in name or "\0" in name:
        raise DataError(f"{path}, line {number}: the map {_short(name)} lies outside its folder.")
    for found in (path.parent / inner, path.parent / inner.name):
        if found.is_file():
            return found
    raise DataError(f"{path}, line {number}: there is no map {_short(name)} beside the file.")


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than {_MOST_BYTES:,} bytes.")
        return path.read_bytes().decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text file: byte {error.start} is no character.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None


def _line(path: Path, lines: list[str], number: int) -> str:
    if number >= len(lines):
        raise DataError(f"{path} ends after {len(lines)} lines.")
    return lines[number].strip()


def _limit(path: Path, rows: int, free: Bools) -> None:
    if rows * free.size > _MOST_CELLS:
        raise DataError(
            f"{path} has over {_MOST_CELLS // free.size:,} cases on {_size(free)} cells, more than "
            "fits in memory. Split the file."
        )


def _size(free: Bools) -> str:
    return f"{free.shape[0]} x {free.shape[1]}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


# ---------------------------------------------------------------- writing


def write_map(arrays: Arrays, path: Path) -> None:
    """Write the one map of the data as a `.map` file; OutputError where there are several."""
    free = np.unique(records.read(arrays).free, axis=0)
    if len(free) != 1:
        raise OutputError(
            f"The data has {len(free)} maps, and a .map file holds one; --format scen writes a "
            "scenario file with its maps beside it."
        )
    path.write_text(_text(free[0]), encoding="ascii")


def write_scenarios(arrays: Arrays, path: Path) -> None:
    """Write a `.scen` file of all rows, and each different map beside it as NAME-0000.map, ...

    The last field is the octile distance that the format asks for: diagonal steps cost sqrt(2)
    and cut no corners.
    """
    found = records.read(arrays)
    free, which = np.unique(found.free, axis=0, return_inverse=True)
    which = which.reshape(-1)
    height, width = free.shape[1:]
    names = [f"{path.stem}-{i:04d}.map" for i in range(len(free))]
    lines = ["version 1"]
    lengths = dict(_octile(free, which, found.start, found.goal))
    for row, i in enumerate(which):
        start, goal = found.start[row], found.goal[row]
        bucket = int(lengths[row]) // 4
        places = "\t".join(str(int(n)) for n in (start[1], start[0], goal[1], goal[0]))
        lines.append(f"{bucket}\t{names[i]}\t{width}\t{height}\t{places}\t{lengths[row]:.8f}")
    for name, one in zip(names, free, strict=True):
        (path.parent / name).write_text(_text(one), encoding="ascii")
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _text(free: Bools) -> str:
    rows = "\n".join("".join("." if cell else "@" for cell in row) for row in free)
    return f"type octile\nheight {free.shape[0]}\nwidth {free.shape[1]}\nmap\n{rows}\n"


def _octile(free: Bools, which: Ints, start: Ints, goal: Ints) -> Iterator[tuple[int, float]]:
    """Yield each row and the length of its shortest way with diagonal steps."""
    width = free.shape[2]
    for i, one in enumerate(free):
        graph = _graph(one)
        rows = np.flatnonzero(which == i)
        for some in np.array_split(rows, -(-len(rows) // _AT_ONCE)):
            goals, place = np.unique(goal[some, 0] * width + goal[some, 1], return_inverse=True)
            length = dijkstra(graph, directed=False, indices=goals)
            at = start[some, 0] * width + start[some, 1]
            yield from zip(some.tolist(), length[place.reshape(-1), at].tolist(), strict=True)


def _graph(free: Bools) -> csr_array:
    """Return the ways of one map (H, W) with their lengths, diagonal ones where both sides are."""
    cell = np.arange(free.size).reshape(free.shape)
    wide, high = free[:, :-1] & free[:, 1:], free[:-1] & free[1:]
    both = wide[:-1] & wide[1:]  # four free cells in a square: no corner is cut
    begin = [cell[:, :-1][wide], cell[:-1][high], cell[:-1, :-1][both], cell[:-1, 1:][both]]
    end = [cell[:, 1:][wide], cell[1:][high], cell[1:, 1:][both], cell[1:, :-1][both]]
    length = [np.full(len(b), d) for b, d in zip(begin, (1, 1, 2**0.5, 2**0.5), strict=True)]
    ways = (np.concatenate(length), (np.concatenate(begin), np.concatenate(end)))
    return csr_array(ways, shape=(free.size, free.size))
