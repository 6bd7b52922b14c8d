"""Pickles of plain values and NumPy numbers: some systems publish their tables so."""

from __future__ import annotations

import gzip
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

from ganglion.core.errors import DataError
from ganglion.importers.confinement import Limits, confined

_NAMES = {  # what NumPy writes for its numbers and arrays, under its old and new module names
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.core.numeric": {"_frombuffer"},
    "_codecs": {"encode"},
}


def read_values(path: Path, limits: Limits | None = None) -> Any:
    """Return what a pickle of plain values and NumPy numbers holds, as JSON values.

    Arrays become nested lists. A pickle that names anything else is a DataError, and so is one
    that is damaged or too large; gzip is unpacked.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    answer = confined("ganglion.importers.values:unpickled", data, limits, str(path))
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
