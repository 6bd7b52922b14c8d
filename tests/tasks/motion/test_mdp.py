"""Observation, actions, reward and ends: numbers by hand, and one answer for both namespaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts import BIPED, walk

from ganglion.tasks.motion import mdp, rotations
from ganglion.tasks.motion.mdp import Rules, Situation
from ganglion.tasks.motion.reference import Pose, Reference, pose_of

REFERENCE = Reference(BIPED, [walk(), walk(turn=0.5)], 20)
RULES = Rules(BIPED, REFERENCE.mean, True)
COUNT = 6


def situation(frame: int = 3) -> Situation:
    """Robots that are exactly where the reference is."""
    clip, frames = np.arange(COUNT) % 2, np.full(COUNT, frame)
    goal, after, phase = REFERENCE.at(clip, frames)
    command = REFERENCE.commands[clip]
    return Situation(goal, goal, after, phase, np.zeros((COUNT, 10)), command)


def moved(s: Situation, **changes: object) -> Situation:
    """The robots elsewhere; the reference stays."""
    return replace(s, now=replace(s.now, **changes))


def tensors(s: Situation) -> Situation:
    parts = {k: v if isinstance(v, Pose) else torch.from_numpy(v) for k, v in vars(s).items()}
    poses = {
        k: Pose(**{n: torch.from_numpy(v) for n, v in vars(p).items()})
        for k, p in parts.items()
        if isinstance(p, Pose)
    }
    return Situation(**{**parts, **poses})


# ---------------------------------------------------------------- the reference


def test_the_reference_goes_on_along_its_arc() -> None:
    clip, frames = np.ones(3, np.int64), np.array([5, 5 + 32, 5 + 64])
    pose, after, phase = REFERENCE.at(clip, frames)
    place, quat, joints = walk(turn=0.5).at(frames)
    assert pose.position == pytest.approx(place)
    assert rotations.angle_between(pose.quat, quat) == pytest.approx(np.zeros(3), abs=1e-7)
    assert pose.joint_pos == pytest.approx(joints)
    assert after == pytest.approx(walk(turn=0.5).at(frames + 1)[2])
    assert phase == pytest.approx(np.full(3, 5 / 32))
    soles = BIPED.sole_centres(*BIPED.foot_frames(place, quat, joints))
    assert pose.feet == pytest.approx(soles - place[:, None])


def test_the_reference_is_the_same_for_tensors() -> None:
    clip, frames = np.array([0, 1, 1]), np.array([0, 40, 99])
    numbers, _, _ = REFERENCE.at(clip, frames)
    pose, _, _ = REFERENCE.at(torch.from_numpy(clip), torch.from_numpy(frames))
    for name, value in vars(numbers).items():
        assert vars(pose)[name].numpy() == pytest.approx(value, abs=1e-5)


def test_a_clamped_clip_ends_and_its_phase_is_half_a_turn() -> None:
    clamped = Reference(BIPED, [replace(walk(), loop="clamp", offset=(0.0, 0.0, 0.0))], 3)
    assert clamped.last(np.zeros(1, np.int64)).tolist() == [31]
    _, _, phase = clamped.at(np.zeros(2, np.int64), np.array([0, 31]))
    assert phase == pytest.approx([0.0, 31 / 64])


def test_the_pose_in_physics_is_that_of_its_coordinates() -> None:
    s = situation()
    qpos = BIPED.to_qpos(s.now.position, s.now.quat, s.now.joint_pos)
    qvel = BIPED.to_qvel(s.now.linear, s.now.angular, s.now.joint_vel)
    found = pose_of(BIPED, qpos, qvel)
    for name, value in vars(s.now).items():
        assert vars(found)[name] == pytest.approx(value)


# ---------------------------------------------------------------- observation


def test_the_observation_of_a_perfect_robot_by_hand() -> None:
    s = situation(8)  # a quarter of 32 frames: the phase is sin 1, cos 0
    seen = mdp.observation(RULES, s)
    layout = RULES.layout
    assert seen.shape == (COUNT, layout.size)
    assert layout.size == 2 + 3 + 3 + 6 * 10 - 10 + 3 + 1 + 3  # five joint parts of ten numbers
    assert seen[:, layout.slice("phase")] == pytest.approx(np.tile([1.0, 0.0], (COUNT, 1)))
    assert seen[:, layout.slice("up")] == pytest.approx(np.tile([0.0, 0.0, 1.0], (COUNT, 1)))
    for part in ("joint_error", "position_error", "heading_error", "velocity_error"):
        assert seen[:, layout.slice(part)] == pytest.approx(0.0, abs=1e-12)
    after = walk().joint_pos[9]
    assert seen[0, layout.slice("next_reference")] == pytest.approx(after)
    assert layout.to_json()[1] == {"name": "up", "offset": 2, "size": 3, "unit": "1"}


def test_errors_are_seen_in_the_reference_s_heading() -> None:
    s = situation(8)
    off = moved(
        s, position=s.now.position + np.array([0.0, 0.1, 0.0]),
        quat=rotations.multiply(rotations.about_z(np.full(COUNT, 0.2)), s.now.quat),
    )  # fmt: skip
    seen = mdp.observation(RULES, off)
    # the first clip heads along x: .1 to the left; the second has turned by its heading h
    heading = rotations.heading(s.goal.quat)[1]
    place = seen[:, RULES.layout.slice("position_error")]
    assert place[0] == pytest.approx([0.0, 0.1, 0.0])
    assert place[1] == pytest.approx([0.1 * np.sin(heading), 0.1 * np.cos(heading), 0.0])
    assert seen[:, RULES.layout.slice("heading_error")] == pytest.approx(0.2)


def test_a_proprioceptive_observation_is_a_part_of_the_full_one() -> None:
    s = situation()
    part = mdp.observation(replace(RULES, privileged=False), s)
    assert part == pytest.approx(mdp.observation(RULES, s)[:, : part.shape[1]])


# ---------------------------------------------------------------- actions


def test_a_residual_action_adds_a_quarter_to_the_next_angle() -> None:
    s = situation()
    action = np.full((COUNT, 10), 0.4)
    wanted = mdp.target(RULES, action, s.next_joints)
    # .25 * .4 = .1 rad, but where the range ends: the knee's lowest is 0
    assert wanted[:, 2] == pytest.approx(s.next_joints[:, 2] + 0.1)
    assert mdp.action_of(RULES, wanted, s.next_joints) == pytest.approx(action)
    beyond = mdp.target(RULES, np.full((COUNT, 10), -50.0), s.next_joints)
    assert beyond == pytest.approx(np.tile(BIPED.targets[:, 0], (COUNT, 1)))


def test_an_absolute_action_adds_to_the_mean_pose() -> None:
    rules = replace(RULES, residual=False)
    found = mdp.target(rules, np.zeros((COUNT, 10)), situation().next_joints)
    assert found == pytest.approx(np.tile(REFERENCE.mean, (COUNT, 1)))


# ---------------------------------------------------------------- reward and ends


def test_a_perfect_robot_is_paid_one() -> None:
    parts = mdp.reward(RULES, situation(), np.zeros((COUNT, 10)))
    assert sum(parts.values()) == pytest.approx(np.ones(COUNT))


def test_every_part_of_the_reward_by_hand() -> None:
    s = situation()
    # all joints off by .15: exp(-1); the action changes by .5 in ten joints: -.02 * 2.5
    off = moved(
        s, joint_pos=s.now.joint_pos + 0.15, position=s.now.position + np.array([0.1, 0.0, 0.0]),
        linear=s.now.linear + np.array([0.0, 0.2, 0.0]),
        angular=s.now.angular + np.array([1.5, 0.0, 0.0]),
        quat=rotations.multiply(rotations.about_z(np.full(COUNT, 0.3)), s.now.quat),
        feet=s.now.feet + np.array([0.0, 0.0, 0.03]),
    )  # fmt: skip
    parts = mdp.reward(RULES, off, np.full((COUNT, 10), 0.5))
    e = np.exp(-1.0)
    wanted = {
        "joints": 0.2 * e, "place": 0.2 * e, "tilt": 0.1 * e, "velocity": 0.2 * e, "spin": 0.1 * e,
        "feet": 0.2 * e, "smoothness": -0.2 * 0.02 * 2.5,
    }  # fmt: skip
    assert {k: float(v[0]) for k, v in parts.items()} == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ({}, False), ({"position": [0.0, 0.0, 0.059]}, False),
        ({"position": [0.0, 0.0, -0.061]}, True), ({"position": [0.2, 0.2, 0.0]}, False),
        ({"position": [0.22, 0.22, 0.0]}, True), ({"position": [np.nan, 0.0, 0.0]}, True),
    ],
)  # fmt: skip
def test_what_is_too_far_off_is_lost(change: dict[str, list[float]], ends: bool) -> None:
    s = situation()
    off = moved(s, **{k: getattr(s.now, k) + np.array(v) for k, v in change.items()})
    assert mdp.lost(RULES, off.now, off.goal).tolist() == [ends] * COUNT


def test_a_robot_on_its_side_has_fallen() -> None:
    s = situation()
    for angle, ends in ((0.79, False), (0.8, True), (3.0, True)):  # cos .79 = .704
        quat = rotations.multiply(s.now.quat, rotations.about_y(np.full(COUNT, angle)))
        assert mdp.fallen(moved(s, quat=quat).now).tolist() == [ends] * COUNT


def test_lengths_scale_with_the_leg() -> None:
    assert RULES.size == pytest.approx(1.0, abs=1e-4)
    small = Rules(walk_robot(), REFERENCE.mean, True)
    assert small.size == pytest.approx(0.5897, abs=1e-3)


def walk_robot() -> object:
    from layouts import quadruped

    return quadruped()


def test_following_a_command_is_paid_by_hand() -> None:
    rules = replace(RULES, commanded=True, residual=False)
    s = situation()
    heading = rotations.heading(s.now.quat)
    exact = moved(
        s, linear=rotations.turn(heading, np.concatenate([s.command[:, :2], np.zeros((6, 1))], -1)),
        angular=np.stack([np.zeros(6), np.zeros(6), s.command[:, 2]], -1),
    )  # fmt: skip
    still = np.zeros((COUNT, 10))
    assert sum(mdp.command_reward(rules, exact, still).values()) == pytest.approx(np.ones(COUNT))
    slow = moved(exact, linear=exact.now.linear + np.array([0.0, 0.0, 5.0]))  # heights do not count
    assert sum(mdp.command_reward(rules, slow, still).values()) == pytest.approx(np.ones(COUNT))
    off = moved(exact, angular=exact.now.angular + np.array([0.0, 0.0, 0.5]))
    assert mdp.command_reward(rules, off, still)["turn"] == pytest.approx(0.4 * np.exp(-1.0))


def test_tensors_are_treated_as_arrays_are() -> None:
    rng = np.random.default_rng(0)
    s = situation()
    noisy = moved(s, **{k: v + 0.05 * rng.normal(size=v.shape) for k, v in vars(s.now).items()})
    noisy = replace(noisy, now=replace(noisy.now, quat=rotations.normalised(noisy.now.quat)))
    other, action = tensors(noisy), rng.normal(size=(COUNT, 10))
    for rules in (RULES, replace(RULES, privileged=False), replace(RULES, commanded=True)):
        numbers = mdp.observation(rules, noisy)
        assert mdp.observation(rules, other).numpy() == pytest.approx(numbers)
        wanted = mdp.target(rules, action, noisy.next_joints)
        found = mdp.target(rules, torch.from_numpy(action), other.next_joints)
        assert found.numpy() == pytest.approx(wanted)
    parts = mdp.reward(RULES, noisy, action)
    for name, value in mdp.reward(RULES, other, torch.from_numpy(action)).items():
        assert value.numpy() == pytest.approx(parts[name])
    lost = mdp.lost(RULES, other.now, other.goal)
    assert lost.tolist() == mdp.lost(RULES, noisy.now, noisy.goal).tolist()
