"""A plain multilayer perceptron with SiLU activations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear layers with SiLU between them; the last layer is linear.

    widths names every layer's size, input and output included, so `Mlp((3, 48, 1))` has one hidden
    layer. `output_gain` scales the last layer's initial weights: a small one starts the net near 0.
    """

    def __init__(self, widths: Sequence[int], output_gain: float = 1.0) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(
                f"widths are {tuple(widths)}; expected at least two sizes of 1 or more"
            )
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])
        last = layers[-2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.bias)
        last.weight.data.mul_(output_gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., widths[0]) to (..., widths[-1])."""
        out: Tensor = self.layers(x)
        return out
