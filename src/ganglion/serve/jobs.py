"""Asynchronous jobs: one file each in a folder that all workers share, kept until deleted or old.

{"job_id": 1, "input": [[0.5, 0.3]]}: a row is the policy's data inputs, one after the other in the
declared order; or {"job_id": 1, "data": {name: rows}}. Reading a result does not remove it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ganglion.core.contracts import Signature
from ganglion.serve.problems import Problem, missing, unfit
from ganglion.serve.settings import Limits

LARGEST = 2**53 - 1  # the largest whole number that every JSON reader keeps


class Jobs:
    """The store. Every method is short; times are Unix times of the file system."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._checked_s = 0.0
        self._make_folder()

    def _make_folder(self) -> None:
        """Make the folder: at the start, and again where someone cleaned up after a while."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise _no_room(problem) from None

    def add(self, number: int) -> None:
        """Take an id; a Problem where it is taken (409) or too much is kept already (429)."""
        if time.monotonic() - self._checked_s > 1.0:
            self._checked_s = time.monotonic()
            self._make_folder()
            self.expire()
        try:
            descriptor = os.open(self._path(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise Problem(
                409, "job_exists",
                f"There is a job {number} already; delete it first, or choose another id.",
            ) from None  # fmt: skip
        except OSError as problem:
            raise _no_room(problem) from None
        os.close(descriptor)
        with suppress(OSError):
            self.put(number, {"job_id": number, "status": "queued"})

    def put(self, number: int, job: Mapping[str, Any]) -> None:
        """Replace what is known of a job, unless it was deleted meanwhile."""
        path = self._path(number)
        if not path.exists():
            return
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_bytes(orjson.dumps(job, option=orjson.OPT_SERIALIZE_NUMPY))
            os.replace(temporary, path)
        except OSError as problem:
            with suppress(OSError):
                temporary.unlink()
            raise _no_room(problem) from None

    def get(self, number: int) -> bytes:
        """Return what is known of a job, as JSON."""
        path = self._path(number)
        try:
            if time.time() - path.stat().st_mtime <= self._limits.job_s:
                found = path.read_bytes()
                return found or orjson.dumps({"job_id": number, "status": "queued"})
        except OSError:
            pass
        raise missing(f"There is no job {number}; its result may be older than it is kept.")

    def delete(self, number: int) -> None:
        """Forget a job; one that still runs is not stopped, but its result is not kept."""
        try:
            self._path(number).unlink()
        except OSError:
            raise missing(f"There is no job {number}.") from None

    def listed(self) -> list[dict[str, Any]]:
        """Return id and state of every job, by id."""
        found = []
        for path in self._folder.glob("*.json"):
            with suppress(OSError, Problem):
                job = orjson.loads(self.get(int(path.stem)))
                found.append({"job_id": job["job_id"], "status": job["status"]})
        return sorted(found, key=lambda job: int(job["job_id"]))

    @property
    def count(self) -> int:
        """Return how many jobs are kept."""
        return sum(1 for _ in self._folder.glob("*.json"))

    def expire(self) -> None:
        """Forget what is too old; a Problem where there is still too much."""
        count = size = 0
        for entry in os.scandir(self._folder):
            with suppress(OSError):
                found = entry.stat()
                if time.time() - found.st_mtime > self._limits.job_s:
                    os.unlink(entry.path)
                    continue
                count, size = count + 1, size + found.st_size
        if count >= self._limits.jobs or size >= self._limits.job_bytes:
            raise Problem(
                429, "jobs_full", f"{count} jobs of {size} bytes are kept; delete some first."
            )

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def job_id(raw: Any) -> int:
    """Return a whole number from 0 to 2^53 - 1; a Problem where it is none."""
    if isinstance(raw, str) and raw.isascii() and raw.isdecimal() and len(raw) <= 16:
        raw = int(raw)
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)  # JSON knows one kind of numbers
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= LARGEST:
        raise unfit(f"A job id is a whole number from 0 to {LARGEST}, not {raw!r:.40}.")
    return raw


def columns(rows: Any, signature: Signature) -> dict[str, Any]:
    """Split rows of numbers into the policy's data inputs."""
    widths = data_widths(signature)
    total = sum(widths.values())
    if not isinstance(rows, list) or not rows or not all(isinstance(r, list) for r in rows):
        raise unfit('"input" is a list of rows, each a list of numbers, and has at least one.')
    for number, row in enumerate(rows):
        if len(row) != total:
            names = ", ".join(f"{name} ({width})" for name, width in widths.items())
            raise unfit(
                f'Row {number} of "input" has {len(row)} numbers; expected {total}: {names}.'
            )
        for value in row:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise unfit(f'Row {number} of "input" holds {value!r:.40}; expected numbers.')
    found, start = {}, 0
    for name, width in widths.items():
        part = np.asarray([row[start : start + width] for row in rows])
        shape = [axis for axis in signature.inputs[name].shape if isinstance(axis, int)]
        found[name] = part.reshape(len(rows), *shape)
        start += width
    return found


def data_widths(signature: Signature) -> dict[str, int]:
    """Return how many numbers of a row each data input takes; a Problem where no row is fixed."""
    widths = {}
    for name, spec in signature.inputs.items():
        if spec.role != "data":
            continue
        sizes: Sequence[int] = [axis for axis in spec.shape if isinstance(axis, int)]
        if not spec.batched or len(sizes) < len(spec.shape) or spec.dtype == "bool":
            raise unfit(f'Input {name!r} is no fixed row of numbers; give "data" instead.')
        widths[name] = int(np.prod(sizes, dtype=np.int64))
    return widths


def _no_room(problem: OSError) -> Problem:
    return Problem(429, "jobs_full", f"The job cannot be kept: {problem.strerror}.")
