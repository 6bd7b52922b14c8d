"""One joint of an arm under gravity: from anywhere to a given angle, and to rest there.

pip install ./examples/arm_joint
ganglion train control problem=arm_joint --preset quick

I th'' = u - m g l sin th - b th', th = 0 hanging down. The motor's bound (default 8 N m) is below
the weight's torque at the horizontal plus what a quick motion wants, so the bound matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from ganglion.core.settings import setting
from ganglion.tasks.control.plant import Components, Floats, Plant, Rk4Plant, namespace
from ganglion.tasks.control.problem import ProblemSettings

INERTIA, FRICTION, GRAVITY, LENGTH = 0.3, 0.2, 9.81, 0.5  # kg m^2, N m s, m/s^2, m


@dataclass(frozen=True)
class ArmJoint(Rk4Plant):
    """The plant: dynamics once, for NumPy and torch; a quadratic cost; bounds; starts, targets."""

    mass: float = 1.0  # kg, at LENGTH from the joint
    limit: float = 8.0  # N m

    name = "arm_joint"
    state_labels = ("angle", "angular rate")
    state_units = ("rad", "rad/s")
    control_labels = ("torque",)
    control_units = ("N m",)
    start_box = (1.5, 1.0)  # starts are uniform in +- this
    uncertain = "mass"  # what the scenarios with a wrong parameter scale

    @cached_property
    def bound(self) -> Floats:
        """Largest torque, (1,)."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """Weights of angle and rate at each step, (2,)."""
        return np.array([10.0, 0.5])

    @cached_property
    def r(self) -> Floats:
        """Weight of the torque, (1,)."""
        return np.array([0.002])

    @cached_property
    def qf(self) -> Floats:
        """Weights at the end, (2,)."""
        return 50.0 * self.q

    def derivative(self, x: Components, u: Components) -> Components:
        """Return the components of x' = f(x, u)."""
        (angle, rate), (torque,) = x, u
        weight = self.mass * GRAVITY * LENGTH * namespace(angle).sin(angle)
        return rate, (torque - weight - FRICTION * rate) / INERTIA

    def sample_targets(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw angles in +-1 rad, at rest, (count, 2)."""
        return np.stack([rng.uniform(-1.0, 1.0, count), np.zeros(count)], 1)


class ArmJointSettings(ProblemSettings):
    """One joint of an arm under gravity, to a given angle."""

    kind: Literal["arm_joint"] = "arm_joint"
    num_steps: int = setting(40, "Controls in a whole task.", ge=1, le=1_000)
    horizon_s: float = setting(2.0, "Length of a whole task.", unit="s", gt=0.0, le=100.0)
    mass: float = setting(1.0, "Mass at the end of the arm.", unit="kg", gt=0.0, le=3.0)
    bound: float = setting(8.0, "Largest torque.", unit="N m", gt=0.0, le=1e3)
    # What the presets' recipe for feedback through the dynamics says otherwise.
    recipe: ClassVar[dict[str, Any]] = {"train": {"steps": 1_200}, "optim": {"lr": 1e-2}}

    def plant(self) -> Plant:
        """Return the plant as modelled."""
        return ArmJoint(self.num_steps, self.dt, mass=self.mass, limit=self.bound)
