"""An MLP-mixer over a fixed number of tokens, with one answer for all of them.

Source: Tolstikhin et al., MLP-Mixer, arXiv 2105.01601, section 2. Shapes: B batch, T tokens, D
channels.
"""

from __future__ import annotations

from torch import Tensor, nn


class Mixer(nn.Module):
    """Embedding, `depth` mixer layers, the mean over tokens, and a linear head.

    Where a token stands is known from the perceptrons over tokens alone. dropout follows every
    perceptron.
    """

    def __init__(
        self, vocabulary: int, tokens: int, width: int, depth: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(MixerLayer(tokens, width, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, classes) of whole numbers (B, T)."""
        out: Tensor = self.head(self.norm(self.layers(self.embed(tokens))).mean(1))
        return out


class MixerLayer(nn.Module):
    """x + mlp over tokens of norm(x), then x + mlp over channels of norm(x)."""

    def __init__(self, tokens: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_tokens = _perceptron(tokens, 2 * tokens, dropout)
        self.over_channels = _perceptron(width, 2 * width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to the same."""
        x = x + self.over_tokens(self.first(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.over_channels(self.second(x))
        return out


def _perceptron(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width),
        nn.Dropout(dropout),
    )  # fmt: skip
