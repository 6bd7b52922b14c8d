"""Actor and critic: normalised observations into small perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganglion.rl.normaliser import Normaliser


def perceptron(widths: Sequence[int], output_gain: float) -> nn.Sequential:
    """Return linear layers with ELU between them, orthogonally initialised.

    Hidden layers have gain sqrt(2), the last one `output_gain`; biases are 0.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        linear = nn.Linear(fan_in, fan_out)
        last = i == len(widths) - 2
        nn.init.orthogonal_(linear.weight, output_gain if last else 2.0**0.5)
        nn.init.zeros_(linear.bias)
        # in place: its gradient is then taken from its result, without a second exponential
        layers += [linear] if last else [linear, nn.ELU(inplace=True)]
    return nn.Sequential(*layers)


class GaussianActor(nn.Module):
    """Mean action of an observation; the spread is a parameter of its own.

    `layers` takes normalised observations, `forward` raw ones.
    """

    def __init__(
        self, observations: int, actions: int, hidden: Sequence[int], initial_std: float
    ) -> None:
        super().__init__()
        self.normaliser = Normaliser(observations)
        self.layers = perceptron((observations, *hidden, actions), 0.01)
        self.log_std = nn.Parameter(torch.full((actions,), float(initial_std)).log())

    def forward(self, observation: Tensor) -> Tensor:
        """Map (N, O) to the mean action (N, A)."""
        found: Tensor = self.layers(self.normaliser(observation))
        return found


class Critic(nn.Module):
    """Value of what the critic sees."""

    def __init__(self, observed: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.normaliser = Normaliser(observed)
        self.layers = perceptron((observed, *hidden, 1), 1.0)

    def forward(self, observed: Tensor) -> Tensor:
        """Map (N, P) to values (N,)."""
        found: Tensor = self.layers(self.normaliser(observed)).squeeze(-1)
        return found


def log_probability(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log N(action; mean, exp(log_std)) summed over actions (N,)."""
    away = (action - mean) * torch.exp(-log_std)
    constant = 0.9189385332046727  # log(2 pi) / 2
    return -(0.5 * away.square() + log_std + constant).sum(-1)


def divergence(mean: Tensor, log_std: Tensor, mean1: Tensor, log_std1: Tensor) -> Tensor:
    """Return KL(N(mean, std) || N(mean1, std1)) summed over actions (N,)."""
    ratio = torch.exp(2.0 * (log_std - log_std1))
    away = (mean - mean1).square() * torch.exp(-2.0 * log_std1)
    return (log_std1 - log_std + 0.5 * (ratio + away) - 0.5).sum(-1)
