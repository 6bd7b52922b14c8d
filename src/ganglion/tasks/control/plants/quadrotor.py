"""A quadrotor in a vertical plane: two rotors that only push."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ganglion.tasks.control.plants.base import Components, Floats, Rk4Plant, namespace

GRAVITY = 9.81  # m/s^2


@dataclass(frozen=True)
class Quadrotor2d(Rk4Plant):
    """m x'' = -(T1 + T2) sin phi, m z'' = (T1 + T2) cos phi - m g, I phi'' = arm (T1 - T2).

    T1 is the right rotor, phi the tilt, positive to the left. Each thrust lies in 0..limit, twice
    what hovering takes as modelled. Source: Tedrake, Underactuated Robotics, section 3.3 (planar
    quadrotor), without its sign of x.
    """

    mass: float = 0.5  # kg
    arm: float = 0.15  # m, from the centre to a rotor
    inertia: float = 0.005  # kg m^2
    limit: float = 0.5 * GRAVITY  # N

    name = "quadrotor2d"
    state_labels = ("x", "z", "tilt", "x velocity", "z velocity", "tilt rate")
    state_units = ("m", "m", "rad", "m/s", "m/s", "rad/s")
    control_labels = ("right thrust", "left thrust")
    control_units = ("N", "N")
    start_box = (2.0, 2.0, np.pi / 3.0, 1.0, 1.0, 1.0)
    uncertain = "mass"
    angles = (2,)
    arrival_groups = ((0, 1), (2,), (3, 4))
    settle_s = 0.5
    method = "best_known"

    @cached_property
    def bound(self) -> Floats:
        """Half of each rotor's range, (2,), N."""
        return np.full(2, 0.5 * self.limit)

    @cached_property
    def centre(self) -> Floats:
        """Middle of each rotor's range, (2,), N: hovering, as modelled."""
        return np.full(2, 0.5 * self.limit)

    @cached_property
    def q(self) -> Floats:
        """|p|^2 + (1 - cos phi) + .1 |v|^2 + .01 w^2; (1 - cos phi) is half the chord, (6,)."""
        return np.array([1.0, 1.0, 0.5, 0.1, 0.1, 0.01])

    @cached_property
    def r(self) -> Floats:
        """.02 for each rotor, (2,)."""
        return np.full(2, 0.02)

    @cached_property
    def qf(self) -> Floats:
        """20 (|p|^2 + (1 - cos phi) + .5 |v|^2 + .05 w^2), (6,)."""
        return 20.0 * np.array([1.0, 1.0, 0.5, 0.5, 0.5, 0.05])

    def derivative(self, x: Components, u: Components) -> Components:
        _, _, tilt, vx, vz, rate = x
        right, left = u
        lib = namespace(tilt)
        lift = (right + left) / self.mass
        turn = (self.arm / self.inertia) * (right - left)
        return vx, vz, rate, -lift * lib.sin(tilt), lift * lib.cos(tilt) - GRAVITY, turn

    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        tilt, (right, left), (dright, dleft) = x[2], u, du
        sin, cos = np.sin(tilt), np.cos(tilt)
        lift, dlift = (right + left) / self.mass, (dright + dleft) / self.mass
        across = -dlift * sin - lift * cos * dx[2]
        up = dlift * cos - lift * sin * dx[2]
        return dx[3], dx[4], dx[5], across, up, (self.arm / self.inertia) * (dright - dleft)

    def body(self, x: Floats) -> list[Floats]:
        along, up = np.array([np.cos(x[2]), np.sin(x[2])]), np.array([-np.sin(x[2]), np.cos(x[2])])
        ends = [x[:2] + side * self.arm * along for side in (-1.0, 1.0)]
        masts = [np.stack([end, end + 0.4 * self.arm * up]) for end in ends]
        return [np.stack(ends), *masts]
