"""Retargeted CSV as Unitree publishes it: root xyz, quaternion (x, y, z, w), joint angles per line.

The files have no header and no rate (30 frames a second where nothing else is said); a header line
of names, where there is one, names the joints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ganglion.core.errors import DataError
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.importers import Said

_LARGEST = 256 << 20
_FPS = 30.0
_ROOT = 7


def read(path: Path, robot: Robot, said: Said) -> list[Clip]:
    """Read one file; DataError names line and column of the first fault."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} has over {_LARGEST:,} bytes.")
        lines = [x for x in path.read_text(encoding="utf-8").splitlines() if x.strip()]
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: {error.reason}.") from error
    if not lines:
        raise DataError(f"{path} is empty.")
    header = [c.strip() for c in lines[0].split(",")]
    named = not _is_number(header[0])
    table = _table(path, lines[named:], named)
    joints = said.joints or (tuple(header[_ROOT:]) if named else robot.joints)
    if table.shape[1] != _ROOT + len(joints):
        raise DataError(
            f"{path} has {table.shape[1]} columns; {_ROOT} of the root and {len(joints)} joints "
            f"({', '.join(joints[:4])}, ...) were expected. Say clip.joint_names where the order "
            "is another."
        )
    return [
        Clip(
            path.stem, said.fps or _FPS, joints, table[:, :3], table[:, [6, 3, 4, 5]],
            table[:, _ROOT:], source=path.name,
        )
    ]  # fmt: skip


def _table(
    path: Path, lines: list[str], named: bool
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rows = []
    for i, line in enumerate(lines):
        cells = line.split(",")
        for column, cell in enumerate(cells):
            if not _is_number(cell):
                raise DataError(
                    f"{path}, line {i + 1 + named}, column {column + 1}: {cell.strip()[:20]!r} is "
                    "no number."
                )
        rows.append([float(c) for c in cells])
        if len(rows[-1]) != len(rows[0]):
            raise DataError(
                f"{path}, line {i + 1 + named}: {len(rows[-1])} columns, the first line has "
                f"{len(rows[0])}."
            )
    if len(rows) < 2 or len(rows[0]) <= _ROOT:
        raise DataError(
            f"{path} has {len(rows)} lines of numbers; frames of a motion were expected."
        )
    return np.array(rows, np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
