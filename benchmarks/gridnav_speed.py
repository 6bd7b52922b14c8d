"""Generating and labelling grid states, against a per-state A* in plain Python on the same maps.

python benchmarks/gridnav_speed.py [--fast]

CPU seconds of one thread, medians over interleaved repeats; prints Markdown for RESULTS.md. Ours
draws the maps and labels every cell of them with all optimal moves. The newcomer's way runs one A*
for each state (a heap of tuples, neighbours UP, DOWN, LEFT, RIGHT, Manhattan estimate) on a share
of the states of the very same maps, which it is given for nothing; both are compared per state,
and the labels with each other.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
from machine import header, table, verdict

from ganglion.tasks.gridnav import maps, paths

Cell = tuple[int, int]
Job = tuple[str, maps.Kind, int, int, dict[str, float]]
JOBS: tuple[Job, ...] = (
    ("8 x 8, density .2", "density", 8, 10_000, {"density": 0.2}),
    ("16 x 16, as training draws", "mixed", 16, 2_000, {}),
    ("32 x 32, density .2", "density", 32, 1_000, {"density": 0.2}),
    ("64 x 64, perfect mazes", "maze", 64, 200, {}),
    ("30 x 30, hard", "hard", 30, 999, {}),
)
STATES = {"fast": 60, "full": 400}  # that the newcomer's way labels in one repeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="few maps: to see that it runs")
    fast = parser.parse_args().fast
    print(header("Generating and labelling grids"))
    rows = [measure(job, fast) for job in JOBS]
    columns = ["maps", "states", "ours, us a state", "A*, us a state", "ratio", "goal", ""]
    print(table(columns, rows))
    print(table(["maps", "drawn", "distances and moves", "all single labels"],
                [parts(job, fast) for job in JOBS]))  # fmt: skip


def measure(job: Job, fast: bool) -> tuple[str, ...]:
    """Time both ways in turns; returns a row of the table."""
    name, kind, side, count, options = job
    count = max(3, count // 20) if fast else count
    ratios, ours_us, theirs_us, states = [], [], [], 0
    for repeat in range(2 if fast else 5):
        rng = np.random.default_rng(repeat)
        began = time.process_time()
        cases = maps.draw_cases(kind, count, side, side, rng, **options)
        best = paths.optimal_moves(cases.distance)
        ours = time.process_time() - began
        states = int((cases.distance >= 0).sum())
        theirs = plain(cases, best, STATES["fast" if fast else "full"], rng)
        ours_us.append(1e6 * ours / states)
        theirs_us.append(1e6 * theirs)
        ratios.append(theirs_us[-1] / ours_us[-1])
    ratio = statistics.median(ratios)
    return (
        name, f"{states:,}", f"{statistics.median(ours_us):.3f}",
        f"{statistics.median(theirs_us):.0f}", f"{ratio:,.0f}x", ">= 100x", verdict(ratio >= 100),
    )  # fmt: skip


def plain(cases: maps.Cases, best: np.ndarray, count: int, rng: np.random.Generator) -> float:
    """Label states of the cases one by one; returns CPU seconds a state.

    RuntimeError where a label is not among the optimal moves, or the search finds no way.
    """
    which = np.argwhere(cases.distance > 0)
    chosen = which[rng.choice(len(which), min(count, len(which)), replace=False)].tolist()
    free = cases.free.tolist()  # lists are faster than arrays, one cell at a time
    goal = [tuple(g) for g in cases.goal.tolist()]
    began = time.process_time()
    found = [first_move(free[i], (row, column), goal[i]) for i, row, column in chosen]
    seconds = (time.process_time() - began) / len(chosen)
    for (i, row, column), move in zip(chosen, found, strict=True):
        if move is None or not best[i, row, column] >> move & 1:
            raise RuntimeError(f"map {i}, cell {row}, {column}: A* says {move}")
    return seconds


def first_move(free: list[list[bool]], start: Cell, goal: Cell) -> int | None:
    """Return the first move of A* from start to goal, None where there is no way."""
    order = itertools.count()
    line: list[tuple[int, int, Cell]] = [(0, next(order), start)]
    cost = {start: 0}
    came: dict[Cell, tuple[Cell, int]] = {}
    done: set[Cell] = set()
    while line:
        cell = heapq.heappop(line)[2]
        if cell == goal:
            move = None
            while cell != start:
                cell, move = came[cell]
            return move
        if cell in done:
            continue
        done.add(cell)
        for move, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
            row, column = cell[0] + down, cell[1] + right
            if not (0 <= row < len(free) and 0 <= column < len(free[0]) and free[row][column]):
                continue
            there = (row, column)
            if cost[cell] + 1 < cost.get(there, 1 << 30):
                cost[there] = cost[cell] + 1
                came[there] = cell, move
                away = abs(row - goal[0]) + abs(column - goal[1])
                heapq.heappush(line, (cost[there] + away, next(order), there))
    return None


def parts(job: Job, fast: bool) -> tuple[str, ...]:
    """Time what ours is made of; returns a row in CPU milliseconds."""
    name, kind, side, count, options = job
    count = max(3, count // 20) if fast else count
    cases = maps.draw_cases(kind, count, side, side, np.random.default_rng(0), **options)
    ways: list[Callable[[], object]] = [
        lambda: maps.draw_cases(kind, count, side, side, np.random.default_rng(0), **options),
        lambda: paths.optimal_moves(paths.distances(cases.free, cases.goal)),
        lambda: paths.first_labels(cases.free, cases.goal, cases.distance),
    ]
    texts = []
    for way in ways[: 2 if side > 30 else 3]:
        times = []
        for _ in range(1 if fast else 3):
            began = time.process_time()
            way()
            times.append(1e3 * (time.process_time() - began))
        texts.append(f"{statistics.median(times):.1f} ms")
    return (f"{count:,} of {name}", *texts, *["-"] * (3 - len(texts)))


if __name__ == "__main__":
    main()
