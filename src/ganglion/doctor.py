"""`ganglion doctor`: what is wrong or missing on this machine, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ganglion.core import run as runs
from ganglion.core.errors import GanglionError

Level = Literal["ok", "warn", "fail"]
LOW_DISK = 1 << 30
SLOW_FSYNC_S = 0.1


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what mends it where it is not ok."""

    name: str
    level: Level
    text: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def examine(home: Path) -> list[Finding]:
    """Look at everything that Ganglion needs; a check that breaks is itself a finding."""
    checks: list[Callable[[Path], Iterator[Finding]]] = [
        interpreter, torch_build, onnx_runtime, cuda, sqlite, folder, disk, fsync, clock, threads,
        compiler, stale_runs,
    ]  # fmt: skip
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(home)
        except (ImportError, OSError, RuntimeError, ValueError, GanglionError) as error:
            name = check.__name__.replace("_", " ")
            found.append(Finding(name, "fail", f"the check failed: {error}", "see the message"))
    return found


def interpreter(home: Path) -> Iterator[Finding]:
    """Python 3.11 or later."""
    text = f"Python {platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036 - what is being checked
        yield Finding("interpreter", "fail", text, "install Python 3.11 or later")
    else:
        yield Finding("interpreter", "ok", text)


def torch_build(home: Path) -> Iterator[Finding]:
    """Torch imports, and says what it was built for."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "fail", f"cannot be imported: {error}", "pip install 'torch>=2.11'")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    text = f"{torch.__version__}, {build}, {torch.backends.cpu.get_cpu_capability()}"
    older = tuple(int(p) for p in torch.__version__.split("+")[0].split(".")[:2]) < (2, 11)
    if older:
        yield Finding("torch", "fail", f"{text} is too old", "pip install -U 'torch>=2.11'")
    else:
        yield Finding("torch", "ok", text)


def onnx_runtime(home: Path) -> Iterator[Finding]:
    """ONNX Runtime and its companions are installed."""
    for name in ("onnxruntime", "onnx", "onnxscript"):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "fail", "is not installed", f"pip install {name}")
    import onnxruntime

    listed = ", ".join(onnxruntime.get_available_providers())
    yield Finding("providers", "ok", listed)


def cuda(home: Path) -> Iterator[Finding]:
    """Each CUDA device and its free memory; none is fine, a build that cannot use one is not."""
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and not torch.version.cuda:
            yield Finding(
                "cuda", "warn", "there is an NVIDIA driver, but this torch is for CPUs only",
                "pip install torch --index-url https://download.pytorch.org/whl/cu128",
            )  # fmt: skip
        else:
            yield Finding("cuda", "ok", "no device; training runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        text = f"{torch.cuda.get_device_name(index)}, {free >> 20:,} of {total >> 20:,} MiB free"
        full = free < total // 10
        mend = "stop what fills it (nvidia-smi lists it), or train with --device cpu"
        yield Finding(f"cuda:{index}", "warn" if full else "ok", text, mend if full else "")


def sqlite(home: Path) -> Iterator[Finding]:
    """The WAL-reset bug of SQLite 3.7.0 to 3.51.2; fixed in 3.51.3, 3.50.7 and 3.44.6."""
    found = sqlite3.sqlite_version_info
    text = sqlite3.sqlite_version
    if wal_reset_bug(found):
        yield Finding(
            "sqlite", "ok", f"{text} has the WAL-reset bug; databases need journal_mode=DELETE"
        )  # fmt: skip
    else:
        yield Finding("sqlite", "ok", text)


def wal_reset_bug(found: tuple[int, ...]) -> bool:
    """Say whether a SQLite version may corrupt a WAL database with several connections."""
    if not (3, 7, 0) <= found <= (3, 51, 2):
        return False
    fixed = {(3, 50): 7, (3, 44): 6}
    return found[2] < fixed.get((found[0], found[1]), 1 << 30)


def folder(home: Path) -> Iterator[Finding]:
    """Files can be made in the home folder, and others cannot write there."""
    place = _existing(home)
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "home", "fail", f"cannot write into {place.resolve()}",
            f"chmod u+rwx {place.resolve()}, or choose another with --home or GANGLION_HOME",
        )  # fmt: skip
        return
    if place.stat().st_mode & 0o002 and not place.stat().st_mode & 0o1000:
        yield Finding(
            "home", "warn", f"everybody can write into {place.resolve()}",
            f"chmod o-w {place.resolve()}",
        )  # fmt: skip
        return
    missing = "" if home.exists() else " (made when needed)"
    yield Finding("home", "ok", f"{home.resolve()}{missing}")


def disk(home: Path) -> Iterator[Finding]:
    """Room for datasets and checkpoints."""
    free = shutil.disk_usage(_existing(home)).free
    text = f"{free / 1e9:.1f} GB free"
    if free < LOW_DISK:
        yield Finding("disk", "warn", text, "`ganglion runs --delete RUN` removes old runs")
    else:
        yield Finding("disk", "ok", text)


def fsync(home: Path) -> Iterator[Finding]:
    """How long a durable write takes; a checkpoint makes about six."""
    probe = _existing(home) / f".fsync-{uuid.uuid4().hex[:8]}"
    spent = []
    try:
        with probe.open("wb") as file:
            for _ in range(5):
                file.write(b"x" * 4096)
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                spent.append(time.perf_counter() - began)
    finally:
        probe.unlink(missing_ok=True)
    middle = sorted(spent)[2]
    text = f"{middle * 1e3:.1f} ms"
    if middle > SLOW_FSYNC_S:
        yield Finding(
            "fsync", "warn", text,
            "put --home on a local disk, or raise train.checkpoint_seconds",
        )  # fmt: skip
    else:
        yield Finding("fsync", "ok", text)


def clock(home: Path) -> Iterator[Finding]:
    """The clock is not before this package, nor before the runs, and agrees with the disk."""
    now = time.time()
    newest = max((r.folder.stat().st_mtime for r in runs.all_runs(home)), default=0.0)
    built = Path(__file__).stat().st_mtime
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < built - 86_400 or now < newest - 60:
        yield Finding(
            "clock", "warn", f"{text} is before files that exist already",
            "timedatectl set-ntp true (runs sort by their time; durations do not depend on it)",
        )  # fmt: skip
    else:
        yield Finding("clock", "ok", text)


def threads(home: Path) -> Iterator[Finding]:
    """Cores that this process may use, and settings of the environment that change results."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = {k: os.environ[k] for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if k in os.environ}
    text = f"{allowed} of {os.cpu_count()} cores"
    shown = ", ".join(f"{k}={v}" for k, v in asked.items())
    yield Finding("threads", "ok", f"{text}{', ' + shown if shown else ''}; train.threads decides")
    load = os.getloadavg()[0]
    if allowed and load > 2 * allowed:
        yield Finding(
            "load", "warn", f"{load:.1f} processes wait for {allowed} cores",
            "stop what else runs, or expect slow training",
        )  # fmt: skip


def compiler(home: Path) -> Iterator[Finding]:
    """A C++ compiler, for train.compile=true alone."""
    found = next((p for n in ("c++", "g++", "clang++") if (p := shutil.which(n))), None)
    if found:
        yield Finding("compiler", "ok", found)
    else:
        yield Finding(
            "compiler", "warn", "no C++ compiler; train.compile=true will not work",
            "apt install g++ (or leave train.compile=false)",
        )  # fmt: skip


def stale_runs(home: Path) -> Iterator[Finding]:
    """Runs whose process died without a word."""
    killed = []
    for run in runs.all_runs(home):
        try:
            if run.status.get("error") == "killed":
                killed.append(run.id)
        except GanglionError:
            yield Finding("runs", "warn", f"{run.id} is damaged", f"ganglion verify {run.folder}")
    if killed:
        yield Finding(
            "runs", "warn", f"{len(killed)} were killed: {', '.join(killed[:3])}",
            f"ganglion resume {killed[0]}",
        )  # fmt: skip
    else:
        yield Finding("runs", "ok", f"{len(runs.all_runs(home))}, none was killed")


def _existing(home: Path) -> Path:
    place = home.resolve()
    while not place.exists():
        place = place.parent
    return place if place.is_dir() else place.parent
