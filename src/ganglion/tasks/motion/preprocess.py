"""From a motion as it was read to one that can be tracked: rate, ground, start, seam; and variants.

Every function returns a new clip. Shapes: T frames, J joints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ganglion.core.errors import DataError
from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.clip import MOST_FRAMES, Clip, closing
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

_SIDES = (  # of left and right, by what names begin with, hold or end in
    ("left", "right"), ("l", "r"), ("fl", "fr"), ("rl", "rr"), ("hl", "hr"), ("bl", "br"),
    ("lf", "rf"), ("lh", "rh"), ("lb", "rb"), ("lm", "rm"),
)  # fmt: skip
_SAME = 0.02  # rad: joints this near are the same pose


def prepared(clip: Clip, robot: Robot, fps: float) -> Clip:
    """Return the clip for `robot` at `fps`, on the ground, from the origin on, heading ahead."""
    clip = fitted(clip, robot)
    return at_origin(on_ground(resampled(normal(clip), fps), robot))


def normal(clip: Clip) -> Clip:
    """Return the clip with unit quaternions that do not change sign between frames."""
    quat = rotations.normalised(clip.root_quat)
    flips = np.cumprod(np.where((quat[1:] * quat[:-1]).sum(-1) < 0.0, -1.0, 1.0))
    quat[1:] *= flips[:, None]
    return replace(clip, root_quat=quat)


def fitted(clip: Clip, robot: Robot) -> Clip:
    """Return the clip with the robot's joints in its order.

    Joints of the file that the robot lacks are left out, joints that no actuator drives may be
    missing and stay as they are at home; both are noted. DataError where a driven one is missing,
    or one stands twice.
    """
    if clip.joints == robot.joints:
        return clip
    twice = next((j for i, j in enumerate(clip.joints) if j in clip.joints[:i]), None)
    if twice is not None:
        raise DataError(f"Motion {clip.name!r}: joint {twice!r} stands twice.")
    notes = list(clip.notes)
    extra = [j for j in clip.joints if j not in robot.joints]
    if extra:
        notes.append(f"left out, as {robot.name} has no such joints: {', '.join(extra)}")
    driven = {robot.joints[a] for a in robot.actuated}
    columns = np.tile(robot.home, (clip.frames, 1))
    for i, joint in enumerate(robot.joints):
        if joint in clip.joints:
            columns[:, i] = clip.joint_pos[:, clip.joints.index(joint)]
        elif joint in driven:
            raise DataError(
                f"Motion {clip.name!r} has no joint {joint!r} of {robot.name}; it has "
                f"{', '.join(clip.joints)}."
            )
        else:
            notes.append(f"{joint} is not in the motion and stays at {robot.home[i]:.2f}")
    return replace(clip, joints=robot.joints, joint_pos=columns, notes=tuple(notes))


def resampled(clip: Clip, fps: float) -> Clip:
    """Return the clip at another rate: linear between frames, quaternions by slerp.

    A wrapping clip keeps whole frames per cycle, so its period changes by half a frame at most.
    """
    if abs(clip.fps - fps) < 1e-9:
        return clip
    frames = max(4, round(clip.duration_s * fps) + (clip.loop == "clamp"))
    if frames > MOST_FRAMES:
        raise DataError(
            f"Motion {clip.name!r} has {frames:,} frames at {fps:g} Hz; at most {MOST_FRAMES:,}."
        )
    last = float(clip.frames) if clip.loop == "wrap" else clip.frames - 1
    at = np.arange(frames, dtype=np.float64) * (
        last / (frames if clip.loop == "wrap" else frames - 1)
    )
    return replace(_sampled(clip, at), fps=fps)


def time_scaled(clip: Clip, factor: float) -> Clip:
    """Return the clip `factor` times as fast, at the same rate."""
    made = resampled(replace(clip, fps=clip.fps * factor), clip.fps)
    exact = clip.duration_s / made.duration_s  # whole frames: a little off the factor
    command = _faster(clip.command, exact)
    return replace(made, name=f"{clip.name} x{factor:g}", command=command)


def _faster(
    command: tuple[float, float, float] | None, factor: float
) -> tuple[float, float, float] | None:
    return (
        None if command is None else (command[0] * factor, command[1] * factor, command[2] * factor)
    )


def _sampled(clip: Clip, at: Floats) -> Clip:
    """Return the clip at fractional frames `at`."""
    below = np.floor(at).astype(np.int64)
    share = (at - below)[:, None]
    p0, q0, j0 = clip.at(below)
    p1, q1, j1 = clip.at(below + 1)
    contacts = None
    if clip.contacts is not None:
        contacts = clip.contacts[np.minimum(below, clip.frames - 1)]
    return replace(
        clip, root_pos=p0 + share * (p1 - p0), root_quat=rotations.slerp(q0, q1, share),
        joint_pos=j0 + share * (j1 - j0), contacts=contacts, claimed=None,
    )  # fmt: skip


# ---------------------------------------------------------------- ground and start


def on_ground(clip: Clip, robot: Robot) -> Clip:
    """Return the clip raised or lowered as a whole, so that its soles stand on the ground.

    The height is that at which the lowest soles, the lower tenth of all frames, are at 0.
    """
    low = _lowest(clip, robot)
    lift = float(np.quantile(low, 0.1))
    moved = clip.root_pos - np.array([0.0, 0.0, lift])
    note = () if abs(lift) < 1e-3 else (f"moved by {-1e3 * lift:.0f} mm onto the ground",)
    return replace(clip, root_pos=moved, notes=clip.notes + note)


def _lowest(clip: Clip, robot: Robot) -> Floats:
    frames = robot.foot_frames(clip.root_pos, clip.root_quat, clip.joint_pos)
    found: Floats = robot.lowest(*frames).min(-1)
    return found


def at_origin(clip: Clip) -> Clip:
    """Return the clip moved and turned so that frame 0 stands at x = y = 0, heading along x."""
    back = -rotations.heading(clip.root_quat[:1])
    start = np.array([*clip.root_pos[0, :2], 0.0])
    angles = np.tile(back, clip.frames)
    place = rotations.turn(angles, clip.root_pos - start)
    return replace(
        clip,
        root_pos=place,
        root_quat=rotations.multiply(rotations.about_z(angles), clip.root_quat),
    )


def looped(clip: Clip) -> Clip:
    """Return the clip as a cycle whose offset follows from its ends.

    Where the last frame repeats the first pose it is dropped and gives the offset; otherwise the
    cycle closes one step, at the speed of the ends, after the last frame.
    """
    first = (clip.root_pos[0], clip.root_quat[0])
    same = np.abs(clip.joint_pos[-1] - clip.joint_pos[0]).max() < _SAME
    if same and clip.frames > 4:
        offset = closing(first, (clip.root_pos[-1], clip.root_quat[-1]))
        contacts = None if clip.contacts is None else clip.contacts[:-1]
        claimed = None if clip.claimed is None else clip.claimed[:-1]
        return replace(
            clip, root_pos=clip.root_pos[:-1], root_quat=clip.root_quat[:-1], contacts=contacts,
            joint_pos=clip.joint_pos[:-1], loop="wrap", offset=offset, claimed=claimed,
        )  # fmt: skip
    step = 0.5 * (clip.root_pos[1] - clip.root_pos[0] + clip.root_pos[-1] - clip.root_pos[-2])
    turn = rotations.slerp(clip.root_quat[-2:-1], clip.root_quat[-1:], np.array([[2.0]]))[0]
    return replace(clip, loop="wrap", offset=closing(first, (clip.root_pos[-1] + step, turn)))


# ---------------------------------------------------------------- variants


def mirrored(clip: Clip, robot: Robot) -> Clip:
    """Return the clip with left and right exchanged.

    DataError where a joint off the middle has no partner, which is found by name.
    """
    partner, sign = mirror_map(robot)
    flip = np.array([1.0, -1.0, 1.0, -1.0])  # of a rotation's pseudo-vector: x and z change sign
    dx, dy, turn = clip.offset
    contacts = None if clip.contacts is None else clip.contacts[:, _partners(robot.foot_names)]
    command = clip.command
    return replace(
        clip, name=f"{clip.name} mirrored", root_pos=clip.root_pos * [1.0, -1.0, 1.0],
        root_quat=clip.root_quat * flip, joint_pos=clip.joint_pos[:, partner] * sign,
        offset=(dx, -dy, -turn), contacts=contacts, claimed=None,
        command=None if command is None else (command[0], -command[1], -command[2]),
    )  # fmt: skip


def mirror_map(robot: Robot) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats]:
    """Return each joint's partner (J,) and the sign (J,) of its angle in the mirror image.

    Partners by name (`_SIDES`); the sign from the axes in the zero pose: seen in the mirror
    y -> -y a turn about (ax, ay, az) is one about (-ax, ay, -az).
    """
    partner = _partners(robot.joints)
    axes, places = _axes(robot)
    alone = np.flatnonzero((partner == np.arange(len(partner))) & (np.abs(places[:, 1]) > 1e-3))
    if alone.size:
        raise DataError(
            f"{robot.name}: joint {robot.joints[alone[0]]!r} lies off the middle and no joint is "
            "named as its partner (left and right, l and r, fl and fr, ...); leave augment.mirror "
            "out."
        )
    seen = axes[partner] * np.array([-1.0, 1.0, -1.0])
    along = (seen * axes).sum(-1)
    odd = np.flatnonzero(np.abs(np.abs(along) - 1.0) > 1e-3)
    if odd.size:
        raise DataError(f"{robot.name}: joint {robot.joints[odd[0]]!r} has no mirror image.")
    return partner, np.sign(along)


def _partners(names: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the index of each name's partner on the other side, itself where it has none."""
    listed = list(names)
    swaps = [*_SIDES, *((b, a) for a, b in _SIDES)]
    found = []
    for i, name in enumerate(listed):
        others = (_swapped(name, a, b) for a, b in swaps)
        found.append(next((listed.index(o) for o in others if o != name and o in listed), i))
    return np.array(found)


def _swapped(name: str, a: str, b: str) -> str:
    """Return the name with the part `a` as `b`, in the case that it has there.

    Whole words may stand anywhere (hipLeft), letters only between what is no letter (FL_hip).
    """
    part = a if len(a) > 2 else rf"(?<![A-Za-z]){a}(?![A-Za-z])"
    return re.sub(part, lambda found: _cased(b, found[0]), name, flags=re.IGNORECASE)


def _cased(text: str, like: str) -> str:
    if like.isupper():
        return text.upper()
    return text.capitalize() if like[0].isupper() else text


def _axes(robot: Robot) -> tuple[Floats, Floats]:
    """Return every joint's axis and place (J, 3) in the root's frame, all joints at their zero."""
    model = robot.model
    zero = np.array([[model.qpos0[model.jnt_qposadr[j]] for j in robot.joint_ids]])
    place, turned = robot.kinematics(np.zeros((1, 3)), np.eye(3)[None], zero)
    where = {b: i for i, b in enumerate(robot.bodies)}
    bodies = [where[int(model.jnt_bodyid[j])] for j in robot.joint_ids]
    own = model.jnt_axis[list(robot.joint_ids)]
    anchors = np.einsum("jab,jb->ja", turned[0, bodies], model.jnt_pos[list(robot.joint_ids)])
    return np.einsum("jab,jb->ja", turned[0, bodies], own), place[0, bodies] + anchors


def noisy(clip: Clip, rng: np.random.Generator, joint: float) -> Clip:
    """Return the clip with smooth noise of `joint` rad on its angles, closed where it wraps."""
    waves = rng.standard_normal((2, 3, len(clip.joints))) / np.sqrt(6.0)
    phase = 2.0 * np.pi * np.arange(clip.frames) / clip.frames
    bases = np.stack([[np.sin(k * phase), np.cos(k * phase)] for k in (1, 2, 3)], 1)
    added = joint * np.sqrt(2.0) * np.einsum("akt,akj->tj", bases, waves)
    return replace(clip, name=f"{clip.name} noisy", joint_pos=clip.joint_pos + added)
