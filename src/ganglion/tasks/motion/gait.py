"""An analytic gait: footsteps for commanded speeds, a sway that keeps the balance, leg angles.

Every foot stands still for a share of the period and swings to its next place along a cycloid. The
body follows the linear inverted pendulum whose zero-moment point is the sole that carries it,
moving over in double support: c'' = (g / h) (c - p). For a periodic p that is solved exactly by its
Fourier series, c_k = p_k / (1 + w_k^2 h / g). Source: Kajita et al., Introduction to Humanoid
Robotics, 2014, chapter 4. On arcs the terms of order (turn * period)^2 are left out. Shapes: N
frames, F feet.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError
from ganglion.tasks.motion import inverse, rotations
from ganglion.tasks.motion.clip import Clip, closing
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

_GRAVITY = 9.81
_FINE = 512  # points of a period at which the zero-moment point is sampled


@dataclass(frozen=True)
class Gait:
    """What to walk like. Speeds in m/s and rad/s, period in s, heights in m.

    double_support is the share of the period in which both feet (both pairs) stand.
    """

    forward: float = 0.15
    lateral: float = 0.0
    turn: float = 0.0
    period_s: float = 0.64
    double_support: float = 0.2
    foot_height: float = 0.025
    crouch: float = 0.0

    @property
    def duty(self) -> float:
        """Share of the period that a foot stands."""
        return 0.5 + 0.5 * self.double_support


def clip(robot: Robot, gait: Gait, fps: float = 50.0) -> Clip:
    """Return one cycle of `gait` for `robot`; DataError where the legs do not reach.

    The period must be a whole number of frames, so that the cycle closes.
    """
    frames = round(gait.period_s * fps)
    if abs(frames - gait.period_s * fps) > 1e-6 or frames < 8:
        raise DataError(
            f"A period of {gait.period_s:g} s is {gait.period_s * fps:.2f} frames at {fps:g} Hz; "
            "it must be a whole number, 8 or more."
        )
    nominal = _nominal(robot)
    time = np.arange(frames + 1) / fps
    heading, way = _path(gait, time)
    sway = _sway(robot, gait, nominal, time) if robot.root == "free" else np.zeros((len(time), 2))
    place = np.concatenate([way, np.full((len(time), 1), robot.standing_height - gait.crouch)], -1)
    place += rotations.turn(heading, np.concatenate([sway, 0.0 * time[:, None]], -1))
    quat = rotations.about_z(heading)
    soles, headings, contacts = feet(robot, gait, nominal, time)
    joints = _angles(robot, place, quat, soles, headings)
    name = f"gait {gait.forward:+.2f} {gait.lateral:+.2f} {gait.turn:+.2f}"
    return Clip(
        name, fps, robot.joints, place[:-1], quat[:-1], joints[:-1], "wrap",
        closing((place[0], quat[0]), (place[-1], quat[-1])), contacts[:-1],
        (gait.forward, gait.lateral, gait.turn), "generated: analytic gait", "Apache-2.0",
    )  # fmt: skip


# ---------------------------------------------------------------- footsteps


def feet(
    robot: Robot, gait: Gait, nominal: Floats, time: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return sole centres (N, F, 3), headings (N, F) and contacts (N, F) at `time` (N,) in s.

    A foot stands where it is under its nominal place at the middle of its stance.
    """
    soles, headings, contacts = [], [], []
    for place, offset in zip(nominal, _offsets(robot), strict=True):
        cycle = np.floor(time / gait.period_s - offset)
        into = time / gait.period_s - offset - cycle  # 0 at touch-down
        share = np.clip((into - gait.duty) / (1.0 - gait.duty), 0.0, 1.0)
        here, turn0 = _foothold(gait, place, offset + cycle)
        there, turn1 = _foothold(gait, place, offset + cycle + 1.0)
        moved = share - np.sin(2.0 * np.pi * share) / (2.0 * np.pi)
        lift = 0.5 * gait.foot_height * (1.0 - np.cos(2.0 * np.pi * share))
        level = here + moved[:, None] * (there - here)
        soles.append(np.concatenate([level, lift[:, None]], -1))
        headings.append(turn0 + moved * (turn1 - turn0))
        contacts.append(share <= 0.0)
    return np.stack(soles, 1), np.stack(headings, 1), np.stack(contacts, 1)


def _foothold(gait: Gait, place: Floats, touchdown: Floats) -> tuple[Floats, Floats]:
    """Return where (N, 2) and at which heading (N,) the foot stands that lands at `touchdown`."""
    heading, way = _path(gait, (touchdown + 0.5 * gait.duty) * gait.period_s)
    c, s = np.cos(heading), np.sin(heading)
    across = np.stack([c * place[0] - s * place[1], s * place[0] + c * place[1]], -1)
    return way + across, heading


def _path(gait: Gait, time: Floats) -> tuple[Floats, Floats]:
    """Return heading (N,) and place (N, 2) of a body that moves at constant speeds and turn."""
    heading = gait.turn * time
    if abs(gait.turn) < 1e-9:
        return heading, time[:, None] * np.array([gait.forward, gait.lateral])
    s, c = np.sin(heading) / gait.turn, (1.0 - np.cos(heading)) / gait.turn
    x, y = gait.forward * s - gait.lateral * c, gait.forward * c + gait.lateral * s
    return heading, np.stack([x, y], -1)


def _nominal(robot: Robot) -> Floats:
    """Return the middle of each sole (F, 2) in the root's frame in the home pose."""
    zero, eye = np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0, 0.0]])
    found: Floats = robot.sole_centres(*robot.foot_frames(zero, eye, robot.home[None]))[0, :, :2]
    return found


def _offsets(robot: Robot) -> list[float]:
    """Return when in the period each foot touches down: two feet alternate, four trot."""
    count = len(robot.feet)
    if count == 2:
        return [0.0, 0.5]
    if count == 4:
        place = _nominal(robot)
        return [0.0 if (x > 0) == (y > 0) else 0.5 for x, y in place]
    raise DataError(f"{robot.name} has {count} feet; the generator walks on two or four.")


# ---------------------------------------------------------------- balance


def _sway(robot: Robot, gait: Gait, nominal: Floats, time: Floats) -> Floats:
    """Return how far (N, 2) in m the root is from its path, in its heading frame."""
    centre = _centre_of_mass(robot)
    if len(robot.feet) != 2:  # a trot stands on diagonals, below the body
        return np.tile(nominal.mean(0) - centre[:2], (len(time), 1))
    moment = support(robot, gait, nominal)
    omega = np.sqrt(_GRAVITY / (centre[2] + robot.standing_height - gait.crouch))
    spectrum = np.fft.rfft(moment, axis=0)
    rate = 2.0 * np.pi * np.arange(len(spectrum)) / gait.period_s
    smooth = np.fft.irfft(spectrum / (1.0 + (rate / omega) ** 2)[:, None], _FINE, axis=0)
    at = time / gait.period_s * _FINE
    closed = np.concatenate([smooth, smooth[:1]])
    columns = [np.interp(at % _FINE, np.arange(_FINE + 1), closed[:, i]) for i in range(2)]
    return np.stack(columns, -1) - centre[:2]


def support(robot: Robot, gait: Gait, nominal: Floats) -> Floats:
    """Return the zero-moment point (512, 2) over one period in the path's heading frame, in m.

    It is the middle of the one sole that stands; while both do, it moves over at constant speed
    to the one that came last.
    """
    time = np.arange(_FINE) * gait.period_s / _FINE
    soles, _, _ = feet(robot, gait, nominal, time)
    heading, way = _path(gait, time)
    single, both = 0.5 * (1.0 - gait.double_support), 0.5 * gait.double_support
    phase = time / gait.period_s
    # left is alone on the ground while the right one swings, and so on
    left = np.interp(
        phase, [0.0, both, both + single, 0.5 + both, 1.0], [0.0, 1.0, 1.0, 0.0, 0.0]
    )  # fmt: skip
    point = left[:, None] * soles[:, 0, :2] + (1.0 - left)[:, None] * soles[:, 1, :2]
    away = np.concatenate([point - way, np.zeros((_FINE, 1))], -1)
    found: Floats = rotations.turn(-heading, away)[:, :2]
    return found


def _centre_of_mass(robot: Robot) -> Floats:
    """Return the centre of mass (3,) from the root in the home pose, in m."""
    data = mujoco.MjData(robot.model)
    zero, eye = np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0, 0.0]])
    data.qpos[:] = robot.to_qpos(zero, eye, robot.home[None])[0]
    mujoco.mj_kinematics(robot.model, data)
    mujoco.mj_comPos(robot.model, data)
    return np.array(data.subtree_com[robot.body])


# ---------------------------------------------------------------- joints


def _angles(robot: Robot, place: Floats, quat: Floats, soles: Floats, headings: Floats) -> Floats:
    """Return joint angles (N, J) of the whole motion."""
    known = inverse.legs(robot)
    if known is None:
        return inverse.numeric(robot, place, quat, soles)
    found = np.tile(robot.home, (len(place), 1))
    body = rotations.heading(quat)
    for i, leg in enumerate(known):
        yaw = rotations.wrapped(headings[:, i] - body)
        roll = np.zeros(len(place))
        for _ in range(4):  # the leg's roll tilts the foot, which moves the ankle over the sole
            turned = rotations.multiply(rotations.about_z(headings[:, i]), _about_x(roll))
            middle = rotations.rotate(turned, np.tile(robot.sole_middle[i], (len(place), 1)))
            own = rotations.rotate_back(quat, soles[:, i] - middle - place)
            angles = inverse.five_joint_leg(leg, own, yaw, np.zeros(len(place)))
            roll = angles[:, 1]
        found[:, list(leg.columns)] = angles
    return found


def _about_x(angle: Floats) -> Floats:
    zero = np.zeros_like(angle)
    return np.stack([np.cos(0.5 * angle), np.sin(0.5 * angle), zero, zero], -1)
