"""The two plants of the original: the double integrator and the Van der Pol oscillator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ganglion.tasks.control.plants.base import Components, Floats, Plant, Rk4Plant, namespace


@dataclass(frozen=True)
class DoubleIntegrator(Plant):
    """x'' = u under zero-order hold, exactly discretised: A = [[1, h], [0, 1]], B = [h^2/2, h]."""

    limit: float = 4.0  # m/s^2
    cost_kind: Literal["terminal", "original"] = "terminal"
    target_kind: Literal["rest", "moving"] = "rest"

    name = "double_integrator"
    method = "exact"
    state_labels = ("position", "velocity")
    state_units = ("m", "m/s")
    control_labels = ("acceleration",)
    control_units = ("m/s^2",)
    start_box = (2.0, 2.0)

    @cached_property
    def bound(self) -> Floats:
        """Largest acceleration, (1,), m/s^2."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """Diagonal of Q, (2,)."""
        return np.array([10.0, 5.0] if self.cost_kind == "terminal" else [1.0, 1.0])

    @cached_property
    def r(self) -> Floats:
        """Diagonal of R, (1,)."""
        return np.array([0.1])

    @cached_property
    def qf(self) -> Floats:
        """Diagonal of Q_f, (2,): 20 Q, or 0 for the original cost."""
        return 20.0 * self.q if self.cost_kind == "terminal" else np.zeros(2)

    def step(self, x: Any, u: Any) -> Any:
        h, a = self.dt, self.gain * u[..., 0]
        p, v = x[..., 0], x[..., 1]
        return namespace(x).stack([p + h * v + (0.5 * h * h) * a, v + h * a], -1)

    def matrices(self) -> tuple[Floats, Floats]:
        h, k = self.dt, self.gain
        return np.array([[1.0, h], [0.0, 1.0]]), np.array([[0.5 * h * h * k], [h * k]])

    def jacobians(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        a, b = self.matrices()
        return np.broadcast_to(a, (len(x), 2, 2)), np.broadcast_to(b, (len(x), 2, 1))

    def sample_targets(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw a position in U(-2, 2), and a velocity in U(-2, 2) where targets move."""
        targets = rng.uniform(-2.0, 2.0, (count, 2))
        if self.target_kind == "rest":
            targets[:, 1] = 0.0
        return targets


@dataclass(frozen=True)
class VanDerPol(Rk4Plant):
    """x'' = mu (1 - x^2) x' - x + u (Van der Pol, Phil. Mag. 2, 1926, eq. 2, with a control)."""

    mu: float = 1.0
    limit: float = 2.0  # 1/s^2

    name = "vanderpol"
    method = "exact"
    state_labels = ("x", "x'")
    state_units = ("1", "1/s")
    control_labels = ("force",)
    control_units = ("1/s^2",)
    start_box = (2.0, 2.0)
    uncertain = "mu"

    @cached_property
    def bound(self) -> Floats:
        """Largest force, (1,)."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """Diagonal of Q, (2,)."""
        return np.array([10.0, 5.0])

    @cached_property
    def r(self) -> Floats:
        """Diagonal of R, (1,)."""
        return np.array([0.1])

    @cached_property
    def qf(self) -> Floats:
        """Diagonal of Q_f, (2,): 20 Q."""
        return 20.0 * self.q

    def derivative(self, x: Components, u: Components) -> Components:
        (p, v), (force,) = x, u
        return v, self.mu * (1.0 - p * p) * v - p + force

    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        (p, v), (dp, dv), (dforce,) = x, dx, du
        stiffness = -2.0 * self.mu * p * v - 1.0
        return dv, stiffness * dp + self.mu * (1.0 - p * p) * dv + dforce
