"""The lander: dynamics, fuel and limits in closed form, once for NumPy and torch, batched.

Shapes: B cases, N = num_steps equal parts of the final time t_f. A state is position (x, y, z up),
velocity and mass, (B, 7); a plan is the thrust acceleration of each part, `controls` (B, N, 3), and
`final_time_s` (B, 1). Every formula works on either library, in the type that comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.control.plant import namespace

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

STATE_LABELS = ("x", "y", "z", "vx", "vy", "vz", "mass")
STATE_UNITS = ("m", "m", "m", "m/s", "m/s", "m/s", "kg")

# Starts: x, y, z in m; vx, vy, vz in m/s; mass in kg (lowest, highest).
START_BOX = np.array([
    [-2000.0, 2000.0], [-2000.0, 2000.0], [1000.0, 3000.0],
    [-50.0, 50.0], [-50.0, 50.0], [-75.0, 0.0], [1600.0, 2400.0],
])  # fmt: skip
START_BOX.flags.writeable = False


@dataclass(frozen=True)
class Flight:
    """What a plan leads to: position, velocity (B, N + 1, 3) and mass (B, N + 1) at the nodes."""

    position: Any
    velocity: Any
    mass: Any


@dataclass(frozen=True)
class Rocket:
    """A point mass under gravity with a bounded thrust of any direction.

    On each part the thrust acceleration a is constant: r' = v, v' = a - (0, 0, g),
    m' = -m |a| / c with c = Isp g0, thrust T = m a. Mass falls within a part, so |T| is largest at
    its start. Source: Acikmese and Ploen, Convex programming approach to powered descent guidance
    for Mars landing, JGCD 30(5), 2007, eqs. 1-3 (here without their least thrust).
    """

    num_steps: int = 49
    gravity: float = 3.71  # m/s^2
    specific_impulse: float = 200.7  # s
    standard_gravity: float = 9.81  # m/s^2
    thrust: float = 13_260.0  # N
    start_scale: float = 1.0
    mass_scale: float = 1.0

    @property
    def exhaust(self) -> float:
        """Effective exhaust velocity c = Isp g0 in m/s."""
        return self.specific_impulse * self.standard_gravity

    def start_box(self) -> Floats:
        """Return lowest and highest start, (7, 2): the box scaled about its middle."""
        middle = START_BOX.mean(1, keepdims=True)
        box = middle + self.start_scale * (START_BOX - middle)
        box[6] = self.mass_scale * START_BOX[6]
        return np.asarray(box)

    def sample_starts(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw `count` starts uniformly in the box, (count, 7)."""
        box = self.start_box()
        return rng.uniform(box[:, 0], box[:, 1], (count, 7))

    def spare_height(self, state: Floats) -> Floats:
        """Return the height that braking straight down at full thrust leaves, (B,) in m.

        z - v^2 / (2 (T / m - g)), with the mass of the start; states (B, 7).
        """
        brake = self.thrust / state[:, 6] - self.gravity
        return np.asarray(state[:, 2] - state[:, 5] ** 2 / (2.0 * brake))

    def fly(self, state: Any, controls: Any, final_time_s: Any) -> Flight:
        """Return the nodes of each plan in closed form: state (B, 7), see the module for the rest.

        With h = t_f / N: v_k = v_0 + h sum_{j<k} (a_j - g),
        r_{k+1} = r_k + h v_k + h^2/2 (a_k - g), m_k = m_0 exp(-(h / c) sum_{j<k} |a_j|).
        """
        h = (final_time_s / self.num_steps)[:, :, None]
        pull = self._pull(controls)
        first = state[:, None, 3:6]
        after = first + (h * (controls - pull)).cumsum(1)
        velocity = self._join(first, after)
        # within a part the mean velocity is that of its two ends
        moved = (0.5 * h * (velocity[:, :-1] + velocity[:, 1:])).cumsum(1)
        position = self._join(state[:, None, :3], state[:, None, :3] + moved)
        return Flight(position, velocity, self.masses(state, controls, final_time_s))

    def masses(self, state: Any, controls: Any, final_time_s: Any) -> Any:
        """Return the mass at the nodes, (B, N + 1) in kg."""
        h = final_time_s / self.num_steps
        spent = (h * magnitude(controls)).cumsum(1) / self.exhaust
        mass = state[:, 6:7]
        return self._join(mass, mass * namespace(spent).exp(-spent))

    def fuel(self, state: Any, controls: Any, final_time_s: Any) -> Any:
        """Return the fuel burnt, (B,) in kg."""
        return state[:, 6] - self.masses(state, controls, final_time_s)[:, -1]

    def terminal(self, state: Any, final_time_s: Any) -> Any:
        """Return what the controls must add up to, (B, 2, 3) in m/s.

        Landing at rest at the origin is linear in the accelerations at fixed t_f:
        h sum a_k = t_f g - v_0 and h sum c_k a_k = t_f g / 2 - v_0 - r_0 / t_f, c_k of `shares`.
        """
        t = final_time_s[:, :, None]
        v, r = state[:, None, 3:6], state[:, None, :3]
        pull = self._pull(v)
        return namespace(v).concatenate([t * pull - v, 0.5 * t * pull - v - r / t], 1)

    def shares(self) -> Floats:
        """Return c_k = 1 - (k + 1/2) / N: how much of t_f the speed gained in part k acts, (N,)."""
        return 1.0 - (np.arange(self.num_steps) + 0.5) / self.num_steps

    def throttle(self, state: Any, controls: Any, final_time_s: Any) -> Any:
        """Return the thrust at the start of each part over its bound, (B, N)."""
        mass = self.masses(state, controls, final_time_s)[:, :-1]
        return magnitude(controls) * mass / self.thrust

    def clip(self, state: Any, controls: Any, final_time_s: Any) -> Any:
        """Shorten accelerations that exceed the thrust bound; part by part, as the mass falls."""
        out, mass = [], state[:, 6:7]
        h = final_time_s / self.num_steps
        for k in range(self.num_steps):
            wanted = magnitude(controls[:, k])[:, None]
            share = (self.thrust / mass / (wanted + 1e-30)).clip(None, 1.0)
            out.append(controls[:, k] * share)
            mass = mass * namespace(mass).exp(-h * wanted * share / self.exhaust)
        return namespace(controls).stack(out, 1)

    def _pull(self, like: Any) -> Any:
        """Return (0, 0, g) as a row (1, 1, 3) in the type of `like` (B, N, 3)."""
        zero = like[:1, :1, :1] * 0.0
        return namespace(zero).concatenate([zero, zero, zero + self.gravity], -1)

    def _join(self, first: Any, rest: Any) -> Any:
        return namespace(rest).concatenate([first, rest], 1)


def magnitude(vectors: Any) -> Any:
    """Return the 2-norm along the last axis."""
    return (vectors * vectors).sum(-1) ** 0.5
