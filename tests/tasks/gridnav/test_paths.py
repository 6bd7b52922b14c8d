"""Distances, optimal moves and single labels against searches that are plain to see."""

from __future__ import annotations

import numpy as np
import pytest

from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import astar, mazes, paths

from .drawn import STAY, STEPS, UNKNOWN, a_star, breadth_first, drawn, random_maps

SIZES = [(40, 8, 8, 0.2), (10, 30, 30, 0.4), (20, 12, 7, 0.35), (5, 1, 20, 0.1), (5, 20, 1, 0.0)]


def test_distances_of_a_map_on_paper() -> None:
    # goal G at (0, 0); the wall in the middle makes the way from (0, 2) go round by row 2
    #   G # 6      G # 6
    #   1 # 5
    #   2 3 4      and (2, 3) behind a wall has no way
    free = drawn(".#.#", ".#.#", "...#", "####")
    found = paths.distances(free, np.array([[0, 0]]))
    assert found[0].tolist() == [[0, -1, 6, -1], [1, -1, 5, -1], [2, 3, 4, -1], [-1, -1, -1, -1]]
    assert found.dtype == np.int32


def test_optimal_moves_of_a_map_on_paper() -> None:
    # On 2 x 3 free cells with the goal at (0, 0): LEFT along the top row (4), UP (1) below the
    # goal, and UP or LEFT (1 + 4 = 5) elsewhere; STAY (16) at the goal.
    free = drawn("...", "...")
    moves = paths.optimal_moves(paths.distances(free, np.array([[0, 0]])))
    assert moves[0].tolist() == [[16, 4, 4], [1, 5, 5]]
    assert moves.dtype == np.uint8


@pytest.mark.parametrize(("count", "height", "width", "density"), SIZES)
def test_distances_are_those_of_breadth_first_search(
    count: int, height: int, width: int, density: float
) -> None:
    free, goal = random_maps(count, height, width, density)
    expected = [breadth_first(f, tuple(g)) for f, g in zip(free, goal, strict=True)]
    assert (paths.distances(free, goal) == np.stack(expected)).all()


def test_distances_over_a_thousand_are_exact() -> None:
    free = mazes.draw(3, 80, 80, np.random.default_rng(0))
    goal = np.stack([np.argwhere(f)[0] for f in free])
    found = paths.distances(free, goal)
    longest = int(found.max((1, 2)).argmax())
    assert found[longest].max() > 1_000
    assert (found[longest] == breadth_first(free[longest], tuple(goal[longest]))).all()


def test_an_optimal_move_leads_one_step_nearer_and_no_other_does() -> None:
    free, goal = random_maps(60, 9, 9, 0.3)
    distance = paths.distances(free, goal)
    moves = paths.optimal_moves(distance)
    padded = np.pad(distance, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    for move, (down, right) in enumerate(STEPS):
        there = padded[:, 1 + down : 10 + down, 1 + right : 10 + right]
        nearer = (there >= 0) & (distance > 0) & (there == distance - 1)
        assert ((moves >> move & 1 == 1) == nearer).all()
    assert ((moves == 16) == (distance == 0)).all()
    assert ((moves == 0) == (distance < 0)).all()


@pytest.mark.parametrize(
    ("count", "height", "width", "density"), [(25, 8, 8, 0.2), (8, 9, 6, 0.35), (2, 16, 16, 0.05)]
)
def test_single_labels_are_those_of_a_plain_a_star(
    count: int, height: int, width: int, density: float
) -> None:
    free, goal = random_maps(count, height, width, density)
    found = paths.first_labels(free, goal)
    for i, one in enumerate(free):
        target = tuple(goal[i])
        for cell in np.ndindex(height, width):
            way = a_star(one, cell, target) if one[cell] and one[target] else None
            expected = UNKNOWN if way is None else way[0] if way else STAY
            assert found[i][cell] == expected, (i, cell)


def test_states_searched_alone_have_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    free, goal = random_maps(30, 11, 9, 0.15)
    together = paths.first_labels(free, goal)
    monkeypatch.setattr(astar, "_LARGE", 0)
    assert (paths.first_labels(free, goal) == together).all()


def test_labels_of_a_large_map_are_those_of_a_plain_a_star() -> None:
    free, goal = random_maps(1, 30, 30, 0.25, seed=2)
    found = paths.first_labels(free, goal)[0]
    target = tuple(goal[0])
    for cell in [tuple(c) for c in np.argwhere(found < STAY)[::9]]:
        way = a_star(free[0], cell, target)
        assert way is not None
        assert found[cell] == way[0]


def test_single_labels_are_those_of_the_library_that_the_original_used() -> None:
    networkx = pytest.importorskip("networkx")
    free, goal = random_maps(6, 8, 8, 0.2, seed=4)
    free[np.arange(6), goal[:, 0], goal[:, 1]] = True
    found = paths.first_labels(free, goal)
    several = 0
    for i, one in enumerate(free):
        graph = networkx.grid_2d_graph(8, 8)
        graph.remove_nodes_from([tuple(c) for c in np.argwhere(~one)])
        target = tuple(goal[i].tolist())
        for cell in networkx.node_connected_component(graph, target) - {target}:
            way = networkx.astar_path(
                graph, cell, target, lambda a, b: abs(a[0] - b[0]) + abs(a[1] - b[1])
            )
            step = (way[1][0] - cell[0], way[1][1] - cell[1])
            assert found[i][cell] == STEPS.index(step), (i, cell)
            several += 1
    assert several > 200


def test_a_walk_follows_the_moves_until_the_goal() -> None:
    moves = np.array([[[3, 3, 1], [5, 5, 4]]])  # RIGHT RIGHT DOWN, then STAY at the goal
    cells, steps = paths.walk(moves, np.array([[0, 0]]), np.array([[1, 2]]), 9)
    assert cells[0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 2]]
    assert steps.tolist() == [3]


def test_a_walk_that_goes_to_and_fro_never_arrives() -> None:
    moves = np.array([[[3, 2, 4]]])
    cells, steps = paths.walk(moves, np.array([[0, 0]]), np.array([[0, 2]]), 5)
    assert cells[0, :, 1].tolist() == [0, 1, 0, 1, 0, 1]
    assert steps.tolist() == [-1]


@pytest.mark.parametrize(
    ("free", "goal", "said"),
    [
        (np.ones((4, 4)), [[0, 0]], r"shape \(4, 4\); \(maps, rows, columns\) was expected"),
        (np.ones((1, 4, 4)), [[0, 4]], r"Cell \(0, 4\) of map 0 lies outside its 4 x 4 cells"),
        (np.ones((2, 4, 4)), [[0, 0]], r"shape \(1, 2\); \(2, 2\) was expected"),
    ],
)
def test_wrong_shapes_are_named(free: np.ndarray, goal: list[list[int]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        paths.distances(free, np.array(goal))


def test_no_maps_have_no_distances() -> None:
    empty = np.ones((0, 3, 3), bool)
    assert paths.distances(empty, np.zeros((0, 2), int)).shape == (0, 3, 3)
