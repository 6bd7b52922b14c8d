"""The problem rocket_landing as a task: its starts, its optimum, its scores. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ganglion.core.contracts import Array, Arrays, Learner, Policy, Ranks
from ganglion.core.errors import DataError, unknown
from ganglion.tasks.control.rocket import evaluation, oracle, references
from ganglion.tasks.control.rocket.settings import FuelLoss, PlanSettings, RocketSettings
from ganglion.tasks.control.rocket.world import STATE_UNITS, Flags, Floats, Rocket

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ganglion.tasks.control.config import Config


class RocketLanding:
    """Landing plans for one lander, as the settings describe it."""

    metrics = evaluation.METRICS
    goal = evaluation.GOAL
    captions: Mapping[str, str] = {
        "landings": "Five far-apart cases: the policy in colour, the fuel optimum dashed.",
        "thrust": "When three of them burn, and what is left of their mass.",
        "worst": "The three costliest cases, and when they burn.",
        "gaps": "Fuel above the optimum, by the height that a full brake straight down leaves.",
    }

    def __init__(self, settings: Config) -> None:
        problem, model, loss = settings.problem, settings.model, settings.loss
        assert isinstance(problem, RocketSettings)
        assert isinstance(model, PlanSettings)
        assert isinstance(loss, FuelLoss)
        self._settings, self.model, self.loss = settings, model, loss
        self.rocket: Rocket = problem.rocket()
        self.scenarios: Mapping[str, Mapping[str, Any]] = {
            "nominal": {},
            "starts_x1.25": {"problem.start_scale": min(1.4, 1.25 * problem.start_scale)},
            "mass_x0.9": {"problem.mass_scale": max(0.8, 0.9 * problem.mass_scale)},
            "mass_x1.1": {"problem.mass_scale": min(1.15, 1.1 * problem.mass_scale)},
        }

    @property
    def settings(self) -> Config:
        return self._settings

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each array of the data."""
        return {
            "state": ", ".join(STATE_UNITS), "controls": "m/s^2", "final_time_s": "s",
            "fuel_kg": "kg", "solved": "1",
        }  # fmt: skip

    def generate(self, count: int, split: str, rng: np.random.Generator) -> Arrays:
        """Draw `count` starts and land them; see `label`."""
        return self.label(self.rocket.sample_starts(rng, count))

    def label(self, state: Floats) -> dict[str, Array]:
        """Solve given starts (B, 7).

        Returns state (B, 7), controls (B, N, 3) and final_time_s (B, 1) of the optimum in float32,
        fuel_kg (B,) in float64 and solved (B,) bool; where the oracle finds no landing, the plan is
        its last iterate. Starts are rounded to float32 first, so labels belong to what is stored.
        """
        state = state.astype(np.float32)
        best = self.optimum(state)
        return {
            "state": state,
            "controls": best.controls.astype(np.float32),
            "final_time_s": best.final_time_s.astype(np.float32),
            "fuel_kg": best.fuel_kg,
            "solved": best.solved,
        }

    def learner(self, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
        from ganglion.tasks.control.rocket.learning import make  # torch begins here

        return make(self, data, device, seed, ranks)

    def references(self) -> Mapping[str, Policy]:
        """Return oracle, zem_zev, zero and random."""
        return references.references(self.rocket)

    def evaluate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Arrays:
        """Score one plan per case; see `evaluation.score` for the columns."""
        state = np.asarray(cases["state"], np.float64)
        best, solved = self._best(cases)
        return evaluation.score(self.rocket, policy, state, best, solved, rng)

    def optimum(self, state: Array) -> oracle.Landing:
        """Return the fuel optimum of the starts (B, 7); remembered."""
        return oracle.remembered(self.rocket, state)

    def decode(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        return outputs

    def check(self, arrays: Arrays) -> None:
        """Re-derive the optimum; DataError names the first fault."""
        for name in self.units:
            if name not in arrays:
                raise DataError(f"The data has no array {name!r}; {unknown('array', name, arrays)}")
            if not np.isfinite(arrays[name]).all():
                index = tuple(int(i) for i in np.argwhere(~np.isfinite(arrays[name]))[0])
                raise DataError(f"{name}{list(index)} is not a finite number.")
        found = self.label(np.asarray(arrays["state"], np.float64))
        for name, tolerance in (("controls", 1e-2), ("final_time_s", 1e-2), ("fuel_kg", 1e-3)):
            off = np.abs(found[name] - arrays[name]) > tolerance
            if off.any():
                index = tuple(int(i) for i in np.argwhere(off)[0])
                raise DataError(
                    f"{name}{list(index)} is {arrays[name][index]:.9g}, expected "
                    f"{found[name][index]:.9g}. The data was edited, or made with other settings."
                )

    def draw(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> dict[str, Figure]:
        """Return pictures by name: landings, thrust, worst and gaps."""
        from ganglion.tasks.control.rocket import view

        return view.draw(self, policy, cases, rng)

    def animate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> bytes:
        """Return a GIF of policy and optimum landing together."""
        from ganglion.tasks.control.rocket import view

        return view.animate(self, policy, cases, rng)

    def _best(self, cases: Arrays) -> tuple[Floats, Flags]:
        if "fuel_kg" in cases and "solved" in cases:
            return np.asarray(cases["fuel_kg"], np.float64), np.asarray(cases["solved"], bool)
        best = self.optimum(cases["state"])
        return best.fuel_kg, best.solved
