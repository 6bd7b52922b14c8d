"""Where maps, goals and starts come from: every kind, many at once, by the stream alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError, SettingsError, unknown
from ganglion.tasks.gridnav import mazes, paths
from ganglion.tasks.gridnav.grids import STAY, STEPS, Bools, Distances, Ints

Kind = Literal["density", "rooms", "maze", "mixed", "hard"]
Variant = Literal["perfect", "braided", "walls"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)  # of hard maps

_TRIES = 100  # for one map, as in the original
_HARD_TRIES = 20_000
_AT_ONCE = 512  # candidates for hard maps drawn together
_MIX = (0.4, 0.6, 0.85)  # where `mixed` turns from walls to perfect, braided and loosened mazes


@dataclass(frozen=True)
class Cases:
    """Maps with a goal each, to which at least one other cell has a way, and such a start.

    free (B, H, W), goal and start (B, 2), distance (B, H, W) to the goal.
    """

    free: Bools
    goal: Ints
    start: Ints
    distance: Distances


def draw(
    kind: Kind, count: int, height: int, width: int, rng: np.random.Generator, **options: Any
) -> Bools:
    """Draw `count` maps, (count, height, width) bool, True where free; at least two cells are.

    density: each cell is a wall with probability `density` (0.2; a number or (count,)).
    rooms: `mazes.draw_rooms`, with `sides` and `doors`.
    maze: `mazes.draw`, with `braid` and `openings` (0; numbers or (count,)).
    mixed: what training draws: 0.4 walls of density U(.1, .5), 0.2 perfect mazes, 0.25 braided
    with U(0, 1), 0.15 with openings U(0, .2).
    hard: the maps of `draw_hard`, with `variants` and `over`.
    SettingsError for an unknown kind, or where a hundred draws give no such map.
    """
    if kind == "hard":
        return draw_hard(count, rng, height, width, **options).free
    free = np.zeros((count, height, width), bool)

    def fill(rows: Ints) -> Bools:
        free[rows] = _make(kind, rows, free.shape, rng, options)
        return np.asarray(free[rows].sum((1, 2)) >= 2)

    _until_fine(fill, count, f"map of kind {kind}, {height} x {width}, had two free cells")
    return free


def draw_cases(
    kind: Kind, count: int, height: int, width: int, rng: np.random.Generator, **options: Any
) -> Cases:
    """Draw maps as `draw` does, with goals and starts; see there for kinds and options.

    The goal is uniform among the free cells, the start among those that have a way to it; a map
    whose goal is cut off is drawn again, a hundred times at most (SettingsError). For `hard` both
    are those of `draw_hard`.
    """
    if kind == "hard":
        return draw_hard(count, rng, height, width, **options)
    found = _blank(count, height, width)

    def fill(rows: Ints) -> Bools:
        free = draw(kind, len(rows), height, width, rng, **_of(rows, options, count))
        goal = draw_goals(free, rng)
        distance = paths.distances(free, goal)
        found.free[rows], found.goal[rows], found.distance[rows] = free, goal, distance
        return np.asarray((distance > 0).any((1, 2)))

    _until_fine(fill, count, f"goal in a map of kind {kind}, {height} x {width}, had a way to it")
    found.start[...] = draw_starts(found.distance, rng)
    return found


def draw_goals(free: Bools, rng: np.random.Generator) -> Ints:
    """Return a goal per map, (B, 2), uniform among its free cells; DataError where none is."""
    return _pick(free, rng, "free cell for the goal")


def pockets(free: Bools) -> Bools:
    """Say which free cells (B, H, W) have exactly one free neighbour."""
    height, width = free.shape[1:]
    padded = np.pad(free, ((0, 0), (1, 1), (1, 1))).astype(np.int8)
    beside = sum(
        padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        for down, right in STEPS[:STAY]
    )
    return np.asarray(free & (beside == 1))


def draw_starts(distance: Distances, rng: np.random.Generator, over: int = 0) -> Ints:
    """Return a start per map, (B, 2), uniform among the cells farther than `over` from the goal.

    That is: other than the goal, and with a way to it. DataError where there is none.
    """
    return _pick(distance > over, rng, f"start farther than {over} from its goal")


def draw_hard(
    count: int, rng: np.random.Generator, height: int = 30, width: int = 30,
    variants: Sequence[Variant] = VARIANTS, over: int = 110,
) -> Cases:  # fmt: skip
    """Draw maps in which the way is long: from every start it is longer than `over`.

    Row i is of variants[i % len(variants)]: perfect mazes, mazes braided with U(.1, .6), or walls
    of density U(.3, .5). The goal is the far end of a double sweep: the cell farthest from the
    cell that is farthest from a free cell drawn. The start is uniform among those farther than
    `over`. SettingsError where such maps are not found: the size is too small for them.
    """
    found = _blank(count, height, width)
    for index, variant in enumerate(variants):
        rows = np.arange(index, count, len(variants))
        free, goal, distance = _long(variant, (len(rows), height, width), rng, over)
        found.free[rows], found.goal[rows], found.distance[rows] = free, goal, distance
    found.start[...] = draw_starts(found.distance, rng, over)
    return found


def _blank(count: int, height: int, width: int) -> Cases:
    shape, cells = (count, height, width), (count, 2)
    return Cases(
        np.zeros(shape, bool), np.zeros(cells, np.int64), np.zeros(cells, np.int64),
        np.zeros(shape, np.int32),
    )  # fmt: skip


def _long(
    variant: Variant, shape: tuple[int, int, int], rng: np.random.Generator, over: int
) -> tuple[Bools, Ints, Distances]:
    count, tried, kept = shape[0], 0, 0
    parts = [(np.zeros((0, *shape[1:]), bool), np.zeros((0, 2), np.int64))]
    while kept < count:
        if tried > _HARD_TRIES * max(1, kept):
            raise SettingsError(
                f"Of {tried:,} maps of kind {variant}, {shape[1]} x {shape[2]}, {kept} had a "
                f"shortest path over {over}. Choose a larger size or a smaller length."
            )
        likely = (kept + 1) / (tried + 1)
        number = min(_AT_ONCE, max(4, round((count - kept) / likely)))
        free = _candidates(variant, (number, *shape[1:]), rng)
        goal, length = _double_sweep(free, rng, over)
        fine = np.flatnonzero(length > over)[: count - kept]
        parts.append((free[fine], goal[fine]))
        kept, tried = kept + len(fine), tried + number
    free, goal = (np.concatenate(part) for part in zip(*parts, strict=True))
    return free, goal, paths.distances(free, goal)


def _candidates(variant: Variant, shape: tuple[int, int, int], rng: np.random.Generator) -> Bools:
    if variant == "walls":
        free = _density(shape, rng, rng.uniform(0.3, 0.5, shape[0]))
        return free[free.any((1, 2))]
    braid = rng.uniform(0.1, 0.6, shape[0]) if variant == "braided" else 0.0
    return mazes.draw(*shape, rng, braid=braid)


def _double_sweep(
    free: Bools, rng: np.random.Generator, over: int
) -> tuple[Ints, NDArray[np.int32]]:
    """Return the far end of a double sweep in each map, (B, 2), and how long its way is, (B,).

    The length is 0 where the first sweep already shows that no way in its part of the map is
    longer than `over`: none is longer than twice the way to the farthest cell.
    """
    goal, length = _farthest(free, draw_goals(free, rng))
    hopeful = np.flatnonzero(2 * length > over)
    length[:] = 0
    goal[hopeful], length[hopeful] = _farthest(free[hopeful], goal[hopeful])
    return goal, length


def _farthest(free: Bools, goal: Ints) -> tuple[Ints, NDArray[np.int32]]:
    """Return the cell farthest from each goal, (B, 2), and its distance, (B,)."""
    flat = paths.distances(free, goal).reshape(len(free), free.shape[1] * free.shape[2])
    cell = flat.argmax(1)
    return np.stack(np.divmod(cell, free.shape[2]), 1), flat[np.arange(len(free)), cell]


# ---------------------------------------------------------------- kinds


def _make(
    kind: str, rows: Ints, shape: tuple[int, ...], rng: np.random.Generator,
    options: Mapping[str, Any],
) -> Bools:  # fmt: skip
    known: dict[str, Callable[..., Bools]] = {
        "density": lambda n, h, w, rng, density=0.2: _density((n, h, w), rng, density),
        "rooms": mazes.draw_rooms,
        "maze": mazes.draw,
        "mixed": _mixed,
    }
    if kind not in known:
        raise SettingsError(unknown("kind of map", kind, KINDS))
    return known[kind](len(rows), *shape[1:], rng, **_of(rows, options, shape[0]))


def _of(rows: Ints, options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the options of some rows: what is given per map, (count,), is chosen from."""
    each = {k for k, v in options.items() if isinstance(v, np.ndarray) and v.shape == (count,)}
    return {k: v[rows] if k in each else v for k, v in options.items()}


def _density(
    shape: tuple[int, int, int], rng: np.random.Generator, density: float | NDArray[np.float64]
) -> Bools:
    """Walls one by one: each cell is one with probability `density`, a number or (B,)."""
    return rng.random(shape) >= np.asarray(density, np.float64).reshape(-1, 1, 1)


def _mixed(count: int, height: int, width: int, rng: np.random.Generator) -> Bools:
    part = np.searchsorted(_MIX, rng.random(count), side="right")
    free = np.zeros((count, height, width), bool)
    walls, rest = np.flatnonzero(part == 0), np.flatnonzero(part > 0)
    free[walls] = _density((len(walls), height, width), rng, rng.uniform(0.1, 0.5, len(walls)))
    braid = np.where(part[rest] == 2, rng.uniform(0.0, 1.0, len(rest)), 0.0)
    openings = np.where(part[rest] == 3, rng.uniform(0.0, 0.2, len(rest)), 0.0)
    free[rest] = mazes.draw(len(rest), height, width, rng, braid, openings)
    return free


def _until_fine(fill: Callable[[Ints], Bools], count: int, what: str) -> None:
    """Call `fill` with the rows that are still to be drawn until it finds all of them fine."""
    rows = np.arange(count)
    for _ in range(_TRIES):
        rows = rows[~fill(rows)]
        if not rows.size:
            return
    raise SettingsError(f"In {_TRIES} draws no {what}. Choose a lower density or a larger size.")


def _pick(cells: Bools, rng: np.random.Generator, what: str) -> Ints:
    """Return one of the True cells of each map, uniformly, (B, 2)."""
    number = cells.sum((1, 2))
    if not number.all():
        raise DataError(f"Map {int(np.argmin(number))} has no {what}.")
    before = np.cumsum(number) - number
    chosen = before + (rng.random(len(cells)) * number).astype(np.int64)
    flat = np.flatnonzero(cells)[chosen] % cells[0].size
    return np.stack(np.divmod(flat, cells.shape[2]), 1)
