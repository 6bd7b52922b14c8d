"""Quaternions: numbers by hand, properties, and the same answers from NumPy and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ganglion.tasks.motion import rotations

RNG = np.random.default_rng(0)
QUATS = rotations.normalised(RNG.normal(size=(50, 4)))
OTHER = rotations.normalised(RNG.normal(size=(50, 4)))
VECTORS = RNG.normal(size=(50, 3))
HALF = np.sqrt(0.5)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    # q = (cos 45, 0, 0, sin 45): (1, 0, 0) -> (0, 1, 0), and up in the body stays up
    q = np.array([HALF, 0.0, 0.0, HALF])
    assert rotations.rotate(q, np.array([1.0, 0.0, 0.0])) == pytest.approx([0.0, 1.0, 0.0])
    assert rotations.rotate_back(q, np.array([0.0, 1.0, 0.0])) == pytest.approx([1.0, 0.0, 0.0])
    assert rotations.heading(q) == pytest.approx(np.pi / 2)
    assert rotations.up(q) == pytest.approx([0.0, 0.0, 1.0])


def test_a_product_turns_as_its_factors_do_one_after_the_other() -> None:
    # by hand: (0,1,0,0)(0,0,1,0) = (0,0,0,1)
    i, j = np.array([0.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 0.0])
    assert rotations.multiply(i, j) == pytest.approx([0.0, 0.0, 0.0, 1.0])
    both = rotations.rotate(rotations.multiply(QUATS, OTHER), VECTORS)
    assert both == pytest.approx(rotations.rotate(QUATS, rotations.rotate(OTHER, VECTORS)))


def test_the_logarithm_of_a_half_turn_about_x_is_pi_along_x() -> None:
    assert rotations.logarithm(np.array([0.0, 1.0, 0.0, 0.0])) == pytest.approx([np.pi, 0.0, 0.0])
    # q and -q are one rotation: the short way of 300 degrees about z is -60 degrees
    q = rotations.about_z(np.array(np.deg2rad(300.0)))
    assert rotations.logarithm(q) == pytest.approx([0.0, 0.0, np.deg2rad(-60.0)])


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-5, 1e-3, 0.5, 3.0])
def test_exponential_and_logarithm_undo_each_other(size: float) -> None:
    axis = VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True)
    back = rotations.logarithm(rotations.exponential(size * axis))
    assert back == pytest.approx(size * axis, abs=1e-12, rel=1e-9)


def test_slerp_of_a_third_of_ninety_degrees_is_thirty() -> None:
    a, b = rotations.about_z(np.zeros(1)), rotations.about_z(np.full(1, np.pi / 2))
    third = rotations.slerp(a, b, np.array([[1.0 / 3.0]]))
    assert rotations.heading(third) == pytest.approx([np.deg2rad(30.0)])
    assert rotations.angle_between(a, third) == pytest.approx([np.deg2rad(30.0)])


def test_up_is_the_world_s_up_seen_from_the_body() -> None:
    assert rotations.up(QUATS) == pytest.approx(
        rotations.rotate_back(QUATS, np.tile([0.0, 0.0, 1.0], (50, 1)))
    )


def test_turning_about_the_vertical_is_what_its_quaternion_does() -> None:
    angle = RNG.uniform(-3.0, 3.0, 50)
    turned = rotations.turn(angle, VECTORS)
    assert turned == pytest.approx(rotations.rotate(rotations.about_z(angle), VECTORS))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "multiply": lambda s: rotations.multiply(s[0], s[1]),
    "rotate": lambda s: rotations.rotate(s[0], s[2]),
    "rotate_back": lambda s: rotations.rotate_back(s[0], s[2]),
    "logarithm": lambda s: rotations.logarithm(s[0]),
    "exponential": lambda s: rotations.exponential(s[2]),
    "heading": lambda s: rotations.heading(s[0]),
    "up": lambda s: rotations.up(s[0]),
    "slerp": lambda s: rotations.slerp(s[0], s[1], 0.3 + 0.0 * s[0][:, :1]),
    "turn": lambda s: rotations.turn(s[2][:, 0], s[2]),
    "about_y": lambda s: rotations.about_y(s[2][:, 0]),
    "angle_between": lambda s: rotations.angle_between(s[0], s[1]),
    "wrapped": lambda s: rotations.wrapped(9.0 * s[2]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_gives_what_numpy_gives(name: str) -> None:
    numbers = FUNCTIONS[name]((QUATS, OTHER, VECTORS))
    tensors = FUNCTIONS[name]([torch.from_numpy(a) for a in (QUATS, OTHER, VECTORS)])
    assert isinstance(tensors, torch.Tensor)
    assert tensors.numpy() == pytest.approx(numbers, abs=1e-12)
