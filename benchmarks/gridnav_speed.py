"""Speed of gridnav: labels against a per-state A* on the same maps, and ONNX Runtime per step.

    python benchmarks/gridnav_speed.py [--file policy.onnx]

Without a file an untrained policy is exported: its speed is that of a trained one.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import header, table, verdict

from ganglion import registry
from ganglion.core.contracts import Ranks
from ganglion.export.onnx_export import Checks, export
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.tasks.gridnav import maps, paths

MAPS = 10_000  # of 8 x 8; every free cell is a state
SOME = 3_000  # states that A* is asked for, spread over all
REPEATS = 5
STEPS = (("UP", -1, 0), ("DOWN", 1, 0), ("LEFT", 0, -1), ("RIGHT", 0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="an exported policy with the input `steps`")
    args = parser.parse_args()
    print(header("gridnav, speed"))
    rows = [labels()]
    with tempfile.TemporaryDirectory() as folder:
        rows += latency(args.file or untrained(Path(folder) / "policy.onnx"))
    print(table(["what", "measured", "goal", ""], rows))


def labels() -> list[str]:
    """Draw maps and label all their cells, against A* state by state on the same maps."""
    ours, theirs = [], []
    for repeat in range(REPEATS):
        began = time.process_time()
        cases = maps.draw_cases("density", MAPS, 8, 8, np.random.default_rng(repeat))
        best = paths.optimal_moves(cases.distance)
        ours.append((time.process_time() - began) / int((best > 0).sum()))
        states = np.argwhere(cases.distance > 0)
        states = states[:: len(states) // SOME]
        began = time.process_time()
        found = [
            first_move(cases.free[i].tolist(), (row, column), tuple(cases.goal[i].tolist()))
            for i, row, column in states.tolist()
        ]
        theirs.append((time.process_time() - began) / len(states))
        for (i, row, column), move in zip(states.tolist(), found, strict=True):
            if not best[i, row, column] >> [s[0] for s in STEPS].index(move) & 1:
                raise SystemExit(f"A* and the labels disagree at map {i}, cell {(row, column)}")
    ratio = float(np.median(np.array(theirs) / np.array(ours)))
    shown = (
        f"{ratio:.0f}x ({np.median(theirs) * 1e6:.1f} -> {np.median(ours) * 1e6:.3f} us a state)"
    )
    what = f"{MAPS:,} maps of 8 x 8 drawn and labelled, against A* that only labels the same states"
    return [what, shown, ">= 100x", verdict(ratio >= 100.0)]


def first_move(free: list[list[bool]], start: tuple[int, int], goal: tuple[int, ...]) -> str:
    """First move of one shortest path: A* with Manhattan distance and a heap, as one writes it."""
    queue = [(abs(start[0] - goal[0]) + abs(start[1] - goal[1]), 0, 0, start, "")]
    cost, number = {start: 0}, 0
    while queue:
        _, _, steps, cell, first = heapq.heappop(queue)
        if cell == goal:
            return first
        for name, down, right in STEPS:
            row, column = cell[0] + down, cell[1] + right
            inside = 0 <= row < len(free) and 0 <= column < len(free[0])
            if inside and free[row][column] and steps + 1 < cost.get((row, column), 1 << 30):
                cost[row, column] = steps + 1
                number += 1
                left = abs(row - goal[0]) + abs(column - goal[1])
                entry = (steps + 1 + left, number, steps + 1, (row, column), first or name)
                heapq.heappush(queue, entry)
    raise SystemExit("a state without a way was asked for")


def untrained(path: Path) -> Path:
    """Export the default policy without halting, so that it takes every step it is asked for."""
    cfg = registry.resolve("gridnav", None, [{"model": {"halting": False}}])
    policy = registry.make("gridnav", cfg).learner(None, "cpu", 0, Ranks()).policy()
    export(
        policy.module,  # type: ignore[attr-defined]
        policy.signature, path, {"steps": {"steps": 32}}, checks=Checks(rows=64),
    )  # fmt: skip
    return path


def latency(path: Path) -> list[list[str]]:
    """Time ONNX Runtime on one thread: the slope between two numbers of steps, and one answer."""
    policy, rows = OnnxPolicy(path), []
    for side, goal_us in ((8, 20.0), (16, None), (32, None)):
        times = {}
        for steps in (32, 96):
            cases = maps.draw_cases("density", 1, side, side, np.random.default_rng(0))
            marked = np.zeros((1, side, side), np.float32)
            marked[0, cases.goal[0, 0], cases.goal[0, 1]] = 1.0
            feeds = {"free": cases.free.astype(np.float32), "goal": marked,
                     "steps": np.array([steps])}  # fmt: skip
            spent = []
            for _ in range(400):
                began = time.perf_counter_ns()
                policy.run(feeds)
                spent.append(time.perf_counter_ns() - began)
            times[steps] = np.array(spent[50:]) / 1e3
        slope = (np.median(times[96]) - np.median(times[32])) / 64
        least = (times[96].min() - times[32].min()) / 64
        whole = np.median(times[32])
        shown = f"{slope:.1f} us a step (least {least:.1f}), {whole:.0f} us for 32 steps"
        met = verdict(slope <= goal_us) if goal_us else "-"
        rows.append([f"ONNX Runtime, one thread, {side} x {side}, all cells", shown,
                     f"<= {goal_us:.0f} us a step" if goal_us else "-", met])  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
