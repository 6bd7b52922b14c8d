"""A plain (T, J) array of joint angles: the root's pose is solved from the feet.

In every frame the foot that is lower, as seen from the root at its last tilt, lies flat on the
ground; it stays where it is until the other one is lower. That gives height, tilt and way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.motion import archive, rotations
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.importers import Said

_CLEARLY = 2e-3  # m: a foot takes over when it is this much lower


def read(path: Path, robot: Robot, said: Said) -> list[Clip]:
    """Read one .npy; the joints are the robot's in its order unless the user names them."""
    table = archive.read_one(path, "fiu")
    joints = said.joints or robot.joints
    if said.fps is None:
        raise SettingsError(f"{path.name} does not state its rate; say it with clip.fps=.")
    if table.ndim != 2 or table.shape[1] != len(joints):
        raise DataError(
            f"{path} has shape {table.shape}; (T, {len(joints)}) was expected, one column per "
            f"joint: {', '.join(joints)}."
        )
    bad = np.argwhere(~np.isfinite(table))
    if bad.size:
        frame, joint = bad[0]
        raise DataError(f"{path}, frame {frame}, joint {joints[joint]!r}: no finite number.")
    if len(table) < 4:
        raise DataError(f"{path} has {len(table)} frames; 4 or more are needed.")
    order = [joints.index(j) if j in joints else -1 for j in robot.joints]
    angles = np.where(np.array(order) >= 0, table[:, order], robot.home)
    place, quat = rooted(robot, angles)
    return [Clip(path.stem, said.fps, joints, place, quat, table, source=path.name)]


def rooted(robot: Robot, joint_pos: Floats) -> tuple[Floats, Floats]:
    """Return root positions (T, 3) and quaternions (T, 4) that keep the lower sole flat.

    joint_pos is (T, J) in the robot's order. The first frame's carrying foot stands under x = y = 0
    and heads along x.
    """
    count = len(joint_pos)
    zero, one = np.zeros((count, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))
    place, turned = robot.foot_frames(zero, one, joint_pos)  # in the root's frame
    flat = _flat(robot)
    root_pos, root_quat = np.zeros((count, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))
    carrier = -1
    sole, heading = np.zeros(3), 0.0  # of the carrying foot, in the world
    tilt = one[0]
    for t in range(count):
        lowest = _heights(robot, place[t], turned[t], tilt)
        lower = int(lowest.argmin())
        if carrier < 0 or lowest[lower] < lowest[carrier] - _CLEARLY:
            if carrier >= 0:  # where the new foot is, now that it takes over
                sole, heading = _stand(robot, place[t], turned[t], lower, root_pos[t - 1], tilt)
            carrier = lower
        own = turned[t, carrier] @ flat[carrier].T  # the sole's upright frame, seen from the root
        to_sole = quaternion_of(own)
        root_quat[t] = rotations.multiply(
            rotations.about_z(np.array(heading)), rotations.conjugate(to_sole)
        )
        middle = place[t, carrier] + turned[t, carrier] @ robot.sole_middle[carrier]
        root_pos[t] = np.array([*sole[:2], 0.0]) - rotations.rotate(root_quat[t], middle)
        tilt = root_quat[t]
    return root_pos, root_quat


def _flat(robot: Robot) -> Floats:
    """Return each foot's orientation (F, 3, 3) when its sole is flat: that of the home pose."""
    _, turned = robot.foot_frames(
        np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0, 0.0]]), robot.home[None]
    )
    return turned[0]  # type: ignore[no-any-return]


def _heights(robot: Robot, place: Floats, turned: Floats, tilt: Floats) -> Floats:
    """Return each sole's lowest point (F,) along the vertical, from the root at `tilt`."""
    up = rotations.up(tilt)
    points = place[:, None] + np.einsum("fij,fpj->fpi", turned, robot.sole)
    found: Floats = (points @ up - robot.radius).min(-1)
    return found


def _stand(
    robot: Robot, place: Floats, turned: Floats, foot: int, root: Floats, tilt: Floats
) -> tuple[Floats, float]:
    middle = place[foot] + turned[foot] @ robot.sole_middle[foot]
    ahead = rotations.rotate(tilt, turned[foot] @ _flat(robot)[foot].T @ np.array([1.0, 0.0, 0.0]))
    return root + rotations.rotate(tilt, middle), float(np.arctan2(ahead[1], ahead[0]))


def quaternion_of(matrix: Floats) -> Floats:
    """Return the unit quaternion (4,) of a rotation matrix (3, 3)."""
    m = matrix
    rows = np.array([
        [1 + m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
        [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], 1 - m[0, 0] + m[1, 1] - m[2, 2], m[1, 2] + m[2, 1]],
        [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 - m[0, 0] - m[1, 1] + m[2, 2]],
    ])  # fmt: skip
    best = rows[int(np.diag(rows).argmax())]
    found: Floats = best / np.linalg.norm(best)
    return found
