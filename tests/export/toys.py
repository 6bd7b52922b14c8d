"""Small modules and children that the export tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from ganglion.core.contracts import Signature, TensorSpec

FLAT = Signature(
    inputs={"obs": TensorSpec((6,), unit="m", low=-2.0, high=2.0)},
    outputs={"action": TensorSpec((3,), unit="N")},
)
FIELD = Signature(
    inputs={
        "grid": TensorSpec((2, "height", "width"), low=0.0, high=1.0),
        "cycles": TensorSpec((), "int64", role="steps", high=9, batched=False),
    },
    outputs={
        "logits": TensorSpec((4, "height", "width")),
        "move": TensorSpec(("height", "width"), "int64"),
    },
)
MEMORY = Signature(
    inputs={
        "obs": TensorSpec((4,)),
        "noise": TensorSpec((3,), role="normal"),
        "hidden": TensorSpec((8,), role="state", low=-1.0, high=1.0),
    },
    outputs={"action": TensorSpec((3,)), "next_hidden": TensorSpec((8,))},
    carried={"next_hidden": "hidden"},
)


class Mlp(nn.Module):
    """(B, 6) -> (B, 3)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, width), nn.Dropout(0.5), nn.ELU())
        self.middle = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)

    def forward(self, obs: Tensor) -> Tensor:
        action: Tensor = self.last(torch.tanh(self.middle(self.net(obs))))
        return action


class Recursion(nn.Module):
    """(B, 2, height, width) -> (B, 4, height, width) and its argmax, after `cycles` cycles."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv2d(2, 8, 3, padding=1)
        self.step = nn.Conv2d(8, 8, 3, padding=1)
        self.decode = nn.Conv2d(8, 4, 1)

    def forward(self, grid: Tensor, cycles: Tensor) -> dict[str, Tensor]:
        state = self.encode(grid)
        if torch.compiler.is_exporting():
            start = torch.zeros((), dtype=torch.int64)
            _, _, state = while_loop(self._more, self._next, (start, cycles, state))
        else:
            for _ in range(int(cycles)):
                state = torch.tanh(self.step(state) + state)
        logits = self.decode(state)
        return {"logits": logits, "move": logits.argmax(1)}

    def _more(self, done: Tensor, cycles: Tensor, state: Tensor) -> Tensor:
        return done < cycles

    def _next(self, done: Tensor, cycles: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return done + 1, cycles.clone(), torch.tanh(self.step(state) + state)


class Cell(nn.Module):
    """A recurrent policy: its outputs come as a tuple, in the signature's order."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, obs: Tensor, noise: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        following = self.cell(obs, hidden)
        return self.head(following) + 0.1 * noise, following


def child(folder: Path, body: str) -> list[str]:
    """Write a child that runs `body` for each `line` it reads, and return its command."""
    indented = "\n".join("    " + line for line in body.strip().splitlines())
    program = (
        f"import json, sys, time\nfor line in sys.stdin:\n{indented}\n    sys.stdout.flush()\n"
    )
    path = folder / "child.py"
    path.write_text(program)
    return [sys.executable, "-S", str(path)]
