"""Open Duck's polynomials: a pickle of coefficients per commanded speed, one cycle each.

{"dx_dy_dtheta": {"coefficients": {"dim_0": [c0, c1, ...], ...}, "period", "fps", ...}}; the value
at phase t is sum c_k t^k, with t = j / (n - 1) over the n frames of the period it was fitted to.
Dimensions: joint angles J, joint velocities J, two foot contacts, linear and angular velocity of
the base. The root's path is integrated from the velocities, its height follows from the feet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ganglion.core.errors import DataError
from ganglion.importers.values import read_values
from ganglion.tasks.motion import preprocess, rotations
from ganglion.tasks.motion.clip import Clip, closing
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.importers import Said

_JOINTS = (  # of the Mini, where neither the file nor the user names them
    "left_hip_yaw", "left_hip_roll", "left_hip_pitch", "left_knee", "left_ankle", "neck_pitch",
    "head_pitch", "head_yaw", "head_roll", "left_antenna", "right_antenna", "right_hip_yaw",
    "right_hip_roll", "right_hip_pitch", "right_knee", "right_ankle",
)  # fmt: skip
_AFTER_JOINTS = 8  # contacts, linear and angular velocity


def read(path: Path, robot: Robot, said: Said) -> list[Clip]:
    """Read every command's cycle; DataError names the command and dimension of the first fault."""
    raw = read_values(path)
    if not isinstance(raw, dict) or not raw:
        raise DataError(f"{path} holds no mapping of commands to polynomials.")
    return [_clip(path, str(name), entry, robot, said) for name, entry in raw.items()]


def _clip(path: Path, name: str, entry: Any, robot: Robot, said: Said) -> Clip:
    where = f"{path}, command {name!r}"
    command = _command(where, name)
    period, fps, table = _entry(where, entry)
    frames = round(period * fps)
    values = _values(where, table, frames)
    joints = _joints(where, entry, (len(table) - _AFTER_JOINTS) // 2, said)
    count = len(joints)
    linear, angular = values[:, -6:-3], values[:, -3:]
    angles = values[:, :count]
    quat = _orientation(angular, fps, command[2])
    place = np.concatenate([np.zeros((1, 3)), np.cumsum(linear, 0)]) / fps
    place[:, 2] = 0.0
    end_quat = rotations.multiply(rotations.about_z(np.array([command[2] * period])), quat[:1])[0]
    clip = Clip(
        f"{path.stem} {name}", fps, joints, place[:-1], quat, angles, "wrap",
        closing((place[0], quat[0]), (place[-1], end_quat)), values[:, -8:-6] > 0.5,
        command, path.name,
    )  # fmt: skip
    return _standing(clip, robot)


def _command(where: str, name: str) -> tuple[float, float, float]:
    parts = name.split("_")
    try:
        dx, dy, turn = (float(p) for p in parts)
    except ValueError:
        raise DataError(f"{where}: a command is dx_dy_dtheta, three numbers.") from None
    if not all(map(math.isfinite, (dx, dy, turn))):
        raise DataError(f"{where}: a command is dx_dy_dtheta, three finite numbers.")
    return dx, dy, turn


def _entry(where: str, entry: Any) -> tuple[float, float, list[Floats]]:
    try:
        period, fps = float(entry["period"]), float(entry["fps"])
        rows = entry["coefficients"]
        table = [np.array(rows[f"dim_{i}"], np.float64).reshape(-1) for i in range(len(rows))]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: coefficients, period or fps cannot be read ({error}).") from None
    if not (math.isfinite(period * fps) and 4 <= period * fps <= 10_000):
        raise DataError(f"{where}: period {period:g} s at {fps:g} fps is no cycle of frames.")
    if len(table) < _AFTER_JOINTS + 2 or len(table) % 2:
        raise DataError(f"{where}: {len(table)} dimensions; 2 J + 8 were expected.")
    for i, row in enumerate(table):
        if not np.isfinite(row).all() or not 1 <= row.size <= 64:
            raise DataError(f"{where}: dim_{i} holds no finite coefficients.")
    return period, fps, table


def _values(where: str, table: list[Floats], frames: int) -> Floats:
    """Return the polynomials at t = j / (frames - 1), (frames, D)."""
    phase = np.linspace(0.0, 1.0, frames)
    return np.stack([np.polynomial.polynomial.polyval(phase, row) for row in table], -1)


def _joints(where: str, entry: Mapping[str, Any], count: int, said: Said) -> tuple[str, ...]:
    named = entry.get("joints")
    names = tuple(str(n) for n in named) if isinstance(named, list) else said.joints
    antennas = ("left_antenna", "right_antenna")
    for known in (names, _JOINTS, tuple(j for j in _JOINTS if j not in antennas)):
        if len(known) == count:
            return known
    raise DataError(f"{where}: {count} joints, whose names are not known; say clip.joint_names.")


def _orientation(angular: Floats, fps: float, turn: float) -> Floats:
    """Return the quaternions (T, 4) whose rates are `angular`, tilt closed over the cycle.

    Roll and pitch are integrated and their drift is taken out; the heading turns as commanded,
    with the sway about it that the rates have.
    """
    steps = angular / fps
    steps = steps - steps.mean(0) + np.array([0.0, 0.0, turn / fps])
    angles = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, 0)[:-1]])
    tilt = angles[:, :2] - angles[:, :2].mean(0)
    leaning = rotations.exponential(np.concatenate([tilt, 0.0 * tilt[:, :1]], -1))
    found: Floats = rotations.multiply(rotations.about_z(angles[:, 2]), leaning)
    return found


def _standing(clip: Clip, robot: Robot) -> Clip:
    """Return the clip at the height, frame by frame, at which the lower sole is on the ground."""
    try:
        fitted = preprocess.fitted(clip, robot)
    except DataError:
        return clip  # said where the clip is prepared
    frames = robot.foot_frames(fitted.root_pos, fitted.root_quat, fitted.joint_pos)
    low = robot.lowest(*frames).min(-1)
    place = clip.root_pos.copy()
    place[:, 2] -= low
    return Clip(**{**vars(clip), "root_pos": place})
