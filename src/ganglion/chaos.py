"""`ganglion chaos`: kill -9 at random moments, resume, and compare with an undisturbed run.

Everything happens through the command line in processes of its own, as on a real machine.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ganglion.console import Quiet
from ganglion.core.errors import GanglionError, RunError, TrainingError
from ganglion.core.run import Run

_QUIET = Quiet()
LIMIT_S = 600.0  # of one process
SMALL = (
    "train.steps=200", "train.checkpoint_seconds=0.2", "train.tensorboard=false",
    "data.train=400", "data.validation=100", "data.test=100", "data.shard=100",
)  # fmt: skip


@dataclass
class Verdict:
    """What a proof found; `ok` means that every killed run ended as the undisturbed one."""

    task: str
    kills: int = 0
    resumes: int = 0
    runs: int = 0
    steps: int = 0
    state: str = ""  # SHA-256 of the undisturbed run's learner state
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Say whether nothing differed."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"ok": self.ok, **asdict(self)}


def prove(
    task: str,
    settings: Sequence[str],
    kills: int,
    seed: int,
    home: Path,
    threads: int = 1,
    fail_points: Sequence[str] | None = None,
    *,
    count: int = 1,
    preset: str | None = None,
    tell: Callable[[str], None] = _QUIET.stage,
) -> Verdict:
    """Train one run undisturbed and `count` runs killed `kills` times each; compare them.

    settings are `name=value` words on top of SMALL ones. Under `home` lie the runs, which stay.
    The moments are random steps (and random milliseconds after them) of the stream `seed`;
    fail_points, e.g. "checkpoint.renamed:2", are named moments at which the process kills itself,
    one for each start before the timed kills. TrainingError where the undisturbed run fails.
    """
    began = time.monotonic()
    words = [*_small(settings), *settings, f"train.threads={threads}"]
    options = ["--preset", preset] if preset else []
    verdict = Verdict(task)
    calm = home / "runs" / task / "undisturbed"
    base = [sys.executable, "-m", "ganglion", "--home", str(home), "--quiet"]
    train = [*base, "train", task, *options, *words, "--out"]
    tell("undisturbed run")
    error = _finish(subprocess.Popen([*train, str(calm)], **_streams({})))
    if error:
        raise TrainingError(f"The undisturbed run failed: {error}")
    steps, verdict.state, lines = _ending(Run.open(calm))
    verdict.steps = steps
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        folder = home / "runs" / task / f"killed_{number}"
        attempt = _Attempt(base, [*train, str(folder)], folder, rng)
        for point in fail_points or ():
            attempt.start({"GANGLION_FAILPOINT": point}, None)
        # the first comes at any early moment, the others in the order of their steps
        moments = [0, *sorted(rng.randrange(1, max(2, steps)) for _ in range(kills - 1))]
        for index, step in enumerate(moments[:kills]):
            when = f"after step {step}" if step else "at the start"
            tell(f"run {number + 1}/{count}, kill {index + 1}/{kills} {when}")
            attempt.start({}, step)
        error = attempt.start({}, None)
        verdict.runs += 1
        verdict.kills += attempt.killed
        verdict.resumes += attempt.resumed
        verdict.faults += _compare(folder, verdict.state, lines, error)
    verdict.seconds = time.monotonic() - began
    return verdict


class _Attempt:
    """One run that is started again and again."""

    def __init__(self, base: list[str], train: list[str], folder: Path, rng: random.Random) -> None:
        self._base, self._train, self._folder, self._rng = base, train, folder, rng
        self.killed = self.resumed = 0

    def start(self, environment: dict[str, str], kill_after: int | None) -> str | None:
        """Train or resume; kill -9 once metrics.jsonl passes a step. Return its error, if any."""
        process = subprocess.Popen(self._command(), **_streams(environment))
        if kill_after is not None:
            self._wait(process, kill_after)
            process.kill()
        error = _finish(process)
        self.killed += process.returncode == -9
        return error

    def _command(self) -> list[str]:
        try:
            Run.open(self._folder)
        except RunError:  # killed before it was a run: begin anew
            shutil.rmtree(self._folder, ignore_errors=True)
            return self._train
        self.resumed += 1
        return [*self._base, "resume", str(self._folder)]

    def _wait(self, process: subprocess.Popen[bytes], step: int) -> None:
        """Wait until `step` was logged, or just begun for 0, and some random milliseconds more."""
        ends = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < ends:
            if step == 0 and (self._folder / "config.json").exists():
                time.sleep(self._rng.uniform(0.0, 3.0))
                return
            if step and _reached(self._folder / "metrics.jsonl") >= step:
                time.sleep(self._rng.uniform(0.0, 0.1))
                return
            time.sleep(0.005)


def _small(settings: Sequence[str]) -> list[str]:
    """Return the small settings that the given ones do not speak of."""
    named = {word.partition("=")[0] for word in settings}
    if "train.epochs" in named:
        named.add("train.steps")
    return [word for word in SMALL if word.partition("=")[0] not in named]


def _reached(path: Path) -> int:
    """Return the last step logged, 0 where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            tail = file.read()
    except OSError:
        return 0
    for line in reversed(tail.split(b"\n")):
        _, found, rest = line.partition(b'"step":')
        digits = rest.lstrip().split(b",")[0].split(b"}")[0]
        if found and digits.isdigit():
            return int(digits)
    return 0


def _streams(environment: dict[str, str]) -> dict[str, Any]:
    inherited = {k: v for k, v in os.environ.items() if k != "GANGLION_FAILPOINT"}
    return {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL, "env": {**inherited, **environment}}  # fmt: skip


def _finish(process: subprocess.Popen[bytes]) -> str | None:
    """Wait for a process; return the last line it said, None where it succeeded."""
    try:
        _, said = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"it took longer than {LIMIT_S:g} s."
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}."


def _ending(run: Run) -> tuple[int, str, bytes]:
    """Return the last checkpoint's step and learner digest, and metrics.jsonl."""
    from ganglion.train import checkpoint

    newest, _ = checkpoint.load_newest(run.folder / "checkpoints")
    if newest is None:
        raise TrainingError(f"{run.folder} has no checkpoint.")
    digest = checkpoint.state_digest(newest.state["learner"])
    return newest.step, digest, (run.folder / "metrics.jsonl").read_bytes()


def _compare(folder: Path, state: str, lines: bytes, error: str | None) -> list[str]:
    if error is not None:
        return [f"{folder} did not end: {error}"]
    try:
        step, found, metrics = _ending(Run.open(folder))
    except GanglionError as fault:
        return [str(fault)]
    faults = []
    if found != state:
        faults.append(f"{folder}: the state at step {step} differs: {found[:12]}, not {state[:12]}")
    if metrics != lines:
        faults.append(f"{folder}/metrics.jsonl differs from the undisturbed run's.")
    return faults
