"""A second policy answers the same requests, unseen; the pairs of answers are kept as files.

Both files of a set hold the same rows in the same order: `input.NAME` and the outputs of one
policy, the form that `ganglion compare --recorded FILE.npz` reads.
"""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from ganglion.core.contracts import Array
from ganglion.serve.metrics import Metrics, labels
from ganglion.serve.problems import Problem
from ganglion.serve.reading import Ask
from ganglion.serve.table import Served

ROWS = 1000  # of one file
HELD = 64  # answers that may wait for the shadow


class Shadow:
    """Asks one policy what another was asked, after the answer has gone out."""

    def __init__(self, name: str, folder: Path | None, metrics: Metrics, worker: int = 0) -> None:
        self.name, self._folder, self._metrics, self._worker = name, folder, metrics, worker
        self._held = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._rows: list[tuple[dict[str, Array], dict[str, Array], dict[str, Array]]] = []
        self._names = ("", "")
        self._count = self._number = 0

    def offer(self, ask: Ask, outputs: dict[str, Array], main: Served, shadow: Served) -> None:
        """Let the shadow answer `ask`, too; where it lags behind, the ask is dropped."""
        if self._held >= HELD:
            self._metrics.add("ganglion_shadow_dropped_total")
            return
        self._held += 1
        task = asyncio.get_running_loop().create_task(self._pair(ask, outputs, main, shadow))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the answers that are under way and write what is left."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._write()

    async def _pair(self, ask: Ask, first: dict[str, Array], main: Served, shadow: Served) -> None:
        try:
            second = await shadow.batcher.submit(ask)
        except Problem:
            self._metrics.add("ganglion_shadow_dropped_total")
            return
        finally:
            self._held -= 1
        self._metrics.add("ganglion_shadow_pairs_total")
        for name, array in first.items():
            if array.dtype.kind != "b":
                gap = float(np.abs(array.astype(np.float64) - second[name]).mean())
                self._metrics.add("ganglion_shadow_difference", labels(output=name), gap)
        if self._folder is None:
            return
        self._names = (main.model.name, shadow.model.name)
        batched = {k: v for k, v in ask.arrays.items() if main.model.signature.inputs[k].batched}
        self._rows.append((batched, first, second))
        self._count += ask.rows
        if self._count >= ROWS:
            self._write()

    def _write(self) -> None:
        """Write the pairs so far as two files and forget them."""
        rows, self._rows, self._count = self._rows, [], 0
        if not rows or self._folder is None:
            return
        stem = f"pairs-{os.getpid()}-{self._number:05d}"
        self._number += 1
        inputs = {f"input.{k}": np.concatenate([r[0][k] for r in rows]) for k in rows[0][0]}
        with suppress(OSError):  # a full disk costs pairs, never answers
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, side in zip(self._names, (1, 2), strict=True):
                outputs = {k: np.concatenate([r[side][k] for r in rows]) for k in rows[0][side]}
                file = io.BytesIO()
                np.savez(file, **{**inputs, **outputs})  # type: ignore[arg-type]
                temporary = self._folder / f".{stem}.tmp"
                temporary.write_bytes(file.getvalue())
                os.replace(temporary, self._folder / f"{stem}.{name}.npz")
