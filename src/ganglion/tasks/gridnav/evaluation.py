"""Scoring: any policy by its map of moves, from every cell of every map, against shortest paths.

One call gives the moves of all cells of a map; every start then follows them by look-up. Shapes: B
maps, H x W cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Array, Arrays, Metric, Policy, TensorSpec
from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import packing, paths, published, records, references, rollout
from ganglion.tasks.gridnav.grids import STAY, UNKNOWN, Bools, Bytes, Distances, Ints
from ganglion.tasks.gridnav.records import Records

WRONG = Metric(
    "wrong", "1", "lower", per="cells", percent=True, share=True,
    help="share of the cells with a way, of all maps, whose move is not optimal",
)  # fmt: skip
METRICS: Sequence[Metric] = (
    WRONG,
    Metric("success", "1", "higher", per="starts", percent=True, share=True,
           help="share of the starts (every free cell with a way) that arrive; a collision fails, "
           "and so does a loop"),
    Metric("path_ratio", "1", "lower", per="shortest",
           help="moves made / shortest path, summed over all starts; one that fails counts with "
           "the limit of 4 x size^2"),
    Metric("exact", "1", "higher", percent=True, share=True,
           help="share of maps whose way from the drawn start is a shortest one"),
    Metric("perfect_maps", "1", "higher", percent=True, share=True,
           help="share of maps in which every cell's move is optimal"),
    Metric("optimal", "1", "higher", per="cells", percent=True, share=True,
           help="share of the cells with a way whose move is optimal"),
    Metric("no_way_known", "1", "higher", per="without_way", percent=True, share=True,
           help="share of the free cells without a way that say UNKNOWN"),
    Metric("label_accuracy", "1", "higher", percent=True, share=True,
           help="share of the drawn starts whose move is the single label, the original's figure"),
    Metric("label_random_optimal", "1", "higher", percent=True, share=True,
           help="expected label_accuracy of a policy that picks any of the optimal moves, each as "
           "likely; only one that also learned how the label was picked goes beyond"),
    Metric("collisions", "1", "lower", per="starts", percent=True, share=True,
           help="share of the starts that run into a wall or out of the map"),
    Metric("loops", "1", "lower", per="starts", percent=True, share=True,
           help="share of the starts that neither arrive nor collide"),
    Metric("as_published", "1", "higher", percent=True, share=True,
           help="share of maps whose way is the one in the published file; only where there is "
           "one"),
)  # fmt: skip
_CELLS_AT_ONCE = 1 << 11  # of one call, so that maps that settle early are not kept waiting
_MAPS_AT_ONCE = 256


@dataclass(frozen=True)
class Trial:
    """The cases, unpacked, and the most steps that a recursive policy may take."""

    held: Records
    distance: Distances
    steps: int | None

    @classmethod
    def of(cls, cases: Arrays, steps: int | None) -> Trial:
        """Unpack rows of the data."""
        held = records.read(cases)
        return cls(held, paths.distances(held.free, held.goal), steps)

    def moves(self, policy: Policy, rng: np.random.Generator, steps: int | None = None) -> Ints:
        """Ask the policy for the moves of all cells of every map, (B, H, W) int64."""
        free, goal = self.held.free, self.held.goal
        count = _CELLS_AT_ONCE // free[0].size
        count = min(max(1, count), _MAPS_AT_ONCE)
        found = np.empty(free.shape, np.int64)
        for begin in range(0, len(free), count):
            part = slice(begin, begin + count)
            given: dict[str, Array] = references.inputs(free[part], goal[part])
            for name, spec in policy.signature.inputs.items():
                if name not in given:
                    given[name] = self._fill(name, spec, given["free"].shape, rng, steps)
            found[part] = policy.act(given)["moves"]
        return found

    def _fill(
        self, name: str, spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator,
        steps: int | None,
    ) -> Array:  # fmt: skip
        if spec.role == "uniform":
            return rng.random(shape, np.float32)
        if spec.role == "steps":
            wanted = steps or self.steps or int(spec.high or 1)
            most = np.inf if spec.high is None else spec.high
            return np.array([min(max(wanted, spec.low or 1), most)], np.int64)
        raise DataError(
            f"The policy wants an input {name!r} that this task does not have; it has free, goal "
            "and steps."
        )


def score(policy: Policy, trial: Trial, cases: Arrays, rng: np.random.Generator) -> Arrays:
    """Return a column per metric, and those that metrics are ratios over; a row per map."""
    moves = trial.moves(policy, rng)
    return {**rows(moves, trial), "as_published": _published(moves, trial.held, cases)}


def rows(moves: Ints, trial: Trial) -> dict[str, Array]:
    """Score maps of moves (B, H, W) that are given."""
    held, distance = trial.held, trial.distance
    each = np.arange(len(moves))
    has_way, starts = distance >= 0, distance > 0
    right = optimal(moves, held.moves)
    end = rollout.follow(moves, held.free, held.goal)
    limit = 4 * max(held.free.shape[1:]) ** 2
    made = np.where(end.arrived, end.moves, limit)
    begin = (each, held.start[:, 0], held.start[:, 1])
    exact = end.arrived[begin] & (end.moves[begin] == distance[begin])
    lost = held.free & ~has_way
    counts = {
        "cells": has_way, "wrong": has_way & ~right, "optimal": has_way & right,
        "starts": starts, "success": starts & end.arrived, "collisions": starts & end.collided,
        "loops": starts & ~end.arrived & ~end.collided,
        "without_way": lost, "no_way_known": lost & (moves == UNKNOWN),
        "path_ratio": np.where(starts, made, 0), "shortest": np.where(starts, distance, 0),
    }  # fmt: skip
    return {
        **{name: flags.sum((1, 2), dtype=np.float64) for name, flags in counts.items()},
        "exact": exact.astype(np.float64),
        "perfect_maps": (right | ~has_way).all((1, 2)).astype(np.float64),
        "label_accuracy": (moves[begin] == held.label).astype(np.float64),
        "label_random_optimal": 1.0 / np.maximum(_members(held.moves[begin]), 1),
    }


def optimal(moves: Ints, best: Bytes) -> Bools:
    """Say which moves (B, H, W) of 0..5 are in the sets of optimal ones, (B, H, W)."""
    return np.asarray((moves <= STAY) & (best >> np.minimum(moves, STAY).astype(np.uint8) & 1 > 0))


def _members(sets: Bytes) -> Ints:
    return np.asarray((sets[:, None] >> np.arange(STAY + 1, dtype=np.uint8) & 1).sum(1))


def _published(moves: Ints, held: Records, cases: Arrays) -> Array:
    """Score by the published rule where the data hold the file's own ways, else NaN."""
    if "answer" not in cases:
        return np.full(len(moves), np.nan)
    answer = packing.unpack(np.asarray(cases["answer"]), *held.free.shape[1:])
    passed, steps = paths.walk(moves, held.start, held.goal, int(answer.sum((1, 2)).max()))
    return published.right(passed, steps, answer).astype(np.float64)


# ---------------------------------------------------------------- closer looks


def by_distance(moves: Ints, trial: Trial, bins: int = 12) -> dict[str, Array]:
    """Return success and optimal moves by distance to the goal; bins hold equally many cells.

    distance (K,) is the mean of each bin, cells (K,), success and optimal (K,) are shares.
    """
    starts = trial.distance > 0
    far = trial.distance[starts]
    arrived = rollout.follow(moves, trial.held.free, trial.held.goal).arrived[starts]
    right = optimal(moves, trial.held.moves)[starts]
    edges = np.unique(np.quantile(far, np.linspace(0.0, 1.0, bins + 1)[1:-1], method="nearest"))
    which = np.searchsorted(edges, far)
    cells = np.bincount(which, minlength=len(edges) + 1)
    kept = cells > 0

    def mean(values: Array) -> Array:
        return np.bincount(which, values, len(cells))[kept] / cells[kept]

    return {
        "distance": mean(far), "cells": cells[kept], "success": mean(arrived),
        "optimal": mean(right),
    }  # fmt: skip


def over_steps(policy: Policy, trial: Trial, points: int = 16) -> dict[str, Array]:
    """Return what fewer and more recursion steps achieve; {} for policies without them.

    steps (K,), up to three times the trial's; optimal and success (K,), shares.
    """
    if trial.steps is None or not any(s.role == "steps" for s in policy.signature.inputs.values()):
        return {}
    rng = np.random.default_rng(0)
    chosen = np.unique(np.round(np.geomspace(2, 3 * trial.steps, points)).astype(int))
    found = [rows(trial.moves(policy, rng, int(k)), trial) for k in chosen]
    return {
        "steps": chosen,
        "optimal": np.array([r["optimal"].sum() / r["cells"].sum() for r in found]),
        "success": np.array([r["success"].sum() / r["starts"].sum() for r in found]),
    }
