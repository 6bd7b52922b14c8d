"""Array files (.npz, .npy) of others: names, sizes and headers are checked before data are read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ganglion.core.errors import DataError

LARGEST = 512 << 20  # bytes of all arrays of one file
_KINDS = {"f": "floating-point numbers", "fiu": "numbers", "U": "texts", "fiub": "numbers or flags"}


def read(path: Path, wanted: Mapping[str, str], optional: Mapping[str, str]) -> dict[str, Any]:
    """Return the arrays of an .npz by name; further members are left unread.

    wanted and optional map a name to the kinds of dtype it may have ("fiu" numbers, "U" texts).
    Floats come as float64. DataError names file and array of the first fault.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            for name in wanted:
                if name not in members:
                    listed = ", ".join(sorted(members)[:12]) or "nothing"
                    raise DataError(f"{path} lacks {name!r}; it holds {listed}.")
            chosen = {**wanted, **{k: v for k, v in optional.items() if k in members}}
            total = sum(members[n].file_size for n in chosen)
            if total > LARGEST:
                raise DataError(f"{path} would unpack to {total:,} bytes; at most {LARGEST:,}.")
            found = {}
            for name, kinds in chosen.items():
                with archive.open(members[name]) as file:
                    found[name] = _array(f"{path}: {name}", file, members[name].file_size, kinds)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise DataError(f"{path} is no intact .npz file: {error}.") from error
    return found


def names(path: Path) -> set[str]:
    """Return the names of the arrays in an .npz; DataError where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {m.filename.removesuffix(".npy") for m in archive.infolist()}
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no intact .npz file: {error}.") from error


def read_one(path: Path, kinds: str = "f") -> NDArray[Any]:
    """Return the array of an .npy file."""
    try:
        with path.open("rb") as file:
            return _array(str(path), file, path.stat().st_size, kinds)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


def _array(name: str, file: IO[bytes], size: int, kinds: str) -> NDArray[Any]:
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise DataError(f"{name} has a damaged header ({error}).") from error
    if any(n < 0 for n in shape):
        raise DataError(f"{name} announces the shape {shape}.")
    if dtype.kind not in kinds or dtype.itemsize > 4096:
        raise DataError(f"{name} holds {dtype}; {_KINDS.get(kinds, kinds)} were expected.")
    expected = math.prod(shape) * dtype.itemsize
    if expected > LARGEST:
        raise DataError(f"{name} announces {expected:,} bytes; at most {LARGEST:,} are read.")
    data = file.read(expected + 1)
    if len(data) != expected:
        raise DataError(
            f"{name} announces {shape} {dtype}, {expected:,} bytes, but holds "
            f"{'more' if len(data) > expected else f'{len(data):,}'}."
        )
    found = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return found.astype(np.float64) if dtype.kind in "fiu" else found.copy()
