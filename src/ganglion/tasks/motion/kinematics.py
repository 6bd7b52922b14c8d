"""Forward kinematics of a compiled robot, batched, for NumPy arrays and torch tensors alike.

Bodies are computed level by level of the tree, all of a level at once, as MuJoCo does one by one
(its documentation, chapter Computation, "Forward kinematics"). Shapes: N frames, J joints, B
bodies, F feet, P points of a sole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ganglion.tasks.motion.rotations import Values, namespace

Floats = NDArray[np.float64]
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)


@dataclass(frozen=True)
class _Level:
    """The links of one depth: a body has one link per joint, or one without a joint.

    parent (L,) indexes the links of the level before; joint (L,) the joints, -1 where none.
    """

    parent: NDArray[np.int64]
    joint: NDArray[np.int64]
    rotation: Floats  # (L, 3, 3) from the parent's frame
    position: Floats  # (L, 3) in the parent's frame
    axis: Floats  # (L, 3) of a slide, zero otherwise
    anchor: Floats  # (L, 3) of a hinge in the body's frame
    anchored: bool
    slides: bool
    turned: bool
    moved: bool
    straight: bool  # link i hangs on link i of the level before

    @property
    def jointed(self) -> bool:
        """Whether any link has a joint."""
        return bool((self.joint >= 0).any())


class Kinematics:
    """Positions and orientations of bodies of `model` from root pose and joint angles.

    bodies are the names wanted, the root's included where it is asked for; only links on the way
    to them are computed. `root` is the body that carries all others.
    """

    def __init__(
        self, model: mujoco.MjModel, root: int, joints: Sequence[int], bodies: Sequence[int]
    ) -> None:
        self.bodies = tuple(bodies)
        self._joints = len(joints)
        number = {int(j): i for i, j in enumerate(joints)}
        self._zero = np.array([model.qpos0[model.jnt_qposadr[j]] for j in joints], np.float64)
        axes = np.array([model.jnt_axis[j] for j in joints], np.float64).reshape(-1, 3)
        hinge = np.array([model.jnt_type[j] == _HINGE for j in joints], bool)
        self._hinge = hinge
        self._cross = _skew(np.where(hinge[:, None], axes, 0.0))
        self._levels, self._where = _levels(model, root, number, self.bodies)
        self._cast: dict[Any, Any] = {}

    def __call__(
        self, position: Values, matrix: Values, joint_pos: Values
    ) -> tuple[Values, Values]:
        """Return positions (N, B, 3) in m and rotation matrices (N, B, 3, 3) in the world.

        position (N, 3) and matrix (N, 3, 3) are the root's, joint_pos (N, J) in rad or m.
        """
        xp, held = namespace(joint_pos), self._constants(joint_pos)
        turns, slid = _turns(joint_pos - held["zero"], held["cross"]), joint_pos - held["zero"]
        found = [(position[:, None], matrix[:, None])]
        for level, constant in zip(self._levels, held["levels"], strict=True):
            found.append(_descend(found[-1], level, constant, turns, slid))
        where = self._where
        places = xp.stack([found[d][0][:, i] for d, i in where], 1)
        return places, xp.stack([found[d][1][:, i] for d, i in where], 1)

    def _constants(self, like: Values) -> Any:
        """Return the constants in the kind, dtype and device of `like`."""
        key = (type(like), like.dtype, str(getattr(like, "device", "")))
        if key not in self._cast:
            levels = [
                {n: _as(getattr(v, n), like) for n in ("rotation", "position", "axis", "anchor")}
                for v in self._levels
            ]
            self._cast[key] = {
                "zero": _as(self._zero, like), "cross": _as(self._cross, like), "levels": levels,
            }  # fmt: skip
        return self._cast[key]


def _descend(above: Any, level: _Level, held: Any, turns: Values, slid: Values) -> Any:
    """Return positions and matrices of one level from those above it."""
    p, r = above
    if not level.straight:
        p, r = p[:, level.parent], r[:, level.parent]
    if level.moved:
        p = p + _apply(r, held["position"])
    if level.turned:
        r = r @ held["rotation"]
    if not level.jointed:
        return p, r
    own = level.joint >= 0
    if level.slides:
        padded = namespace(slid).concatenate([slid, 0.0 * slid[:, :1]], -1)
        p = p + _apply(r, held["axis"]) * padded[:, level.joint][..., None]
    after = r @ turns[:, level.joint] if own.all() else _some(r, turns, level.joint, own)
    if level.anchored:
        p = p + _apply(r, held["anchor"]) - _apply(after, held["anchor"])
    return p, after


def _some(r: Values, turns: Values, joint: NDArray[np.int64], own: NDArray[np.bool_]) -> Values:
    """Return r turned by the joints of those links that have one."""
    xp = namespace(r)
    parts = [
        r[:, i : i + 1] @ turns[:, j : j + 1] if has else r[:, i : i + 1]
        for i, (j, has) in enumerate(zip(joint.tolist(), own.tolist(), strict=True))
    ]
    return xp.concatenate(parts, 1)


def _turns(angle: Values, cross: Values) -> Values:
    """Return I + sin(q) K + (1 - cos(q)) K K (N, J, 3, 3), Rodrigues' formula; I for slides."""
    xp = namespace(angle)
    sine, versine = xp.sin(angle)[..., None, None], (1.0 - xp.cos(angle))[..., None, None]
    return _as(np.eye(3), angle) + sine * cross + versine * (cross @ cross)


def _apply(matrix: Values, vector: Values) -> Values:
    """Return matrix (N, L, 3, 3) times vector (L, 3)."""
    return (matrix * vector[:, None, :]).sum(-1)


def _skew(v: Floats) -> Floats:
    """Return K (J, 3, 3) with K u = v x u."""
    zero = np.zeros(len(v))
    x, y, z = v[:, 0], v[:, 1], v[:, 2]
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def matrix_of(q: Values) -> Values:
    """Return the rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    xp = namespace(q)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


def _as(array: Floats, like: Values) -> Any:
    xp = namespace(like)
    if xp is np:
        return array.astype(like.dtype)
    return xp.as_tensor(array, dtype=like.dtype, device=like.device)


def _levels(
    model: mujoco.MjModel, root: int, number: dict[int, int], bodies: Sequence[int]
) -> tuple[list[_Level], list[tuple[int, int]]]:
    """Return the levels below the root, and (level, link) of every wanted body."""
    wanted = {root}
    for body in bodies:
        while body not in wanted:
            wanted.add(body)
            body = int(model.body_parentid[body])
    place = {root: (0, 0)}
    rows: list[list[tuple[int, int, Floats, Floats, Floats, Floats]]] = []
    for body in sorted(wanted - {root}):  # parents come before their children
        depth, link = place[int(model.body_parentid[body])]
        pos, rotation = model.body_pos[body].copy(), _matrix(model.body_quat[body])
        first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
        for j in range(first, first + count) if count else [-1]:
            hinge = j >= 0 and model.jnt_type[j] == _HINGE
            slide = j >= 0 and not hinge
            axis = model.jnt_axis[j].copy() if slide else np.zeros(3)
            anchor = model.jnt_pos[j].copy() if hinge else np.zeros(3)
            while len(rows) <= depth:
                rows.append([])
            rows[depth].append((link, number.get(j, -1), rotation, pos, axis, anchor))
            depth, link = depth + 1, len(rows[depth]) - 1
            pos, rotation = np.zeros(3), np.eye(3)
        place[body] = (depth, link)
    levels: list[_Level] = []
    for row in rows:
        parts = [np.array([link[k] for link in row]) for k in range(6)]
        above = len(levels[-1].parent) if levels else 1
        flags = (
            bool(parts[5].any()), bool(parts[4].any()), bool((parts[2] != np.eye(3)).any()),
            bool(parts[3].any()), parts[0].tolist() == list(range(above)),
        )  # fmt: skip
        levels.append(_Level(*parts, *flags))  # type: ignore[arg-type, call-arg]
    return levels, [place[b] for b in bodies]


def _matrix(quat: Floats) -> Floats:
    found: Floats = matrix_of(np.asarray(quat, np.float64) / np.linalg.norm(quat))
    return found
