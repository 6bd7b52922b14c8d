"""Reads what cannot be trusted in a child process: little memory, little time, no writing.

`confined` runs one function of ours there; `read_pickle` is the one place at which a pickle is
opened, with an explicit list of names that it may use.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import math
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganglion.core.errors import DataError

_PATIENCE = 10  # s of waiting beside the time that is allowed: the machine may be busy
_REFUSED = 65  # exit code of a child that says what is wrong with its input
_NAMES = {  # what NumPy writes for its numbers and arrays, under its old and new module names
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.core.numeric": {"_frombuffer"},
    "_codecs": {"encode"},
}


@dataclass(frozen=True)
class Limits:
    """What a child may use: seconds, bytes of memory, bytes of input and of output."""

    seconds: int = 30
    memory: int = 3 << 30
    given: int = 64 << 20
    answer: int = 256 << 20


def confined(
    function: str, data: bytes, limits: Limits | None = None, what: str = "The file"
) -> bytes:
    """Call FUNCTION ("package.module:name", bytes -> bytes) in a child; return its answer.

    DataError where the function refuses the data (a ValueError or DataError becomes its sentence),
    where it takes more than `limits`, or where it crashes. what begins those sentences.
    """
    limits = limits or Limits()
    if len(data) > limits.given:
        raise DataError(f"{what} has {len(data):,} bytes; at most {limits.given:,} are read.")
    words = [
        sys.executable,
        "-m",
        "ganglion.importers.confinement",
        function,
        json.dumps(asdict(limits)),
    ]
    paths = os.pathsep.join(p for p in sys.path if p)
    env = {"PYTHONPATH": paths, "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            words,
            input=data,
            capture_output=True,
            env=env,
            timeout=_PATIENCE + 2 * limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{what} took more than {_PATIENCE + 2 * limits.seconds} s to read."
        ) from None
    if done.returncode == _REFUSED:
        raise DataError(f"{what}: {done.stderr.decode(errors='replace').strip()}")
    if done.returncode != 0:
        raise DataError(
            f"{what} could not be read within {limits.seconds} s and {limits.memory >> 20} MB; "
            "it is damaged, or made to do harm."
        )
    if len(done.stdout) > limits.answer:
        raise DataError(f"{what} unpacks to more than {limits.answer:,} bytes.")
    return done.stdout


def read_pickle(path: Path, limits: Limits | None = None) -> Any:
    """Return what a pickle of plain values and NumPy numbers holds, as JSON values.

    Arrays become nested lists. A pickle that names anything else is a DataError, and so is one
    that is damaged or too large; gzip is unpacked.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    answer = confined("ganglion.importers.confinement:unpickled", data, limits, str(path))
    return json.loads(answer)


# ---------------------------------------------------------------- in the child


def unpickled(data: bytes) -> bytes:
    """Return the JSON of a pickle; ValueError where it holds what is no plain value."""
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as file:
            data = file.read(Limits().answer)
    try:
        found = _Plain(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{error}") from None
    except (EOFError, AttributeError, IndexError, KeyError, TypeError, ImportError) as error:
        raise ValueError(f"this is no intact pickle ({type(error).__name__}: {error})") from None
    return json.dumps(_json(found, 0)).encode()


class _Plain(pickle.Unpickler):
    """An unpickler that knows NumPy's numbers and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _NAMES.get(module, ()):
            raise pickle.UnpicklingError(
                f"the pickle names {module}.{name}; only plain values and NumPy numbers are read."
            )
        return super().find_class(module, name)


def _json(value: Any, depth: int) -> Any:
    if depth > 8:
        raise ValueError("values are nested more than 8 deep.")
    if isinstance(value, dict):
        return {str(k): _json(v, depth + 1) for k, v in value.items()}
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        if value.dtype.kind not in "fiub":
            raise ValueError(f"an array holds {value.dtype}; numbers were expected.")
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_json(v, depth + 1) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(f"a value is a {type(value).__name__}; plain values were expected.")


def _main(function: str, limits: Limits) -> int:
    module, _, name = function.partition(":")
    own: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.answer, limits.answer))
    try:
        answer = own(sys.stdin.buffer.read())
    except (ValueError, DataError, RecursionError) as error:
        sys.stderr.write(" ".join(str(error).split()))
        return _REFUSED
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Limits(**json.loads(sys.argv[2]))))
