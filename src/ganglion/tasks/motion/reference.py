"""The reference as a table that is read by clip and frame, for NumPy arrays and torch tensors.

Frames of all clips lie one after the other. A frame number of a wrapping clip goes on past its end:
the cycle's offset carries it along. Shapes: N rows asked, T frames in all, J joints, F feet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot
from ganglion.tasks.motion.rotations import Values, namespace


@dataclass(frozen=True)
class Pose:
    """Where a robot is and how it moves. linear is the world's, angular the root's own frame.

    feet (N, F, 3) are the soles' middles from the root, along the world's axes.
    """

    position: Values  # (N, 3) m
    quat: Values  # (N, 4)
    linear: Values  # (N, 3) m/s
    angular: Values  # (N, 3) rad/s
    joint_pos: Values  # (N, J) rad
    joint_vel: Values  # (N, J) rad/s
    feet: Values  # (N, F, 3) m


class Reference:
    """Every clip's poses and velocities at the control rate, with what comes next."""

    def __init__(self, robot: Robot, clips: Sequence[Clip], cycles: int) -> None:
        self.robot, self.clips = robot, tuple(clips)
        self.lengths = np.array([c.frames for c in clips])
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.wraps = np.array([c.loop == "wrap" for c in clips])
        self.table = np.concatenate([_rows(robot, c) for c in clips])
        self.moves = np.stack([c.cycles(cycles) for c in clips])  # (clips, cycles, 3)
        self.turning = bool(np.abs(self.moves[..., 2]).max() > 1e-9)
        self.mean = np.concatenate([c.joint_pos for c in clips]).mean(0)
        self.commands = np.array([c.speed() for c in clips])
        self._cast: dict[Any, Any] = {}

    @property
    def joints(self) -> int:
        return len(self.robot.joints)

    def last(self, clip: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the last frame at which an episode in each clip may stand; wrapping has none."""
        return np.where(self.wraps[clip], np.iinfo(np.int32).max, self.lengths[clip] - 1)

    def at(self, clip: Values, frame: Values) -> tuple[Pose, Values, Values]:
        """Return the pose (N,) at `frame` of `clip`, the next joint angles (N, J), the phase (N,).

        The phase is the share of the cycle that has passed, 0 to 1; of a clamped clip half that,
        so that its end is not its beginning.
        """
        held = self._constants(clip)
        xp = namespace(clip)
        lengths, wraps = held["lengths"][clip], held["wraps"][clip]
        inside = xp.where(wraps, frame % lengths, xp.minimum(frame, lengths - 1))
        row = held["table"][held["starts"][clip] + inside]
        cycle = xp.where(wraps, frame // lengths, 0 * frame)
        moved = held["moves"][clip, cycle]
        pose = self._pose(row, moved)
        phase = inside / xp.where(wraps, lengths, 2 * lengths)
        return pose, row[:, -self.joints :], phase

    def _pose(self, row: Values, moved: Values) -> Pose:
        xp = namespace(row)
        j = self.joints
        ends = np.cumsum([3, 4, 3, 3, j, j, row.shape[1] - 13 - 3 * j])
        parts = [row[:, b:e] for b, e in zip([0, *ends[:-1]], ends, strict=True)]
        position, quat, linear, angular, joint_pos, joint_vel, feet = parts
        feet = feet.reshape(len(row), -1, 3)
        if self.turning:
            turn = moved[:, 2]
            position, linear = rotations.turn(turn, position), rotations.turn(turn, linear)
            quat = rotations.multiply(rotations.about_z(turn), quat)
            feet = rotations.turn(turn[:, None], feet)
        way = xp.concatenate([moved[:, :2], 0.0 * moved[:, :1]], -1)
        return Pose(position + way, quat, linear, angular, joint_pos, joint_vel, feet)

    def _constants(self, like: Values) -> dict[str, Any]:
        xp = namespace(like)
        key = (xp.__name__, str(getattr(like, "device", "")))
        if key not in self._cast:
            names = ("table", "starts", "lengths", "wraps", "moves")
            held = {n: getattr(self, n) for n in names}
            if xp is not np:
                held = {
                    n: xp.as_tensor(
                        a, device=like.device, dtype=xp.float32 if a.dtype == np.float64 else None
                    )
                    for n, a in held.items()
                }
            self._cast[key] = held
        found: dict[str, Any] = self._cast[key]
        return found


def _rows(robot: Robot, clip: Clip) -> Floats:
    """Return a clip's table (T, D): a pose, feet, and the joints of the next frame."""
    linear, angular, joint_vel = clip.velocities()
    own = rotations.rotate_back(clip.root_quat, angular)
    soles = robot.sole_centres(*robot.foot_frames(clip.root_pos, clip.root_quat, clip.joint_pos))
    feet = (soles - clip.root_pos[:, None]).reshape(clip.frames, -1)
    after = clip.at(np.arange(1, clip.frames + 1))[2]
    parts = [clip.root_pos, clip.root_quat, linear, own, clip.joint_pos, joint_vel, feet, after]
    return np.concatenate(parts, -1)


def pose_of(robot: Robot, qpos: Values, qvel: Values) -> Pose:
    """Return the pose of robots in physics, from coordinates (N, nq) and velocities (N, nv)."""
    position, quat, joint_pos = robot.of_qpos(qpos)
    linear, angular, joint_vel = robot.of_qvel(qvel)
    soles = robot.sole_centres(*robot.foot_frames(position, quat, joint_pos))
    return Pose(position, quat, linear, angular, joint_pos, joint_vel, soles - position[:, None])
