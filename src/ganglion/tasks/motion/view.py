"""Pictures of a policy beside its reference, drawn from the robot's own geoms; no graphics card.

Geoms are projected in parallel and painted from back to front. Shapes: T frames.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import ConvexHull, QhullError

from ganglion.core.contracts import Arrays, Policy
from ganglion.tasks.motion import evaluation
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

if TYPE_CHECKING:
    from ganglion.tasks.motion.task import Motion

_INK, _PAPER, _GRID = (38, 44, 54), (250, 249, 246), (225, 224, 219)
_GREY = (165, 168, 174)
_AHEAD = (38, 110, 190)
_FILM_S, _FILM_HZ = 4.0, 25.0
_OVER = 2  # drawn larger and scaled down, for smooth edges


@dataclass(frozen=True)
class Camera:
    """A parallel projection: where it looks from (degrees), what it looks at, pixels per metre."""

    azimuth: float
    elevation: float
    scale: float
    size: tuple[int, int]
    look_at: Floats

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Right, up and towards the camera, in the world."""
        a, e = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        near = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([-np.sin(a), np.cos(a), 0.0])
        return right, np.cross(near, right), near

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Return pixels (N, 2) and nearness (N,) of world points (N, 3)."""
        right, up, near = self.axes
        away = points - self.look_at
        middle = 0.5 * np.array(self.size)
        pixels = np.stack([away @ right, -(away @ up)], -1) * self.scale + middle
        return pixels, away @ near


def draw(
    task: Motion, policy: Policy, cases: Arrays, rng: np.random.Generator
) -> dict[str, Figure]:
    """Return `strip`, moments of one episode, and `joints`, its angles over time."""
    ours, theirs, alive = _episode(task, policy, cases, rng)
    return {
        "strip": _strip(task.world.robot, ours, theirs, alive),
        "joints": _joints(task, ours, theirs, alive),
    }


def animate(task: Motion, policy: Policy, cases: Arrays, rng: np.random.Generator) -> bytes:
    """Return a GIF of four seconds: the policy in colour, the reference in grey behind it."""
    ours, theirs, alive = _episode(task, policy, cases, rng)
    hz = task.world.rates.control_hz
    every = max(1, round(hz / _FILM_HZ))
    stop = min(len(ours), round(_FILM_S * hz), max(1, int(alive.sum()) + every))
    images = [
        _named(film_frame(task.world.robot, ours[t], theirs[t], (480, 300)), t / hz)
        for t in range(0, stop, every)
    ]
    palette = images[0].quantize(64)
    quantised = [i.quantize(palette=palette, dither=Image.Dither.NONE) for i in images]
    out = io.BytesIO()
    quantised[0].save(
        out, "GIF", save_all=True, append_images=quantised[1:], loop=0,
        duration=round(1000 * every / hz), optimize=False,
    )  # fmt: skip
    return out.getvalue()


def _named(image: Image.Image, seconds: float) -> Image.Image:
    """Write into a picture of the film what is what, and when."""
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    words = ((_INK, "policy"), (_GREY, "reference"), (_GREY, f"{seconds:.1f} s"))
    for x, (colour, text) in zip((14, 74, 436), words, strict=True):
        pen.text((x, 10), text, fill=colour, font=font)
    return image


def film_frame(robot: Robot, ours: Floats, theirs: Floats, size: tuple[int, int]) -> Image.Image:
    """Return one picture of two poses (nq,): the first in colour, the second in grey behind it."""
    reach = robot.standing_height
    own, other = (robot.of_qpos(q[None])[0][0] for q in (ours, theirs))
    middle = np.array([0.5 * (own[0] + other[0]), own[1] + 0.7 * reach, 0.55 * reach])
    camera = Camera(-62.0, 14.0, _OVER * size[1] / (2.6 * reach), _big(size), middle)
    image = Image.new("RGB", camera.size, _PAPER)
    pen = ImageDraw.Draw(image)
    _ground(pen, camera, reach)
    _body(pen, camera, robot, theirs, np.array([0.0, 1.4 * reach, 0.0]), grey=True)
    _body(pen, camera, robot, ours, np.zeros(3), grey=False)
    return image.resize(size, Image.Resampling.LANCZOS)


def _big(size: tuple[int, int]) -> tuple[int, int]:
    return _OVER * size[0], _OVER * size[1]


def _episode(
    task: Motion, policy: Policy, cases: Arrays, rng: np.random.Generator
) -> tuple[Floats, Floats, Any]:
    """Return coordinates (T, nq) of the policy and of the reference, and until when it stood."""
    one = {k: np.asarray(v)[:1] for k, v in cases.items()}
    cfg, world = task.settings.evaluation, task.world
    trace = evaluation.simulate(policy, world, one, cfg, rng)
    wanted = evaluation.playback(world, one, cfg)
    until = trace.within[:, 0]
    return trace.qpos[until, 0], wanted.qpos[until, 0], trace.alive[until, 0]


# ---------------------------------------------------------------- painting


def _ground(pen: ImageDraw.ImageDraw, camera: Camera, reach: float) -> None:
    step = reach
    x0, y0 = (step * np.round(camera.look_at[i] / step) for i in (0, 1))
    for k in range(-9, 10):
        for ends in (
            [[x0 + k * step, y0 - 9 * step, 0.0], [x0 + k * step, y0 + 9 * step, 0.0]],
            [[x0 - 9 * step, y0 + k * step, 0.0], [x0 + 9 * step, y0 + k * step, 0.0]],
        ):
            pixels, _ = camera.project(np.array(ends))
            pen.line([tuple(p) for p in pixels], fill=_GRID, width=_OVER)


def _body(
    pen: ImageDraw.ImageDraw, camera: Camera, robot: Robot, qpos: Floats, moved: Floats, grey: bool
) -> None:
    """Paint every geom of the robot at `qpos`, moved sideways, the farthest first."""
    model = robot.model
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    bodies = set(robot.bodies)
    geoms = [g for g in range(model.ngeom) if int(model.geom_bodyid[g]) in bodies]
    places = np.array([data.geom_xpos[g] for g in geoms]) + moved
    _, nearness = camera.project(places)
    for i in np.argsort(nearness):
        g = geoms[int(i)]
        rgb = tuple(int(255 * c) for c in model.geom_rgba[g][:3])
        colour = _mixed(rgb, _GREY, 0.8) if grey else rgb
        turned = data.geom_xmat[g].reshape(3, 3)
        _geom(pen, camera, model, g, (places[int(i)], turned), colour)


def _geom(
    pen: ImageDraw.ImageDraw, camera: Camera, model: Any, geom: int, pose: tuple[Floats, Floats],
    colour: tuple[int, ...],
) -> None:  # fmt: skip
    place, turned = pose
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    edge = _mixed(colour, _INK, 0.35)
    if kind in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER):
        ends = place + np.array([[-1.0], [1.0]]) * turned[:, 2] * size[1]
        pixels, _ = camera.project(ends)
        for radius, fill in ((size[0] * camera.scale, edge), (size[0] * camera.scale - 2, colour)):
            pen.line([tuple(p) for p in pixels], fill=fill, width=max(1, round(2 * radius)))
            for x, y in pixels:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        return
    if kind in (mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_ELLIPSOID):
        ((x, y),), _ = camera.project(place[None])
        r = float(size[0]) * camera.scale
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=edge, width=2)
        return
    points = _corners(model, geom, kind, size) @ turned.T + place
    pixels, _ = camera.project(points)
    try:
        hull = pixels[ConvexHull(pixels).vertices]
    except QhullError:
        return  # seen exactly from its edge
    pen.polygon([tuple(p) for p in hull], fill=colour, outline=edge, width=2)


def _corners(model: Any, geom: int, kind: Any, size: Floats) -> Floats:
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        return np.array(model.mesh_vert[first : first + count], np.float64)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    return signs * size


def _mixed(a: Sequence[int], b: Sequence[int], share: float) -> tuple[int, ...]:
    return tuple(round((1.0 - share) * x + share * y) for x, y in zip(a, b, strict=False))


# ---------------------------------------------------------------- figures


def _strip(robot: Robot, ours: Floats, theirs: Floats, alive: Any) -> Figure:
    """Return six moments, evenly over the time that the robot stood (and the moment after)."""
    last = min(len(ours) - 1, int(alive.sum()))
    moments = np.linspace(0, last, 6).round().astype(int)
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    for i, t in enumerate(moments):
        axes = figure.add_subplot(2, 3, i + 1)
        axes.imshow(np.asarray(film_frame(robot, ours[t], theirs[t], (480, 300))))
        axes.set_axis_off()
        fallen = "" if alive[t] else "  (fallen)"
        axes.set_title(f"{t / 50.0:.1f} s{fallen}", fontsize=9, loc="left")
    figure.suptitle("Policy (front) and reference (grey)", fontsize=11, x=0.02, ha="left")
    return figure


def _joints(task: Motion, ours: Floats, theirs: Floats, alive: Any) -> Figure:
    """Return up to six joints over the first three seconds."""
    world = task.world
    hz, robot = world.rates.control_hz, world.robot
    stop = min(len(ours), round(3.0 * hz), max(2, int(alive.sum())))
    mine, wanted = (robot.of_qpos(q[:stop])[2] for q in (ours, theirs))
    moving = np.argsort(-wanted.std(0), kind="stable")[:6]
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    time = np.arange(stop) / hz
    for i, joint in enumerate(sorted(moving)):
        axes = figure.add_subplot(2, 3, i + 1)
        axes.plot(time, wanted[:, joint], color="#9aa0a8", lw=2.4, label="reference")
        axes.plot(time, mine[:, joint], color="#266ebe", lw=1.6, label="policy")
        axes.set_title(robot.joints[joint].replace("_", " "), fontsize=9, loc="left")
        axes.set_xlabel("time (s)", fontsize=8)
        axes.set_ylabel("rad", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", frameon=False,
                  fontsize=9, ncols=2)  # fmt: skip
    return figure
