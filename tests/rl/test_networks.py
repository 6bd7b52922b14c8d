"""Normaliser, densities and divergences, against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ganglion.rl.networks import Critic, GaussianActor, divergence, log_probability
from ganglion.rl.normaliser import Normaliser


def test_moments_of_batches_are_those_of_all_rows() -> None:
    rows = torch.randn(100, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 100.0, -3.0])
    made = Normaliser(3)
    for part in rows.split([10, 1, 60, 29]):
        made.update(part)
    assert made.mean.numpy() == pytest.approx(rows.mean(0).numpy(), rel=1e-5)
    assert made.variance.numpy() == pytest.approx(rows.var(0, unbiased=False).numpy(), rel=1e-4)
    assert made(rows).std(0, unbiased=False).numpy() == pytest.approx([1.0, 1.0, 1.0], rel=1e-3)


def test_two_numbers_are_normalised_to_minus_one_and_one() -> None:
    # mean 3, variance 1: (2 - 3) / 1 = -1; 400 is clamped to 10
    made = Normaliser(1)
    made.update(torch.tensor([[2.0], [4.0]]))
    found = made(torch.tensor([[2.0], [4.0], [400.0]]))
    assert found[:, 0].tolist() == pytest.approx([-1.0, 1.0, 10.0])


def test_a_density_by_hand() -> None:
    # N(1; 0, 2): -(1/2)^2 / 2 - ln 2 - ln(2 pi) / 2; two alike are twice that
    one = -0.125 - math.log(2.0) - 0.5 * math.log(2.0 * math.pi)
    found = log_probability(torch.ones(1, 2), torch.zeros(1, 2), torch.full((2,), math.log(2.0)))
    assert float(found) == pytest.approx(2.0 * one)


def test_a_divergence_by_hand() -> None:
    # KL(N(0, 1) || N(1, 2)) = ln 2 + (1 + 1) / 8 - 1 / 2
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    found = divergence(zero, torch.zeros(1), one, torch.full((1,), math.log(2.0)))
    assert float(found) == pytest.approx(math.log(2.0) + 0.25 - 0.5)
    assert float(divergence(one, torch.zeros(1), one, torch.zeros(1))) == 0.0


def test_the_first_actions_are_small_and_have_the_asked_spread() -> None:
    actor = GaussianActor(4, 2, (32, 32), 0.4)
    assert actor(torch.randn(50, 4)).abs().max() < 0.2
    assert actor.log_std.exp().tolist() == pytest.approx([0.4, 0.4])
    assert Critic(4, (8,))(torch.randn(5, 4)).shape == (5,)
