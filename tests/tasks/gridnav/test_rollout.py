"""What becomes of a robot at every cell: by hand, and against walks step by step."""

from __future__ import annotations

import numpy as np

from ganglion.tasks.gridnav import maps, paths, rollout

from .drawn import drawn

U, D, L, R, S, N = range(6)


def test_arrivals_collisions_and_loops_by_hand() -> None:
    free = drawn("....", ".#..")
    # goal at the top right; the second row's first cell walks into the wall, its third and fourth
    # go to and fro, the first cell of the first row goes right three times
    moves = np.array([[[R, R, R, S], [R, N, R, L]]])
    found = rollout.follow(moves, free, np.array([[0, 3]]))
    assert found.arrived[0].tolist() == [[True] * 4, [False] * 4]
    assert found.moves[0].tolist() == [[3, 2, 1, 0], [0, 0, 0, 0]]
    assert found.collided[0].tolist() == [[False] * 4, [True, False, False, False]]


def test_leaving_the_map_is_a_collision_and_standing_still_a_loop() -> None:
    free = drawn("...")
    for move, collides in ((U, True), (D, True), (L, True), (S, False), (N, False)):
        found = rollout.follow(np.array([[[move, L, S]]]), free, np.array([[0, 2]]))
        assert found.collided[0, 0].tolist() == [collides, collides, False]
        assert found.arrived[0, 0].tolist() == [False, False, True]


def test_what_the_policy_says_at_the_goal_does_not_matter_for_arriving() -> None:
    found = rollout.follow(np.array([[[R, L]]]), drawn(".."), np.array([[0, 1]]))
    assert found.arrived.all()
    assert found.moves[0].tolist() == [[1, 0]]


def test_every_start_ends_as_a_walk_step_by_step_does() -> None:
    rng = np.random.default_rng(0)
    cases = maps.draw_cases("mixed", 40, 7, 9, rng)
    best = paths.optimal_moves(cases.distance)
    moves = np.where(rng.random(best.shape) < 0.05, rng.integers(0, 6, best.shape), 5)
    some = np.log2(np.maximum(best & -best, 1)).astype(np.int64)
    moves = np.where((moves == 5) & (best > 0), some, moves)
    found = rollout.follow(moves, cases.free, cases.goal)
    for i, row, column in zip(*np.nonzero(cases.free), strict=True):
        cell, count, hit = (int(row), int(column)), 0, False
        while cell != tuple(cases.goal[i]) and count <= 63 and not hit:
            down, right = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0), (0, 0))[moves[i][cell]]
            cell, count = (cell[0] + down, cell[1] + right), count + 1
            hit = not (0 <= cell[0] < 7 and 0 <= cell[1] < 9) or not cases.free[i][cell]
        arrives = not hit and cell == tuple(cases.goal[i])
        assert found.arrived[i, row, column] == arrives
        assert found.collided[i, row, column] == hit
        assert found.moves[i, row, column] == (count if arrives else 0)
