"""The adversarial motion prior: losses by hand, and a style that is learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toy import learner

from ganglion.rl.prior import MotionPrior, PriorSettings, transitions


def linear(weight: float, **changes: float) -> MotionPrior:
    """A discriminator D(s) = weight * (normalised s), of data with mean 0 and variance 1."""
    cfg = PriorSettings(hidden=(), **changes)  # type: ignore[arg-type]
    made = MotionPrior(cfg, torch.tensor([[-1.0], [1.0]]))
    made._layers[0].weight.data.fill_(weight)
    return made


def test_the_style_reward_by_hand() -> None:
    # D = 2 * 1 = 2: -ln(1 - sigmoid(2)) = ln(1 + e^2); twice that; and it is bounded by -ln(1e-4)
    made = linear(2.0)
    found = made.reward(torch.tensor([[1.0], [9.0]]))
    assert found.tolist() == pytest.approx([2.0 * math.log1p(math.e**2), -2.0 * math.log(1e-4)])


def test_the_loss_by_hand() -> None:
    # weight w = 2, real 1, fake -1: softplus(-2) twice, halved; penalty w^2 = 4, weighted .5;
    # logit .01 * w^2 = .04
    made = linear(2.0, gradient_penalty=0.5)
    loss, terms = made.loss(torch.tensor([[1.0]]), torch.tensor([[-1.0]]))
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-2.0)) + 0.5 * 4.0 + 0.04)
    assert float(terms["prior_right"]) == 1.0


def test_task_and_style_are_mixed_by_their_shares() -> None:
    found = linear(1.0).mixed(torch.tensor([1.0]), torch.tensor([2.0]))
    assert float(found) == pytest.approx(0.4 * 1.0 + 0.6 * 2.0)


def test_transitions_are_pairs_of_neighbours() -> None:
    found = transitions([torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[7.0], [8.0]])])
    assert found.tolist() == [[1.0, 2.0], [2.0, 3.0], [7.0, 8.0]]


def test_a_policy_takes_on_the_style_of_the_data() -> None:
    # in the data points move by +.5 six times from starts in +-2; no task is paid
    start = torch.linspace(-2.0, 2.0, 200)[:, None] + 0.5 * torch.arange(6.0)
    start = start.reshape(-1, 1)
    data = torch.cat([start, start + 0.5], -1)[start[:, 0] < 3.5]
    cfg = PriorSettings(
        hidden=(32, 32), lr=3e-3, batch=128, gradient_penalty=0.1, task=0.0, style=1.0
    )
    torch.manual_seed(0)
    made = learner(50, MotionPrior(cfg, data), styled=True)
    moves = []
    for _ in range(50):
        made.update()
        moves.append(float(made.policy().act({"x": np.zeros((1, 1), np.float32)})["move"][0, 0]))
    assert np.mean(moves[:3]) < 0.3
    assert np.mean(moves[-15:]) == pytest.approx(0.5, abs=0.1)


def test_the_prior_is_part_of_the_state() -> None:
    from ganglion.train import checkpoint

    data = torch.randn(50, 2)

    def fresh() -> object:
        torch.manual_seed(3)
        return learner(9, MotionPrior(PriorSettings(hidden=(8,), batch=16), data), styled=True)

    whole, part, again = fresh(), fresh(), fresh()
    for _ in range(4):
        whole.update()  # type: ignore[attr-defined]
    for _ in range(2):
        part.update()  # type: ignore[attr-defined]
    again.load_state_dict(part.state_dict())  # type: ignore[attr-defined]
    for _ in range(2):
        again.update()  # type: ignore[attr-defined]
    ours, theirs = (checkpoint.state_digest(x.state_dict()) for x in (again, whole))  # type: ignore[attr-defined]
    assert ours == theirs
