"""Pictures: trajectories against the oracle, refinement over cycles, cost gap over starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ganglion.core.contracts import Arrays, Policy
from ganglion.tasks.control import evaluation, oracle
from ganglion.tasks.control.evaluation import Run, Trial
from ganglion.tasks.control.plant import Floats, Plant

if TYPE_CHECKING:
    from ganglion.tasks.control.task import Control

INK, _QUIET, _GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
COLOURS = ("#2563eb", "#d9480f", "#0f766e", "#9333ea", "#b45309", "#be185d")
_SHOWN = len(COLOURS)
_MAP = 41  # starts along each side of the gap map
_REACH = 1.5  # the gap map's half-width, in start boxes


def draw(
    task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator,
    curves: Arrays | None = None,
) -> dict[str, Figure]:  # fmt: skip
    """Return figures by name: trajectories, gap_map (two states), refinement (with cycles)."""
    figures = {"trajectories": _trajectories(task, policy, cases, rng)}
    if task.plant.n == 2:
        figures["gap_map"] = _gap_map(task, policy, cases, rng)
    if task.plant.angles:
        figures |= _of_angles(task, policy, cases, rng)
    curves = task.curves(policy, cases) if curves is None else curves
    if curves:
        figures["refinement"] = _refinement(task, curves)
    return figures


def _of_angles(
    task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator
) -> dict[str, Figure]:
    from ganglion.tasks.control import portraits

    figures = {"worst": portraits.worst(task, policy, cases, rng)}
    if task.plant.method == "grid":
        figures["portrait"] = portraits.portrait(task, policy, cases, rng)
    if task.plant.n > 2:
        figures["gap_map"] = portraits.cloud(task, policy, cases, rng)
    return figures


def run(policy: Policy, trial: Trial, rng: np.random.Generator) -> Run:
    """Run a policy as it is scored: a whole plan in open loop, feedback in closed loop."""
    if evaluation.plan_length(policy) == trial.plant.num_steps > 1:
        outputs = trial.call(policy, rng, trial.state, trial.plant.horizon_s, {})
        return trial.open_loop(np.asarray(outputs["controls"], np.float64))
    return trial.closed_loop(policy, rng)


def spread(cases: Arrays) -> Arrays:
    """Choose a few cases that lie far from each other: the farthest from those chosen, in turn."""
    points = np.asarray(cases["state"], np.float64)[:500]
    chosen = [int(np.argmax((points**2).sum(1)))]
    while len(chosen) < min(_SHOWN, len(points)):
        gaps = ((points[:, None] - points[chosen]) ** 2).sum(2).min(1)
        chosen.append(int(np.argmax(gaps)))
    return {k: np.asarray(cases[k])[chosen] for k in ("state", "target")}


def _trajectories(task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Figure:
    few = spread(cases)
    trial = task.trial(few, rng)
    plant = trial.plant
    ours, best = run(policy, trial, rng), oracle.remembered(plant, trial.state, trial.target)
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1.0))
    plane = figure.add_subplot(grid[:, 0])
    phase(plane, plant, ours.states, best.states, trial.target)
    over_time, control = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    _over_time(over_time, plant, ours.states[..., 0], best.states[..., 0])
    _controls(control, plant, ours.controls[..., 0], best.controls[..., 0])
    gap = ours.cost.sum() / best.cost.sum() - 1.0
    plane.set_title(
        f"{len(ours.cost)} cases, cost {100 * gap:.3g} % above the optimum", loc="left",
        color=INK, fontsize=11,
    )  # fmt: skip
    return figure


def phase(axes: Axes, plant: Plant, ours: Floats, best: Floats, target: Floats) -> None:
    """Draw trajectories (B, T, n) of policy and optimum in the plane of the first two states."""
    for i, colour in zip(range(len(ours)), COLOURS, strict=False):
        axes.plot(*best[i, :, :2].T, color=INK, lw=1.0, ls=(0, (4, 3)), zorder=3)
        axes.plot(*ours[i, :, :2].T, color=colour, lw=2.6, alpha=0.75, zorder=2)
        axes.plot(*ours[i, 0, :2], "o", color=colour, ms=6, zorder=4)
        end = best[i, -1]
        goal = end - plant.error(end, target[i])  # as many turns away as the optimum took
        axes.plot(*goal[:2], "x", color=colour, ms=9, mew=2.2, zorder=5)
    handles = [
        axes.plot([], [], color=COLOURS[0], lw=2.6, alpha=0.75, label="policy")[0],
        axes.plot([], [], color=INK, lw=1.0, ls=(0, (4, 3)), label="optimum")[0],
        axes.plot([], [], "o", color=_QUIET, label="start")[0],
        axes.plot([], [], "x", color=_QUIET, mew=2.2, label="target")[0],
    ]
    axes.legend(handles=handles, frameon=False, fontsize=9, ncols=2)
    label(axes, state(plant, 0), state(plant, 1))


def _over_time(axes: Axes, plant: Plant, ours: Floats, best: Floats) -> None:
    time = np.arange(ours.shape[1]) * plant.dt
    for i, colour in zip(range(len(ours)), COLOURS, strict=False):
        axes.plot(time, ours[i], color=colour, lw=2.2, alpha=0.75)
        axes.plot(time, best[i], color=INK, lw=0.9, ls=(0, (4, 3)))
    label(axes, "", state(plant, 0))
    axes.set_xlim(0.0, time[-1])


def _controls(axes: Axes, plant: Plant, ours: Floats, best: Floats) -> None:
    edges = np.arange(ours.shape[1] + 1) * plant.dt
    low, high = float(plant.low[0]), float(plant.high[0])
    for i, colour in zip(range(len(ours)), COLOURS, strict=False):
        axes.stairs(ours[i], edges, color=colour, lw=2.2, alpha=0.75, baseline=None)
        axes.stairs(best[i], edges, color=INK, lw=0.9, ls=(0, (4, 3)), baseline=None)
    for limit in (low, high):
        axes.axhline(limit, color=_QUIET, lw=1.0)
    axes.annotate("bound", (edges[-1], high), xytext=(-3, -3), textcoords="offset points",
                  ha="right", va="top", fontsize=8, color=_QUIET)  # fmt: skip
    label(axes, "time (s)", _with_unit(plant.control_labels[0], plant.control_units[0]))
    axes.set_xlim(0.0, edges[-1])
    margin = 0.06 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def _gap_map(task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Figure:
    """Colour each initial state by J / J* - 1; the target is the case's nearest the origin."""
    scale = task.problem.start_scale
    box = np.array(task.plant.start_box[:2]) * scale
    reach = [1.0 if i in task.plant.angles else _REACH for i in range(2)]  # a turn is all there is
    sides = [np.linspace(-r * b, r * b, _MAP) for r, b in zip(reach, box, strict=True)]
    starts = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
    targets = np.asarray(cases["target"], np.float64)
    target = targets[int(np.argmin((targets**2).sum(1)))]
    trial = task.trial({"state": starts, "target": np.tile(target, (len(starts), 1))}, rng)
    ours = run(policy, trial, rng)
    best = oracle.remembered(trial.plant, trial.state, trial.target)
    # Next to the target J* vanishes, and the ratio with it: compare with the 1 % quantile there.
    floor = np.quantile(best.cost, 0.01)
    gap = 100.0 * np.maximum(ours.cost - best.cost, 0.0) / np.maximum(best.cost, floor)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.add_subplot()
    colours = np.log10(np.maximum(gap, 1e-4)).reshape(_MAP, _MAP)
    top = max(float(np.ceil(colours.max())), -1.0)
    image = axes.pcolormesh(*sides, colours, cmap="viridis", shading="gouraud", vmin=-4.0,
                            vmax=top)  # fmt: skip
    bar = figure.colorbar(image, ax=axes, label="cost above the optimum (%)")
    ticks = np.arange(-4, int(top) + 1)
    bar.set_ticks([float(t) for t in ticks])
    bar.set_ticklabels([f"{10.0**t:g}" for t in ticks])
    axes.plot(box[0] * np.array([-1, 1, 1, -1, -1]), box[1] * np.array([-1, -1, 1, 1, -1]),
              color="white", lw=1.6)  # fmt: skip
    axes.annotate("training box", (-box[0], box[1]), xytext=(5, -5), textcoords="offset points",
                  va="top", color="white", fontsize=9)  # fmt: skip
    axes.plot(*target, "x", color="white", ms=9, mew=2.2)
    axes.set_title("Where the policy pays more than the optimum", loc="left", color=INK,
                   fontsize=11)  # fmt: skip
    label(axes, "initial " + state(task.plant, 0), "initial " + state(task.plant, 1))
    axes.grid(visible=False)
    return figure


def _refinement(task: Control, curves: Arrays) -> Figure:
    cycles, trained = curves["cycles"], task.settings.cycles
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    gap = 100.0 * np.maximum(curves["gap"], 1e-8)
    axes.plot(cycles, gap, "-o", color=COLOURS[0], lw=2.2, ms=4)
    rising = curves["rising"] > 0
    if rising.any():
        axes.plot(cycles[rising], gap[rising], "o", color=COLOURS[1], ms=7,
                  label="cost rises in some cases")  # fmt: skip
        axes.legend(frameon=False, fontsize=9)
    if trained is not None:
        axes.axvline(trained, color=_QUIET, lw=1.0)
        axes.annotate("trained", (trained, gap.max()), xytext=(4, 0), color=_QUIET, fontsize=9,
                      textcoords="offset points", va="top")  # fmt: skip
    axes.set_yscale("log")
    axes.set_title("Refinement over cycles", loc="left", color=INK, fontsize=11)
    label(axes, "cycles", "cost above the optimum (%)")
    return figure


def state(plant: Plant, index: int) -> str:
    """Return a state's label with its unit."""
    return _with_unit(plant.state_labels[index], plant.state_units[index])


def _with_unit(label: str, unit: str) -> str:
    return label if unit == "1" else f"{label} ({unit})"


def label(axes: Axes, x: str, y: str) -> None:
    """Name the axes and give them the look of all pictures here."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)
