"""The eight symmetries: a group, and what is optimal stays optimal."""

from __future__ import annotations

import numpy as np
import pytest

from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import paths, symmetry

from .drawn import random_maps

UP, DOWN, LEFT, RIGHT, STAY, UNKNOWN = range(6)
EIGHT = range(8)


def test_a_quarter_turn_clockwise_on_paper() -> None:
    # 1 2 3      4 1      the robot that went UP goes RIGHT now, and so on
    # 4 5 6  ->  5 2
    #            6 3
    grid = np.array([[[1, 2, 3], [4, 5, 6]]])
    assert symmetry.turn(1, grid)[0].tolist() == [[4, 1], [5, 2], [6, 3]]
    moved = {UP: RIGHT, DOWN: LEFT, LEFT: UP, RIGHT: DOWN, STAY: STAY, UNKNOWN: UNKNOWN}
    assert dict(enumerate(symmetry.MOVES[1].tolist())) == moved
    assert symmetry.SETS[1, 0b00101] == 0b01001  # {UP, LEFT} -> {RIGHT, UP}: 8 + 1


def test_a_mirroring_swaps_left_and_right_alone() -> None:
    assert symmetry.turn(4, np.array([[[1, 2, 3]]]))[0].tolist() == [[3, 2, 1]]
    assert symmetry.MOVES[4].tolist() == [UP, DOWN, RIGHT, LEFT, STAY, UNKNOWN]


@pytest.mark.parametrize("k", EIGHT)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
def test_what_is_optimal_before_is_optimal_after(k: int, height: int, width: int) -> None:
    free, goal = random_maps(20, height, width, 0.25)
    masks = paths.optimal_moves(paths.distances(free, goal))
    turned, target, moves = symmetry.transform(k, free, goal, masks)
    assert turned.shape[1:] == ((width, height) if k % 2 else (height, width))
    assert (paths.optimal_moves(paths.distances(turned, target)) == moves).all()


@pytest.mark.parametrize("k", EIGHT)
def test_cells_go_where_the_map_goes(k: int) -> None:
    grid = np.arange(20).reshape(4, 5)
    cells = np.argwhere(grid >= 0)
    there = symmetry.cells(k, cells, 4, 5)
    assert symmetry.turn(k, grid)[there[:, 0], there[:, 1]].tolist() == grid.ravel().tolist()


def test_they_are_a_group() -> None:
    grid = np.arange(9).reshape(3, 3)
    images = [symmetry.turn(k, grid).tolist() for k in EIGHT]
    assert len({str(i) for i in images}) == 8
    for first in EIGHT:
        back = symmetry.inverse(first)
        assert symmetry.compose(first, back) == symmetry.compose(back, first) == 0
        for second in EIGHT:
            both = symmetry.compose(first, second)
            assert symmetry.turn(second, symmetry.turn(first, grid)).tolist() == images[both]
            assert (symmetry.MOVES[both] == symmetry.MOVES[second][symmetry.MOVES[first]]).all()
            assert (symmetry.SETS[both] == symmetry.SETS[second][symmetry.SETS[first]]).all()


def test_there_is_no_ninth() -> None:
    with pytest.raises(DataError, match="There is no symmetry 8; there are 8, 0 to 7"):
        symmetry.turn(8, np.zeros((2, 2)))
