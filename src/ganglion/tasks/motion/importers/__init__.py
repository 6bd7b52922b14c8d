"""Motion files of other systems, and how to tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ganglion.core.errors import DataError, SettingsError, unknown
from ganglion.tasks.motion import archive, motion_file, preprocess
from ganglion.tasks.motion.clip import MOST_FRAMES, Clip
from ganglion.tasks.motion.importers import angles, awd, mjlab, openduck, qpos, unitree
from ganglion.tasks.motion.robot import Robot


@dataclass(frozen=True)
class Said:
    """What the user says about a file: its rate, its joints' order, whether it is a cycle.

    It goes before what the file says. Formats that always state a rate or names refuse theirs.
    """

    fps: float | None = None
    joints: tuple[str, ...] = ()
    loop: str = "file"


def _own(path: Path, robot: Robot, said: Said) -> list[Clip]:
    return motion_file.read(path)


Reader = Callable[[Path, Robot, Said], list[Clip]]
READERS: Mapping[str, Reader] = {
    "motion": _own,
    "awd": awd.read,
    "openduck": openduck.read,
    "mjlab": mjlab.read,
    "unitree": unitree.read,
    "qpos": qpos.read,
    "angles": angles.read,
}


def read(path: Path, robot: Robot, said: Said, format: str = "auto") -> list[Clip]:
    """Read every clip of a file, with the joints that the file has.

    DataError in one sentence where the file is damaged, SettingsError where its format is unknown
    or needs something said.
    """
    if not path.is_file():
        raise SettingsError(f"There is no motion file {path}.")
    chosen = detect(path) if format == "auto" else format
    if chosen not in READERS:
        raise SettingsError(unknown("motion format", chosen, READERS))
    for name, given, formats in (
        ("fps", said.fps, ("motion", "awd", "openduck", "mjlab")),
        ("joint_names", said.joints, ("motion", "awd")),
    ):
        if given and chosen in formats:
            raise SettingsError(f"{path.name} ({chosen}) says it itself; leave clip.{name} out.")
    try:
        clips = READERS[chosen](path, robot, said)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"{path} is no intact {chosen} motion: {_plainly(error)}.") from error
    for clip in clips:
        if clip.frames > MOST_FRAMES:
            raise DataError(f"{path} has {clip.frames} frames; at most {MOST_FRAMES:,} are read.")
    if said.loop == "wrap":
        return [c if c.loop == "wrap" else preprocess.looped(c) for c in clips]
    if said.loop == "clamp":
        return [replace(c, loop="clamp", offset=(0.0, 0.0, 0.0)) for c in clips]
    return clips


def _plainly(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}, {error}".split())[:200].rstrip(".")


def detect(path: Path) -> str:
    """Return the format that a file's name and contents announce."""
    suffix = path.suffix.lower()
    plain = {".json": "awd", ".txt": "awd", ".pkl": "openduck", ".poly": "openduck",
             ".csv": "unitree", ".npy": "angles"}  # fmt: skip
    if suffix in plain:
        return plain[suffix]
    if suffix == ".npz":
        names = archive.names(path)
        if {"root_pos", "root_quat"} <= names:
            return "motion"
        return "qpos" if "qpos" in names else "mjlab"
    raise SettingsError(
        f"{path.name} could be any format; say which with clip.format ({', '.join(READERS)})."
    )
