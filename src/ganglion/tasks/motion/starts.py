"""Where episodes begin, and the noise on what sensors say; for training and evaluation alike.

Shapes: N robots, J joints, O observed numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.mdp import Rules
from ganglion.tasks.motion.reference import Reference

JOINT_NOISE, TILT_NOISE, SPEED_NOISE = 0.05, 0.05, 0.1  # rad, rad, m/s and rad/s


@dataclass(frozen=True)
class Noise:
    """What is off at a start: joints (N, J) rad, tilt (N, 3) rad, speeds (N, 6 + J).

    place (N, 2) in m is how far off the reference the robot is put; None is nowhere.
    """

    joints: Floats
    tilt: Floats
    speeds: Floats
    place: Floats | None = None

    @staticmethod
    def draw(count: int, joints: int, factor: float, rng: np.random.Generator) -> Noise:
        """Draw uniform noise, `factor` times the usual."""
        angles = rng.uniform(-1.0, 1.0, (count, joints)) * JOINT_NOISE * factor
        tilt = rng.uniform(-1.0, 1.0, (count, 3)) * TILT_NOISE * factor
        tilt[:, 2] = 0.0
        return Noise(
            angles, tilt, rng.uniform(-1.0, 1.0, (count, 6 + joints)) * SPEED_NOISE * factor
        )


def start(
    reference: Reference, clip: NDArray[np.int64], frame: NDArray[np.int64], noise: Noise
) -> tuple[Floats, Floats]:
    """Return coordinates (N, nq) and velocities (N, nv) of the reference at frames, with noise.

    The root is raised so that no sole begins below the ground.
    """
    robot = reference.robot
    pose, _, _ = reference.at(clip, frame)
    low, high = robot.ranges[:, 0], robot.ranges[:, 1]
    joints = np.clip(pose.joint_pos + noise.joints, low, high)
    quat = rotations.multiply(rotations.exponential(noise.tilt), pose.quat)
    sunk = robot.lowest(*robot.foot_frames(pose.position, quat, joints)).min(-1)
    position = pose.position.copy()
    if noise.place is not None:
        position[:, :2] += noise.place
    position[:, 2] += np.maximum(0.0, -sunk)
    linear, angular = pose.linear + noise.speeds[:, :3], pose.angular + noise.speeds[:, 3:6]
    qvel = robot.to_qvel(linear, angular, pose.joint_vel + noise.speeds[:, 6:])
    return robot.to_qpos(position, quat, joints), qvel


def sensor_noise(rules: Rules, sensor: float, drawn: Floats) -> Floats:
    """Return noise (N, O) on observations, of `drawn` in -1..1 (N, O) and `sensor` times the usual.

    It is on what is measured, not on what is known. An encoder that two parts of an observation
    look at is off by the same in both.
    """
    found = drawn * _noise_scale(rules, sensor)
    if not rules.commanded:
        same, error = (rules.layout.slice(n) for n in ("joint_from_mean", "joint_error"))
        found[:, error] = found[:, same]
    return found


def _noise_scale(rules: Rules, sensor: float) -> Floats:
    """Return the amplitude (O,) of each part's noise."""
    sizes = {
        "up": 0.03, "gyro": 0.2, "joint_error": 0.02, "joint_from_mean": 0.02,
        "joint_velocity": 0.075, "velocity": 0.05,
    }  # fmt: skip
    parts = [np.full(size, sizes.get(name, 0.0)) for name, size, _ in rules.layout.parts]
    return sensor * np.concatenate(parts)
