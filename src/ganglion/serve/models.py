"""A policy that is ready to be served: read once, tried in a child, loaded, warm."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganglion.core.contracts import Signature
from ganglion.core.errors import DataError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export import inputs
from ganglion.export.inspection import read
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.probe import AXIS, probe
from ganglion.serve.settings import ProbeLimits


@dataclass(frozen=True)
class Stamp:
    """What tells that a file was replaced: its number, size and time of change."""

    path: Path
    number: int
    size: int
    changed_ns: int


@dataclass(frozen=True)
class Model:
    """One policy in one version. call_s is a run of one row, element_s what each number adds."""

    name: str
    version: str
    policy: OnnxPolicy
    call_s: float
    element_s: float

    @property
    def signature(self) -> Signature:
        return self.policy.signature

    @property
    def digest(self) -> str:
        return self.policy.digest

    @property
    def card(self) -> Mapping[str, Any]:
        return self.policy.card

    @property
    def steps(self) -> Mapping[str, int]:
        """What inputs of role "steps" get where a request leaves them out."""
        found: Mapping[str, int] = self.card.get("steps", {})
        return found if isinstance(found, Mapping) else {}


def stamp(path: Path) -> Stamp:
    """Return a file's stamp; DataError where it is no regular file."""
    try:
        found = path.stat()
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no regular file.")
    return Stamp(path, found.st_ino, found.st_size, found.st_mtime_ns)


def load(name: str, path: Path, version: str | None, limits: ProbeLimits) -> Model:
    """Load one file; DataError where it is refused. version None: the digest's first 12 letters.

    The bytes are read once: those that the child has tried are those that are served.
    """
    if stamp(path).size > limits.file.file_bytes:
        raise DataError(f"{path} is larger than {limits.file.file_bytes} bytes; it is not served.")
    data, shown = read(path, limits.file)
    probed = probe(data, shown, limits)
    policy = OnnxPolicy.inspected(data, shown, probed.inspection)
    warm(policy)
    element_s = probed.row_s / max(1, _elements(policy.signature))
    return Model(name, version or policy.digest[:12], policy, probed.call_s, element_s)


def warm(policy: OnnxPolicy) -> None:
    """Run one and several rows, so that the first request does not pay for ONNX Runtime's start."""
    signature = policy.signature
    sizes = {a: AXIS for s in signature.inputs.values() for a in s.shape if isinstance(a, str)}
    for rows in (1, 2, 8):
        policy.run(inputs.draw(signature, rows, rng(0, "warm", rows), sizes))


def versions(path: Path) -> list[tuple[Path, str | None]]:
    """Return the files that a source may be served from, the newest version first.

    A file is its own only version. A folder holds numbered folders with one .onnx file each.
    """
    if not path.is_dir():
        return [(path, None)]
    found = []
    for entry in path.iterdir():
        if entry.name.isascii() and entry.name.isdecimal() and entry.is_dir():
            files = sorted(entry.glob("*.onnx"))
            if len(files) == 1:
                found.append((int(entry.name), files[0], entry.name))
    if not found:
        raise SettingsError(
            f"{path} holds no versions; expected numbered folders with one .onnx file each, "
            "e.g. 1/policy.onnx."
        )
    return [(file, version) for _, file, version in sorted(found, reverse=True)]


def _elements(signature: Signature) -> int:
    """Return how many numbers one row of the child's runs holds."""
    total = 0
    for spec in signature.inputs.values():
        if spec.batched:
            size = 1
            for axis in spec.shape:
                size *= AXIS if isinstance(axis, str) else axis
            total += size
    return total
