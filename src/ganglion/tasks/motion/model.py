"""The policy as it is exported: observation in, joint targets out, everything between inside."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ganglion.rl.networks import GaussianActor, perceptron
from ganglion.tasks.motion.mdp import Rules


class Tracker(nn.Module):
    """Normaliser, net, action mapping and limits of a trained actor, as they are now.

    Target = reference of the next step (a part of the observation) or mean pose + scale * action,
    within the actuators' range. The scale is multiplied into the last layer and the normaliser's
    root is taken here, not at every decision.
    """

    offset: Tensor
    gain: Tensor
    low: Tensor
    high: Tensor
    mean: Tensor

    def __init__(self, actor: GaussianActor, rules: Rules) -> None:
        super().__init__()
        self.limit = actor.normaliser.limit
        self.layers = copy.deepcopy(actor.layers)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(rules.scale)
            last.bias.mul_(rules.scale)
        self.own = not rules.residual or rules.commanded
        self.after = slice(0, 0) if self.own else rules.layout.slice("next_reference")
        self.register_buffer("offset", actor.normaliser.mean.clone())
        self.register_buffer("gain", actor.normaliser.gain())
        for name, values in (
            ("low", rules.robot.targets[:, 0]), ("high", rules.robot.targets[:, 1]),
            ("mean", rules.mean[rules.robot.actuated]),
        ):  # fmt: skip
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, observation: Tensor) -> Tensor:
        """Map (N, O) to joint targets (N, A) in rad."""
        seen = ((observation - self.offset) * self.gain).clamp(-self.limit, self.limit)
        base = self.mean if self.own else observation[:, self.after]
        return torch.minimum(torch.maximum(base + self.layers(seen), self.low), self.high)


class Clone(nn.Module):
    """Joint targets from the phase alone; the rest of the observation is not looked at."""

    low: Tensor
    high: Tensor
    mean: Tensor

    def __init__(self, rules: Rules, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.phase = rules.layout.slice("phase")
        self.layers = perceptron((2, *hidden, len(rules.robot.actuated)), 0.1)
        for name, values in (
            ("low", rules.robot.targets[:, 0]), ("high", rules.robot.targets[:, 1]),
            ("mean", rules.mean[rules.robot.actuated]),
        ):  # fmt: skip
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, observation: Tensor) -> Tensor:
        """Map (N, O) to joint targets (N, A) in rad."""
        wanted = self.mean + self.layers(observation[:, self.phase])
        return torch.minimum(torch.maximum(wanted, self.low), self.high)
