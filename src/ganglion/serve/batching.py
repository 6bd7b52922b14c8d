"""Adaptive batching: what came in during one turn of the event loop goes into one run.

Nothing waits for a batch to fill. A run that will take longer than a moment leaves the event loop;
what comes in meanwhile is the next batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError
from ganglion.export.onnx_policy import StoppedError
from ganglion.serve.metrics import ROWS, SECONDS, Metrics, labels
from ganglion.serve.models import Model
from ganglion.serve.problems import Problem, busy, unfit
from ganglion.serve.reading import Ask, Reader
from ganglion.serve.settings import Limits

Answered = asyncio.Future[dict[str, Array]]
Waiting = tuple[Ask, Answered]


class Batcher:
    """The queue of one model and the runs that empty it. Belongs to one event loop."""

    def __init__(self, model: Model, reader: Reader, limits: Limits, metrics: Metrics) -> None:
        self._model, self._reader, self._limits = model, reader, limits
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Waiting] = []
        self._scheduled = self._away = False
        self._thread: ThreadPoolExecutor | None = None
        self._watchdog = Watchdog(limits.run_s)
        weakref.finalize(self, self._watchdog.close)
        self._floats = [n for n, s in model.signature.outputs.items() if s.dtype == "float32"]
        self._metrics, self._labels = metrics, labels(policy=model.name, version=model.version)
        self._seconds = metrics.histogram("ganglion_run_seconds", self._labels, SECONDS)
        self._rows = metrics.histogram("ganglion_run_rows", self._labels, ROWS)

    def submit(self, ask: Ask) -> Answered:
        """Queue one ask; the future gives its outputs, batch first, or raises a Problem."""
        if len(self._waiting) >= self._limits.waiting:
            raise busy(f"{len(self._waiting)} requests wait for {self._model.name!r} already.")
        if ask.rows > self._limits.request_rows:
            raise unfit(f"{ask.rows} rows are too many; at most {self._limits.request_rows}.")
        future: Answered = self._loop.create_future()
        self._waiting.append((ask, future))
        if not self._scheduled and not self._away:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        return future

    @property
    def waiting(self) -> int:
        """Number of asks that wait."""
        return len(self._waiting)

    # ------------------------------------------------------------ runs

    def _turn(self) -> None:
        """Answer what waits, in as few runs as there are kinds of asks."""
        self._scheduled = False
        if self._away:
            return
        waiting, self._waiting = self._waiting, []
        batches = _batches(waiting, self._limits.batch_rows)
        for number, batch in enumerate(batches):
            try:
                here = self._start(batch)
            except BaseException:  # a mistake of ours: nobody may wait for ever
                for _, future in waiting:
                    _refuse(future, Problem(500, "internal", "internal error"))
                raise
            if not here:
                rest = [entry for later in batches[number + 1 :] for entry in later]
                self._waiting = rest + self._waiting
                return

    def _start(self, batch: list[Waiting]) -> bool:
        """Run a batch here and now; where it takes long, in the thread, and return False."""
        batch = [entry for entry in batch if not entry[1].done()]  # whose caller is still there
        if not batch:
            return True
        asks = [ask for ask, _ in batch]
        feeds = self._reader.join(asks)
        if feeds is None:
            batch, feeds = self._settled(batch)
            if not batch:
                return True
        size = sum(array.size for array in feeds.values())
        if self._model.call_s + size * self._model.element_s > self._limits.inline_s:
            self._away = True
            task = self._loop.create_task(self._run_apart(batch, feeds))
            task.add_done_callback(lambda done: done.result())
            return False
        began = time.perf_counter()
        try:
            outputs = self._model.policy.run(feeds, self._watchdog.begin(began))
        except DataError as problem:
            self._fail(batch, problem)
            return True
        finally:
            self._watchdog.end()
        self._deliver(batch, outputs, time.perf_counter() - began)
        return True

    async def _run_apart(self, batch: list[Waiting], feeds: dict[str, Array]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, f"run-{self._model.name}")
        options = onnxruntime.RunOptions()
        timer = self._loop.call_later(self._limits.run_s, setattr, options, "terminate", True)
        began = time.perf_counter()
        try:
            run = self._model.policy.run
            outputs = await self._loop.run_in_executor(self._thread, run, feeds, options)
            self._deliver(batch, outputs, time.perf_counter() - began)
        except DataError as problem:
            self._fail(batch, problem)
        finally:
            timer.cancel()
            self._away = False
            if self._waiting:
                self._turn()

    def _settled(self, batch: list[Waiting]) -> tuple[list[Waiting], dict[str, Array]]:
        """Refuse the asks whose values are not in order, and join the others."""
        good: list[Waiting] = []
        for ask, future in batch:
            try:
                self._reader.settle(ask)
                good.append((ask, future))
                if ask.clipped:
                    self._metrics.add("ganglion_clipped_total", self._labels)
            except Problem as problem:
                _refuse(future, problem)
        return good, self._reader.joined([ask for ask, _ in good]) if good else {}

    # ------------------------------------------------------------ answers

    def _deliver(self, batch: list[Waiting], outputs: dict[str, Array], seconds: float) -> None:
        rows = sum(ask.rows for ask, _ in batch)
        self._seconds.add(seconds)
        self._rows.add(rows)
        finite = all(bool(np.isfinite(outputs[name]).all()) for name in self._floats)
        if len(batch) == 1 and finite:
            _answer(batch[0][1], outputs)
            return
        start = 0
        for ask, future in batch:
            end = start + ask.rows
            own = outputs if len(batch) == 1 else {k: v[start:end] for k, v in outputs.items()}
            start = end
            if finite or all(bool(np.isfinite(own[name]).all()) for name in self._floats):
                _answer(future, own)
            else:
                self._metrics.add("ganglion_not_finite_total", self._labels)
                _refuse(future, _not_finite(own, self._floats))

    def _fail(self, batch: list[Waiting], problem: DataError) -> None:
        """ONNX Runtime refused a run: try each ask alone, so that only the guilty one suffers."""
        for ask, future in batch:
            if len(batch) == 1 and isinstance(problem, StoppedError):
                said = (
                    f"The policy takes more than {self._limits.run_s:g} s for this; ask for fewer "
                    "steps or less at a time."
                )
                _refuse(future, Problem(503, "too_long", said))
            elif len(batch) == 1:
                _refuse(future, Problem(422, "failed", str(problem)))
            else:
                ask.key = object()
                self._waiting.append((ask, future))
        if self._waiting and not self._scheduled and not self._away:
            self._scheduled = True
            self._loop.call_soon(self._turn)  # in the thread's case, `_run_apart` does it


class Watchdog:
    """Ends a run that holds up the event loop: a thread that looks every quarter of the limit."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._options = onnxruntime.RunOptions()
        self._began: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def begin(self, now: float) -> onnxruntime.RunOptions:
        """Note that a run begins, and return the options to run with."""
        if self._options.terminate:
            self._options = onnxruntime.RunOptions()
        self._began = now
        return self._options

    def end(self) -> None:
        """Note that the run is over."""
        self._began = None

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._limit_s / 4):
            began, options = self._began, self._options
            if began is not None and time.perf_counter() - began > self._limit_s:
                options.terminate = True


def _batches(waiting: list[Waiting], most: int) -> list[list[Waiting]]:
    """Group what may run together, in order, each group of up to `most` rows (or one ask)."""
    groups: dict[Hashable, list[Waiting]] = {}
    for entry in waiting:
        groups.setdefault(entry[0].key, []).append(entry)
    batches = []
    for group in groups.values():
        batch: list[Waiting] = []
        rows = 0
        for entry in group:
            if batch and rows + entry[0].rows > most:
                batches.append(batch)
                batch, rows = [], 0
            batch.append(entry)
            rows += entry[0].rows
        batches.append(batch)
    return batches


def _answer(future: Answered, outputs: dict[str, Array]) -> None:
    if not future.done():
        future.set_result(outputs)


def _refuse(future: Answered, problem: Problem) -> None:
    if not future.done():
        future.set_exception(problem)


def _not_finite(outputs: Arrays, floats: list[str]) -> Problem:
    name = next(n for n in floats if not np.isfinite(outputs[n]).all())
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(outputs[name]))[0])
    return Problem(
        422, "not_finite",
        f"The policy's output {name!r} is not finite at index {where} for this input; "
        "it is held back.",
    )  # fmt: skip
