"""The generator: feet where they should be, a balance that obeys the pendulum, closed-form legs."""

from __future__ import annotations

import numpy as np
import pytest
from layouts import BIPED, quadruped, walk

from ganglion.core.errors import DataError
from ganglion.tasks.motion import gait, inverse, rotations, validation
from ganglion.tasks.motion import robot as robots


def soles(clip: object, made: robots.Robot = BIPED) -> np.ndarray:
    found: np.ndarray = made.sole_centres(
        *made.foot_frames(clip.root_pos, clip.root_quat, clip.joint_pos)  # type: ignore[attr-defined]
    )
    return found


def test_the_default_clip_is_what_the_settings_say() -> None:
    clip = walk()
    assert (clip.frames, clip.fps, clip.loop) == (32, 50.0, "wrap")
    assert clip.offset == pytest.approx((0.15 * 0.64, 0.0, 0.0))
    # each foot stands .5 + .2 / 2 of the period; a whole frame more by sampling
    assert clip.contacts.mean(0) == pytest.approx([0.6, 0.6], abs=1 / 32)  # type: ignore[union-attr]
    assert validation.check(clip, BIPED).findings == ()


def test_feet_are_where_they_were_planned_and_stand_still() -> None:
    settings = gait.Gait(forward=0.12, lateral=0.03, turn=0.5)
    clip = gait.clip(BIPED, settings)
    planned, _, contacts = gait.feet(BIPED, settings, gait._nominal(BIPED), np.arange(32) / 50.0)
    assert soles(clip) == pytest.approx(planned, abs=1e-4)
    still = contacts[1:] & contacts[:-1]
    steps = np.linalg.norm(np.diff(planned, axis=0), axis=-1)
    assert steps[still].max() < 1e-9
    assert planned[..., 2].max() == pytest.approx(settings.foot_height, rel=0.02)


def test_a_turn_really_turns() -> None:
    clip = walk(forward=0.1, turn=0.5)
    place, quat, _ = clip.at(np.array([0, 32 * 5]))
    assert rotations.heading(quat)[1] == pytest.approx(0.5 * 0.64 * 5)
    # five periods on a circle of radius .1 / .5: the chord is 2 r sin(angle / 2)
    chord = np.linalg.norm(place[1, :2] - place[0, :2])
    assert chord == pytest.approx(2 * 0.2 * np.sin(0.5 * 0.5 * 0.64 * 5), rel=0.05)
    start = walk(forward=0.1, turn=0.5).velocities()[1]
    assert start[:, 2] == pytest.approx(np.full(32, 0.5))


def test_the_sway_obeys_the_pendulum_over_its_zero_moment_point() -> None:
    settings = gait.Gait()
    nominal = gait._nominal(BIPED)
    fine = np.arange(512) * settings.period_s / 512
    sway = gait._sway(BIPED, settings, nominal, fine) + gait._centre_of_mass(BIPED)[:2]
    moment = gait.support(BIPED, settings, nominal)
    height = gait._centre_of_mass(BIPED)[2] + BIPED.standing_height
    dt = settings.period_s / 512
    acceleration = (np.roll(sway, -1, 0) - 2 * sway + np.roll(sway, 1, 0)) / dt**2
    # c'' = (g / h) (c - p), of a jerky p: by the mean over all 512 points
    wanted = 9.81 / height * (sway - moment)
    assert np.abs(acceleration - wanted).mean() < 0.02 * np.abs(wanted).mean()
    # by hand: a square wave of half-width .05 has the first harmonic .05 * 4 / pi; smoothed double
    # support lowers it by sin(pi .1) / (pi .1); the pendulum divides by 1 + (2 pi / T)^2 h / g
    first = 0.05 * 4 / np.pi * np.sin(0.1 * np.pi) / (0.1 * np.pi)
    assert np.abs(sway[:, 1]).max() == pytest.approx(
        first / (1 + (2 * np.pi / 0.64) ** 2 * height / 9.81), rel=0.05
    )


def test_a_straight_leg_and_a_right_angle_are_solved_by_hand() -> None:
    leg = inverse.legs(BIPED)[0]  # type: ignore[index]
    below = leg.hip + np.array([[0.0, 0.0, -0.2 + 1e-12]])
    zero = np.zeros(1)
    assert inverse.five_joint_leg(leg, below, zero, zero) == pytest.approx(
        np.zeros((1, 5)), abs=1e-4
    )
    # thigh and shin of .1 at a right angle reach sqrt(2) / 10; each is then 45 degrees off
    bent = leg.hip + np.array([[0.0, 0.0, -np.sqrt(0.02)]])
    quarter = np.pi / 4
    assert inverse.five_joint_leg(leg, bent, zero, zero)[0] == pytest.approx(
        [0.0, 0.0, -quarter, 2 * quarter, -quarter]
    )


def test_the_closed_form_is_what_the_numbers_find() -> None:
    clip = walk(turn=0.3, lateral=0.02)
    found = inverse.numeric(BIPED, clip.root_pos, clip.root_quat, soles(clip), clip.joint_pos)
    assert found == pytest.approx(clip.joint_pos, abs=1e-3)


def test_steps_out_of_reach_name_the_frame() -> None:
    with pytest.raises(DataError, match=r"Frame \d+: the foot would be .* Choose slower steps"):
        walk(forward=1.0)
    with pytest.raises(DataError, match=r"31\.50 frames at 50 Hz; it must be a whole number"):
        walk(period_s=0.63)


def test_a_quadruped_trots_by_the_same_generator() -> None:
    made = quadruped()
    clip = gait.clip(made, gait.Gait(forward=0.25, period_s=0.4, foot_height=0.03))
    assert validation.check(clip, made).findings == ()
    assert (clip.contacts[:, 0] == clip.contacts[:, 3]).all()  # type: ignore[index]
    assert clip.speed() == pytest.approx((0.25, 0.0, 0.0))


def test_a_planar_robot_neither_sways_nor_rolls() -> None:
    planar = robots.builtin("minibiped", planar=True)
    clip = gait.clip(planar, gait.Gait())
    assert clip.root_pos[:, 1] == pytest.approx(np.zeros(32))
    assert clip.joint_pos[:, [0, 1, 5, 6]] == pytest.approx(np.zeros((32, 4)), abs=1e-12)
