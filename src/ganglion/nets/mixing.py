"""How positions of a plane exchange what they know: convolution, perceptron or attention.

Each maps (B, D, H, W) to (B, M, H, W) and knows nothing about time. L = H * W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Convolution(nn.Module):
    """3 x 3 around every position, without bias; planes of any size."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Mix (B, D, H, W)."""
        out: Tensor = self.conv(z)
        return out


class PositionMlp(nn.Module):
    """SwiGLU over all positions, the same for each channel, for planes of one size.

    What arXiv 2510.04871 puts in the place of attention where the number of positions is small.
    """

    def __init__(self, width: int, out: int, sides: tuple[int, int], expansion: int) -> None:
        super().__init__()
        positions = sides[0] * sides[1]
        self.swiglu = SwiGlu(positions, expansion)
        self.project = nn.Identity() if out == width else nn.Conv2d(width, out, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Mix (B, D, H, W) of the size it was built for."""
        out: Tensor = self.project(self.swiglu(z.flatten(2)).view(z.shape))
        return out


class Attention(nn.Module):
    """Attention of all positions to all, with rotary row and column angles; planes of any size.

    One half of each head turns with the row, the other with the column (Su et al., RoFormer,
    arXiv 2104.09864, section 3.2.2, once per axis).
    """

    frequencies: Tensor

    def __init__(self, width: int, out: int, heads: int, rotary: bool) -> None:
        super().__init__()
        if width % (4 * heads):
            raise ValueError(f"width is {width}; expected a multiple of 4 x heads = {4 * heads}")
        self.heads, self.rotary = heads, rotary
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, out, bias=False)
        quarter = width // heads // 4
        frequencies = 100.0 ** (-torch.arange(quarter) / max(1, quarter))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Mix (B, D, H, W)."""
        batch, width, height, wide = z.shape
        tokens = z.flatten(2).transpose(1, 2)
        heads = (batch, height * wide, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(tokens).view(heads).permute(2, 0, 3, 1, 4)  # each (B, heads, L, d)
        if self.rotary:
            angles = self._angles(height, wide)
            q, k = turned(q, angles), turned(k, angles)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.project(mixed.transpose(1, 2).reshape(tokens.shape))
        return out.transpose(1, 2).reshape(batch, -1, height, wide)

    def _angles(self, height: int, wide: int) -> Tensor:
        """Angle of each pair of components at each position, (L, d / 2)."""
        device = self.frequencies.device
        rows = torch.arange(height, device=device).unsqueeze(1) * self.frequencies
        columns = torch.arange(wide, device=device).unsqueeze(1) * self.frequencies
        grid = (height, wide, len(self.frequencies))
        pair = [rows.unsqueeze(1).expand(grid), columns.unsqueeze(0).expand(grid)]
        return torch.cat(pair, -1).flatten(0, 1)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + d/2}) of (..., L, d) by the angles (L, d / 2)."""
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class SwiGlu(nn.Module):
    """W3 (silu(W1 x) * W2 x) over the last axis, without biases (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * expansion * width, bias=False)
        self.down = nn.Linear(expansion * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        gate, value = self.up(x).chunk(2, -1)
        out: Tensor = self.down(nn.functional.silu(gate) * value)
        return out
