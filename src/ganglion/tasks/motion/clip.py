"""A reference motion: root pose and joint angles over time, and how it goes on after its end.

A wrapping clip is one cycle: frame T is frame 0 moved by `offset`, a step (dx, dy) in m and a turn
in rad, both seen from the heading of frame 0. So a walk goes on for ever without a jump, straight
or on an arc. A clamped clip ends. Shapes: T frames, J joints, F feet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError
from ganglion.tasks.motion import rotations

Floats = NDArray[np.float64]
Loop = Literal["wrap", "clamp"]
MOST_FRAMES = 1_000_000


@dataclass(frozen=True, eq=False)
class Clip:
    """One motion; root_pos (T, 3) m, root_quat (T, 4) wxyz, joint_pos (T, J) rad.

    contacts (T, F), where known, says which feet are on the ground. command is what the motion
    does, forward and lateral speed in m/s and turn in rad/s, where its maker said so. claimed
    (T, 3) is the angular velocity in the world that a file states; it is compared, never used.
    """

    name: str
    fps: float
    joints: tuple[str, ...]
    root_pos: Floats
    root_quat: Floats
    joint_pos: Floats
    loop: Loop = "clamp"
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    contacts: NDArray[np.bool_] | None = None
    command: tuple[float, float, float] | None = None
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    claimed: Floats | None = None

    def summary(self) -> dict[str, Any]:
        """Return what identifies the motion, as JSON."""
        return {
            "name": self.name, "frames": self.frames, "fps": self.fps, "loop": self.loop,
            "source": self.source, "licence": self.licence, "digest": self.digest,
        }  # fmt: skip

    @property
    def frames(self) -> int:
        return len(self.root_pos)

    @property
    def dt(self) -> float:
        """Seconds between frames."""
        return 1.0 / self.fps

    @property
    def duration_s(self) -> float:
        """Seconds of one cycle, or to the last frame."""
        return (self.frames if self.loop == "wrap" else self.frames - 1) / self.fps

    @property
    def digest(self) -> str:
        """SHA-256 of what the motion is, without its name and origin."""
        said = [float(self.fps), self.joints, self.loop, [float(v) for v in self.offset]]
        total = hashlib.sha256(json.dumps(said).encode())
        for array in (self.root_pos, self.root_quat, self.joint_pos):
            total.update(np.ascontiguousarray(array, np.float64).tobytes())
        return total.hexdigest()

    def speed(self) -> tuple[float, float, float]:
        """Mean forward and lateral speed in m/s and turn in rad/s, in its own heading."""
        if self.command is not None:
            return self.command
        headings = np.unwrap(rotations.heading(self.root_quat))
        span = self.duration_s
        if self.loop == "wrap":
            dx, dy, turn = self.offset
        else:
            step = rotations.turn(-headings[:1], self.root_pos[-1:] - self.root_pos[:1])[0]
            dx, dy, turn = float(step[0]), float(step[1]), float(headings[-1] - headings[0])
        # the mean velocity along an arc: the chord is shorter than the way by sin(h) / h
        half = 0.5 * turn
        arc = half / np.sin(half) if abs(half) > 1e-6 else 1.0
        c, s = np.cos(half), np.sin(half)
        return arc * (c * dx + s * dy) / span, arc * (c * dy - s * dx) / span, turn / span

    # ------------------------------------------------------------ going on

    def cycles(self, count: int) -> Floats:
        """Return x, y in m and turn in rad (count, 3) that carry cycle 0 to each later one."""
        dx, dy, turn = self.offset if self.loop == "wrap" else (0.0, 0.0, 0.0)
        numbers = np.arange(count, dtype=np.float64)
        start = rotations.heading(self.root_quat[:1])[0]
        # sum of R(start + k turn) (dx, dy) over the cycles before
        headings = start + numbers * turn
        steps = np.stack(
            [np.cos(headings) * dx - np.sin(headings) * dy,
             np.sin(headings) * dx + np.cos(headings) * dy], -1,
        )  # fmt: skip
        way = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)[:-1]])
        # the turn is about frame 0's place, not about the origin
        origin = self.root_pos[0, :2]
        angle = numbers * turn
        c, s = np.cos(angle), np.sin(angle)
        turned = np.stack([c * origin[0] - s * origin[1], s * origin[0] + c * origin[1]], -1)
        return np.concatenate([way + origin - turned, angle[:, None]], -1)

    def at(self, index: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """Return root_pos, root_quat and joint_pos of any frames (N,), before and after the clip.

        A clamped clip stays in its first and last frame.
        """
        if self.loop == "clamp":
            inside = np.clip(index, 0, self.frames - 1)
            return self.root_pos[inside], self.root_quat[inside], self.joint_pos[inside]
        cycle, inside = np.divmod(index, self.frames)
        table = self.cycles(int(np.abs(cycle).max()) + 1)
        back = np.array([_inverse(move) for move in table])
        moved = np.where((cycle < 0)[:, None], back[np.abs(cycle)], table[np.abs(cycle)])
        place = rotations.turn(moved[:, 2], self.root_pos[inside])
        place[:, :2] += moved[:, :2]
        quat = rotations.multiply(rotations.about_z(moved[:, 2]), self.root_quat[inside])
        return place, quat, self.joint_pos[inside]

    # ------------------------------------------------------------ velocities

    @property
    def spans(self) -> Floats:
        """Seconds (T, 1) between the neighbours of each frame; a clip's end is its own."""
        span = np.full((self.frames, 1), 2.0 * self.dt)
        if self.loop == "clamp":
            span[[0, -1]] = self.dt
        return span

    def velocities(self) -> tuple[Floats, Floats, Floats]:
        """Return linear (T, 3) and angular (T, 3) velocity in the world, and joint_vel (T, J).

        Central differences, across the seam where the clip wraps and one-sided at ends that are
        ends; the angular one by the logarithm of the rotation between neighbours.
        """
        around = np.arange(-1, self.frames + 1)
        place, quat, joints = self.at(around)
        span = self.spans
        linear, joint = (place[2:] - place[:-2]) / span, (joints[2:] - joints[:-2]) / span
        between = rotations.multiply(quat[2:], rotations.conjugate(quat[:-2]))
        return linear, rotations.logarithm(between) / span, joint

    def ordered(self, joints: Sequence[str]) -> Clip:
        """Return the clip with its joints in the order `joints`, each of which it must have."""
        lost = [j for j in joints if j not in self.joints]
        if lost:
            raise DataError(
                f"Motion {self.name!r} has no joint {lost[0]!r}; it has {', '.join(self.joints)}."
            )
        columns = [self.joints.index(j) for j in joints]
        return replace(self, joints=tuple(joints), joint_pos=self.joint_pos[:, columns])


def _inverse(moved: Floats) -> Floats:
    """Return the inverse of a move (x, y, turn) of the plane."""
    x, y, turn = moved
    c, s = np.cos(turn), np.sin(turn)
    return np.array([-c * x - s * y, s * x - c * y, -turn])


def closing(first: Any, last: Any) -> tuple[float, float, float]:
    """Return the offset (dx, dy, turn) that carries the pose `first` to `last`.

    Poses are (position (3,), quaternion (4,)).
    """
    start = rotations.heading(first[1])
    turn = float(rotations.wrapped(rotations.heading(last[1]) - start))
    step = rotations.turn(-start, np.asarray(last[0], np.float64) - first[0])
    return float(step[0]), float(step[1]), turn
