"""A run is a folder. Command line, trainer, worker and studio meet only through its files.

config.json     the resolved settings                manifest.json   what made it
status.json     where it stands                      lock            who writes
metrics.jsonl   one line per update and validation, no clock values: the same after a resume
timing.jsonl    seconds and throughput beside it     tensorboard/    event files
checkpoints/step_XXXXXXXX/    export/policy.onnx     references/     report/
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from ganglion.core import files
from ganglion.core.errors import DataError, OutputError, RunError, nearest
from ganglion.core.failpoints import passing

State = Literal[
    "queued", "running", "pausing", "paused", "stopping", "succeeded", "failed", "cancelled",
    "blocked",
]  # fmt: skip
STATES: tuple[str, ...] = State.__args__  # type: ignore[attr-defined]


def home(given: str | Path | None = None) -> Path:
    """Return the root of runs/, datasets/ and models/: `given`, GANGLION_HOME, or this folder."""
    return Path(given or os.environ.get("GANGLION_HOME") or ".")


def new_id() -> str:
    """Return a fresh opaque id that sorts by time, e.g. run_20260131_235959_9f3a2c."""
    return time.strftime("run_%Y%m%d_%H%M%S_", time.gmtime()) + secrets.token_hex(3)


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    # ------------------------------------------------------------ making and finding

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> Run:
        """Make a new run folder; RunError where one is there, OutputError where none can be."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(
                f"{folder} exists already; a run never overwrites another. Choose another --out, "
                f"or go on with `ganglion resume {folder}`."
            )
        files.ensure_writable(folder)
        run = cls(folder)
        try:
            files.write_json(folder / "config.json", config)
            files.write_json(folder / "manifest.json", {"id": folder.name, **manifest})
            run.set("queued")
        except OSError as error:
            raise OutputError(f"Cannot write into {folder}: {error.strerror}.") from error
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run's folder; RunError where it is none."""
        if not (folder / "config.json").is_file() or not (folder / "manifest.json").is_file():
            raise RunError(f"{folder} is no run: it lacks config.json or manifest.json.")
        return cls(folder)

    # ------------------------------------------------------------ records

    @property
    def id(self) -> str:
        """Return the folder's name."""
        return self.folder.resolve().name

    @property
    def config(self) -> dict[str, Any]:
        """Read the resolved settings; DataError where the file is damaged."""
        return _read(self.folder / "config.json")

    @property
    def manifest(self) -> dict[str, Any]:
        """Read what made the run; DataError where the file is damaged."""
        return _read(self.folder / "manifest.json")

    @property
    def status(self) -> dict[str, Any]:
        """Read the last status; a writer that died without a word shows as "failed"."""
        path = self.folder / "status.json"
        found = _read(path) if path.is_file() else {"state": "queued"}
        if found.get("state") in ("running", "pausing", "stopping", "blocked") and not self.locked:
            found |= {
                "state": "failed",
                "error": "killed",
                "message": "The process that trained it was killed or the machine stopped. "
                f"`ganglion resume {self.folder}` goes on from the last checkpoint.",
            }
        return found

    def set(self, state: State, **details: Any) -> None:
        """Replace the status in one rename, keeping the details that are not given anew."""
        path = self.folder / "status.json"
        try:
            old = _read(path) if path.is_file() else {}
        except DataError:
            old = {}
        for gone in ("error", "message", "pid"):
            old.pop(gone, None)
        status = {**old, "state": state, "updated": time.time(), **details}
        files.replace_text(path, json.dumps(files.finite(status), indent=1) + "\n")
        passing("status.replaced")

    # ------------------------------------------------------------ one writer

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Hold the run's lock; RunError says who holds it. It goes when its holder goes."""
        try:
            handle = (self.folder / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"Cannot write into {self.folder}: {error.strerror}.") from error
        with handle:
            if not _lock(handle):
                handle.seek(0)
                raise RunError(
                    f"{self.folder} is being written by {handle.read(300).strip() or 'another'}; "
                    "wait for it, or stop it first."
                )
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()} ({_command()})")
            handle.flush()
            yield

    @property
    def locked(self) -> bool:
        """Say whether a living process on this machine writes the run."""
        try:
            with (self.folder / "lock").open("r", encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    # ------------------------------------------------------------ lines

    def lines(self, name: str = "metrics.jsonl") -> Iterator[dict[str, Any]]:
        """Yield every whole line; a torn last line is left for the next read."""
        path = self.folder / name
        if not path.is_file():
            return
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue

    def delete(self) -> None:
        """Remove the run's folder; RunError while somebody writes it."""
        with self.writer():
            shutil.rmtree(self.folder)


class Lines:
    """Append-only JSON lines that survive a full disk: what cannot be written waits in memory.

    `offset` counts the bytes handed in so far; a checkpoint stores it and `truncate` cuts the
    file back to it, so that a resumed run continues the file bit for bit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""
        self._written = path.stat().st_size if path.exists() else 0

    @property
    def offset(self) -> int:
        """Return the file's length in bytes, waiting lines included."""
        return self._written + len(self._waiting)

    def truncate(self, offset: int) -> None:
        """Cut the file back to `offset` bytes; DataError where it is shorter."""
        if self._written < offset:
            raise DataError(
                f"{self._path} is {self._written} bytes long, the checkpoint knows of {offset}: "
                "it was cut or replaced. Restore it, or begin a new run from this one."
            )
        if self._path.exists():
            os.truncate(self._path, offset)
        self._written, self._waiting = offset, b""

    def append(self, value: Mapping[str, Any]) -> None:
        """Append one line, or keep it in memory while the disk is full."""
        self._waiting += json.dumps(files.finite(value), separators=(",", ":")).encode() + b"\n"
        self.flush()

    def flush(self, durably: bool = False) -> bool:
        """Write what waits; False while there is no room. Other faults are an OutputError.

        durably waits until the disk has it: a checkpoint must not know of lines that it has not.
        """
        try:
            with self._path.open("ab") as file:
                file.truncate(self._written)  # a torn line of an earlier failed write
                file.write(self._waiting)
                if durably:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            if files.is_full(error):
                return False
            raise OutputError(f"Cannot write {self._path}: {error.strerror}.") from error
        self._written, self._waiting = self.offset, b""
        passing("lines.written")
        return True


# ---------------------------------------------------------------- all runs of a home


def folder_of(root: Path, task: str, run_id: str) -> Path:
    """Return where the run `run_id` of `task` lies under a home folder."""
    return root / "runs" / task / run_id


def all_runs(root: Path, task: str | None = None) -> list[Run]:
    """Return every run under a home folder, oldest first."""
    found = [
        Run(path.parent)
        for path in (root / "runs").glob("*/*/manifest.json")
        if (path.parent / "config.json").is_file() and task in (None, path.parent.parent.name)
    ]
    return sorted(found, key=lambda run: (_created(run), run.id))


def find(root: Path, text: str) -> Run:
    """Find a run by folder, id, name, unique beginning of an id, or `latest`.

    RunError names the nearest known run.
    """
    if len(text) > 4096 or any(len(os.fsencode(part)) > 255 for part in text.split("/")):
        raise RunError(f"There is no run {text[:40]!r}...: no path or name is that long.")
    if text and (Path(text) / "config.json").is_file():
        return Run.open(Path(text))
    if Path(text).is_dir() and ("/" in text or text in (".", "..")):
        raise RunError(f"{text} is no run: it lacks config.json or manifest.json.")
    runs = all_runs(root)
    if text == "latest":
        if not runs:
            raise RunError(f"There are no runs under {root / 'runs'} yet.")
        return runs[-1]
    same = [r for r in runs if r.id == text or (text and _name(r) == text)]
    if same:
        return same[-1]
    begin = [r for r in runs if len(text) >= 4 and r.id.startswith(text)]
    if len(begin) == 1:
        return begin[0]
    near = nearest(text, [r.id for r in runs] + [_name(r) for r in runs if _name(r)])
    hint = f" Did you mean {near!r}?" if near else ""
    raise RunError(
        f"There is no run {text!r} under {root / 'runs'}.{hint} `ganglion runs` lists them."
    )


def named(root: Path, name: str) -> Run | None:
    """Return the newest run of that name, if there is one."""
    return next((r for r in reversed(all_runs(root)) if _name(r) == name), None)


def check_name(name: str) -> str:
    """Return `name` if it can name a run; RunError says what names look like."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name in ("latest",):
        raise RunError(
            f"{name!r} cannot name a run: use up to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, and not 'latest'."
        )
    return name


def _created(run: Run) -> float:
    try:
        return float(run.manifest.get("created", 0.0))
    except (DataError, TypeError, ValueError):
        return 0.0


def _name(run: Run) -> str:
    try:
        return str(run.manifest.get("name") or "")
    except DataError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: it holds no mapping.")
    return found


def _lock(handle: IO[str]) -> bool:
    """Take the lock; a reader of `Run.locked` may hold it for an instant, so ask a few times."""
    for _ in range(10):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
