"""Running mean and variance of observations, as a module that is exported with the policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """(x - mean) / sqrt(variance + 1e-8), clamped to +-`limit`.

    `update` merges a batch into the running moments. Source: Chan, Golub and LeVeque, Updating
    formulae and a pairwise algorithm for computing sample variances, 1982, equation 1.5.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., size)."""
        return ((x - self.mean) * self.gain()).clamp(-self.limit, self.limit)

    def gain(self) -> Tensor:
        """Return what a distance from the mean is multiplied by (size,)."""
        return torch.rsqrt(self.variance + 1e-8)

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Take a batch (B, size) into account."""
        rows = batch.reshape(-1, batch.shape[-1]).double()
        added = rows.shape[0]
        total = self.count + added
        mean = rows.mean(0)
        variance = rows.var(0, unbiased=False)
        old = self.variance.double() * self.count
        away = mean - self.mean.double()
        spread = old + variance * added + away.square() * self.count * added / total
        self.mean.copy_((self.mean.double() + away * added / total).float())
        self.variance.copy_((spread / total).float())
        self.count.copy_(total)
