"""Trains runs in children that the fault tests kill, stop and starve.

A child is a fork of one process that has imported torch, so that a fault costs a second. It calls
`pipeline.train` as the command line does; export and report after it are left out.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
import types
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

import ganglion
from ganglion import pipeline
from ganglion.console import Quiet
from ganglion.core.errors import GanglionError
from ganglion.core.run import Run

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class Notebook(Quiet):
    """A console that keeps what is said in said.txt beside the run's folder."""

    def __init__(self, run: Run) -> None:
        self._path = run.folder.with_suffix(".said")

    def say(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def warn(self, text: str) -> None:
        self.say(text)


def said(run: Run) -> str:
    path = run.folder.with_suffix(".said")
    return path.read_text() if path.exists() else ""


def without_report() -> types.ModuleType:
    """A stand-in for `ganglion.finish` that does nothing."""
    stub = types.ModuleType("ganglion.finish")
    stub.after_training = nothing  # type: ignore[attr-defined]
    return stub


def nothing(*given: Any) -> dict[str, Any]:
    return {}


def child(
    folder: str, failpoint: str | None, file_limit: int | None, poison: int | None, strict: bool
) -> None:
    """Train in this process; its exit code is the command line's."""
    from pathlib import Path

    sys.modules["ganglion.finish"] = without_report()
    ganglion.finish = sys.modules["ganglion.finish"]  # type: ignore[attr-defined]
    if failpoint:
        os.environ["GANGLION_FAILPOINT"] = failpoint
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    if poison is not None:
        poison_step(poison)
    run = Run.open(Path(folder))
    try:
        pipeline.train(run, Notebook(run), strict=strict)
    except GanglionError as error:
        Notebook(run).say(str(error))
        os._exit(error.exit_code)
    os._exit(0)


def poison_step(step: int) -> None:
    """Make one row of the batch of `step` not finite."""
    from ganglion.train.batches import Fresh

    original = Fresh.batch

    def batch(self: Fresh, at: int, micro: int) -> Any:
        found = original(self, at, micro)
        if at == step:
            found["state"][3] = float("nan")
        return found

    Fresh.batch = batch  # type: ignore[method-assign]


def start(
    run: Run,
    failpoint: str | None = None,
    file_limit: int | None = None,
    poison: int | None = None,
    strict: bool = False,
) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    process = context.Process(
        target=child, args=(str(run.folder), failpoint, file_limit, poison, strict)
    )
    process.start()
    return process


def ends(process: ForkServerProcess, limit_s: float = 60.0) -> int:
    """Wait for a child and return its exit code; a killed one gives -9."""
    process.join(limit_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError("the child did not end")
    return process.exitcode


def train(run: Run, **how: Any) -> int:
    return ends(start(run, **how))


def wait(until: Callable[[], Any], process: ForkServerProcess, limit_s: float = 60.0) -> None:
    """Wait until something holds; TimeoutError where the child ends before."""
    end = time.monotonic() + limit_s
    while not until():
        if time.monotonic() > end or process.exitcode is not None:
            raise TimeoutError(f"it never came; the child's exit code is {process.exitcode}")
        time.sleep(0.005)
