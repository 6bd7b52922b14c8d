"""A recursive reasoner: one small block, applied again and again to one or two latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """z / sqrt(mean(z^2) + eps) over the last axis, without weights.

    In an exported graph it is written as ONNX Runtime recognises it (SimplifiedLayerNormalization),
    the factor of ones included: one node instead of six.
    """

    ones: Tensor

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("ones", torch.ones(width), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Normalise (B, width)."""
        if not torch.compiler.is_exporting():
            return nn.functional.rms_norm(z, self.ones.shape, eps=self.eps)
        return z / (z.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.ones


class ReasoningBlock(nn.Module):
    """Residual pre-norm block z + W2 silu(W1 rms(z)), shared by every step that uses it."""

    def __init__(self, latent_dim: int, expansion: int = 2) -> None:
        super().__init__()
        self.norm = RmsNorm(latent_dim)
        self.up = nn.Linear(latent_dim, expansion * latent_dim)
        self.down = nn.Linear(expansion * latent_dim, latent_dim)
        self.down.weight.data.mul_(0.5)

    def forward(self, z: Tensor, shift: Tensor | None = None) -> Tensor:
        """Map latents (B, d) to (B, d).

        shift, where given, stands for the last bias: what the caller adds anyway goes in there.
        """
        hidden = nn.functional.silu(self.up(self.norm(z)))
        carried = z + (self.down.bias if shift is None else shift)
        if torch.compiler.is_exporting():  # one Gemm; in autocast it would round the sum
            return torch.addmm(carried, hidden, self.down.weight.t())
        return carried + nn.functional.linear(hidden, self.down.weight)


Latents = tuple[Tensor, ...]


class RecursiveReasoner(nn.Module):
    """`steps` inner steps of one shared block over a slow latent and, with two levels, a fast one.

    One level: z <- block(z + x), `steps` times. Two levels: z_L <- block(z_L + z_H + x) `steps`
    times, then z_H <- block(z_H + z_L). Sharing the block between levels follows
    Jolicoeur-Martineau, "Less is more: recursive reasoning with tiny networks", arXiv:2510.04871,
    section 4. Each latent is (B, d), the slow one first, and normalised after every cycle:
    without that the residual stream grows with each and the trained depth is a cliff.
    """

    def __init__(self, latent_dim: int, levels: int, steps: int) -> None:
        super().__init__()
        if levels not in (1, 2):
            raise ValueError(f"levels is {levels}; expected 1 (single latent) or 2 (slow and fast)")
        if steps < 1:
            raise ValueError(f"steps is {steps}; expected at least 1")
        self.levels, self.steps = levels, steps
        self.block = ReasoningBlock(latent_dim)
        self.norm = RmsNorm(latent_dim)

    def initial(self, encoded: Tensor) -> Latents:
        """Latents of an encoded problem (B, d): every level starts from it."""
        return (encoded,) * self.levels

    def forward(self, latents: Latents, x: Tensor) -> Latents:
        """Reason once: latents, injected observation (B, d) -> latents."""
        if self.levels == 1:
            return (self.norm(self._steps(latents[0], x)),)
        slow, fast = latents
        fast = self._steps(fast, x + slow)
        return self.norm(self.block(slow + fast)), self.norm(fast)

    def _steps(self, z: Tensor, x: Tensor) -> Tensor:
        """z <- block(z + x), `steps` times."""
        shift = x + self.block.down.bias
        z = z + x
        for _ in range(self.steps - 1):
            z = self.block(z, shift)
        out: Tensor = self.block(z)
        return out
