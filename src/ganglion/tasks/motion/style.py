"""What a motion prior sees of a robot: how it moves, not where it is or heads."""

from __future__ import annotations

import numpy as np

from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.mdp import VELOCITY_SCALE
from ganglion.tasks.motion.reference import Pose, Reference
from ganglion.tasks.motion.rotations import Values, namespace


def features(pose: Pose) -> Values:
    """Return height, up, velocities in the heading frame, joints and feet (N, S)."""
    xp = namespace(pose.joint_pos)
    back = -rotations.heading(pose.quat)
    feet = rotations.turn(back[:, None], pose.feet)
    return xp.concatenate(
        [
            pose.position[:, 2:], rotations.up(pose.quat), rotations.turn(back, pose.linear),
            pose.angular, pose.joint_pos, VELOCITY_SCALE * pose.joint_vel,
            feet.reshape(len(feet), -1),
        ],
        -1,
    )  # fmt: skip


def transitions(reference: Reference) -> Floats:
    """Return the features of every frame of every clip beside those of the next (M, 2 S)."""
    found = []
    for c, clip in enumerate(reference.clips):
        count = clip.frames if clip.loop == "wrap" else clip.frames - 1
        frames = np.arange(count)
        here, _, _ = reference.at(np.full(count, c), frames)
        there, _, _ = reference.at(np.full(count, c), frames + 1)
        found.append(np.concatenate([features(here), features(there)], -1))
    return np.concatenate(found)
