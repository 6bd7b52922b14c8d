"""Scoring of landing plans: flown with the thrust bound on, against the fuel optimum.

Shapes: B cases, N parts. Everything is flown in float64; a plan is one open-loop call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Array, Arrays, Metric, Policy
from ganglion.tasks.control.rocket.world import Flags, Flight, Floats, Rocket, magnitude

LANDED_M, LANDED_M_S = 1.0, 0.5
OVER = 1e-6  # violation: thrust beyond its bound by more, relative
GROUND_M = 0.01  # violation: a node deeper than this
CRASH = 10.0  # optimal fuels that a crash counts as, in the goal

GOAL = Metric(
    "goal", "1", "lower", per="optimal_fuel", percent=True,
    help="fuel gap in which a plan that misses or violates counts as ten times the optimal fuel "
    "(zero thrust burns none); cases the oracle solves",
)  # fmt: skip
METRICS = (
    GOAL,
    Metric("fuel_gap", "1", "lower", per="optimal_fuel", percent=True,
           help="mean fuel / mean optimal fuel - 1 over the cases the oracle solves, landed or "
           "not"),
    Metric("landing", "1", "higher", percent=True, share=True,
           help="share of the cases the oracle solves that end within 1 m and 0.5 m/s"),
    Metric("landing_all", "1", "higher", percent=True, share=True, help="the same over all cases"),
    Metric("oracle_success", "1", "higher", percent=True, share=True,
           help="share in which the oracle finds a landing"),
    Metric("violations", "1", "lower", percent=True, share=True,
           help="share of the cases the oracle solves with thrust beyond its bound or a node "
           "below ground"),
    Metric("final_error", "m", "lower", help="distance to the target at the end"),
    Metric("final_speed", "m/s", "lower", help="speed at the end"),
    Metric("fuel", "kg", "lower", help="fuel burnt"),
    Metric("final_time", "s", "lower", help="length of the flight"),
    Metric("case_gap", "1", "lower", percent=True, help="fuel / optimal fuel - 1 of each case"),
)  # fmt: skip


@dataclass(frozen=True)
class Flown:
    """What a plan leads to with the bound on: its flight, and what was commanded and applied."""

    flight: Flight
    commanded: Floats
    controls: Floats
    final_time_s: Floats
    fuel_kg: Floats

    @property
    def landed(self) -> Flags:
        """Whether each case ends within 1 m and 0.5 m/s, (B,)."""
        end = magnitude(self.flight.position[:, -1]), magnitude(self.flight.velocity[:, -1])
        return np.asarray((end[0] < LANDED_M) & (end[1] < LANDED_M_S))


def fly(rocket: Rocket, policy: Policy, state: Floats, rng: np.random.Generator) -> Flown:
    """Ask the policy once for all starts (B, 7), and fly what it says within the thrust bound."""
    inputs: dict[str, Array] = {}
    for name, spec in policy.signature.inputs.items():
        if name == "state":
            inputs[name] = np.ascontiguousarray(state, spec.dtype)
        else:  # noise of a random policy; nothing else is filled in
            shape = (len(state), *(int(n) for n in spec.shape))
            inputs[name] = rng.standard_normal(shape).astype(spec.dtype)
    outputs = policy.act(inputs)
    commanded = np.asarray(outputs["controls"], np.float64)
    final_time_s = np.asarray(outputs["final_time_s"], np.float64)
    controls = np.asarray(rocket.clip(state, commanded, final_time_s))
    flight = rocket.fly(state, controls, final_time_s)
    fuel = np.asarray(rocket.fuel(state, controls, final_time_s))
    return Flown(flight, commanded, controls, final_time_s, fuel)


def score(
    rocket: Rocket, policy: Policy, state: Floats, best: Floats, solved: Flags,
    rng: np.random.Generator,
) -> Arrays:  # fmt: skip
    """Return a column per metric, a row per case; best (B,) is the optimal fuel where `solved`."""
    flown = fly(rocket, policy, state, rng)
    throttle = rocket.throttle(state, flown.commanded, flown.final_time_s).max(1)
    lowest = flown.flight.position[:, :, 2].min(1)
    violates = (throttle > 1.0 + OVER) | (lowest < -GROUND_M)
    crash = ~flown.landed | violates
    optimal = np.where(solved, best, np.nan)

    def possible(column: Floats | Flags) -> Floats:
        return np.where(solved, column, np.nan)

    return {
        "goal": np.where(crash, CRASH * optimal, flown.fuel_kg) - optimal,
        "fuel_gap": flown.fuel_kg - optimal,
        "landing": possible(flown.landed),
        "landing_all": flown.landed.astype(np.float64),
        "oracle_success": solved.astype(np.float64),
        "violations": possible(violates),
        "final_error": magnitude(flown.flight.position[:, -1]),
        "final_speed": magnitude(flown.flight.velocity[:, -1]),
        "fuel": flown.fuel_kg,
        "final_time": flown.final_time_s[:, 0],
        "case_gap": flown.fuel_kg / optimal - 1.0,
        "optimal_fuel": optimal,
        "throttle": throttle,
        "lowest": lowest,
    }
