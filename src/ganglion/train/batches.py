"""Where batches come from: data resident on the device, or fresh draws; a function of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Ranks
from ganglion.train.settings import TrainSettings

Batch = dict[str, Tensor]


class Batches(Protocol):
    """`batch(step, micro)` is a pure function of its arguments.

    `share(step, micro)` is the share of this rank's rows of the step that part `micro` holds.
    """

    rows: int | None

    def batch(self, step: int, micro: int) -> Batch: ...
    def share(self, step: int, micro: int) -> float: ...


class Resident:
    """A dataset held on the device whole; the order is a pure function of (seed, epoch)."""

    def __init__(
        self, data: Arrays, cfg: TrainSettings, seed: int, device: str, ranks: Ranks
    ) -> None:
        self._data = to_device(data, device)
        self._count = len(next(iter(self._data.values())))
        self.rows: int | None = self._count
        self._cfg, self._seed, self._ranks = cfg, seed, ranks
        self._per_step = cfg.batch_size * cfg.accumulate * ranks.world
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int, micro: int) -> Batch:
        """Return the rows of one step: part `micro` of this rank; may be short in the last step."""
        per_epoch = -(-self._count // self._per_step)
        epoch, position = divmod(step, per_epoch)
        if epoch != self._epoch:
            draw = torch.Generator().manual_seed(seeds.key(self._seed, "order", epoch) >> 1)
            order = torch.randperm(self._count, generator=draw)
            device = next(iter(self._data.values())).device
            self._epoch, self._order = epoch, order.to(device)
        rows = self._order[position * self._per_step : (position + 1) * self._per_step]
        parts = self._cfg.accumulate * self._ranks.world
        if parts > 1:
            rows = rows[micro * self._ranks.world + self._ranks.rank :: parts]
        return {name: column.index_select(0, rows) for name, column in self._data.items()}

    def share(self, step: int, micro: int) -> float:
        """Return 1 / accumulate, but for the last step of an epoch, which may be short."""
        begin = step % -(-self._count // self._per_step) * self._per_step
        count = min(self._per_step, self._count - begin)
        parts = self._cfg.accumulate * self._ranks.world
        sizes = [
            len(range(m * self._ranks.world + self._ranks.rank, count, parts))
            for m in range(self._cfg.accumulate)
        ]
        return sizes[micro] / max(1, sum(sizes))


class Fresh:
    """New rows at each step from the stream (seed, "fresh", step).

    draw(generator, count) gets a generator on the CPU, so that no device is waited for.
    """

    rows: int | None = None

    def __init__(
        self,
        draw: Callable[[torch.Generator, int], Batch],
        cfg: TrainSettings,
        seed: int,
        device: str,
        ranks: Ranks,
    ) -> None:
        self._draw, self._cfg, self._seed, self._ranks = draw, cfg, seed, ranks
        self._generator, self._device = torch.Generator(), device

    def batch(self, step: int, micro: int) -> Batch:
        """Draw one batch."""
        key = seeds.key(self._seed, "fresh", step, micro, self._ranks.rank)
        drawn = self._draw(self._generator.manual_seed(key >> 1), self._cfg.batch_size)
        return {k: v.to(self._device, non_blocking=True) for k, v in drawn.items()}

    def share(self, step: int, micro: int) -> float:
        """Return 1 / accumulate: all parts are equal."""
        return 1 / self._cfg.accumulate


def to_device(data: Arrays, device: str) -> Batch:
    """Copy arrays to the device; float64 becomes float32, the arithmetic of all nets here."""
    out = {}
    for name, array in data.items():
        whole = np.ascontiguousarray(array)
        if whole.dtype == np.float64:
            whole = whole.astype(np.float32)
        out[name] = torch.tensor(whole, device=device)
    return out
