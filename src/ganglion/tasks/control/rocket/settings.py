"""Settings of the lander: the problem, its policy, its loss. No torch."""

from __future__ import annotations

from typing import Literal

from ganglion.core.settings import Settings, setting
from ganglion.tasks.control.rocket.world import Rocket


class RocketSettings(Settings):
    """Powered descent to the origin at rest with least fuel, final time free."""

    kind: Literal["rocket_landing"] = "rocket_landing"
    num_steps: int = setting(
        49, "Equal parts of the final time, each with one thrust acceleration.", ge=8, le=500
    )
    start_scale: float = setting(
        1.0, "Factor on the box of starts about its middle (position, velocity). Raise it to "
        "train for larger deviations; more of them then cannot be landed at all.", gt=0.0, le=1.4,
    )  # fmt: skip
    mass_scale: float = setting(
        1.0, "Factor on the starting mass (1.6-2.4 t). Heavier landers need an earlier burn.",
        ge=0.8, le=1.15,
    )  # fmt: skip
    thrust_n: float = setting(13_260.0, "Largest thrust.", unit="N", gt=0.0, le=1e6)

    def rocket(self) -> Rocket:
        """Return the lander."""
        return Rocket(
            self.num_steps, thrust=self.thrust_n, start_scale=self.start_scale,
            mass_scale=self.mass_scale,
        )  # fmt: skip


class PlanSettings(Settings):
    """A whole landing at once: final time and accelerations, made to land inside the module."""

    kind: Literal["plan"] = "plan"
    hidden: tuple[int, ...] = setting(
        (160, 160), "Widths of the SiLU layers. Narrower for latency.", min_length=1, max_length=8
    )
    newton: int = setting(
        8, "Newton steps towards the terminal constraints. More land harder starts, and cost "
        "latency.", ge=1, le=64,
    )  # fmt: skip
    sharpness: float = setting(
        10.0, "How steeply the throttle opens with the primer vector: higher saves fuel (the "
        "optimum switches), lower lets Newton converge from farther away.", gt=0.0, le=100.0,
    )  # fmt: skip


class FuelLoss(Settings):
    """Speed spent, plus what the constraints are still missed by; needs no labels."""

    kind: Literal["fuel"] = "fuel"
    miss_weight: float = setting(
        20.0, "Price of a missing m/s at the end (before the projection), in m/s of fuel. Raise "
        "it where landings fail.", ge=0.0, le=1e4,
    )  # fmt: skip
    ground_weight: float = setting(
        20.0, "Price of a metre below the clearance at a node, in m/s of fuel. Raise it where "
        "plans dig into the ground.", ge=0.0, le=1e4,
    )  # fmt: skip
    clearance_m: float = setting(
        0.5, "Height below which a node is charged.", unit="m", ge=0.0, le=100.0
    )
    guess_weight: float = setting(
        20.0, "Price of the distance between the net's guess and where Newton takes it: what "
        "lets few steps be enough.", ge=0.0, le=1e4,
    )  # fmt: skip
    steepness_weight: float = setting(
        10.0, "Price of a primer vector longer than 3, which says that the final time is next to "
        "too short.", ge=0.0, le=1e4,
    )  # fmt: skip
    hard_share: float = setting(
        0.125, "Share of the fresh starts that are the hardest of eight times as many. Raise it "
        "where rare starts fail to land; the rest then pays a little more.", ge=0.0, le=1.0,
    )  # fmt: skip
