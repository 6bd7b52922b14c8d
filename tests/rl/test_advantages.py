"""Advantages, against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganglion.rl.advantages import advantages


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_two_steps_that_go_on() -> None:
    # gamma .5, lambda .8; delta1 = 2 + .5 * 4 - 1 = 3; delta0 = 1 + .5 * 1 - .5 = 1
    # A1 = 3; A0 = 1 + .5 * .8 * 3 = 2.2
    found = advantages(
        column(1, 2), column(0.5, 1), column(1, 4), torch.zeros(2, 1, dtype=torch.bool), 0.5, 0.8
    )
    assert found[:, 0].tolist() == pytest.approx([2.2, 3.0])


def test_an_end_breaks_the_sum_and_what_follows_it() -> None:
    # the episode ends after step 0 (its following value is 0): A0 = 1 - .5; A1 as before
    ended = torch.tensor([[True], [False]])
    found = advantages(column(1, 2), column(0.5, 1), column(0, 4), ended, 0.5, 0.8)
    assert found[:, 0].tolist() == pytest.approx([0.5, 3.0])


def test_an_end_by_time_counts_the_value_of_what_would_have_come() -> None:
    # time runs out after step 0 in a state worth 6: A0 = 1 + .5 * 6 - .5 = 3.5
    ended = torch.tensor([[True], [False]])
    found = advantages(column(1, 2), column(0.5, 1), column(6, 4), ended, 0.5, 0.8)
    assert found[:, 0].tolist() == pytest.approx([3.5, 3.0])


def test_lambda_one_is_the_return_less_the_value() -> None:
    rewards, values = torch.rand(7, 3), torch.rand(7, 3)
    following = torch.cat([values[1:], torch.full((1, 3), 2.0)])
    found = advantages(rewards, values, following, torch.zeros(7, 3, dtype=torch.bool), 0.9, 1.0)
    total = 2.0 * 0.9**7 + sum(0.9**t * rewards[t] for t in range(7))
    assert found[0] == pytest.approx((total - values[0]).numpy(), rel=1e-5)
