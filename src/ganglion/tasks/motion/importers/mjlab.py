"""Motion archives of mjlab and BeyondMimic: joint angles and body poses in the world, at `fps`.

Arrays: fps, joint_pos (T, J), joint_vel, body_pos_w (T, B, 3), body_quat_w (T, B, 4) wxyz,
body_lin_vel_w, body_ang_vel_w (T, B, 3); body 0 is the root. Joints and bodies are named where the
file has joint_names; else they are the robot's, in its order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ganglion.core.errors import DataError
from ganglion.tasks.motion import archive, motion_file
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.importers import Said


def read(path: Path, robot: Robot, said: Said) -> list[Clip]:
    """Read one file; the rate is the file's own, resampling follows."""
    found = archive.read(
        path, {"fps": "fiu", "joint_pos": "fiu", "body_pos_w": "fiu", "body_quat_w": "fiu"},
        {"joint_names": "U", "body_ang_vel_w": "fiu"},
    )  # fmt: skip
    for name, last in (("body_pos_w", 3), ("body_quat_w", 4)):
        if found[name].ndim != 3 or found[name].shape[2] != last or not found[name].shape[1]:
            raise DataError(f"{path}: {name} has shape {found[name].shape}; (T, B, {last}) is it.")
    if found["fps"].size != 1:
        raise DataError(f"{path}: fps has {found['fps'].size} values; one was expected.")
    joints = (
        tuple(str(n) for n in found["joint_names"].reshape(-1)) if "joint_names" in found else ()
    )
    joints = said.joints or joints or robot.joints
    roots = {
        "root_pos": found["body_pos_w"][:, 0], "root_quat": found["body_quat_w"][:, 0],
        "joint_pos": found["joint_pos"],
    }  # fmt: skip
    motion_file.check_shapes(str(path), roots, len(joints))
    claimed = found.get("body_ang_vel_w")
    if claimed is not None and claimed.shape != found["body_pos_w"].shape:
        raise DataError(
            f"{path}: body_ang_vel_w has shape {claimed.shape}; that of body_pos_w, "
            f"{found['body_pos_w'].shape}, was expected."
        )
    return [
        Clip(
            path.stem, float(found["fps"].reshape(-1)[0]), joints, roots["root_pos"],
            roots["root_quat"], roots["joint_pos"], source=path.name,
            claimed=None if claimed is None else claimed[:, 0],
        )
    ]  # fmt: skip
