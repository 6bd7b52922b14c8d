"""Motion JSON of adversarial waddle dynamics: frames with named offsets, quaternions (x, y, z, w).

Keys: LoopMode, FPS, FrameDuration, Joints, Frame_offset, Frame_size, Frames [T][D]; a frame holds
root_pos 3, root_quat 4, joints_pos J, left_toe_pos and right_toe_pos 3 each (in the world or in the
root's frame: two variants exist), velocities, optionally foot_contacts 2. All frames are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ganglion.core.errors import DataError
from ganglion.tasks.motion import preprocess, rotations
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.kinematics import Floats, matrix_of
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.importers import Said

_LARGEST = 256 << 20
_ORDER = (  # of a frame where the file gives no offsets
    ("root_pos", 3), ("root_quat", 4), ("joints_pos", None), ("left_toe_pos", 3),
    ("right_toe_pos", 3), ("world_linear_vel", 3), ("world_angular_vel", 3), ("joints_vel", None),
    ("left_toe_vel", 3), ("right_toe_vel", 3), ("foot_contacts", 2),
)  # fmt: skip
_TOE_SPREAD = 0.02  # m: further than this the toes do not follow from the joint angles


def read(path: Path, robot: Robot, said: Said) -> list[Clip]:
    """Read one file; DataError names frame and field of the first fault."""
    raw = _load(path)
    joints = tuple(str(j) for j in raw["Joints"])
    parts = _parts(path, raw, len(joints))
    frames = _frames(path, raw, max(end for _, end in parts.values()))
    field = {name: frames[:, begin:end] for name, (begin, end) in parts.items()}
    wraps = str(raw.get("LoopMode", "Clamp")).lower() == "wrap"
    contacts = field["foot_contacts"] > 0.5 if "foot_contacts" in field else None
    clip = Clip(
        path.stem, _fps(path, raw), joints, field["root_pos"], field["root_quat"][:, [3, 0, 1, 2]],
        field["joints_pos"], contacts=contacts, source=path.name,
        licence=str(raw.get("Licence", raw.get("License", ""))),
        claimed=field.get("world_angular_vel"),
    )  # fmt: skip
    clip = _with_toes(clip, field, robot)
    return [preprocess.looped(clip) if wraps else clip]


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} has over {_LARGEST:,} bytes.")
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}.") from error
    for key in ("Joints", "Frames"):
        if not isinstance(raw, dict) or not isinstance(raw.get(key), list) or not raw[key]:
            raise DataError(f"{path} has no list {key!r}; an AWD motion was expected.")
    return dict(raw)


def _fps(path: Path, raw: Mapping[str, Any]) -> float:
    """Return FPS, or 1 / FrameDuration; DataError where they differ or are no numbers."""
    try:
        fps = float(raw["FPS"]) if "FPS" in raw else 1.0 / float(raw["FrameDuration"])
        duration = float(raw.get("FrameDuration", 1.0 / fps))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise DataError(f"{path} states neither FPS nor FrameDuration as a number.") from None
    if not math.isfinite(fps) or fps <= 0.0 or abs(duration * fps - 1.0) > 0.05:
        raise DataError(f"{path}: FPS {fps:g} and FrameDuration {duration:g} s do not agree.")
    return fps


def _parts(path: Path, raw: Mapping[str, Any], joints: int) -> dict[str, tuple[int, int]]:
    """Return where each field of a frame begins and ends."""
    given, sizes = _first(raw.get("Frame_offset")), _first(raw.get("Frame_size"))
    sized = {name: joints if size is None else size for name, size in _ORDER}
    found, at = {}, 0
    for name, size in sized.items():
        begin, width = given.get(name, at if not given else -1), sizes.get(name, size)
        if not isinstance(begin, int) or not isinstance(width, int):
            raise DataError(f"{path}: Frame_offset or Frame_size of {name} is no whole number.")
        if begin < 0:
            continue
        if width != size:
            raise DataError(
                f"{path}: Frame_size says {name} has {width} numbers, {size} were expected."
            )
        found[name] = (begin, begin + width)
        at = begin + width
    for name in ("root_pos", "root_quat", "joints_pos"):
        if name not in found:
            raise DataError(f"{path}: Frame_offset lacks {name}.")
    length = len(raw["Frames"][0]) if isinstance(raw["Frames"][0], list) else 0
    return {n: p for n, p in found.items() if given or p[1] <= length}


def _first(value: Any) -> dict[str, Any]:
    inner = value[0] if isinstance(value, list) and value else value
    return inner if isinstance(inner, dict) else {}


def _frames(path: Path, raw: Mapping[str, Any], width: int) -> Floats:
    frames = raw["Frames"]
    for i, frame in enumerate(frames):
        if not isinstance(frame, list) or len(frame) < width:
            size = len(frame) if isinstance(frame, list) else 0
            raise DataError(f"{path}, frame {i}: it has {size} numbers; {width} were expected.")
    try:
        return np.array([frame[:width] for frame in frames], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: Frames hold something else than numbers ({error}).") from error


# ---------------------------------------------------------------- toes


def _with_toes(clip: Clip, field: Mapping[str, Floats], robot: Robot) -> Clip:
    """Check the toes against the robot's feet, in whichever frame they fit better.

    The toe is a fixed point of the foot; in the right frame it stays at one place there. Where
    neither fits, that is noted: the joint angles may belong to another robot.
    """
    names = ("left_toe_pos", "right_toe_pos")
    if any(n not in field for n in names) or len(robot.feet) != 2:
        return clip
    try:
        fitted = preprocess.fitted(clip, robot)
    except DataError:
        return clip  # said again, and better, where the clip is prepared
    quat = rotations.normalised(fitted.root_quat)
    place, turned = robot.foot_frames(fitted.root_pos, quat, fitted.joint_pos)
    toes = np.stack([field[n] for n in names], 1)
    around = (matrix_of(quat)[:, None] * toes[..., None, :]).sum(-1) + fitted.root_pos[:, None]
    spread = {
        "world": _spread(toes, place, turned), "root": _spread(around, place, turned),
    }  # fmt: skip
    frame = min(spread, key=lambda k: float(spread[k].max()))
    worst = spread[frame]
    note = f"toes are given in the {frame}'s frame"
    if worst.max() > _TOE_SPREAD:
        at = int(worst.argmax())
        note = (
            f"frame {at}: the toes are {1e3 * worst[at]:.0f} mm from where the joint angles put "
            f"them on {robot.name}, in the {frame}'s frame"
        )
    return Clip(**{**vars(clip), "notes": (*clip.notes, note)})


def _spread(points: Floats, place: Floats, turned: Floats) -> Floats:
    """Return how far (T,) in m each frame's toes are from their mean place in the foot's frame."""
    own = (np.swapaxes(turned, -1, -2) * (points - place)[..., None, :]).sum(-1)
    found: Floats = np.linalg.norm(own - np.median(own, 0), axis=-1).max(-1)
    return found
