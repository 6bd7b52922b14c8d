"""A recurrence over planes: one small network, applied again and again to one or two latents.

With two latents it is the tiny recursive model of Jolicoeur-Martineau, "Less is more: recursive
reasoning with tiny networks", arXiv 2510.04871: z_L <- f(z_L + z_H + x) n times, then
z_H <- f(z_H + z_L), the network f shared by both. With one latent it is z <- f(z + x).
`recursive.py` holds its relative for vectors. Shapes: B batch, D channels, H x W positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ganglion.nets.mixing import Attention, Convolution, PositionMlp, SwiGlu

Latents = tuple[Tensor, ...]
_SHUT = -1e4  # added before a rectifier that is to give zero; within the range of half floats


class Entered(NamedTuple):
    """What an observation adds, computed once: to the first layer that reads it, and to the others.

    rest is None, or (B, 1, H, W) with 0 where a position takes part and a large negative number
    where it is shut.
    """

    first: Tensor
    rest: Tensor | None


@dataclass(frozen=True)
class Form:
    """What a recurrence is built of.

    update: hard_gate, h + g (c - h) with saturating gate g and candidate c, so that a position
    that has settled is an exact fixed point; or post_norm, the paper's rms(z + mix(z)) and
    rms(z + swiglu(z)). depth layers make up f; inner is n. sides (H, W) are needed by
    mixing=mlp and positions=learned, which serve that one size.
    """

    width: int = 16
    latents: Literal[1, 2] = 1
    update: Literal["hard_gate", "post_norm"] = "hard_gate"
    mixing: Literal["conv", "mlp", "attention"] = "conv"
    depth: int = 1
    inner: int = 1
    expansion: int = 2
    heads: int = 4
    positions: Literal["none", "rotary", "learned"] = "none"
    sides: tuple[int, int] | None = None


class Recurrence(nn.Module):
    """f and the way it is applied; `forward` is one cycle, to be repeated by the caller.

    The observation enters every application of f that reads it: `enter` is computed once. With
    update=hard_gate positions can be shut: their latents stay exactly zero, so that to their
    neighbours they are what lies beyond the border, whatever the observation says there.
    """

    def __init__(self, form: Form, channels: int) -> None:
        super().__init__()
        if form.latents not in (1, 2):
            raise ValueError(f"latents is {form.latents}; expected 1 or 2")
        if min(form.depth, form.inner, form.expansion) < 1:
            raise ValueError("depth, inner and expansion are expected to be at least 1")
        self.form = form
        kernel = 3 if form.mixing == "conv" else 1
        inside = form.width * (form.expansion if form.update == "hard_gate" else 1)
        self.entry = nn.Conv2d(channels, inside, kernel, padding=kernel // 2)
        layer = HardGate if form.update == "hard_gate" else PostNorm
        self.layers = nn.ModuleList(layer(form) for _ in range(form.depth))
        self.place = _learned(form, inside) if form.positions == "learned" else None

    def enter(self, x: Tensor, taking_part: Tensor | None = None) -> Entered:
        """Encode the observation (B, channels, H, W) for every step to come.

        taking_part (B, 1, H, W) bool shuts the other positions; update=post_norm ignores it.
        """
        first: Tensor = self.entry(x)
        first = first if self.place is None else first + self.place
        if taking_part is None or self.form.update != "hard_gate":
            return Entered(first, None)
        shut = torch.where(taking_part, 0.0, _SHUT)
        return Entered(torch.where(taking_part, first, _SHUT), shut)

    def initial(self, x: Tensor) -> Latents:
        """Latents before the first cycle: zeros, (B, D, H, W) each, the slow one first."""
        batch, _, height, wide = x.shape
        return (x.new_zeros(batch, self.form.width, height, wide),) * self.form.latents

    def forward(self, latents: Latents, entered: Entered) -> Latents:
        """Go through one cycle: n applications of f, and one more for a slow latent."""
        first, rest = entered
        if self.form.latents == 1:
            z = latents[0]
            for _ in range(self.form.inner):
                z = self._step(z, None, first, rest)
            return (z,)
        slow, fast = latents
        for _ in range(self.form.inner):
            fast = self._step(fast, slow, first, rest)
        return self._step(slow, fast, rest, rest), fast

    def _step(
        self, z: Tensor, other: Tensor | None, entered: Tensor | None, rest: Tensor | None
    ) -> Tensor:
        for layer in self.layers:
            z = layer(z, other, entered)
            other, entered = None, rest
        return z


class HardGate(nn.Module):
    """a = relu(mix(z + other) + entered); (g, c) = W a; z + hardsigmoid(g) (hardtanh(c) - z).

    Gates begin nearly closed (bias -1), so that what is known is kept from the start. The
    candidate has no bias: where a is zero it is zero, and a latent of zero stays.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        inside = form.expansion * form.width
        self.mix = _mixing(form, inside)
        self.gate = nn.Conv2d(inside, form.width, 1)
        self.candidate = nn.Conv2d(inside, form.width, 1, bias=False)
        with torch.no_grad():
            self.gate.bias.fill_(-1.0)  # type: ignore[union-attr]

    def forward(self, z: Tensor, other: Tensor | None, entered: Tensor | None) -> Tensor:
        """Map (B, D, H, W) to the same."""
        seen = self.mix(z if other is None else z + other)
        seen = nn.functional.relu(seen if entered is None else seen + entered)
        gate, candidate = self._read(seen)
        # hardtanh has the faster gradient, clamp the bounds that a graph fuses
        bounded = nn.functional.hardtanh(candidate) if self.training else candidate.clamp(-1.0, 1.0)
        return z + nn.functional.hardsigmoid(gate) * (bounded - z)

    def _read(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and candidate (B, D, H, W): one convolution in training, two nodes in a graph."""
        if torch.compiler.is_exporting():
            return self.gate(seen), self.candidate(seen)
        weights = torch.cat([self.gate.weight, self.candidate.weight])
        assert self.gate.bias is not None
        biases = nn.functional.pad(self.gate.bias, (0, len(self.candidate.weight)))
        gate, candidate = nn.functional.conv2d(seen, weights, biases).chunk(2, 1)
        return gate, candidate


class PostNorm(nn.Module):
    """z <- rms(z + mix(z)), then z <- rms(z + swiglu(z)), of the sum of all that comes in."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.mix = _mixing(form, form.width)
        self.swiglu = SwiGlu(form.width, form.expansion)

    def forward(self, z: Tensor, other: Tensor | None, entered: Tensor | None) -> Tensor:
        """Map (B, D, H, W) to the same."""
        for more in (other, entered):
            z = z if more is None else z + more
        z = unit(z + self.mix(z))
        return unit(z + self.swiglu(z.movedim(1, -1)).movedim(-1, 1))


def unit(z: Tensor, eps: float = 1e-6) -> Tensor:
    """z / sqrt(mean(z^2) + eps) over the channels of (B, D, H, W)."""
    return z * (z.pow(2).mean(1, keepdim=True) + eps).rsqrt()


def _mixing(form: Form, out: int) -> nn.Module:
    if form.mixing == "conv":
        return Convolution(form.width, out)
    if form.mixing == "attention":
        return Attention(form.width, out, form.heads, form.positions == "rotary")
    if form.sides is None:
        raise ValueError("mixing=mlp serves planes of one size; expected sides (H, W)")
    return PositionMlp(form.width, out, form.sides, form.expansion)


def _learned(form: Form, width: int) -> nn.Parameter:
    if form.sides is None:
        raise ValueError("positions=learned serve planes of one size; expected sides (H, W)")
    return nn.Parameter(torch.randn(1, width, *form.sides) * 0.02)
