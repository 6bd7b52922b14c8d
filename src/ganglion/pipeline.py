"""The verbs as functions: command line, worker and library call the same ones.

begin + train (and train again: resume) -> evaluate, compare -> export, verify -> act, view, load.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from ganglion import provenance, registry
from ganglion.artifacts import act, export, verify, view
from ganglion.core import dataset, files, seeds
from ganglion.core import run as runs
from ganglion.core.contracts import Arrays, Policy, Task
from ganglion.core.dataset import Dataset, Recipe, Shard
from ganglion.core.errors import GanglionError, OutputError, Preempted, RunError, SettingsError
from ganglion.core.run import Run
from ganglion.results import compare, evaluate
from ganglion.scoring import check_fits, recipe
from ganglion.train.settings import TaskSettings

__all__ = [
    "Parent", "Place", "act", "begin", "compare", "evaluate", "export", "generate", "load",
    "reopen", "train", "verify", "view",
]  # fmt: skip

Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    return None


# ---------------------------------------------------------------- generate


def generate(
    task: str,
    cfg: TaskSettings,
    folder: Path | None = None,
    *,
    home: Path = Path(),
    workers: int = 1,
    progress: Progress = _silent,
) -> Dataset:
    """Generate the dataset that `cfg` asks for, or return it where it is already there.

    Without `folder` it lies under home/datasets/TASK/DIGEST. The bytes are the same for any
    number of workers, and a killed generation goes on where it was. DataError where the folder's
    contents do not verify, OutputError where it cannot be written.
    """
    wanted = recipe(task, cfg)
    target = folder or home / "datasets" / task / wanted.digest[:16]
    if (target / "card.json").is_file():
        return _same(target, wanted)
    files.ensure_writable(target)
    units = getattr(registry.make(task, cfg), "units", {})
    cfg_text = cfg.model_dump_json()

    def make(shards: Iterable[Shard]) -> Iterable[tuple[Shard, Arrays]]:
        jobs = [(task, cfg_text, shard) for shard in shards]
        if workers <= 1 or len(jobs) <= 1:
            yield from map(_make_shard, jobs)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _leave_with_parent) as pool:
            try:
                yield from pool.map(_make_shard, jobs)
            except BrokenProcessPool:
                raise GanglionError(
                    "A process that generated data was killed (out of memory?). What is generated "
                    "stays; the same command goes on from there, with fewer --workers if need be."
                ) from None

    with dataset.writing(target):
        if (target / "card.json").is_file():  # another process was faster
            return _same(target, wanted)
        return dataset.generate(target, wanted, make, units, progress)


def _same(target: Path, wanted: Recipe) -> Dataset:
    found = dataset.open_dataset(target)
    if found.card["recipe"] != wanted.to_json():
        raise SettingsError(f"{target} holds a dataset of other settings; choose another folder.")
    return found


def _leave_with_parent() -> None:
    """End this worker when its parent is killed; its queue alone would not tell."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make_shard(job: tuple[str, str, Shard]) -> tuple[Shard, Arrays]:
    task, cfg_text, shard = job
    cfg = registry.settings(task).model_validate_json(cfg_text, strict=True)
    rng = seeds.rng(cfg.data.seed, shard.split, shard.index)
    return shard, registry.make(task, cfg).generate(shard.count, shard.split, rng)


# ---------------------------------------------------------------- train


@dataclass(frozen=True)
class Place:
    """Where a run's data come from and where the run goes."""

    home: Path = Path()
    data: Path | None = None  # a dataset folder; None: generated where needed
    val_data: Path | None = None
    out: Path | None = None  # the run folder itself; None: home/runs/TASK/ID
    name: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Parent:
    """The checkpoint that a new run starts from: its weights, or (`whole`) its whole state."""

    run: str
    checkpoint: Path
    whole: bool = False


def begin(
    task: str,
    cfg: TaskSettings,
    place: Place | None = None,
    *,
    preset: str | None = None,
    parent: Parent | None = None,
    workers: int = 1,
    progress: Progress = _silent,
) -> Run:
    """Make a run: its data (generated or checked), its folder, its manifest. `train` trains it."""
    from ganglion.train import device

    place = place or Place()
    target_device = device.choose(place.device)
    run_id = runs.new_id()
    folder = place.out or runs.folder_of(place.home, task, run_id)
    name = runs.check_name(place.name) if place.name else None
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise RunError(f"{folder} exists already; a run never overwrites another.")
    given = _given(place.data, task, cfg)
    other = _given(place.val_data, task, cfg)
    files.ensure_writable(folder)
    try:
        data = given or generate(task, cfg, home=place.home, workers=workers, progress=progress)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # nothing is in it yet
        raise
    manifest: dict[str, Any] = {
        "id": folder.resolve().name, "name": name, "task": task, "created": time.time(),
        "device": target_device, "seed": cfg.seed,
        "data": {"folder": str(data.folder.resolve()), "digest": data.digest},
        **provenance.record(),
    }  # fmt: skip
    if other is not None:
        manifest["val_data"] = {"folder": str(other.folder.resolve()), "digest": other.digest}
    if parent is not None:
        manifest["parent"] = {
            "run": parent.run, "checkpoint": str(parent.checkpoint.resolve()),
            "whole": parent.whole,
        }  # fmt: skip
    settings = cfg.model_dump(mode="json")
    return Run.create(folder, {"task": task, "preset": preset, "settings": settings}, manifest)


def _given(folder: Path | None, task: str, cfg: TaskSettings) -> Dataset | None:
    """Open and verify the dataset that a user named; DataError where it does not fit."""
    if folder is None:
        return None
    found = dataset.open_dataset(folder)
    check_fits(found, task, cfg)
    found.verify()
    return found


def train(run: Run, console: Any = None, *, strict: bool = False) -> dict[str, Any]:
    """Train a run from where it stands to its report; the documented form of `train --json`.

    Preempted after a signal (the run is saved), TrainingError where training cannot go on. The
    status in the folder follows every outcome.
    """
    from ganglion import finish
    from ganglion.console import Quiet
    from ganglion.session import open_session
    from ganglion.train.device import naming_memory
    from ganglion.train.loop import fit
    from ganglion.train.signals import watching

    console = console or Quiet()
    with run.writer(), watching() as stop, _status(run):
        run.set("running", stage="train")
        with naming_memory(0):
            session = open_session(run, console, stop, strict)
        if session.progress.finished:
            console.say("Its training is finished; export, evaluation and report are made again.")
        _keep_inputs(run, session.task)
        cpu, began = time.process_time(), time.perf_counter()
        try:
            fit(
                session.learner, session.validation, session.cfg.train, session.rows,
                session.progress, session.journal,
            )  # fmt: skip
        finally:
            session.journal.close()
            console.close()
        spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - began}
        try:
            stop.interrupt()
            outcome = finish.after_training(run, session, spent, console, stop)
        except KeyboardInterrupt:
            raise Preempted(
                f"{stop() or 'Stopped'} after the last step; what training gave is saved."
            ) from None
        except OutputError as error:
            raise OutputError(
                f"{error} What training gave is saved; `ganglion resume {run.id}` does the rest."
            ) from error
        run.set("succeeded", stage="done")
    return outcome


def _keep_inputs(run: Run, task: Task) -> None:
    """Write what the task read and made of it into RUN/inputs, once, before anything is learned."""
    kept = getattr(task, "kept", None)
    folder = run.folder / "inputs"
    if kept is None or folder.is_dir():
        return
    part = run.folder / "inputs.tmp"
    try:
        part.mkdir(exist_ok=True)
        for name, data in kept().items():
            files.write_bytes(part / name, data)
        os.replace(part, folder)
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror}.") from error


class _status:  # noqa: N801 - a context manager read as a verb
    """Write how a run ended into its status, whatever ended it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        try:
            if isinstance(error, Preempted | KeyboardInterrupt):
                self._run.set("paused", message=str(error) or "Stopped by a key.")
            else:
                code = error.code if isinstance(error, GanglionError) else "error"
                self._run.set("failed", error=code, message=str(error) or type(error).__name__)
        except OSError:
            return  # the disk is full: the lock's end says enough


def reopen(run: Run, layers: Sequence[Mapping[str, Any]]) -> None:
    """Change settings of a run that is to go on; RunError names those that may not change."""
    from ganglion.session import resume_changes
    from ganglion.sources import settings_of

    if not layers:
        return
    task, old = settings_of(run)
    new = registry.resolve(task, run.config.get("preset"), [old.model_dump(mode="json"), *layers])
    resume_changes(old.model_dump(mode="json"), new)
    config = {**run.config, "settings": new.model_dump(mode="json")}
    with run.writer():
        files.write_json(run.folder / "config.json", config)


# ---------------------------------------------------------------- load


def load(path: str | Path, checkpoint: str | int = "best", home: Path | None = None) -> Policy:
    """Return a policy (`.signature`, `.act(inputs)`) from an ONNX file or a run.

    checkpoint is "best", "last" or a step, for runs; a run trained on a GPU loads on the CPU.
    An ONNX file needs no torch. Errors: SettingsError (no such path or run), DataError (damaged).
    """
    from ganglion.export.onnx_policy import OnnxPolicy

    if str(path).endswith(".onnx"):
        if not Path(path).exists():
            raise SettingsError(f"There is no file {path}.")
        return OnnxPolicy(Path(path))
    from ganglion.session import deployed

    return deployed(runs.find(runs.home(home), str(path)), checkpoint)[0]
