"""Where the maps that policies learn from come from: fresh draws, or crops of a dataset's maps.

A source gives a block of maps and goals as a pure function of side and number, so that a training
goes on bit for bit from two counters. No torch. Shapes: B maps, S x S cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ganglion.core import seeds
from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import maps, packing, paths, symmetry
from ganglion.tasks.gridnav.grids import STAY, Bools, Distances, Ints

BLOCK = 512  # maps that are drawn at once


class Source(Protocol):
    """`block(side, number)` gives free (B, S, S) and goal (B, 2)."""

    def block(self, side: int, number: int) -> tuple[Bools, Ints]: ...


@dataclass(frozen=True)
class FreshMaps:
    """Maps of kind `mixed`, with goals uniform among the free cells.

    Those of the size that policies are judged on are kept to the training half of all maps. Of the
    share `pockets` of the maps, the goal is in a pocket where there is one: a cell with one free
    neighbour.
    """

    seed: int
    judged: tuple[int, int] | None = None  # size of the maps of validation and test
    pockets: float = 0.0

    def block(self, side: int, number: int) -> tuple[Bools, Ints]:
        rng = seeds.rng(self.seed, "maps", side, number)
        free = maps.draw("mixed", BLOCK, side, side, rng)
        while self.judged == (side, side):
            others = np.flatnonzero(~packing.belongs(free, "train"))
            if not others.size:
                break
            free[others] = maps.draw("mixed", len(others), side, side, rng)
        goal = maps.draw_goals(free, rng)
        if self.pockets:
            pocket = maps.pockets(free)
            chosen = np.flatnonzero(pocket.any((1, 2)) & (rng.random(BLOCK) < self.pockets))
            goal[chosen] = maps.draw_goals(pocket[chosen], rng)
        return free, goal


@dataclass(frozen=True)
class Crops:
    """Windows of the maps of a dataset, under a symmetry by chance, with new goals."""

    free: Bools  # (N, H, W)
    seed: int

    def block(self, side: int, number: int) -> tuple[Bools, Ints]:
        rng = seeds.rng(self.seed, "crops", side, number)
        height, width = self.free.shape[1:]
        if side > min(height, width):
            raise DataError(f"No window of {side} x {side} fits into maps of {height} x {width}.")
        free = np.zeros((BLOCK, side, side), bool)
        rows = np.arange(BLOCK)
        while rows.size:
            free[rows] = self._windows(len(rows), side, rng)
            rows = rows[free[rows].sum((1, 2)) < 2]
        turns = rng.integers(symmetry.COUNT, size=BLOCK)
        for k in range(symmetry.COUNT):
            free[turns == k] = symmetry.turn(k, free[turns == k])
        return free, maps.draw_goals(free, rng)

    def _windows(self, count: int, side: int, rng: np.random.Generator) -> Bools:
        height, width = self.free.shape[1:]
        which = rng.integers(len(self.free), size=(count, 1, 1))
        down = rng.integers(height - side + 1, size=(count, 1, 1)) + np.arange(side)[:, None]
        right = rng.integers(width - side + 1, size=(count, 1, 1)) + np.arange(side)
        return np.asarray(self.free[which, down, right])


def labelled(free: Bools, goal: Ints, single: bool) -> tuple[Distances, np.ndarray]:
    """Return distances (B, S, S) and what is right in each cell, (B, 5, S, S) float32.

    All optimal moves in equal parts or, with `single`, the one that A* takes first; zeros where
    there is no way. ValueError unless the parts of every other cell sum to 1.
    """
    distance = paths.distances(free, goal)
    if single:
        first = paths.first_labels(free, goal, distance)
        parts = (first[:, None] == np.arange(STAY + 1)[:, None, None]).astype(np.float32)
    else:
        best = paths.optimal_moves(distance)
        members = (best[:, None] >> np.arange(STAY + 1, dtype=np.uint8)[:, None, None]) & 1
        parts = members / np.maximum(members.sum(1, keepdims=True), 1, dtype=np.float32)
    parts = parts.astype(np.float32)
    if not np.allclose(parts.sum(1), distance >= 0, atol=1e-5):
        raise ValueError("the targets of a cell with a way do not sum to 1")
    return distance, parts
