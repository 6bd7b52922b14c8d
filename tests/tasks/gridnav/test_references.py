"""Oracle and baselines: the best, one that looks a step ahead, and one that does not look."""

from __future__ import annotations

import numpy as np
import pytest

from ganglion.core.contracts import Policy
from ganglion.tasks.gridnav import maps, paths, references

from .drawn import drawn

ALL = references.references()


def answer(policy: Policy, free: np.ndarray, goal: np.ndarray, noise: float = 0.5) -> np.ndarray:
    given = dict(references.inputs(free, goal))
    if "noise" in policy.signature.inputs:
        given["noise"] = np.full(free.shape, noise, np.float32)
    return np.asarray(policy.act(given)["moves"])


@pytest.mark.parametrize("name", ALL)
def test_no_reference_walks_into_a_wall_and_all_stay_at_the_goal(name: str) -> None:
    cases = maps.draw_cases("density", 60, 8, 9, np.random.default_rng(0), density=0.4)
    moves = answer(ALL[name], cases.free, cases.goal, noise=1.0)
    assert moves.dtype == np.int64
    assert ((moves == 4) == (cases.distance == 0)).all()
    assert (moves[~cases.free] == 5).all()
    for move, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
        i, row, column = np.nonzero(moves == move)
        assert cases.free[i, row + down, column + right].all()


def test_the_oracle_takes_a_shortest_path_from_everywhere() -> None:
    cases = maps.draw_cases("mixed", 50, 12, 12, np.random.default_rng(0))
    moves = answer(ALL["oracle"], cases.free, cases.goal)
    assert ((moves == 5) == (cases.distance < 0)).all()
    steps = paths.walk(moves, cases.start, cases.goal, 200)[1]
    rows = np.arange(50)
    assert (steps == cases.distance[rows, cases.start[:, 0], cases.start[:, 1]]).all()


def test_greedy_goes_straight_and_gets_caught_in_front_of_a_wall() -> None:
    #  . . .      in the open straight up; under the wall at (1, 0) it goes aside, RIGHT, and
    #  # # .      from there back LEFT or on: (2, 1) has (2, 0) and (2, 2) at 3 and 3 cells
    #  . . .      from the goal (0, 1), of which the first is LEFT. So it goes to and fro.
    free = drawn("...", "##.", "...")
    moves = answer(ALL["greedy"], free, np.array([[0, 1]]))[0]
    assert moves.tolist() == [[3, 4, 2], [5, 5, 0], [3, 2, 0]]


def test_random_is_fair_among_free_neighbours() -> None:
    free = np.repeat(drawn("...", "...", "..."), 4_000, 0)
    goal = np.zeros((4_000, 2), np.int64)
    given = dict(references.inputs(free, goal))
    given["noise"] = np.random.default_rng(0).random(free.shape, np.float32)
    moves = np.asarray(ALL["random"].act(given)["moves"])
    assert np.bincount(moves[:, 1, 1], minlength=4) / 4_000 == pytest.approx(0.25, abs=0.03)
    assert set(moves[:, 2, 2].tolist()) == {0, 2}  # the corner: UP and LEFT


def test_walled_in_cells_are_unknown() -> None:
    free = drawn(".#.", "##.", "...")
    for policy in ALL.values():
        assert answer(policy, free, np.array([[2, 2]]))[0, 0, 0] == 5


def test_inputs_come_back_as_they_were() -> None:
    cases = maps.draw_cases("density", 5, 6, 7, np.random.default_rng(0))
    free, goal = references.read(references.inputs(cases.free, cases.goal))
    assert (free == cases.free).all()
    assert (goal == cases.goal).all()
