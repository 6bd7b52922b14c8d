"""Generators: what each kind promises, and that the stream alone decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.gridnav import maps, mazes, paths

from .drawn import STEPS, drawn


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def connected(free: np.ndarray) -> np.ndarray:
    """Whether all free cells of each map (B, H, W) hang together."""
    goal = np.stack([np.argwhere(f)[0] for f in free])
    return ((paths.distances(free, goal) >= 0) == free).all((1, 2))


def ways(free: np.ndarray) -> np.ndarray:
    """The number of pairs of free cells side by side in each map, (B,)."""
    return (free[:, 1:] & free[:, :-1]).sum((1, 2)) + (free[..., 1:] & free[..., :-1]).sum((1, 2))


@pytest.mark.parametrize("kind", maps.KINDS)
def test_equal_streams_give_equal_maps_and_others_do_not(kind: maps.Kind) -> None:
    size = 30 if kind == "hard" else 10
    first, again, other = (maps.draw_cases(kind, 6, size, size, stream(s)) for s in (1, 1, 2))
    for name in ("free", "goal", "start", "distance"):
        assert (getattr(first, name) == getattr(again, name)).all()
    assert (first.free != other.free).any()


@pytest.mark.parametrize("kind", ["density", "rooms", "maze", "mixed"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 14), (2, 3)])
def test_starts_have_a_way_to_another_cell(kind: maps.Kind, height: int, width: int) -> None:
    found = maps.draw_cases(kind, 50, height, width, stream())
    rows = np.arange(50)
    assert found.free.shape == (50, height, width)
    assert (found.distance == paths.distances(found.free, found.goal)).all()
    assert (found.distance[rows, found.goal[:, 0], found.goal[:, 1]] == 0).all()
    assert (found.distance[rows, found.start[:, 0], found.start[:, 1]] > 0).all()


def test_density_is_a_number_or_one_of_each_map() -> None:
    assert maps.draw("density", 200, 20, 20, stream(), density=0.3).mean() == pytest.approx(
        0.7, abs=0.01
    )
    each = maps.draw("density", 2, 100, 100, stream(), density=np.array([0.1, 0.5]))
    assert each.mean((1, 2)) == pytest.approx([0.9, 0.5], abs=0.03)


def test_goals_and_starts_are_uniform() -> None:
    free = np.repeat(drawn(".#.", "#..", "..."), 30_000, 0)
    goal = maps.draw_goals(free, stream())
    share = np.bincount(goal[:, 0] * 3 + goal[:, 1], minlength=9) / len(goal)
    # (0, 0) is free too, though nothing leads there: 7 free cells, each 1 / 7
    assert share[[1, 3]].tolist() == [0.0, 0.0]
    assert share[[0, 2, 4, 5, 6, 7, 8]] == pytest.approx(1 / 7, abs=0.01)
    distance = paths.distances(free, np.full((len(free), 2), 2))
    start = maps.draw_starts(distance, stream(1))
    share = np.bincount(start[:, 0] * 3 + start[:, 1], minlength=9) / len(start)
    assert share[[0, 8]].tolist() == [0.0, 0.0]  # cut off; the goal itself
    assert share[[2, 4, 5, 6, 7]] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 8), (15, 10), (1, 7), (3, 1)])
def test_a_perfect_maze_is_a_tree_over_all_nodes(height: int, width: int) -> None:
    free = mazes.draw(40, height, width, stream())
    nodes = ((height + 1) // 2) * ((width + 1) // 2)
    assert (free.sum((1, 2)) == 2 * nodes - 1).all()  # nodes and one passage less
    assert connected(free).all()
    assert (ways(free) == free.sum((1, 2)) - 1).all()  # connected without a circle


def test_an_even_side_leaves_a_wall_at_one_end_by_chance() -> None:
    free = mazes.draw(400, 6, 5, stream())
    top, bottom = ~free[:, 0].any(1), ~free[:, -1].any(1)
    assert (top ^ bottom).all()
    assert top.mean() == pytest.approx(0.5, abs=0.1)


def every_search(side: int) -> dict[bytes, float]:
    """Every maze that a depth-first search can carve on side x side nodes, with its chance."""
    found: dict[bytes, float] = {}

    def go(stack: tuple[tuple[int, int], ...], seen: frozenset[tuple[int, int]],
           ways: frozenset[tuple[int, int]], chance: float) -> None:  # fmt: skip
        if not stack:
            free = np.zeros((2 * side - 1, 2 * side - 1), bool)
            free[::2, ::2] = True
            for cell in ways:
                free[cell] = True
            found[free.tobytes()] = found.get(free.tobytes(), 0.0) + chance
            return
        row, column = stack[-1]
        fresh = [(row + r, column + c) for r, c in STEPS
                 if 0 <= row + r < side and 0 <= column + c < side
                 and (row + r, column + c) not in seen]  # fmt: skip
        if not fresh:
            go(stack[:-1], seen, ways, chance)
        for there in fresh:
            between = (row + there[0], column + there[1])  # in cells: the mean of 2 x both
            go((*stack, there), seen | {there}, ways | {between}, chance / len(fresh))

    for cell in np.ndindex(side, side):
        go((cell,), frozenset([cell]), frozenset(), 1 / side**2)
    return found


def test_mazes_are_as_likely_as_a_plain_depth_first_search_makes_them() -> None:
    expected = every_search(3)
    drawn_ones = mazes.draw(40_000, 5, 5, stream())
    mazes_found, counts = np.unique(drawn_ones.reshape(-1, 25), axis=0, return_counts=True)
    share = {m.tobytes(): n / 40_000 for m, n in zip(mazes_found, counts, strict=True)}
    assert set(share) == set(expected)
    off = max(abs(share[m] - p) / np.sqrt(p / 40_000) for m, p in expected.items())
    assert off < 4.5  # standard deviations, of about a hundred mazes


def test_braiding_opens_dead_ends() -> None:
    def dead_ends(free: np.ndarray) -> np.ndarray:
        padded = np.pad(free, ((0, 0), (1, 1), (1, 1))).astype(int)
        beside = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:]
        return ((beside + padded[:, 1:-1, :-2] == 1) & free).sum((1, 2))

    perfect, half, none = (
        dead_ends(mazes.draw(200, 15, 15, stream(), braid=b)).mean() for b in (0.0, 0.5, 1.0)
    )
    assert none == 0.0
    assert 0.4 * perfect < half < 0.6 * perfect
    assert connected(mazes.draw(20, 15, 15, stream(), braid=1.0)).all()


def test_openings_are_a_share_of_the_walls_of_each_maze() -> None:
    share = np.repeat([0.0, 0.25, 1.0], 200)
    free = mazes.draw(600, 11, 11, stream(), openings=share).reshape(3, 200, -1).sum(2).mean(1)
    # 6 x 6 nodes have 60 ways between them, of which a tree leaves 25 shut
    assert free == pytest.approx([71.0, 71 + 0.25 * 25, 71.0 + 25], abs=0.5)


def test_rooms_hang_together() -> None:
    free = mazes.draw_rooms(60, 20, 31, stream(), sides=(3, 5), doors=0.0)
    assert connected(free).all()
    assert len(np.unique(free, axis=0)) == 60


@pytest.mark.parametrize(("doors", "expected"), [(0.0, 8), (1.0, 12)])
def test_rooms_of_one_size_are_where_they_must_be(doors: float, expected: int) -> None:
    free = mazes.draw_rooms(50, 11, 11, stream(), sides=(3, 3), doors=doors)
    wall = np.isin(np.arange(11), (3, 7))
    walls = wall[:, None] | wall
    assert free[:, ~walls].all()  # nine rooms of 3 x 3
    assert not free[:, wall[:, None] & wall].any()  # no door where walls cross
    # A tree over nine rooms has eight doors; all pairs of neighbours have twelve.
    assert (free[:, walls].sum(1) == expected).all()


@pytest.mark.parametrize("variant", maps.VARIANTS)
def test_hard_maps_have_long_ways_from_every_start(variant: maps.Variant) -> None:
    found = maps.draw_hard(8, stream(), variants=(variant,))
    rows = np.arange(8)
    assert found.free.shape == (8, 30, 30)
    assert (found.distance[rows, found.start[:, 0], found.start[:, 1]] > 110).all()
    assert (found.distance == paths.distances(found.free, found.goal)).all()


def test_hard_maps_are_of_their_kinds_in_turn() -> None:
    free = maps.draw("hard", 9, 30, 30, stream())
    assert (free[0::3].sum((1, 2)) == 2 * 225 - 1).all()  # perfect
    assert (free[1::3].sum((1, 2)) > 449).all()  # braided
    assert (free[2::3].sum((1, 2)) > 500).all()  # walls


def test_the_goal_of_a_hard_map_is_the_far_end() -> None:
    found = maps.draw_hard(5, stream(), variants=("perfect",))
    # In a tree a double sweep finds a longest way there is: no cell is farther from any other.
    longest = [
        max(paths.distances(f[None], np.array([c])).max() for c in np.argwhere(f)[::7])
        for f in found.free
    ]
    assert (found.distance.max((1, 2)) >= longest).all()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("mace", {}, r"Unknown kind of map 'mace'. Did you mean 'maze'\?"),
        ("density", {"density": 1.0}, "In 100 draws no map of kind density, 4 x 4, had two free"),
        ("hard", {}, r"maps of kind perfect, 4 x 4, 0 had a shortest path over 110. Choose a larg"),
    ],
)
def test_maps_that_cannot_be_drawn_are_refused(
    kind: Any, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "_HARD_TRIES", 200)
    with pytest.raises(SettingsError, match=said):
        maps.draw(kind, 3, 4, 4, stream(), **options)


def test_a_map_without_a_start_is_named() -> None:
    distance = np.full((2, 3, 3), -1, np.int32)
    distance[:, 0, 0] = 0
    distance[0, 0, 1] = 1
    with pytest.raises(DataError, match="Map 1 has no start farther than 0 from its goal"):
        maps.draw_starts(distance, stream())
