"""Inverse kinematics: joint angles that put the feet where they should be.

`five_joint_leg` is the closed form of a leg whose three hip axes (yaw, roll, pitch) meet in one
point, with knee and ankle pitch below; `numeric` serves any other robot. Shapes: N frames, F feet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ganglion.core.errors import DataError
from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

_PULL = 1e-3  # towards the home pose, against a millimetre of error per rad
_SUFFIXES = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")


@dataclass(frozen=True)
class Leg:
    """A leg of five joints: their columns, the hip in the root's frame, two lengths in m."""

    columns: tuple[int, ...]
    hip: Floats
    thigh: float
    shin: float


def legs(robot: Robot) -> list[Leg] | None:
    """Return the legs of `robot`, one per foot, where they have the five joints; else None."""
    model, found = robot.model, []
    for side in ("left", "right"):
        names = [f"{side}_{suffix}" for suffix in _SUFFIXES]
        if any(n not in robot.joints for n in names):
            return None
        columns = tuple(robot.joints.index(n) for n in names)
        bodies = [int(model.jnt_bodyid[robot.joint_ids[c]]) for c in columns]
        steps = np.array([model.body_pos[b] for b in bodies])
        axes = np.array([model.jnt_axis[robot.joint_ids[c]] for c in columns])
        straight = np.allclose(model.body_quat[bodies], [1, 0, 0, 0]) and not steps[1:3].any()
        expected = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
        if not (straight and np.allclose(axes, expected) and not steps[3:, :2].any()):
            return None
        found.append(Leg(columns, steps[0], float(-steps[3, 2]), float(-steps[4, 2])))
    return found


def five_joint_leg(leg: Leg, ankle: Floats, yaw: Floats, pitch: Floats) -> Floats:
    """Return yaw, roll, pitch, knee and ankle angles (N, 5) in rad.

    ankle (N, 3) is where the ankle is in the root's frame, yaw and pitch (N,) how the foot points.
    After the yaw, the roll turns the leg's plane through the ankle; in that plane two links reach
    it by the law of cosines, the knee bent forward. DataError names a frame out of reach.
    """
    p = rotations.turn(-yaw, ankle - leg.hip)
    roll = np.arctan2(p[:, 1], -p[:, 2])
    depth = np.hypot(p[:, 1], p[:, 2])
    reach = np.hypot(p[:, 0], depth)
    far = np.flatnonzero((reach > leg.thigh + leg.shin) | (reach < abs(leg.thigh - leg.shin)))
    if far.size:
        raise DataError(
            f"Frame {far[0]}: the foot would be {reach[far[0]]:.3f} m from its hip, the leg "
            f"reaches {leg.thigh + leg.shin:.3f} m. Choose slower steps or a lower body."
        )
    inner = (leg.thigh**2 + leg.shin**2 - reach**2) / (2.0 * leg.thigh * leg.shin)
    knee = np.pi - np.arccos(np.clip(inner, -1.0, 1.0))
    lead = (leg.thigh**2 + reach**2 - leg.shin**2) / (2.0 * leg.thigh * reach)
    hip = -np.arctan2(p[:, 0], depth) - np.arccos(np.clip(lead, -1.0, 1.0))
    return np.stack([yaw, roll, hip, knee, pitch - hip - knee], -1)


def numeric(
    robot: Robot, position: Floats, quat: Floats, soles: Floats, start: Floats | None = None
) -> Floats:
    """Return joint angles (N, J) that bring the middle of each sole to `soles` (N, F, 3).

    position (N, 3) and quat (N, 4) are the root's. Damped least squares from the home pose, which
    also decides what the feet leave open; all frames at once. DataError names a frame whose feet
    stay further than 5 mm away.
    """
    count, joints = len(position), len(robot.joints)
    q = np.tile(robot.home, (count, 1)) if start is None else start.copy()
    low, high = robot.ranges[:, 0], robot.ranges[:, 1]
    error = np.zeros((count, 0))
    for _ in range(40):
        error = (soles - _soles(robot, position, quat, q)).reshape(count, -1)
        if np.abs(error).max() < 1e-5:
            break
        jacobian = np.stack(
            [(_soles(robot, position, quat, q + 1e-6 * np.eye(joints)[j])
              - _soles(robot, position, quat, q)).reshape(count, -1) / 1e-6
             for j in range(joints)], -1,
        )  # fmt: skip
        pull = np.concatenate([error, _PULL * (robot.home - q)], 1)
        rows = np.concatenate([jacobian, np.tile(_PULL * np.eye(joints), (count, 1, 1))], 1)
        normal = np.swapaxes(rows, 1, 2) @ rows + 1e-8 * np.eye(joints)
        step = np.linalg.solve(normal, np.einsum("nij,ni->nj", rows, pull)[..., None])[..., 0]
        q = np.clip(q + np.clip(step, -0.3, 0.3), low, high)
    distance = np.linalg.norm(error.reshape(count, -1, 3), axis=-1).max(-1)
    if distance.max() > 5e-3:
        frame = int(distance.argmax())
        raise DataError(
            f"Frame {frame}: a foot stays {1e3 * distance[frame]:.0f} mm from where it should be; "
            "choose slower steps or a lower body."
        )
    return q


def _soles(robot: Robot, position: Floats, quat: Floats, q: Floats) -> Floats:
    found: Floats = robot.sole_centres(*robot.foot_frames(position, quat, q))
    return found
