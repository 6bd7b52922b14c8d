"""Robots: a compiled model and what motions and policies need to know of it.

Any MJCF with a free root and position actuators will do; `minibiped` comes with the product. A
planar robot (x, z, pitch) has the same joints and is for quick checks. Shapes: N frames, J joints
(all hinges and slides below the root, in the model's order), A actuators, F feet, P sole points.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError, SettingsError, unknown
from ganglion.tasks.motion import mjcf, rotations
from ganglion.tasks.motion.kinematics import Floats, Kinematics, matrix_of
from ganglion.tasks.motion.rotations import Values, namespace

BUILTIN = Path(__file__).parent / "robots"
Root = Literal["free", "planar"]
_SLIDE, _HINGE = int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)
_NEAR_FLOOR = 0.02  # m: a leaf body this near to the lowest point is a foot


@dataclass(frozen=True, eq=False)
class Robot:
    """A robot as motions, the world and policies see it.

    joints are the names of all J joints; actuated (A,) indexes them by actuator; body is the
    root's number; feet are numbers of bodies; sole (F, P, 3) are points of each foot in its frame
    in m and radius (F, P) what stands out beyond them; home (J,) is the pose to stand in.
    """

    name: str
    digest: str
    model: mujoco.MjModel
    root: Root
    body: int
    joint_ids: tuple[int, ...]
    joints: tuple[str, ...]
    actuated: NDArray[np.int64]
    feet: tuple[int, ...]
    sole: Floats
    radius: Floats
    home: Floats

    @property
    def foot_names(self) -> tuple[str, ...]:
        return tuple(self.model.body(f).name for f in self.feet)

    @property
    def body_names(self) -> tuple[str, ...]:
        """Names of the root and all bodies below it."""
        return tuple(self.model.body(b).name for b in self.bodies)

    @cached_property
    def bodies(self) -> tuple[int, ...]:
        """The root and all bodies below it."""
        return below(self.model, self.body)

    @cached_property
    def ranges(self) -> Floats:
        """Joint limits (J, 2); infinite where a joint has none."""
        limited = self.model.jnt_limited[list(self.joint_ids)].astype(bool)
        given = self.model.jnt_range[list(self.joint_ids)]
        return np.where(limited[:, None], given, [[-np.inf, np.inf]])

    @cached_property
    def targets(self) -> Floats:
        """Lowest and highest joint target (A, 2) that the actuators take."""
        limited = self.model.actuator_ctrllimited.astype(bool)
        return np.where(limited[:, None], self.model.actuator_ctrlrange, self.ranges[self.actuated])

    @cached_property
    def stiffness(self) -> Floats:
        """Gain of each position actuator (A,) in N m/rad."""
        return np.array(self.model.actuator_gainprm[:, 0])

    @cached_property
    def damping(self) -> Floats:
        """Damping (A,) in N m s/rad of each actuated joint, its own and the actuator's."""
        dofs = self.model.jnt_dofadr[np.array(self.joint_ids)[self.actuated]]
        found: Floats = self.model.dof_damping[dofs] - self.model.actuator_biasprm[:, 2]
        return found

    @cached_property
    def feet_kinematics(self) -> Kinematics:
        return Kinematics(self.model, self.body, self.joint_ids, self.feet)

    @cached_property
    def kinematics(self) -> Kinematics:
        return Kinematics(self.model, self.body, self.joint_ids, self.bodies)

    @cached_property
    def leg_length(self) -> float:
        """Distance from the root to the middle of its soles in the home pose, in m."""
        place, turned = self._home_feet
        points = place[0][:, None] + np.einsum("fij,fpj->fpi", turned[0], self.sole)
        return float(np.abs(points[..., 2] - self.radius).max())

    @cached_property
    def _home_feet(self) -> tuple[Floats, Floats]:
        zero, eye = np.zeros((1, 3)), np.eye(3)[None]
        found: tuple[Floats, Floats] = self.feet_kinematics(zero, eye, self.home[None])
        return found

    @cached_property
    def standing_height(self) -> float:
        """Height of the root in m at which the home pose touches the ground."""
        place, turned = self._home_feet
        return -float(self.lowest(place, turned).min())

    # ------------------------------------------------------------ coordinates

    @property
    def root_coordinates(self) -> tuple[int, int]:
        """How many of qpos and qvel the root takes."""
        return (7, 6) if self.root == "free" else (3, 3)

    def to_qpos(self, position: Values, quat: Values, joint_pos: Values) -> Values:
        """Return generalised coordinates (N, nq) of root pose (N, 3), (N, 4) and joints (N, J).

        A planar robot keeps x, z and pitch.
        """
        xp = namespace(joint_pos)
        if self.root == "free":
            return xp.concatenate([position, quat, joint_pos], -1)
        w, y = quat[..., 0], quat[..., 2]
        pitch = rotations.wrapped(2.0 * xp.arctan2(y, w))[..., None]
        return xp.concatenate([position[..., :1], position[..., 2:], pitch, joint_pos], -1)

    def to_qvel(self, linear: Values, angular: Values, joint_vel: Values) -> Values:
        """Return generalised velocities (N, nv); `angular` is in the root's frame."""
        xp = namespace(joint_vel)
        if self.root == "free":
            return xp.concatenate([linear, angular, joint_vel], -1)
        parts = [linear[..., :1], linear[..., 2:], angular[..., 1:2], joint_vel]
        return xp.concatenate(parts, -1)

    def of_qpos(self, qpos: Values) -> tuple[Values, Values, Values]:
        """Return root position (N, 3), quaternion (N, 4) and joints (N, J) of coordinates."""
        xp = namespace(qpos)
        if self.root == "free":
            return qpos[..., :3], qpos[..., 3:7], qpos[..., 7:]
        position = xp.stack([qpos[..., 0], 0.0 * qpos[..., 0], qpos[..., 1]], -1)
        return position, rotations.about_y(qpos[..., 2]), qpos[..., 3:]

    def of_qvel(self, qvel: Values) -> tuple[Values, Values, Values]:
        """Return linear (world), angular (root's frame) velocity (N, 3) and joint_vel (N, J)."""
        xp = namespace(qvel)
        if self.root == "free":
            return qvel[..., :3], qvel[..., 3:6], qvel[..., 6:]
        zero = 0.0 * qvel[..., 0]
        linear = xp.stack([qvel[..., 0], zero, qvel[..., 1]], -1)
        return linear, xp.stack([zero, qvel[..., 2], zero], -1), qvel[..., 3:]

    # ------------------------------------------------------------ feet

    def foot_frames(
        self, position: Values, quat: Values, joint_pos: Values
    ) -> tuple[Values, Values]:
        """Return positions (N, F, 3) and rotation matrices (N, F, 3, 3) of the feet."""
        return self.feet_kinematics(position, matrix_of(quat), joint_pos)

    def lowest(self, place: Values, turned: Values) -> Values:
        """Return the height (N, F) in m of each sole's lowest point."""
        row = turned[..., 2, :]  # (N, F, 3): the world's z of the foot's axes
        xp = namespace(place)
        sole, radius = (_like(a, place) for a in (self.sole, self.radius))
        height = place[..., 2][..., None] + (row[..., None, :] * sole).sum(-1) - radius
        return xp.amin(height, -1)

    def sole_centres(self, place: Values, turned: Values) -> Values:
        """Return the middle (N, F, 3) of each sole in the world."""
        middle = _like(self.sole_middle, place)
        return place + (turned * middle[..., None, :]).sum(-1)

    @cached_property
    def sole_middle(self) -> Floats:
        """The middle (F, 3) of each sole in the foot's frame, at its lower side."""
        turned = self._home_feet[1][0]  # (F, 3, 3)
        height = np.einsum("fj,fpj->fp", turned[:, 2], self.sole) - self.radius
        found = []
        for points, heights, radius, axes in zip(
            self.sole, height, self.radius, turned, strict=True
        ):
            low = heights < heights.min() + 0.004
            found.append(points[low].mean(0) - axes[2] * radius[low].mean())
        return np.array(found)


def _like(array: Floats, values: Values) -> Values:
    xp = namespace(values)
    if xp is np:
        return array
    return xp.as_tensor(array, dtype=values.dtype, device=values.device)


# ---------------------------------------------------------------- making


@lru_cache(maxsize=8)
def builtin(name: str, planar: bool = False) -> Robot:
    """Return a robot that comes with the product; SettingsError names the nearest."""
    path = BUILTIN / f"{name}.xml"
    if not path.is_file():
        raise SettingsError(unknown("robot", name, [p.stem for p in BUILTIN.glob("*.xml")]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return make(name, mjcf.compile_own(path, planar), digest, planar)


def of_file(path: Path, planar: bool = False, feet: tuple[str, ...] = ()) -> Robot:
    """Return the robot of an MJCF file; DataError in one sentence where it is refused."""
    return _of_file(path, mjcf.digest(path), planar, feet)


@lru_cache(maxsize=8)
def _of_file(path: Path, digest: str, planar: bool, feet: tuple[str, ...]) -> Robot:
    return make(path.stem, mjcf.compile_file(path, planar), digest, planar, feet)


def make(
    name: str, model: mujoco.MjModel, digest: str, planar: bool = False, feet: tuple[str, ...] = ()
) -> Robot:
    """Look through a compiled model; DataError where it is no robot that can be driven here."""
    root = "planar" if planar else "free"
    body, skip = _root(name, model, planar)
    options = (model.opt.gravity, model.opt.wind, [model.opt.timestep])
    if not all(np.isfinite(v).all() for v in options) or not np.isfinite(model.qpos0).all():
        raise DataError(f"{name}: gravity, time step or the first pose is no finite number.")
    ids = tuple(j for j in range(model.njnt) if j not in skip)
    own = below(model, body)
    for j in ids:
        if int(model.jnt_bodyid[j]) not in own:
            raise DataError(
                f"{name}: joint {model.joint(j).name!r} is no part of the robot; only what hangs "
                "on the free root may move."
            )
        if model.jnt_type[j] not in (_SLIDE, _HINGE):
            raise DataError(f"{name}: joint {model.joint(j).name!r} is no hinge and no slide.")
    if not ids:
        raise DataError(f"{name}: the robot has no joints.")
    actuated = _actuators(name, model, ids)
    home = np.array(model.key_qpos[0] if model.nkey else model.qpos0)[len(home_skip(planar)) :]
    chosen = _feet(name, model, body, ids, home, feet)
    sole, radius = _soles(model, chosen)
    joints = tuple(model.joint(j).name or f"joint_{j}" for j in ids)
    return Robot(
        name, digest, model, root, body, ids, joints, actuated, chosen, sole, radius, home  # type: ignore[arg-type]
    )  # fmt: skip


def below(model: mujoco.MjModel, body: int) -> tuple[int, ...]:
    """Return the numbers of `body` and of all bodies that hang on it."""
    found = {body}
    for b in range(body + 1, model.nbody):
        if int(model.body_parentid[b]) in found:
            found.add(b)
    return tuple(sorted(found))


def home_skip(planar: bool) -> range:
    """Return the indices of qpos that the root takes."""
    return range(3 if planar else 7)


def _root(name: str, model: mujoco.MjModel, planar: bool) -> tuple[int, set[int]]:
    if planar:
        return int(model.jnt_bodyid[model.joint("ganglion_root_x").id]), {0, 1, 2}
    free = np.flatnonzero(model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
    if len(free) != 1 or free[0] != 0:
        raise DataError(
            f"{name}: {len(free)} free joints were found; a robot has one, its first joint."
        )
    return int(model.jnt_bodyid[0]), {0}


def _actuators(name: str, model: mujoco.MjModel, ids: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the joint index of every actuator, each a position servo on a joint of its own."""
    found = []
    for a in range(model.nu):
        label = model.actuator(a).name or str(a)
        gain, bias = model.actuator_gainprm[a, 0], model.actuator_biasprm[a]
        servo = (
            model.actuator_trntype[a] == int(mujoco.mjtTrn.mjTRN_JOINT)
            and model.actuator_gaintype[a] == int(mujoco.mjtGain.mjGAIN_FIXED)
            and model.actuator_biastype[a] == int(mujoco.mjtBias.mjBIAS_AFFINE)
            and gain > 0.0 and np.isclose(bias[1], -gain) and bias[0] == 0.0
            and model.actuator_gear[a, 0] == 1.0
        )  # fmt: skip
        if not servo:
            raise DataError(
                f"{name}: actuator {label!r} is no position actuator (affine, gear 1, target in "
                "rad); policies give joint targets."
            )
        joint = int(model.actuator_trnid[a, 0])
        if joint not in ids:
            raise DataError(f"{name}: actuator {label!r} drives the root; only joints are driven.")
        found.append(ids.index(joint))
    if not found:
        raise DataError(f"{name}: the robot has no position actuators.")
    if len(set(found)) != len(found):
        raise DataError(f"{name}: two actuators drive the same joint.")
    return np.array(found)


def _feet(
    name: str, model: mujoco.MjModel, body: int, ids: tuple[int, ...], home: Floats,
    wanted: tuple[str, ...],
) -> tuple[int, ...]:  # fmt: skip
    """Return the bodies that touch the ground first in the home pose, or those named."""
    own = below(model, body)
    names = {model.body(b).name: b for b in own if model.body(b).name}
    for foot in wanted:
        if foot not in names:
            raise SettingsError(unknown("foot", foot, list(names)))
        if not len(_points(model, names[foot])[0]):
            raise DataError(f"{name}: the foot {foot!r} has no geom that touches anything.")
    if wanted:
        return tuple(names[f] for f in wanted)
    parents = {int(model.body_parentid[b]) for b in range(1, model.nbody)}
    leaves = tuple(
        b for b in own
        if b not in parents and b != body and len(_points(model, b)[0]) and model.body(b).name
    )  # fmt: skip
    if not leaves:
        raise DataError(f"{name}: no named leaf body has geoms that touch; name the feet.")
    place, turned = Kinematics(model, body, ids, leaves)(
        np.zeros((1, 3)), np.eye(3)[None], home[None]
    )
    heights = []
    for i, b in enumerate(leaves):
        points, radius = _points(model, b)
        heights.append(float((place[0, i, 2] + points @ turned[0, i, 2] - radius).min()))
    low = min(heights)
    return tuple(b for b, h in zip(leaves, heights, strict=True) if h < low + _NEAR_FLOOR)


def _soles(model: mujoco.MjModel, feet: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return points (F, P, 3) and radii (F, P), each foot's last point repeated to equal P."""
    found = [_points(model, f) for f in feet]
    most = max(len(p) for p, _ in found)
    points = [np.concatenate([p, np.repeat(p[-1:], most - len(p), 0)]) for p, _ in found]
    radii = [np.concatenate([r, np.repeat(r[-1:], most - len(r))]) for _, r in found]
    return np.array(points), np.array(radii)


def _points(model: mujoco.MjModel, body: int) -> tuple[Floats, Floats]:
    """Return points and radii whose hull is that of the body's colliding geoms."""
    points: list[Floats] = [np.zeros((0, 3))]
    radii: list[Floats] = [np.zeros(0)]
    first = int(model.body_geomadr[body])
    for g in range(first, first + int(model.body_geomnum[body])):
        if model.geom_contype[g] == 0 and model.geom_conaffinity[g] == 0:
            continue
        own, radius = _shape(model, g)
        turned = matrix_of(np.array(model.geom_quat[g]))
        points.append(own @ turned.T + model.geom_pos[g])
        radii.append(np.full(len(own), radius))
    return np.concatenate(points), np.concatenate(radii)


def _shape(model: mujoco.MjModel, geom: int) -> tuple[Floats, float]:
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), np.array(model.geom_size[geom])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return np.zeros((1, 3)), float(size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return np.array([[0, 0, -size[1]], [0, 0, size[1]]]), float(size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        turn = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
        ring = np.stack([size[0] * np.cos(turn), size[0] * np.sin(turn), 0 * turn], -1)
        up = np.array([0.0, 0.0, size[1]])
        return np.concatenate([ring + up, ring - up]), 0.0
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        vertices = np.array(model.mesh_vert[first : first + count], np.float64)
        grid = [np.array(d, float) for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)]
        extreme = {int(np.argmax(vertices @ (d - 1.0))) for d in grid}
        return vertices[sorted(extreme)], 0.0
    return corners * size, 0.0  # box; of an ellipsoid the box around it
