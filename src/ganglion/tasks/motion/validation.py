"""Is a motion fit for a robot? Every fault is one sentence that names frame and joint.

Errors stop a training, warnings stand in its report. A motion is checked twice: as it was read
(`sound`: numbers, limits, speeds, in the file's own frames), and as it is learned (`check`: all of
that, the ground and the seam). What is measured is part of the report too. Shapes: T frames, J
joints, F feet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ganglion.core.errors import DataError
from ganglion.tasks.motion import preprocess, rotations
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.mdp import FALLEN
from ganglion.tasks.motion.robot import Robot

FORM = {"joints", "fps", "frames", "shape", "finite", "quaternion"}  # nothing can be made of these


@dataclass(frozen=True)
class Limits:
    """What a motion may do. Speeds in rad/s and m/s, distances in m, angles in rad."""

    joint_speed: float = 25.0
    root_speed: float = 6.0
    spin: float = 15.0
    slack: float = 0.02  # beyond a joint's range
    sinks: float = 0.03  # a sole below the ground
    floats: float = 0.05  # above it, where it is nearest
    skates: float = 0.25  # mean speed of a sole on the ground, m/s
    contact: float = 0.01  # a sole lower than this is on the ground
    seam: float = 3.0  # jump at the seam, in steps between its neighbours


@dataclass(frozen=True)
class Finding:
    """One fault or oddity; an error makes the motion unfit."""

    code: str
    error: bool
    text: str


@dataclass(frozen=True)
class Report:
    """What was found, and what was measured (name -> value, SI units)."""

    clip: str
    findings: tuple[Finding, ...]
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.error]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a run's folder holds it."""
        found = [{"code": f.code, "error": f.error, "text": f.text} for f in self.findings]
        return {"clip": self.clip, "findings": found, "measured": self.measured}

    def ensure(self, codes: Collection[str] | None = None) -> None:
        """DataError with the first error's sentence (of `codes`), and how many more there are."""
        errors = [f for f in self.errors if codes is None or f.code in codes]
        if errors:
            more = f" ({len(errors) - 1} more faults.)" if len(errors) > 1 else ""
            raise DataError(errors[0].text + more)


def sound(clip: Clip, robot: Robot, limits: Limits | None = None) -> Report:
    """Check a clip as it was read: form, numbers, limits, speeds, and what the file states.

    Joints must be the robot's, in its order. Checks that build on sound numbers are left out where
    the numbers are not.
    """
    limits = limits or Limits()
    findings = list(_form(clip, robot)) + list(_numbers(clip))
    if not findings:
        findings += [*_joints(clip, robot, limits), *_speeds(clip, limits), *_claimed(clip)]
    return Report(clip.name, tuple(findings))


def check(clip: Clip, robot: Robot, limits: Limits | None = None) -> Report:
    """Check a clip as it is learned: all that `sound` checks, then feet, tilt and seam."""
    limits = limits or Limits()
    findings = list(sound(clip, robot, limits).findings)
    if any(f.code in FORM for f in findings):
        return Report(clip.name, tuple(findings))
    measured, feet = _feet(clip, robot, limits)
    findings += feet
    findings += _seam(clip, limits)
    linear, angular, joint_vel = clip.velocities()
    measured |= {
        "joint_speed_max": float(np.abs(joint_vel).max()),
        "root_speed_max": float(np.linalg.norm(linear, axis=-1).max()),
        "spin_max": float(np.linalg.norm(angular, axis=-1).max()),
        "fps": clip.fps, "frames": float(clip.frames), "duration_s": clip.duration_s,
    }  # fmt: skip
    return Report(clip.name, tuple(findings), measured)


def _error(code: str, clip: Clip, where: str, text: str) -> Finding:
    return Finding(code, True, f"Motion {clip.name!r}{where}: {text}")


def _warning(code: str, clip: Clip, where: str, text: str) -> Finding:
    return Finding(code, False, f"Motion {clip.name!r}{where}: {text}")


# ---------------------------------------------------------------- form and numbers


def _form(clip: Clip, robot: Robot) -> Iterator[Finding]:
    if clip.joints != robot.joints:
        lost = [j for j in robot.joints if j not in clip.joints]
        said = f"joint {lost[0]!r} is missing" if lost else "its joints are in another order"
        yield _error("joints", clip, "", f"{said}; {robot.name} has {', '.join(robot.joints)}.")
    if not (np.isfinite(clip.fps) and 4.0 <= clip.fps <= 1000.0):
        yield _error(
            "fps", clip, "", f"fps is {clip.fps:g}; 4 to 1000 frames a second were expected."
        )
    if clip.frames < 4:
        yield _error("frames", clip, "", f"it has {clip.frames} frames; 4 or more are needed.")
    shapes = {
        "root_pos": (clip.root_pos, 3), "root_quat": (clip.root_quat, 4),
        "joint_pos": (clip.joint_pos, len(clip.joints)),
    }  # fmt: skip
    for name, (array, columns) in shapes.items():
        if array.shape != (clip.frames, columns):
            wanted = (clip.frames, columns)
            yield _error("shape", clip, "", f"{name} has shape {array.shape}, not {wanted}.")


def _numbers(clip: Clip) -> Iterator[Finding]:
    for name, array in (("root_pos", clip.root_pos), ("root_quat", clip.root_quat)):
        bad = np.argwhere(~np.isfinite(array))
        if bad.size:
            frame, column = bad[0]
            value = array[frame, column]
            yield _error("finite", clip, f", frame {frame}", f"{name}[{column}] is {value:g}.")
    bad = np.argwhere(~np.isfinite(clip.joint_pos))
    if bad.size:
        frame, joint = bad[0]
        value = clip.joint_pos[frame, joint]
        yield _error(
            "finite", clip, f", frame {frame}, joint {_joint(clip, joint)}",
            f"the angle is {value:g}, not a finite number.",
        )  # fmt: skip
    lengths = np.linalg.norm(np.nan_to_num(clip.root_quat, nan=1.0), axis=-1)
    off = np.flatnonzero(np.abs(lengths - 1.0) > 1e-2)
    if off.size and np.isfinite(clip.root_quat).all():
        yield _error(
            "quaternion", clip, f", frame {off[0]}",
            f"the root's quaternion has length {lengths[off[0]]:.3f}, not 1.",
        )  # fmt: skip


def _joint(clip: Clip, index: int) -> str:
    return repr(clip.joints[index]) if index < len(clip.joints) else str(index)


# ---------------------------------------------------------------- limits and speeds


def _joints(clip: Clip, robot: Robot, limits: Limits) -> Iterator[Finding]:
    low, high = robot.ranges[:, 0] - limits.slack, robot.ranges[:, 1] + limits.slack
    out = (clip.joint_pos < low) | (clip.joint_pos > high)
    if not out.any():
        return
    beyond = np.where(out, np.maximum(low - clip.joint_pos, clip.joint_pos - high), 0.0)
    frame, joint = np.argwhere(out)[0]
    value = clip.joint_pos[frame, joint]
    degrees = np.abs(clip.joint_pos).max() > 2.0 * np.pi
    hint = " These look like degrees; radians are needed." if degrees else ""
    low, high = robot.ranges[joint]
    yield _error(
        "limits", clip, f", frame {frame}, joint {_joint(clip, joint)}",
        f"{value:.3f} rad is beyond its range {low:.2f}..{high:.2f} (worst: {beyond.max():.2f} "
        f"rad, {int(out.sum())} values).{hint}",
    )  # fmt: skip


def _speeds(clip: Clip, limits: Limits) -> Iterator[Finding]:
    steps = np.abs(np.diff(clip.joint_pos, axis=0)) * clip.fps
    if steps.size and steps.max() > limits.joint_speed:
        frame, joint = np.unravel_index(int(steps.argmax()), steps.shape)
        yield _error(
            "joint speed", clip, f", frame {frame + 1}, joint {_joint(clip, int(joint))}",
            f"it moves at {steps.max():.0f} rad/s from the frame before; at most "
            f"{limits.joint_speed:g} were expected.",
        )  # fmt: skip
    moves = np.linalg.norm(np.diff(clip.root_pos, axis=0), axis=-1) * clip.fps
    if moves.size and moves.max() > limits.root_speed:
        yield _error(
            "root speed", clip, f", frame {int(moves.argmax()) + 1}",
            f"the root moves at {moves.max():.1f} m/s from the frame before; at most "
            f"{limits.root_speed:g} were expected.",
        )  # fmt: skip
    turns = rotations.angle_between(clip.root_quat[:-1], clip.root_quat[1:]) * clip.fps
    if turns.size and turns.max() > limits.spin:
        yield _error(
            "spin", clip, f", frame {int(turns.argmax()) + 1}",
            f"the root turns at {turns.max():.1f} rad/s from the frame before; at most "
            f"{limits.spin:g} were expected.",
        )  # fmt: skip


# ---------------------------------------------------------------- feet


def _feet(clip: Clip, robot: Robot, limits: Limits) -> tuple[dict[str, float], list[Finding]]:
    place, turned = robot.foot_frames(clip.root_pos, clip.root_quat, clip.joint_pos)
    low = robot.lowest(place, turned)
    upright = rotations.up(clip.root_quat)[:, 2]
    found = []
    if np.median(upright) < 0.3:
        frame = int(np.argmax(upright < 0.3))
        found.append(_error(
            "upright", clip, f", frame {frame}", "the root lies on its side, as in most frames (up "
            f"is {upright[frame]:.2f}); quaternions are (w, x, y, z).",
        ))  # fmt: skip
    elif upright.min() < FALLEN:
        frame = int(np.argmax(upright < FALLEN))
        found.append(_error(
            "tilt", clip, f", frame {frame}", f"the root leans until up is {upright.min():.2f}; "
            f"below {FALLEN:g} a robot counts as fallen.",
        ))  # fmt: skip
    nearest = low.min(-1)
    if nearest.min() < -limits.sinks:
        frame = int(nearest.argmin())
        foot = robot.foot_names[int(low[frame].argmin())]
        found.append(_error(
            "penetration", clip, f", frame {frame}",
            f"{foot!r} is {-1e3 * nearest.min():.0f} mm below the ground.",
        ))  # fmt: skip
    if nearest.min() > limits.floats:
        found.append(_error(
            "contact", clip, f", frame {int(nearest.argmin())}", "no foot ever touches the ground; "
            f"the nearest stays {1e3 * nearest.min():.0f} mm above it.",
        ))  # fmt: skip
    speed, share = _skating(clip, robot.sole_centres(place, turned), low, limits)
    if speed.max(initial=0.0) > limits.skates:
        foot = robot.foot_names[int(speed.argmax())]
        found.append(_error(
            "skate", clip, "", f"{foot!r} slides over the ground at {speed.max():.2f} m/s on "
            f"average; at most {limits.skates:g} were expected (are quaternions w, x, y, z, joints "
            "in order, positions in m?).",
        ))  # fmt: skip
    measured = {
        "penetration_max": float(max(0.0, -nearest.min())),
        "skate_mean": float(speed.max(initial=0.0)),
        "contact_share": float(share), "upright_min": float(upright.min()),
    }  # fmt: skip
    return measured, found


def _skating(clip: Clip, soles: Floats, low: Floats, limits: Limits) -> tuple[Floats, float]:
    """Return each foot's mean horizontal speed (F,) in m/s while it is on the ground."""
    grounded = low < limits.contact
    both = grounded[1:] & grounded[:-1]
    speed = np.linalg.norm(np.diff(soles[..., :2], axis=0), axis=-1) * clip.fps
    counts = both.sum(0)
    return np.where(counts > 0, (speed * both).sum(0) / np.maximum(counts, 1), 0.0), grounded.mean()


# ---------------------------------------------------------------- the seam, and what the file says


def _seam(clip: Clip, limits: Limits) -> Iterator[Finding]:
    """A wrapping clip's step from its last frame to its first must be like its other steps."""
    if clip.loop != "wrap":
        return
    place, quat, joints = clip.at(np.arange(clip.frames + 1))
    steps = np.abs(np.diff(joints, axis=0))
    usual = np.maximum(steps[:-1].max(0), 0.02)
    jump = steps[-1] / usual
    if jump.max() > limits.seam:
        joint = int(jump.argmax())
        yield _error(
            "seam", clip, f", frame {clip.frames - 1}, joint {_joint(clip, joint)}",
            f"the step to frame 0 is {steps[-1, joint]:.3f} rad, {jump[joint]:.0f} times the "
            "largest within the clip: it does not wrap.",
        )  # fmt: skip
    rise = np.abs(np.diff(place[:, 2]))
    turns = rotations.angle_between(quat[:-1], quat[1:])
    for what, values, unit, least in (("height", rise, "m", 0.005), ("tilt", turns, "rad", 0.02)):
        if values[-1] > limits.seam * max(values[:-1].max(), least):
            yield _error(
                "seam", clip, f", frame {clip.frames - 1}",
                f"the root's {what} jumps by {values[-1]:.3f} {unit} to frame 0: it does not wrap.",
            )  # fmt: skip


def _claimed(clip: Clip) -> Iterator[Finding]:
    """The angular velocity that a file states should follow from its own quaternions."""
    if clip.claimed is None:
        return
    ours = preprocess.normal(clip).velocities()[1]
    if clip.claimed.shape != ours.shape:
        yield _warning(
            "angular velocity", clip, "", f"what the file states has shape {clip.claimed.shape}, "
            f"not {ours.shape}; it is not compared.",
        )  # fmt: skip
        return
    error = np.linalg.norm(ours - clip.claimed, axis=-1)
    scale = np.linalg.norm(ours, axis=-1).mean()
    if np.median(error) > max(0.3, 0.5 * scale):
        frame = int(error.argmax())
        yield _warning(
            "angular velocity", clip, f", frame {frame}",
            f"the file states {np.round(clip.claimed[frame], 2).tolist()} rad/s, its quaternions "
            f"turn at {np.round(ours[frame], 2).tolist()}; the latter is used.",
        )  # fmt: skip
