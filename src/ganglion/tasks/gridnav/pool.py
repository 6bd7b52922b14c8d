"""Slots of one size: maps that stay for a while, and the latents that grow on them.

Shapes: B slots, S x S cells, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganglion.core import seeds
from ganglion.nets.recurrence import Latents
from ganglion.tasks.gridnav.grids import Bools, Ints
from ganglion.tasks.gridnav.training_maps import BLOCK, Source, labelled

_EXTRA = 4  # cycles that every map gets besides those of its wave


@dataclass(frozen=True)
class Schedule:
    """How long a map stays: speed is the cells that a wave goes in a cycle, stay the range of
    the factor on the cycles that it needs; single says which targets there are."""

    speed: int
    stay: tuple[float, float]
    single: bool


@dataclass
class Block:
    """Maps drawn together, with their targets, and the cycles that each stays."""

    free: Tensor  # (N, S, S) bool
    goal: Tensor  # (N, 2)
    distance: Tensor  # (N, S, S) int32, -1 where blocked or without a way
    parts: Tensor  # (N, 5, S, S)
    life: Tensor  # (N,)


class Pool:
    """`count` slots of one side; `renew` gives those that have lived a fresh map and no past."""

    def __init__(
        self, side: int, count: int, source: Source, schedule: Schedule, latents: Latents, seed: int
    ) -> None:
        self.side, self.count, self._source, self._schedule = side, count, source, schedule
        self._seed, self._device = seed, latents[0].device
        shape = (count, side, side)
        self.latents = latents
        self.free = torch.zeros(shape, dtype=torch.bool, device=self._device)
        self.goal = torch.zeros((count, 2), dtype=torch.int64, device=self._device)
        self.distance = torch.full(shape, -1, dtype=torch.int32, device=self._device)
        self.parts = torch.zeros((count, 5, side, side), device=self._device)
        self.time = torch.zeros(count, dtype=torch.int64, device=self._device)  # cycles so far
        self.life = torch.zeros(count, dtype=torch.int64, device=self._device)
        self.number, self.used = -1, BLOCK
        self._block: Block | None = None

    def renew(self) -> None:
        """Give the slots whose time is over a fresh map, and zeros for latents."""
        ended = torch.nonzero(self.time >= self.life).squeeze(1)
        while len(ended):
            if self.used >= BLOCK:
                self.number, self.used, self._block = self.number + 1, 0, None
            block = self._drawn()
            rows = ended[: BLOCK - self.used]
            taken = slice(self.used, self.used + len(rows))
            for name in ("free", "goal", "distance", "parts", "life"):
                getattr(self, name)[rows] = getattr(block, name)[taken]
            self.time[rows] = 0
            self.latents = tuple(z.index_fill(0, rows, 0.0) for z in self.latents)
            self.used, ended = self.used + len(rows), ended[len(rows) :]

    def forget(self) -> None:
        """End every map: the next `renew` begins anew everywhere."""
        self.life.zero_()

    def planes(self) -> tuple[Tensor, Tensor]:
        """Return maps and goals as a policy takes them, (B, S, S) float32 each."""
        goal = torch.zeros(self.free.shape, device=self._device)
        goal[torch.arange(self.count), self.goal[:, 0], self.goal[:, 1]] = 1.0
        return self.free.float(), goal

    def _drawn(self) -> Block:
        if self._block is None:
            free, goal = self._source.block(self.side, self.number)
            rng = seeds.rng(self._seed, "stay", self.side, self.number)
            self._block = self._labelled(free, goal, rng)
        return self._block

    def _labelled(self, free: Bools, goal: Ints, rng: np.random.Generator) -> Block:
        distance, parts = labelled(free, goal, self._schedule.single)
        cycles = distance.max((1, 2)) / self._schedule.speed
        life = (cycles * rng.uniform(*self._schedule.stay, len(free)) + _EXTRA).astype(np.int64)
        arrays = (free, goal, distance, parts, life)
        return Block(*(torch.from_numpy(a).to(self._device) for a in arrays))

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return latents, maps, times and the place in the stream of maps."""
        return {
            "latents": self.latents, "free": self.free, "goal": self.goal, "time": self.time,
            "life": self.life, "number": self.number, "used": self.used,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`; targets are derived from the maps again."""
        self.latents = tuple(z.to(self._device) for z in state["latents"])
        for name in ("free", "goal", "time", "life"):
            getattr(self, name).copy_(state[name])
        self.number, self.used, self._block = state["number"], state["used"], None
        distance, parts = labelled(
            self.free.cpu().numpy(), self.goal.cpu().numpy(), self._schedule.single
        )
        self.distance.copy_(torch.from_numpy(distance))
        self.parts.copy_(torch.from_numpy(parts))
