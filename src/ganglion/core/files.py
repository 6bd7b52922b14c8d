"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganglion.core.errors import OutputError, SettingsError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, quota, file-size limit


def is_full(error: OSError) -> bool:
    """Say whether `error` means that there is no room, rather than no right, to write."""
    return error.errno in FULL


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file durably: temporary file, fsync, rename, fsync of the folder. OSError on failure.

    A failed write leaves the old file as it was and no temporary file behind.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Mapping[str, Any], mode: int = 0o644) -> None:
    """Write JSON durably; NaN and Infinity become null, since JSON has neither."""
    write_bytes(path, (json.dumps(finite(value), indent=1) + "\n").encode(), mode)


def replace_text(path: Path, text: str) -> None:
    """Replace a small advisory file in one rename, without waiting for the disk.

    On a full disk it is overwritten where it lies, which needs no room.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if not is_full(error) or not path.is_file():
            raise
        with path.open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def write_out(path: Path, value: bytes | Mapping[str, Any]) -> None:
    """Write what a user asked for (bytes, or JSON), with the folders above; OutputError if not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            write_bytes(path, value)
        else:
            write_json(path, value)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from error


def ensure_replaceable(path: Path | None, suffix: str) -> None:
    """SettingsError where `path` is there already and is no file of that kind, e.g. ".json"."""
    if path is not None and path.exists() and (path.is_dir() or path.suffix != suffix):
        raise SettingsError(f"{path} exists already and is no {suffix} file; choose another --out.")


def ensure_writable(folder: Path) -> None:
    """Make `folder` and prove that files can be written there; OutputError in one sentence."""
    probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 512)
    except OSError as error:
        raise OutputError(f"Cannot write into {folder}: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """Return a JSON value with NaN and Infinity replaced by None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
