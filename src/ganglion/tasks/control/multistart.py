"""Some starts of a local solver, thinned out as they show what they are worth.

Shapes: B cases, N steps, n states, m controls, K starts.
"""

from __future__ import annotations

import numpy as np

from ganglion.tasks.control import ilqr
from ganglion.tasks.control.plants.base import Course, Floats, Plant

SORTING, POLISHING = 8, 100  # iterations of every start, and of the best of each case
# Iterations for trajectories that may hide a better optimum, while they cost at most this share of
# the best known; the last ones only for those that do.
CHALLENGES = ((3, 2.0), (8, 1.2), (50, 1.0))
_SAME = 1e-6  # of the cost: the same optimum
_CLOSE = 1e-6  # of the bound: where many local optima compete, more digits say nothing


def best(plant: Plant, target: Floats, guesses: list[Course]) -> Course:
    """Return the most promising of K guesses, B trajectories each, sorted by a few iterations."""
    count, cases = len(guesses), len(target)
    if count == 1:
        return guesses[0]
    every = Course(*(np.concatenate(parts) for parts in zip(*guesses, strict=True)))
    goals = np.tile(target, (count, 1))
    every = polished(plant, every, goals, SORTING)
    cost = plant.cost(*every, goals).reshape(count, cases)
    rows = cost.argmin(0) * cases + np.arange(cases)
    return Course(every.states[rows], every.controls[rows])


def polished(plant: Plant, begin: Course, target: Floats, iterations: int = POLISHING) -> Course:
    """Return the local optima near B trajectories, or what so many iterations make of them."""
    most = min(iterations, POLISHING)
    return ilqr.solve(plant, begin, target, _CLOSE, most, strict=False)


def challenged(
    plant: Plant, target: Floats, best: Floats, shown: Course
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return the best known costs (B,) after the trajectories of a policy were polished.

    Beside them the arrival (B,) of those that were better than `best` (B,), NaN elsewhere.
    """
    states, controls = (np.array(a) for a in shown)
    cost = np.asarray(plant.cost(states, controls, target))
    for iterations, most in CHALLENGES:
        hopeful = (cost < most * best) & (np.abs(cost - best) > _SAME * best)
        rows = np.flatnonzero(hopeful)
        if not rows.size:
            break
        part = Course(states[rows], controls[rows])
        found = polished(plant, part, target[rows], iterations)
        states[rows], controls[rows] = found
        cost[rows] = plant.cost(*found, target[rows])
    better = cost < best
    arrival = np.where(better, plant.arrival(states, target), np.nan)
    return np.where(better, cost, best), arrival
