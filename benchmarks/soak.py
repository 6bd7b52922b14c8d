"""The long proofs: kill -9, kills during a save, damaged files, a full disk.

make soak       full counts          make soak-ci    smaller ones

pytest runs this file; GANGLION_SOAK=full|ci|quick chooses the counts. Every proof prints what it
measured.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganglion import chaos, pipeline, registry
from ganglion.console import Quiet
from ganglion.core import dataset
from ganglion.core.contracts import Ranks
from ganglion.core.errors import DataError
from ganglion.core.run import Run
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.session import chosen_checkpoint
from ganglion.train import checkpoint

# runs, kills in each; kills during a save; corruptions
COUNTS = {"full": (5, 4, 1000, 1000), "ci": (2, 3, 200, 200), "quick": (1, 1, 10, 20)}
RUNS, KILLS, SAVES, CORRUPTIONS = COUNTS[os.environ.get("GANGLION_SOAK", "quick")]
STEPS = 1200

pytestmark = pytest.mark.filterwarnings("ignore")  # fork in a process with threads, and the like


def begin(home: Path, seed: int, **train: Any) -> Run:
    """Make a small run that saves often."""
    layer = {
        "seed": seed, "data": {"validation": 64, "test": 32},
        "train": {"steps": STEPS, "batch_size": 64, "eval_every": 200, "checkpoint_every": 100,
                  "checkpoint_seconds": 0.2, "ema": 0.99, **train},
    }  # fmt: skip
    cfg = registry.resolve("control", "quick", [layer])
    return pipeline.begin("control", cfg, pipeline.Place(home=home, device="cpu"))


def digests(run: Run) -> tuple[str, str]:
    """Return the digests of the last state and of metrics.jsonl."""
    state = checkpoint.state_digest(chosen_checkpoint(run, "last").state)
    return state, hashlib.sha256((run.folder / "metrics.jsonl").read_bytes()).hexdigest()


# ---------------------------------------------------------------- kill -9, then resume


def test_killed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    found = chaos.prove("control", [], KILLS, 0, tmp_path, count=RUNS)
    print(f"\nkill -9: {found.kills} kills in {found.runs} runs of {found.steps} steps, "
          f"{found.resumes} resumes, {found.seconds:.0f} s; weights, EMA, optimizer and "
          f"metrics.jsonl {'identical' if found.ok else found.faults}")  # fmt: skip
    assert found.ok
    assert found.kills > 0  # a run may end before its kill


# ---------------------------------------------------------------- kill during a save


def test_a_kill_during_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    weights = torch.arange(60_000.0)

    def save(step: int) -> None:
        checkpoint.save(folder, step, {"weights": weights + step, "step": step}, {})
        checkpoint.prune(folder, step, None, None)

    save(1)
    duration = _duration(lambda: save(2))
    rng, died, unloadable = np.random.default_rng(1), 0, 0
    for _ in range(SAVES):
        newest = max(checkpoint.listed(folder))
        pid = os.fork()
        if pid == 0:
            try:
                for step in range(newest + 1, newest + 1000):
                    save(step)
            finally:
                os._exit(1)
        time.sleep(float(rng.uniform(0.0, 3.0 * duration)))
        os.kill(pid, signal.SIGKILL)
        died += os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        found, _ = checkpoint.load_newest(folder)
        unloadable += found is None or found.step < newest or found.state["step"] != found.step
    print(f"\nkill during a save: {died} kills, {unloadable} unloadable")
    assert died == SAVES
    assert unloadable == 0


def _duration(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# ---------------------------------------------------------------- damaged files


def test_every_damage_is_detected(tmp_path: Path) -> None:
    run = begin(tmp_path, 0, steps=40, tensorboard=False)
    pipeline.train(run)
    step = max(checkpoint.listed(run.folder / "checkpoints"))
    data = Path(run.manifest["data"]["folder"])
    targets: list[tuple[Path, Callable[[Path], object]]] = [
        (run.folder / "checkpoints" / f"step_{step:08d}", checkpoint.load),
        (data, lambda path: dataset.open_dataset(path).verify()),
        (run.folder / "export", lambda path: OnnxPolicy(path / "policy.onnx")),
    ]
    rng, detected, missed = np.random.default_rng(2), 0, []
    for number in range(CORRUPTIONS):
        source, check = targets[number % len(targets)]
        copy = tmp_path / "damaged" / source.name
        shutil.copytree(source, copy)
        what = _damage(copy, rng, extra=source.name.startswith("step_"))
        try:
            check(copy)
            missed.append(f"{source.name}: {what}")
        except DataError:
            detected += 1
        shutil.rmtree(tmp_path / "damaged")
    print(f"\ncorruption: {detected}/{CORRUPTIONS} detected")
    assert not missed, missed[:5]


def _damage(folder: Path, rng: np.random.Generator, extra: bool) -> str:
    """Flip a bit, cut a file, remove one, or (checkpoints) add one; say what was done."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    path = paths[int(rng.integers(len(paths)))]
    data = bytearray(path.read_bytes())
    kind = int(rng.choice(4, p=[0.6, 0.2, 0.1, 0.1]))
    if kind == 3 and extra:
        (folder / "extra.bin").write_bytes(b"x")
        return "extra file"
    if kind == 2:
        path.unlink()
        return f"{path.name} removed"
    if kind == 1:
        kept = int(rng.integers(len(data)))
        path.write_bytes(data[:kept])
        return f"{path.name} cut to {kept} of {len(data)}"
    bit = int(rng.integers(8 * len(data)))
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)
    return f"{path.name} bit {bit}"


# ---------------------------------------------------------------- a full disk


class Filling(Quiet):
    """Lets the disk be full from one step on, until training pauses for it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def trained(self, step: int, total: int, metrics: Any, rate: float) -> None:
        """Fill the disk a third into the run: no file may grow beyond 600 bytes."""
        if step == STEPS // 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, self._limits[1]))

    def say(self, text: str) -> None:
        """Note it."""
        self.said.append(text)

    def warn(self, text: str) -> None:
        """Note it; make room once the run has paused."""
        self.said.append(text)
        if text.startswith("Paused"):
            self.free()

    def free(self) -> None:
        """Make room."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


def test_a_full_disk_pauses_and_loses_nothing(tmp_path: Path) -> None:
    assert registry.make("control", registry.resolve("control")).learner(None, "cpu", 0, Ranks())
    undisturbed, full = (begin(tmp_path, 7, tensorboard=False) for _ in range(2))
    pipeline.train(undisturbed)
    console = Filling()
    try:
        pipeline.train(full, console)
    finally:
        console.free()
    print(f"\nfull disk: {[text for text in console.said if 'isk full' in text or 'room' in text]}")
    assert any(text.startswith("Paused: disk full, need") for text in console.said)
    assert digests(undisturbed) == digests(full)
