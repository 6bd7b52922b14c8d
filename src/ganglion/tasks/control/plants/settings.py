"""Settings of the problems that come with control. No torch."""

from __future__ import annotations

from typing import Literal

from ganglion.core.settings import setting
from ganglion.tasks.control.plant import (
    Cartpole,
    DoubleIntegrator,
    Pendulum,
    Plant,
    Quadrotor2d,
    VanDerPol,
)
from ganglion.tasks.control.problem import ProblemSettings

_STEPS = (
    "Controls in a whole task. dt = horizon_s / num_steps (0.05 s) everywhere; the Runge-Kutta "
    "step wants dt below about 0.1 s."
)
_HORIZON = "Length of a whole task. Change it with num_steps to keep dt."


class DoubleIntegratorSettings(ProblemSettings):
    """x'' = u with a bounded u, towards a target."""

    kind: Literal["double_integrator"] = "double_integrator"
    cost: Literal["terminal", "original"] = setting(
        "terminal", "terminal: Q = diag(10, 5), R = 0.1, Q_f = 20 Q, so that arriving pays; "
        "original: Q = I, R = 0.1, Q_f = 0, whose own optimum rarely arrives at moving targets.",
    )  # fmt: skip
    target: Literal["rest", "moving"] = setting(
        "rest", "rest: position in +-2 m at velocity 0; moving: velocity in +-2 m/s too, where "
        "about half of the cases can be reached.",
    )  # fmt: skip
    bound: float = setting(4.0, "Largest acceleration.", unit="m/s^2", gt=0.0, le=1e3)

    def plant(self) -> Plant:
        return DoubleIntegrator(
            self.num_steps, self.dt, limit=self.bound, cost_kind=self.cost, target_kind=self.target
        )


class VanDerPolSettings(ProblemSettings):
    """x'' = mu (1 - x^2) x' - x + u with a bounded u, to the origin."""

    kind: Literal["vanderpol"] = "vanderpol"
    num_steps: int = setting(
        100, "Controls in a whole task. dt = horizon_s / num_steps (0.05 s) everywhere; the "
        "Runge-Kutta step wants dt below about 0.2 s.", ge=1, le=1_000,
    )  # fmt: skip
    mu: float = setting(
        1.0, "Damping: 0 is a spring, above 3 the system is stiff and dt must fall.", ge=-5.0,
        le=5.0,
    )  # fmt: skip
    bound: float = setting(2.0, "Largest control.", unit="1/s^2", gt=0.0, le=1e3)

    def plant(self) -> Plant:
        return VanDerPol(self.num_steps, self.dt, mu=self.mu, limit=self.bound)


class PendulumSettings(ProblemSettings):
    """Swing up a pendulum that is too heavy to be lifted at once, and hold it."""

    kind: Literal["pendulum"] = "pendulum"
    num_steps: int = setting(120, _STEPS, ge=1, le=1_000)
    horizon_s: float = setting(6.0, _HORIZON, unit="s", gt=0.0, le=1_000.0)
    bound: float = setting(
        3.0, "Largest torque. Below 9.81 it takes swings, the more the smaller it is.",
        unit="1/s^2", gt=0.0, le=1e3,
    )  # fmt: skip

    def plant(self) -> Plant:
        return Pendulum(self.num_steps, self.dt, limit=self.bound)


class CartpoleSettings(ProblemSettings):
    """Swing up the pole of a cart, hold it, and come back to the middle."""

    kind: Literal["cartpole"] = "cartpole"
    num_steps: int = setting(120, _STEPS, ge=1, le=1_000)
    horizon_s: float = setting(6.0, _HORIZON, unit="s", gt=0.0, le=1_000.0)
    bound: float = setting(10.0, "Largest force on the cart.", unit="N", gt=0.0, le=1e3)

    def plant(self) -> Plant:
        return Cartpole(self.num_steps, self.dt, limit=self.bound)


class Quadrotor2dSettings(ProblemSettings):
    """Fly a planar quadrotor to the origin and hover there."""

    kind: Literal["quadrotor2d"] = "quadrotor2d"
    num_steps: int = setting(60, _STEPS, ge=1, le=1_000)
    horizon_s: float = setting(3.0, _HORIZON, unit="s", gt=0.0, le=1_000.0)
    bound: float = setting(
        4.905, "Largest thrust of each rotor, from 0 up; hovering takes 2.4525 N each. The cost "
        "counts the distance from half of it.", unit="N", gt=0.0, le=1e3,
    )  # fmt: skip

    def plant(self) -> Plant:
        return Quadrotor2d(self.num_steps, self.dt, limit=self.bound)
