"""The product's own motion file, motion.npz: one or several clips, never pickled.

Arrays: root_pos (T, 3) m, root_quat (T, 4) wxyz, joint_pos (T, J) rad, joint_names (J,), fps (C,),
offsets (C + 1,) the first frame of each of C clips and the end, optionally contacts (T, F); meta is
a JSON text with one entry per clip and the SHA-256 of the arrays.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ganglion.core import files
from ganglion.core.errors import DataError
from ganglion.core.settings import digest
from ganglion.tasks.motion import archive
from ganglion.tasks.motion.clip import Clip

VERSION = 1
MOST_CLIPS = 10_000
_WANTED = {
    "root_pos": "fiu",
    "root_quat": "fiu",
    "joint_pos": "fiu",
    "joint_names": "U",
    "fps": "fiu",
}
_OPTIONAL = {"offsets": "iu", "meta": "U", "contacts": "fiub"}


def write(path: Path, clips: Sequence[Clip]) -> None:
    """Write clips of the same joints, whole or not at all; OutputError where that fails."""
    files.write_out(path, packed(clips))


def packed(clips: Sequence[Clip]) -> bytes:
    """Return the bytes of a motion file; DataError where the clips have different joints."""
    if not clips or any(c.joints != clips[0].joints for c in clips):
        raise DataError("A motion file holds one clip or more, all of the same joints.")
    arrays: dict[str, Any] = {
        "root_pos": np.concatenate([c.root_pos for c in clips]),
        "root_quat": np.concatenate([c.root_quat for c in clips]),
        "joint_pos": np.concatenate([c.joint_pos for c in clips]),
        "joint_names": np.array(clips[0].joints),
        "fps": np.array([c.fps for c in clips], np.float64),
        "offsets": np.cumsum([0, *(c.frames for c in clips)]),
    }
    if all(c.contacts is not None for c in clips):
        arrays["contacts"] = np.concatenate([c.contacts for c in clips])
    entries = [
        {"name": c.name, "loop": c.loop, "offset": list(c.offset), "source": c.source,
         "licence": c.licence, "command": None if c.command is None else list(c.command),
         "digest": c.digest}
        for c in clips
    ]  # fmt: skip
    about = {"version": VERSION, "clips": entries}
    arrays["meta"] = np.array(json.dumps({**about, "sha256": digest(about)}))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read(path: Path) -> list[Clip]:
    """Read a motion file; DataError in one sentence where it is damaged.

    What a motion means for a robot is checked by `validation.check`, not here.
    """
    found = archive.read(path, _WANTED, _OPTIONAL)
    joints = tuple(str(n) for n in found["joint_names"].reshape(-1))
    check_shapes(str(path), found, len(joints))
    frames = len(found["root_pos"])
    ends = _ends(path, found, frames)
    entries = _entries(path, found, len(ends) - 1)
    fps = np.broadcast_to(found["fps"].reshape(-1), (len(entries),)) if found["fps"].size in (
        1, len(entries)) else None  # fmt: skip
    if fps is None:
        raise DataError(f"{path}: fps has {found['fps'].size} values for {len(entries)} clips.")
    held = found.get("contacts")
    if held is not None and (held.ndim != 2 or len(held) != frames):
        raise DataError(f"{path}: contacts has shape {held.shape}; ({frames}, feet) was expected.")
    clips = []
    for i, entry in enumerate(entries):
        part = slice(ends[i], ends[i + 1])
        contacts = held[part].astype(bool) if held is not None else None
        clips.append(
            Clip(
                str(entry.get("name") or path.stem), float(fps[i]), joints,
                found["root_pos"][part], found["root_quat"][part], found["joint_pos"][part],
                entry.get("loop", "clamp"), tuple(entry.get("offset", (0.0, 0.0, 0.0))), contacts,
                tuple(entry["command"]) if entry.get("command") else None,
                str(entry.get("source", path.name)), str(entry.get("licence", "")),
            )
        )  # fmt: skip
        if "digest" in entry and clips[-1].digest != entry["digest"]:
            raise DataError(f"{path}: clip {clips[-1].name!r} is not what its digest says.")
    return clips


def check_shapes(name: str, found: Mapping[str, Any], joints: int) -> None:
    """DataError where root_pos, root_quat and joint_pos do not belong together."""
    frames = len(found["root_pos"]) if found["root_pos"].ndim else 0
    for key, columns in (("root_pos", 3), ("root_quat", 4), ("joint_pos", joints)):
        if found[key].shape != (frames, columns):
            raise DataError(
                f"{name}: {key} has shape {found[key].shape}; ({frames}, {columns}) was expected."
            )


def _ends(path: Path, found: Mapping[str, Any], frames: int) -> list[int]:
    raw = found.get("offsets", np.array([0, frames]))
    ends = [int(v) for v in raw.reshape(-1)]
    good = len(ends) >= 2 and ends[0] == 0 and ends[-1] == frames
    if not good or any(b <= a for a, b in pairwise(ends)):
        raise DataError(f"{path}: offsets must rise from 0 to {frames}, the number of frames.")
    if len(ends) > MOST_CLIPS + 1:
        raise DataError(f"{path} holds {len(ends) - 1} clips; at most {MOST_CLIPS} are read.")
    return ends


def _entries(path: Path, found: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    if "meta" not in found:
        return [{} for _ in range(count)]
    try:
        about = json.loads(str(found["meta"].reshape(-1)[0]))
        entries, version = about["clips"], about["version"]
        rest = {k: v for k, v in about.items() if k != "sha256"}
        intact = about["sha256"] == digest(rest)
        for entry in entries:
            if entry.get("loop", "clamp") not in ("wrap", "clamp"):
                raise DataError(
                    f"{path}: clip {entry.get('name')!r} has loop {entry['loop']!r}; wrap and "
                    "clamp are known."
                )
            if len(entry.get("offset", (0, 0, 0))) != 3 or not np.isfinite(entry["offset"]).all():
                raise DataError(f"{path}: clip {entry.get('name')!r} has a bad cycle offset.")
        if type(version) is not int:
            raise DataError(f"{path}: meta has version {version!r}; a whole number was expected.")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: meta cannot be read ({error}).") from error
    if version > VERSION:
        raise DataError(f"{path} has format {version}; this version reads up to {VERSION}.")
    if not intact or len(entries) != count:
        raise DataError(f"{path}: meta is damaged; its digest or its number of clips differs.")
    return list(entries)
