"""Runs the reader of foreign tensors in a child with limits, and takes nothing it says on trust."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ganglion.core.contracts import Array
from ganglion.core.errors import DataError

_SECONDS = 60
_MOST_BYTES = 1 << 29
_READER = Path(__file__).with_name("legacy.py")


def read_tensors(path: Path, *names: str) -> dict[str, Array]:
    """Return the tensors `names` of a `.pt` file that holds exactly these, as arrays.

    The file is read by `legacy`, which sees its rules, in a fresh interpreter that inherits
    nothing but the path, may use little time and memory, and may write no file. DataError where
    the file is damaged, too large, or asks for anything but plain tensors.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes; the limit is {_MOST_BYTES:,}.")
    command = [sys.executable, "-I", "-S", str(_READER), str(path.resolve()), *names]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, env={}, cwd="/", check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{path} took over {_SECONDS} s to read; it is no file of tensors."
        ) from None
    head, _, body = done.stdout.partition(b"\n")
    try:
        said: dict[str, Any] = orjson.loads(head)
    except orjson.JSONDecodeError:
        raise DataError(f"{path} broke its reader off (exit {done.returncode}).") from None
    if "error" in said:
        raise DataError(f"{path} is no file of {' and '.join(names)}: {said['error']}.")
    found, at = {}, 0
    for entry in said["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]).newbyteorder("<"), tuple(entry["shape"])
        count = math.prod(shape)
        if at + count * dtype.itemsize <= len(body):
            found[entry["name"]] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    if at != len(body) or done.returncode != 0:
        raise DataError(f"{path} broke its reader off (exit {done.returncode}).")
    return found
