"""A recursive reasoner: one small block, applied again and again to one or two latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReasoningBlock(nn.Module):
    """Residual pre-norm block z + W2 silu(W1 rms(z)), shared by every step that uses it."""

    def __init__(self, latent_dim: int, expansion: int = 2) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(latent_dim, elementwise_affine=False, eps=1e-6)
        self.up = nn.Linear(latent_dim, expansion * latent_dim)
        self.down = nn.Linear(expansion * latent_dim, latent_dim)
        self.down.weight.data.mul_(0.5)

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (B, d) to (B, d)."""
        out: Tensor = z + self.down(nn.functional.silu(self.up(self.norm(z))))
        return out


class RecursiveReasoner(nn.Module):
    """`steps` inner steps of one shared block over a slow latent and, with two levels, a fast one.

    One level: z <- block(z + x), `steps` times. Two levels: z_L <- block(z_L + z_H + x) `steps`
    times, then z_H <- block(z_H + z_L). Sharing the block between levels follows
    Jolicoeur-Martineau, "Less is more: recursive reasoning with tiny networks", arXiv:2510.04871,
    section 4. The latents are one array (B, levels * d), so a loop carries a single tensor;
    the slow one comes first.
    """

    def __init__(self, latent_dim: int, levels: int, steps: int) -> None:
        super().__init__()
        if levels not in (1, 2):
            raise ValueError(f"levels is {levels}; expected 1 (single latent) or 2 (slow and fast)")
        if steps < 1:
            raise ValueError(f"steps is {steps}; expected at least 1")
        self.latent_dim, self.levels, self.steps = latent_dim, levels, steps
        self.block = ReasoningBlock(latent_dim)
        self.norm = nn.RMSNorm(latent_dim, elementwise_affine=False, eps=1e-6)

    def initial(self, encoded: Tensor) -> Tensor:
        """Latents (B, levels * d) of an encoded problem (B, d): every level starts from it."""
        return torch.cat([encoded] * self.levels, -1)

    def read(self, latents: Tensor) -> Tensor:
        """Return the slow latent, normalised, (B, d): what a head reads."""
        out: Tensor = self.norm(latents[:, : self.latent_dim])
        return out

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        """Reason once: latents (B, levels * d), injected observation (B, d) -> latents."""
        if self.levels == 1:
            z = latents
            for _ in range(self.steps):
                z = self.block(z + x)
            return self._bounded(z)
        slow, fast = latents.split(self.latent_dim, -1)
        for _ in range(self.steps):
            fast = self.block(fast + slow + x)
        slow = self.block(slow + fast)
        return torch.cat([self._bounded(slow), self._bounded(fast)], -1)

    def _bounded(self, z: Tensor) -> Tensor:
        # Without it the residual stream grows with every cycle and the trained depth is a cliff.
        out: Tensor = self.norm(z)
        return out
