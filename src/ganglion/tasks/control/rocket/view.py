"""Pictures of the lander: flights beside the optimum, thrust and mass, where fuel is wasted."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ganglion.core.contracts import Array, Arrays, Policy
from ganglion.tasks.control.rocket import evaluation
from ganglion.tasks.control.rocket.evaluation import Flown
from ganglion.tasks.control.rocket.world import Flags, Floats, Rocket, magnitude

if TYPE_CHECKING:
    from ganglion.tasks.control.rocket.task import RocketLanding

_INK, _QUIET, _GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
COLOURS = ("#2563eb", "#d9480f", "#0f766e", "#9333ea", "#b45309")
_DASHES = (0, (4, 3))
_SHOWN, _WORST, _MOVING = 5, 3, 3
_MOST = 500  # cases looked at
_FRAMES, _HOLD, _FRAME_MS = 48, 12, 100


@dataclass(frozen=True)
class Pair:
    """Flights of the policy and of the optimum from the same starts, and the latter's fuel."""

    state: Floats
    ours: Flown
    best: Flown

    @property
    def gap(self) -> Floats:
        """Fuel over the optimum's, less 1, (B,)."""
        return np.asarray(self.ours.fuel_kg / self.best.fuel_kg - 1.0)


def draw(
    task: RocketLanding, policy: Policy, cases: Arrays, rng: np.random.Generator
) -> dict[str, Figure]:
    """Return figures by name: landings, thrust, worst and gaps."""
    state = landable(task, cases)
    rows = task.evaluate(policy, {"state": state}, rng)
    gap = np.asarray(rows["case_gap"])
    few = pair(task, policy, state[spread(state, _SHOWN)], rng)
    # a plan that misses is worse than any that lands
    missed = (rows["landing"] < 1.0) | (rows["violations"] > 0.0)
    worst = np.argsort(-np.where(missed, 1e3 + rows["final_error"], gap))[:_WORST]
    return {
        "landings": _landings(few),
        "thrust": _thrust(task.rocket, few),
        "worst": _worst(task.rocket, pair(task, policy, state[worst], rng)),
        "gaps": _gaps(task.rocket, state, gap, missed),
    }


def landable(task: RocketLanding, cases: Arrays) -> Floats:
    """Return the first starts that the oracle lands, at most 500; all where it lands none."""
    state = np.asarray(cases["state"], np.float64)[:_MOST]
    solved = cases["solved"][:_MOST] if "solved" in cases else task.optimum(state).solved
    solved = np.asarray(solved, bool)
    return state[solved] if solved.any() else state


def pair(task: RocketLanding, policy: Policy, state: Floats, rng: np.random.Generator) -> Pair:
    """Fly policy and oracle from the starts (B, 7)."""
    oracle = task.references()["oracle"]
    ours = evaluation.fly(task.rocket, policy, state, rng)
    return Pair(state, ours, evaluation.fly(task.rocket, oracle, state, rng))


def spread(state: Floats, count: int) -> Array:
    """Choose starts that lie far from each other on the ground and in height, (count,)."""
    points = state[:, :3]
    chosen = [int(np.argmax((points**2).sum(1)))]
    while len(chosen) < min(count, len(points)):
        gaps = ((points[:, None] - points[chosen]) ** 2).sum(2).min(1)
        chosen.append(int(np.argmax(gaps)))
    return np.array(chosen)


# ---------------------------------------------------------------- figures


def _landings(few: Pair) -> Figure:
    figure = Figure(figsize=(11.0, 5.4), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.1, 1.0))
    space: Any = figure.add_subplot(grid[0], projection="3d")
    _space(space, few)
    side = figure.add_subplot(grid[1])
    _side(side, few, COLOURS)
    handles = [
        side.plot([], [], color=COLOURS[0], lw=2.6, alpha=0.75, label="policy")[0],
        side.plot([], [], color=_INK, lw=1.0, ls=_DASHES, label="fuel optimum")[0],
        side.plot([], [], "o", color=_QUIET, label="start")[0],
        side.plot([], [], "x", color=_INK, mew=2.2, label="target")[0],
    ]
    side.legend(handles=handles, frameon=False, fontsize=9, loc="upper left", ncols=2)
    side.set_ylim(top=1.18 * float(few.ours.flight.position[:, :, 2].max()) / 1e3)
    total = few.ours.fuel_kg.sum() / few.best.fuel_kg.sum() - 1.0
    landed = f"{int(few.ours.landed.sum())} of {len(few.state)} landings"
    _title(side, f"{landed}, fuel {100 * total:.2g} % above the optimum")
    return figure


def _space(axes: Any, few: Pair) -> None:
    """Draw flights and their shadows in kilometres."""
    for i, colour in zip(range(len(few.state)), COLOURS, strict=False):
        ours = few.ours.flight.position[i].T / 1e3
        best = few.best.flight.position[i].T / 1e3
        axes.plot(*ours[:2], 0.0 * ours[2], color=_QUIET, lw=1.2, alpha=0.6)
        axes.plot(*ours, color=colour, lw=2.6, alpha=0.75)
        axes.plot(*best, color=_INK, lw=1.0, ls=_DASHES)
        axes.plot(*ours[:, :1], "o", color=colour, ms=6)
    axes.plot([0], [0], [0], "x", color=_INK, ms=9, mew=2.2)
    _frame_space(axes, few)


def _frame_space(axes: Any, few: Pair) -> None:
    both = np.concatenate([few.ours.flight.position, few.best.flight.position]) / 1e3
    reach = 1.05 * float(np.abs(both[..., :2]).max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(0.0, float(both[..., 2].max())))
    axes.set_box_aspect((1.0, 1.0, 0.75), zoom=0.95)
    axes.set_xlabel("x (km)", color=_INK)
    axes.set_ylabel("y (km)", color=_INK)
    axes.set_zlabel("height (km)", color=_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    for wall in (axes.xaxis, axes.yaxis, axes.zaxis):
        wall.set_pane_color("white")
        wall._axinfo["grid"].update(color=_GRID, linewidth=0.8)
        wall.set_major_locator(MaxNLocator(5))


def _side(axes: Axes, few: Pair, colours: tuple[str, ...]) -> None:
    """Draw height over the distance to the target on the ground, in kilometres."""
    for i, colour in zip(range(len(few.state)), colours, strict=False):
        looks: list[tuple[Flown, dict[str, Any]]] = [
            (few.ours, {"color": colour, "lw": 2.6, "alpha": 0.75}),
            (few.best, {"color": _INK, "lw": 1.0, "ls": _DASHES}),
        ]
        for flown, look in looks:
            place = flown.flight.position[i] / 1e3
            axes.plot(magnitude(place[:, :2]), place[:, 2], **look)
        start = few.state[i, :3] / 1e3
        axes.plot(magnitude(start[:2]), start[2], "o", color=colour, ms=6)
    axes.plot(0.0, 0.0, "x", color=_INK, ms=9, mew=2.2, zorder=5)
    axes.axhline(0.0, color=_QUIET, lw=1.0, zorder=0)
    _label(axes, "distance to the target (km)", "height (km)")


def _thrust(rocket: Rocket, few: Pair) -> Figure:
    count = min(3, len(few.state))
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    axes = figure.subplots(2, count, sharex="col", sharey="row", squeeze=False)
    for i in range(count):
        _throttle(axes[0, i], rocket, few, i, COLOURS[i])
        _mass(axes[1, i], few, i, COLOURS[i])
        fuel = few.ours.fuel_kg[i], few.best.fuel_kg[i]
        _title(axes[0, i], f"{fuel[0]:.1f} kg, optimum {fuel[1]:.1f} kg")
        _label(axes[0, i], "", "thrust / bound" if i == 0 else "")
        _label(axes[1, i], "time (s)", "mass / start" if i == 0 else "")
    axes[0, 0].set_ylim(-0.04, 1.12)
    lines = [axes[0, -1].lines[0], axes[0, -1].lines[1]]
    axes[1, -1].legend(lines, ["policy", "fuel optimum"], frameon=False, fontsize=9)
    return figure


def _throttle(axes: Axes, rocket: Rocket, few: Pair, i: int, colour: str) -> None:
    looks: list[tuple[Flown, dict[str, Any]]] = [
        (few.ours, {"color": colour, "lw": 2.2, "alpha": 0.8}),
        (few.best, {"color": _INK, "lw": 1.0, "ls": _DASHES}),
    ]
    for flown, look in looks:
        share = rocket.throttle(
            few.state[i : i + 1], flown.controls[i : i + 1], flown.final_time_s[i : i + 1]
        )[0]
        axes.plot(_nodes(flown, i), np.append(share, share[-1]), drawstyle="steps-post", **look)
    axes.axhline(1.0, color=_QUIET, lw=1.0, zorder=0)


def _mass(axes: Axes, few: Pair, i: int, colour: str) -> None:
    start = few.state[i, 6]
    axes.plot(_nodes(few.ours, i), few.ours.flight.mass[i] / start, color=colour, lw=2.2, alpha=0.8)
    axes.plot(_nodes(few.best, i), few.best.flight.mass[i] / start, color=_INK, lw=1.0, ls=_DASHES)


def _nodes(flown: Flown, i: int) -> Floats:
    """Return the times of the nodes, (N + 1,) in s."""
    return np.linspace(0.0, flown.final_time_s[i, 0], flown.flight.mass.shape[1])


def _worst(rocket: Rocket, few: Pair) -> Figure:
    """Draw the costliest cases: what they fly, and when they burn."""
    count = len(few.state)
    figure = Figure(figsize=(11.0, 5.4), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False, height_ratios=(1.25, 1.0))
    for i in range(count):
        one = Pair(few.state[i : i + 1], _only(few.ours, i), _only(few.best, i))
        _side(axes[0, i], one, (COLOURS[1],))
        _throttle(axes[1, i], rocket, few, i, COLOURS[1])
        axes[1, i].set_ylim(-0.04, 1.12)
        _label(axes[1, i], "time (s)", "thrust / bound")
        z, sinks, mass = few.state[i, 2], -few.state[i, 5], few.state[i, 6]
        gap = f"{100 * few.gap[i]:.3g} % above the optimum" if few.ours.landed[i] else "no landing"
        _title(axes[0, i], f"{gap}\n{z:.0f} m up, {sinks:.0f} m/s down, {mass / 1e3:.1f} t")
    lines = axes[0, -1].lines[:2]
    axes[0, -1].legend(lines, ["policy", "fuel optimum"], frameon=False, fontsize=9)
    return figure


def _only(flown: Flown, i: int) -> Flown:
    here = slice(i, i + 1)
    flight = type(flown.flight)(
        flown.flight.position[here], flown.flight.velocity[here], flown.flight.mass[here]
    )
    return Flown(
        flight, flown.commanded[here], flown.controls[here], flown.final_time_s[here],
        flown.fuel_kg[here],
    )  # fmt: skip


def _gaps(rocket: Rocket, state: Floats, gap: Floats, missed: Flags) -> Figure:
    """Show where fuel is wasted: the less height is left for braking, the more."""
    spare = rocket.spare_height(state) / 1e3
    percent = 100.0 * np.maximum(gap, 1e-4)
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    distance = magnitude(state[:, :2]) / 1e3
    dots = axes.scatter(spare, percent, c=distance, cmap="viridis", s=14, lw=0, alpha=0.85)
    bar = figure.colorbar(dots, ax=axes)
    bar.set_label("distance to the target (km)", color=_INK)
    bar.outline.set_visible(False)
    if missed.any():
        axes.scatter(spare[missed], percent[missed], s=60, facecolors="none",
                     edgecolors=COLOURS[1], label="no landing, or a bound exceeded")  # fmt: skip
        axes.legend(frameon=False, fontsize=9)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.set_title(
        f"{len(state)} cases: median {100 * np.nanmedian(gap):.2g} %, "
        f"worst {100 * np.nanmax(gap):.3g} %",
        loc="left", color=_INK, fontsize=11,
    )  # fmt: skip
    _label(axes, "height left by a full brake straight down (km)", "fuel above the optimum (%)")
    return figure


# ---------------------------------------------------------------- animation


def animate(task: RocketLanding, policy: Policy, cases: Arrays, rng: np.random.Generator) -> bytes:
    """Return a GIF of a few landings, policy and optimum together, in quick motion."""
    state = landable(task, cases)
    few = pair(task, policy, state[spread(state, _MOVING)], rng)
    end = float(max(few.ours.final_time_s.max(), few.best.final_time_s.max()))
    pictures = [_frame(task.rocket, few, t, end) for t in np.linspace(0.0, end, _FRAMES)]
    held = [*pictures, *[pictures[-1]] * _HOLD]
    out = BytesIO()
    held[0].save(
        out, "GIF", save_all=True, append_images=held[1:], loop=0, optimize=True,
        duration=_FRAME_MS,
    )  # fmt: skip
    return out.getvalue()


def _frame(rocket: Rocket, few: Pair, t: float, end: float) -> Image.Image:
    figure = Figure(figsize=(6.4, 6.2), dpi=80, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(4.2, 1.0))
    space: Any = figure.add_subplot(grid[0], projection="3d")
    for i, colour in zip(range(len(few.state)), COLOURS, strict=False):
        _moving(space, rocket, few, i, t, colour)
    space.plot([0], [0], [0], "x", color=_INK, ms=9, mew=2.2)
    _frame_space(space, few)
    space.set_title(f"t = {t:.1f} s", loc="left", color=_INK, fontsize=11)
    strip = figure.add_subplot(grid[1])
    for i, colour in zip(range(len(few.state)), COLOURS, strict=False):
        _throttle(strip, rocket, few, i, colour)
    strip.axvline(t, color=_QUIET, lw=1.5)
    strip.set(xlim=(0.0, end), ylim=(-0.06, 1.15))
    _label(strip, "time (s)", "thrust / bound")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return picture.quantize(64, dither=Image.Dither.NONE)


def _moving(axes: Any, rocket: Rocket, few: Pair, i: int, t: float, colour: str) -> None:
    """Draw what case i has flown by t, and its flame: against the thrust, as long as it is."""
    looks: list[tuple[Flown, dict[str, Any]]] = [
        (few.best, {"color": _INK, "lw": 1.0, "ls": _DASHES}),
        (few.ours, {"color": colour, "lw": 2.4, "alpha": 0.75}),
    ]
    for flown, look in looks:
        times, path = _nodes(flown, i), flown.flight.position[i] / 1e3
        now = np.array([np.interp(t, times, column) for column in path.T])
        past = np.concatenate([path[times < t], now[None]])
        axes.plot(*past.T, **look)
    axes.plot(*past[:, :2].T, 0.0 * past[:, 2], color=_QUIET, lw=1.0, alpha=0.5)
    k = min(int(t / times[-1] * rocket.num_steps), rocket.num_steps - 1)
    if t < times[-1]:
        share = few.ours.controls[i, k] * few.ours.flight.mass[i, k] / rocket.thrust
        flame = np.stack([now, now - 0.35 * share])
        axes.plot(*flame.T, color="#f59e0b", lw=4.0, solid_capstyle="round")
    axes.plot(*now[:, None], "o", color=colour, ms=9, mec="white")


# ---------------------------------------------------------------- looks


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=_INK, fontsize=10)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)
