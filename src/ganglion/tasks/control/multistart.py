"""Many starts of a local solver, thinned out as they show what they are worth.

Shapes: B cases, N steps, m controls, K starts.
"""

from __future__ import annotations

import numpy as np

from ganglion.tasks.control import ilqr
from ganglion.tasks.control.plants.base import Floats, Plant

ROUNDS = ((10, 3), (50, 1))  # iterations, starts of each case that go on


def best(plant: Plant, x0: Floats, target: Floats, guesses: list[Floats]) -> Floats:
    """Return the controls (B, N, m) of the cheapest local optimum found from K guesses (B, N, m).

    Every guess gets the iterations of a round, then only the best of each case go on.
    """
    cases, kept = len(x0), np.stack(guesses)
    for iterations, keep in ROUNDS:
        count = len(kept)
        starts, goals = np.tile(x0, (count, 1)), np.tile(target, (count, 1))
        flat = kept.reshape(count * cases, plant.num_steps, plant.m)
        states, flat = ilqr.solve(plant, starts, goals, flat, 1e-6, iterations, strict=False)
        cost = plant.cost(states, flat, goals).reshape(count, cases)
        order = np.argsort(cost, axis=0, kind="stable")[:keep]
        kept = flat.reshape(count, cases, *flat.shape[1:])[order, np.arange(cases)]
    return np.ascontiguousarray(kept[0])
