"""Where a local solver may begin a cartpole's swing-up: pumping by hand, and remembered policies.

Shapes: B cases, N steps, 4 states, P policies.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from ganglion.tasks.control.plants.base import Floats, Plant

if TYPE_CHECKING:
    from ganglion.tasks.control.plants.swing_up import Cartpole

GRAVITY = 9.81  # m/s^2
PUMPS = ((5.0, 0.3), (7.0, 0.6))  # acceleration of the cart in m/s^2, energy to spare in (m/s)^2
_STORE = "cartpole.npz"
Layers = list[tuple[Floats, Floats]]


def pumped(plant: Cartpole, x0: Floats, gain: Floats, push: float, spare: float) -> Floats:
    """Return controls (B, N, 1) that pump energy into the pole, and hold it by `gain` (1, 4).

    With E = 2/3 l w^2 + g (cos th - 1) per pole mass, 0 at rest upright, and the cart accelerated
    by a, dE/dt = -a w cos th: a = push tanh(4 (E - spare) w cos th), less what brings the cart
    back, and the force that gives this a. Source: Astrom and Furuta, Swinging up a pendulum by
    energy control, Automatica 36, 2000, eq. 7-8.
    """
    x, caught, out = x0, np.zeros(len(x0), bool), np.empty((len(x0), plant.num_steps, 1))
    mass, moment = plant.cart_mass + plant.pole_mass, plant.pole_mass * plant.half_length
    length = 4.0 / 3.0 * plant.half_length
    for t in range(plant.num_steps):
        e = plant.error(x, np.zeros_like(x))
        position, angle, velocity, rate = e.T
        sin, cos = np.sin(angle), np.cos(angle)
        energy = 0.5 * length * rate**2 + GRAVITY * (cos - 1.0)
        hanging = 0.3 * ((np.abs(rate) < 0.3) & (cos < -0.8))  # a first push
        pump = np.tanh(4.0 * (energy - spare) * rate * cos + hanging)
        a = push * pump - 2.0 * position - velocity
        turn = (GRAVITY * sin - a * cos) / length
        force = mass * a + moment * (turn * cos - rate**2 * sin)
        near = (np.abs(angle) < 0.6) & (np.abs(angle + 0.25 * rate) < 0.5)
        caught = (caught | near) & (np.abs(angle) < 1.0)
        out[:, t, 0] = np.where(caught, -(e @ gain[0]), force)
        out[:, t] = plant.clip(out[:, t])
        x = plant.step(x, out[:, t])
    return out


def recalled(plant: Plant, x0: Floats) -> list[Floats]:
    """Return the controls (B, N, 1) of each remembered policy's closed loop, P of them."""
    return [_closed_loop(plant, x0, layers) for layers in _policies()]


@lru_cache(maxsize=1)
def _policies() -> list[Layers]:
    """Read the trained policies: arrays p<policy>_<layer>_weight and _bias, as `Feedback` has."""
    with (
        files(__package__).joinpath(_STORE).open("rb") as file,
        np.load(file, allow_pickle=False) as held,
    ):
        names = sorted({k.rsplit("_", 2)[0] for k in held})
        return [
            [
                (held[f"{name}_{i}_weight"].astype(np.float64), held[f"{name}_{i}_bias"])
                for i in range(sum(k.startswith(f"{name}_") for k in held) // 2)
            ]
            for name in names
        ]


def _closed_loop(plant: Plant, x: Floats, layers: Layers) -> Floats:
    """Evaluate c + bound tanh(MLP(x, v, w scaled, sin th, cos th, share of time left))."""
    out = np.empty((len(x), plant.num_steps, 1))
    scale = 1.0 / np.asarray(plant.start_box)[[0, 2, 3]]
    longest = 6.0  # s, what they were trained for
    for t in range(plant.num_steps):
        left = min((plant.num_steps - t) * plant.dt, longest) / longest
        angle = x[:, 1]
        h = np.column_stack([x[:, [0, 2, 3]] * scale, np.sin(angle), np.cos(angle),
                             np.full(len(x), left)])  # fmt: skip
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight.T + bias
            h = h / (1.0 + np.exp(-h)) if i + 1 < len(layers) else np.tanh(h)
        out[:, t] = plant.clip(plant.centre + h * plant.bound)
        x = plant.step(x, out[:, t])
    return out
