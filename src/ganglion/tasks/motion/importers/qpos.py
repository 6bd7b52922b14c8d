"""Archives of MuJoCo coordinates: qpos (T, nq) of a robot with a free root, and their rate.

The rate is `fps`, `frequency`, `dt` or `timestep` of the file, or what the user says.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.motion import archive
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.importers import Said

_RATES = ("fps", "frequency", "dt", "timestep")


def read(path: Path, robot: Robot, said: Said) -> list[Clip]:
    """Read one file; columns are x, y, z, the quaternion (w, x, y, z), then the joints."""
    optional = {**dict.fromkeys(_RATES, "fiu"), "joint_names": "U"}
    found = archive.read(path, {"qpos": "fiu"}, optional)
    named = tuple(str(n) for n in found.get("joint_names", np.zeros(0)).reshape(-1))
    joints = said.joints or named or robot.joints
    table = found["qpos"]
    if table.ndim != 2 or table.shape[1] != 7 + len(joints):
        raise DataError(
            f"{path}: qpos has shape {table.shape}; (T, {7 + len(joints)}) was expected, seven "
            f"columns of the root and {len(joints)} joints."
        )
    fps = said.fps
    for name in _RATES:
        if fps is None and name in found and found[name].size == 1:
            value = float(found[name].reshape(-1)[0])
            fps = value if name in ("fps", "frequency") else (1.0 / value if value else 0.0)
    if fps is None:
        raise SettingsError(f"{path} does not state its rate; say it with clip.fps=.")
    return [
        Clip(path.stem, fps, joints, table[:, :3], table[:, 3:7], table[:, 7:], source=path.name)
    ]
