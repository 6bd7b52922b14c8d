"""Adversarial motion prior: a discriminator that tells transitions of a data set from the policy's,
and the style reward that follows from fooling it.

Loss: binary cross-entropy, data against policy, with a penalty on the gradient at data; reward
-log(max(1 - sigmoid(D), 1e-4)) times a scale. Source: Peng et al., Adversarial Motion Priors, arXiv
2104.02180, sections 5.2 and 5.3, with the cross-entropy of Ho and Ermon, arXiv 1606.03476.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganglion.rl.networks import perceptron
from ganglion.rl.normaliser import Normaliser
from ganglion.rl.settings import PriorSettings


class MotionPrior:
    """A discriminator and its optimiser over transitions (S,); `data` (M, S) are the true ones."""

    def __init__(self, cfg: PriorSettings, data: Tensor) -> None:
        self._cfg, self._data = cfg, data
        size = data.shape[1]
        self._normaliser = Normaliser(size, 5.0)
        self._layers = perceptron((size, *cfg.hidden, 1), 0.1)
        parameters = list(self._layers.parameters())
        self._optimizer = torch.optim.Adam(parameters, lr=cfg.lr, betas=(0.5, 0.999))
        self._normaliser.update(data)

    def to(self, device: torch.device) -> MotionPrior:
        """Move everything to a device."""
        self._data = self._data.to(device)
        self._normaliser.to(device)
        self._layers.to(device)
        return self

    @torch.no_grad()
    def reward(self, style: Tensor) -> Tensor:
        """Return the style reward (...) of transitions (..., S)."""
        logit = self._layers(self._normaliser(style)).squeeze(-1)
        found: Tensor = -torch.log((1.0 - torch.sigmoid(logit)).clamp(min=1e-4))
        return self._cfg.scale * found

    def mixed(self, task: Tensor, style: Tensor) -> Tensor:
        """Return the total reward: the shares of the task's and of the style's."""
        return self._cfg.task * task + self._cfg.style * style

    def loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's loss on normalised transitions (B, S), and its parts."""
        real = real.detach().requires_grad_()
        on_real, on_fake = self._layers(real).squeeze(-1), self._layers(fake).squeeze(-1)
        told = nn.functional.softplus(-on_real).mean() + nn.functional.softplus(on_fake).mean()
        (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
        penalty = slope.square().sum(-1).mean()
        last = self._layers[-1]
        assert isinstance(last, nn.Linear)
        loss = (
            0.5 * told + self._cfg.gradient_penalty * penalty
            + self._cfg.logit * last.weight.square().sum()
        )  # fmt: skip
        right = 0.5 * ((on_real > 0).float().mean() + (on_fake < 0).float().mean())
        return loss, {"prior_loss": loss, "prior_right": right, "prior_penalty": penalty}

    def learn(self, style: Tensor, draw: torch.Generator) -> dict[str, float]:
        """Train on a rollout's transitions (T, N, S) against the data; return mean parts."""
        fakes = self._normaliser(style.reshape(-1, style.shape[-1]))
        sums: dict[str, float] = {}
        for _ in range(self._cfg.steps):
            mine = torch.randint(len(fakes), (self._cfg.batch,), generator=draw)
            true = torch.randint(len(self._data), (self._cfg.batch,), generator=draw)
            real = self._normaliser(self._data[true.to(self._data.device)])
            loss, terms = self.loss(real, fakes[mine.to(fakes.device)])
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / self._cfg.steps
        return sums

    def everything(self) -> dict[str, Any]:
        """Return weights, moments and the optimiser's state."""
        return {
            "layers": dict(self._layers.state_dict()),
            "normaliser": dict(self._normaliser.state_dict()),
            "optimizer": self._optimizer.state_dict()["state"],
        }

    def set_everything(self, state: dict[str, Any]) -> None:
        """Undo `everything`."""
        self._layers.load_state_dict(state["layers"])
        self._normaliser.load_state_dict(state["normaliser"])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})


def transitions(features: Sequence[Tensor]) -> Tensor:
    """Return pairs of neighbouring rows (sum of T_i - 1, 2 S) of each sequence (T_i, S)."""
    return torch.cat([torch.cat([f[:-1], f[1:]], -1) for f in features])
