"""The plants by name: what the rest of the task imports."""

from __future__ import annotations

from collections.abc import Mapping

from ganglion.tasks.control.plants.base import (
    Components,
    Course,
    Floats,
    Plant,
    Rk4Plant,
    namespace,
)
from ganglion.tasks.control.plants.classic import DoubleIntegrator, VanDerPol
from ganglion.tasks.control.plants.quadrotor import Quadrotor2d
from ganglion.tasks.control.plants.swing_up import Cartpole, Pendulum

__all__ = [
    "PLANTS", "Cartpole", "Components", "Course", "DoubleIntegrator", "Floats", "Pendulum",
    "Plant", "Quadrotor2d", "Rk4Plant", "VanDerPol", "namespace",
]  # fmt: skip

PLANTS: Mapping[str, type[Plant]] = {
    p.name: p for p in (DoubleIntegrator, VanDerPol, Pendulum, Cartpole, Quadrotor2d)
}
