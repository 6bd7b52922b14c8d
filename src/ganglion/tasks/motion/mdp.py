"""What a policy sees, what it is paid for, and when an episode ends: written once.

Every function takes NumPy arrays or torch tensors. Training uses tensors, evaluation and whoever
runs an exported policy use arrays. Shapes: N robots, J joints, A actuators, F feet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.reference import Pose
from ganglion.tasks.motion.robot import Robot
from ganglion.tasks.motion.rotations import Values, namespace

BIPED_LEG = 0.275  # m: the leg for which the lengths below are given; others scale with theirs
FALLEN = 0.7  # the share of up below which a robot has fallen
HEIGHT, DISTANCE = 0.06, 0.30  # m: further off it no longer tracks
SHARE = 0.2  # of each part of the reward, so that all of them sum to 1
VELOCITY_SCALE = 0.05  # of joint velocities in the observation


@dataclass(frozen=True)
class Layout:
    """The parts of an observation, in order: name, size, unit."""

    parts: tuple[tuple[str, int, str], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.parts)

    def slice(self, name: str) -> slice:
        """Return where the part `name` lies."""
        begin = 0
        for part, size, _ in self.parts:
            if part == name:
                return slice(begin, begin + size)
            begin += size
        raise KeyError(name)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the layout for the policy card: name, offset, size and unit of each part."""
        return [
            {"name": n, "offset": self.slice(n).start, "size": s, "unit": u}
            for n, s, u in self.parts
        ]


@dataclass(frozen=True)
class Rules:
    """What the settings decide about the problem: its observation, its actions, its scales.

    privileged adds what only a simulation knows (position, heading and velocity errors);
    residual actions are added to the reference's next angles, absolute ones to its mean.
    commanded policies see a velocity command (m/s, m/s, rad/s) and no reference.
    """

    robot: Robot
    mean: Floats
    privileged: bool
    residual: bool = True
    commanded: bool = False
    scale: float = 0.25

    @property
    def size(self) -> float:
        """Factor on the length scales."""
        return self.robot.leg_length / BIPED_LEG

    @property
    def layout(self) -> Layout:
        """The parts of an observation."""
        j, a = len(self.robot.joints), len(self.robot.actuated)
        body = [("up", 3, "1"), ("gyro", 3, "rad/s")]
        joints = [("joint_from_mean", j, "rad"), ("joint_velocity", j, f"{VELOCITY_SCALE:g} rad/s")]
        if self.commanded:
            parts = [("command", 3, "m/s, m/s, rad/s"), *body, *joints, ("last_action", a, "1")]
            return Layout((*parts, ("velocity", 3, "m/s")) if self.privileged else tuple(parts))
        parts = [
            ("phase", 2, "1"), *body, ("joint_error", j, "rad"), *joints, ("last_action", a, "1"),
            ("next_reference", a, "rad"),
        ]  # fmt: skip
        if self.privileged:
            parts += [
                ("position_error", 3, "m"), ("heading_error", 1, "rad"),
                ("velocity_error", 3, "m/s"),
            ]  # fmt: skip
        return Layout(tuple(parts))


@dataclass(frozen=True)
class Situation:
    """One moment: what is, what should be, what comes next, and what was done last.

    next_joints (N, J) is the reference one step on, phase (N,), last (N, A) the last action,
    command (N, 3).
    """

    now: Pose
    goal: Pose
    next_joints: Values
    phase: Values
    last: Values
    command: Values


def observation(rules: Rules, s: Situation) -> Values:
    """Return what the policy sees (N, O), in the order of `rules.layout`."""
    xp = namespace(s.last)
    now, goal = s.now, s.goal
    from_mean = now.joint_pos - _like(rules.mean, now.joint_pos)
    speed = VELOCITY_SCALE * now.joint_vel
    up = rotations.up(now.quat)
    if rules.commanded:
        parts = [s.command, up, now.angular, from_mean, speed, s.last]
        if rules.privileged:
            parts.append(rotations.turn(-rotations.heading(now.quat), now.linear))
        return xp.concatenate(parts, -1)
    turn = 2.0 * np.pi * s.phase
    after = s.next_joints[:, rules.robot.actuated]
    parts = [
        xp.stack([xp.sin(turn), xp.cos(turn)], -1), up, now.angular,
        now.joint_pos - goal.joint_pos, from_mean, speed, s.last, after,
    ]  # fmt: skip
    if rules.privileged:
        heading = rotations.heading(goal.quat)
        off = rotations.wrapped(rotations.heading(now.quat) - heading)
        parts += [
            rotations.turn(-heading, now.position - goal.position), off[:, None],
            rotations.turn(-heading, now.linear - goal.linear),
        ]  # fmt: skip
    return xp.concatenate(parts, -1)


# ---------------------------------------------------------------- actions


def base(rules: Rules, next_joints: Values) -> Values:
    """Return the joint targets (N, A) of action 0."""
    if rules.residual and not rules.commanded:
        return next_joints[:, rules.robot.actuated]
    mean = _like(rules.mean[rules.robot.actuated], next_joints)
    return mean + 0.0 * next_joints[:, : len(rules.robot.actuated)]


def target(rules: Rules, action: Values, next_joints: Values) -> Values:
    """Return joint targets (N, A) of actions (N, A), within the actuators' range."""
    wanted = base(rules, next_joints) + rules.scale * action
    xp = namespace(action)
    low, high = (_like(rules.robot.targets[:, i], action) for i in (0, 1))
    return xp.minimum(xp.maximum(wanted, low), high)


def action_of(rules: Rules, targets: Values, next_joints: Values) -> Values:
    """Return the action (N, A) that joint targets are; what the policy sees as its last one."""
    return (targets - base(rules, next_joints)) / rules.scale


# ---------------------------------------------------------------- reward and end


def reward(rules: Rules, s: Situation, action: Values) -> dict[str, Values]:
    """Return the parts (N,) of the tracking reward; their sum is at most 1.

    Exponentials of squared errors: joints, root position and tilt, linear and angular velocity,
    feet (from the root, along the world's axes), less a price on changing the action.
    """
    now, goal, size = s.now, s.goal, rules.size
    xp = namespace(action)
    theta = rotations.angle_between(now.quat, goal.quat)
    joints = ((now.joint_pos - goal.joint_pos) ** 2).mean(-1)
    feet = ((now.feet - goal.feet) ** 2).sum(-1).mean(-1)
    return {
        "joints": SHARE * xp.exp(-joints / 0.15**2),
        "place": SHARE * xp.exp(-_square(now.position - goal.position) / (0.1 * size) ** 2),
        "tilt": 0.5 * SHARE * xp.exp(-(theta**2) / 0.3**2),
        "velocity": SHARE * xp.exp(-_square(now.linear - goal.linear) / (0.2 * size) ** 2),
        "spin": 0.5 * SHARE * xp.exp(-_square(now.angular - goal.angular) / 1.5**2),
        "feet": SHARE * xp.exp(-feet / (0.03 * size) ** 2),
        "smoothness": -0.02 * SHARE * _square(action - s.last),
    }


def command_reward(rules: Rules, s: Situation, action: Values) -> dict[str, Values]:
    """Return the parts (N,) of the reward for following a velocity command, at most 1 in all."""
    xp = namespace(action)
    own = rotations.turn(-rotations.heading(s.now.quat), s.now.linear)
    off = _square(own[:, :2] - s.command[:, :2])
    spin = (s.now.angular[:, 2] - s.command[:, 2]) ** 2
    return {
        "speed": 0.6 * xp.exp(-off / (0.1 * rules.size) ** 2),
        "turn": 0.4 * xp.exp(-spin / 0.5**2),
        "smoothness": -0.02 * SHARE * _square(action - s.last),
    }


def fallen(pose: Pose) -> Values:
    """Return whether robots (N,) have fallen: their up points sideways, or they are no numbers."""
    return ~(rotations.up(pose.quat)[:, 2] >= FALLEN)


def lost(rules: Rules, now: Pose, goal: Pose) -> Values:
    """Return whether robots (N,) no longer track: fallen, or too far from the reference."""
    off = now.position - goal.position
    high = HEIGHT * rules.size
    wide = DISTANCE * rules.size
    near = (abs(off[:, 2]) <= high) & (_square(off[:, :2]) <= wide**2)
    return fallen(now) | ~near


def _square(v: Values) -> Values:
    return (v * v).sum(-1)


def _like(array: Floats, values: Values) -> Values:
    xp = namespace(values)
    if xp is np:
        return array
    return xp.as_tensor(array, dtype=values.dtype, device=values.device)
