"""Swing-ups: plants that have to gather energy before they can stand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ganglion.tasks.control.plants.base import Components, Course, Floats, Rk4Plant, namespace

GRAVITY = 9.81  # m/s^2


@dataclass(frozen=True)
class Pendulum(Rk4Plant):
    """th'' = stiffness sin th + u, th = 0 up, too weak to be lifted without swinging.

    stiffness is gravity over length (1 m).
    """

    stiffness: float = GRAVITY  # 1/s^2
    limit: float = 3.0  # 1/s^2

    name = "pendulum"
    state_labels = ("angle", "angular rate")
    state_units = ("rad", "rad/s")
    control_labels = ("torque",)
    control_units = ("1/s^2",)
    start_box = (np.pi, 1.0)
    uncertain = "stiffness"
    angles = (0,)
    arrival_groups = ((0,), (1,))
    settle_s = 0.5
    method = "grid"

    @cached_property
    def bound(self) -> Floats:
        """Largest torque, (1,)."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """2 (1 - cos th) + .1 w^2, (2,)."""
        return np.array([1.0, 0.1])

    @cached_property
    def r(self) -> Floats:
        """Diagonal of R, (1,)."""
        return np.array([0.02])

    @cached_property
    def qf(self) -> Floats:
        """20 Q, (2,)."""
        return 20.0 * self.q

    def derivative(self, x: Components, u: Components) -> Components:
        (angle, rate), (torque,) = x, u
        return rate, self.stiffness * namespace(angle).sin(angle) + torque

    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        return dx[1], self.stiffness * np.cos(x[0]) * dx[0] + du[0]

    def body(self, x: Floats) -> list[Floats]:
        return [np.array([[0.0, 0.0], [np.sin(x[0]), np.cos(x[0])]])]


@dataclass(frozen=True)
class Cartpole(Rk4Plant):
    """A pole hinged on a cart that a force F pushes, th = 0 up, without a limit of the track.

    With M = cart + pole mass, l half the pole's length, a = (F + m l w^2 sin th) / M:
    th'' = (g sin th - a cos th) / (l (4/3 - m cos^2 th / M)), x'' = a - m l th'' cos th / M.
    Source: Florian, Correct equations for the dynamics of the cart-pole system, 2007, eq. 23-24
    without friction; the form of Gymnasium's CartPole.
    """

    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.1  # kg
    half_length: float = 0.5  # m
    limit: float = 10.0  # N

    name = "cartpole"
    state_labels = ("position", "angle", "velocity", "angular rate")
    state_units = ("m", "rad", "m/s", "rad/s")
    control_labels = ("force",)
    control_units = ("N",)
    start_box = (1.0, np.pi, 0.5, 1.0)
    uncertain = "half_length"
    angles = (1,)
    arrival_groups = ((0,), (1,), (2,), (3,))
    partial_arrivals = {  # noqa: RUF012  a ClassVar of the base
        "upright": (((1,), (3,)), "share in which angle and angular rate alone arrive"),
    }
    settle_s = 0.5
    method = "best_known"

    @cached_property
    def bound(self) -> Floats:
        """Largest force, (1,), N."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """.25 x^2 + 2 (1 - cos th) + .02 v^2 + .02 w^2, (4,)."""
        return np.array([0.25, 1.0, 0.02, 0.02])

    @cached_property
    def r(self) -> Floats:
        """Diagonal of R, (1,)."""
        return np.array([0.002])

    @cached_property
    def qf(self) -> Floats:
        """20 (.25 x^2 + 2 (1 - cos th) + .1 v^2 + .1 w^2), (4,)."""
        return 20.0 * np.array([0.25, 1.0, 0.1, 0.1])

    def guesses(self, x0: Floats, target: Floats) -> list[Course]:
        """Return the plans of dynamic programming on two coarse grids."""
        from ganglion.tasks.control import cart_grid  # it needs this module itself

        return cart_grid.plans(self, x0, target)

    def derivative(self, x: Components, u: Components) -> Components:
        _, angle, velocity, rate = x
        lib, (force,) = namespace(angle), u
        sin, cos = lib.sin(angle), lib.cos(angle)
        mass, moment = self.cart_mass + self.pole_mass, self.pole_mass * self.half_length
        push = (force + moment * rate * rate * sin) / mass
        inertia = self.half_length * (4.0 / 3.0 - (self.pole_mass / mass) * cos * cos)
        turn = (GRAVITY * sin - cos * push) / inertia
        return velocity, rate, push - (moment / mass) * turn * cos, turn

    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        _, angle, _, rate = x
        _, dangle, dvelocity, drate = dx
        sin, cos = np.sin(angle), np.cos(angle)
        mass, moment = self.cart_mass + self.pole_mass, self.pole_mass * self.half_length
        push = (u[0] + moment * rate * rate * sin) / mass
        dpush = (du[0] + moment * rate * (2.0 * sin * drate + rate * cos * dangle)) / mass
        inertia = self.half_length * (4.0 / 3.0 - (self.pole_mass / mass) * cos * cos)
        dinertia = self.half_length * (2.0 * self.pole_mass / mass) * cos * sin * dangle
        turn = (GRAVITY * sin - cos * push) / inertia
        drive = (GRAVITY * cos + sin * push) * dangle - cos * dpush
        dturn = (drive - turn * dinertia) / inertia
        across = dpush - (moment / mass) * (dturn * cos - turn * sin * dangle)
        return dvelocity, drate, across, dturn

    def body(self, x: Floats) -> list[Floats]:
        sides = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * (0.2, 0.1)
        tip = 2.0 * self.half_length * np.array([np.sin(x[1]), np.cos(x[1])])
        hinge = np.array([x[0], 0.0])
        return [hinge + sides, np.stack([hinge, hinge + tip])]
