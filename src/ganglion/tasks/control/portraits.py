"""Pictures of swings and flights: the optimal flow, the worst cases, the gap over the cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ganglion.core.contracts import Arrays, Policy
from ganglion.tasks.control import grid, oracle, view
from ganglion.tasks.control.evaluation import Run
from ganglion.tasks.control.plant import Floats, Plant

if TYPE_CHECKING:
    from ganglion.tasks.control.task import Control

_SHOWN = 8  # trajectories in the portrait
_WORST = 3


def portrait(task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Figure:
    """Optimal control and flow at the beginning over angle and rate, and how the policy moves."""
    plant = task.plant
    few = {k: np.asarray(cases[k])[:_SHOWN] for k in ("state", "target")}
    states = view.run(policy, task.trial(few, rng), rng).states
    fastest = 1.1 * max(float(np.abs(states[..., 1]).max()), plant.start_box[1])
    angles, rates = np.linspace(-np.pi, np.pi, 161), np.linspace(-fastest, fastest, 141)
    x = np.stack(np.meshgrid(angles, rates), -1).reshape(-1, 2)
    u = grid.first(plant, x)
    moved = plant.error(plant.step(x, u) - x, np.zeros_like(x)) / plant.dt
    flow = moved.T.reshape(2, len(rates), len(angles))
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    image = axes.pcolormesh(angles, rates, u.reshape(len(rates), -1), cmap="coolwarm", alpha=0.55,
                            shading="nearest", rasterized=True)  # fmt: skip
    label = f"optimal {plant.control_labels[0]} ({plant.control_units[0]})"
    figure.colorbar(image, ax=axes, label=label)
    axes.streamplot(
        angles, rates, flow[0], flow[1], color="white", linewidth=0.7, density=1.3, arrowsize=0.7
    )
    for i in range(len(states)):
        _wrapped(axes, states[i])
    axes.plot(0.0, 0.0, "x", color="black", ms=9, mew=2.2)
    axes.set_xlim(-np.pi, np.pi)
    axes.set_ylim(-fastest, fastest)
    axes.set_title(f"The policy from {len(states)} starts (black) over the optimal flow with "
                   f"{plant.horizon_s:g} s left", loc="left", fontsize=11)  # fmt: skip
    view.label(axes, view.state(plant, 0), view.state(plant, 1))
    axes.grid(visible=False)
    return figure


def _wrapped(axes: Axes, path: Floats) -> None:
    """Draw a path (T, 2) with its angle in (-pi, pi], broken where it goes round."""
    angle = (path[:, 0] + np.pi) % (2.0 * np.pi) - np.pi
    jump = np.flatnonzero(np.abs(np.diff(angle)) > np.pi) + 1
    x, y = np.insert(angle, jump, np.nan), np.insert(path[:, 1], jump, np.nan)
    axes.plot(x, y, color="black", lw=1.6, alpha=0.85)
    axes.plot(angle[0], path[0, 1], "o", color="black", ms=6, mec="white")


def worst(task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Figure:
    """The cases that cost most above the optimum: leading states and controls over time."""
    plant = task.truth
    ours = view.run(policy, task.trial(cases, rng), rng)
    excess = ours.cost - task.optimum(cases)[0]
    rows = np.argsort(-excess, kind="stable")[:_WORST]
    state, target = (np.asarray(cases[k], np.float64)[rows] for k in ("state", "target"))
    best = oracle.remembered(plant, state, target)
    figure = Figure(figsize=(10.5, 5.8), layout="constrained")
    axes = figure.subplots(3, len(rows), sharex=True, sharey="row", squeeze=False)
    for column, row in enumerate(rows):
        _case(axes[:, column], plant, ours, int(row), best, column)
    for kind, index in enumerate((*_leading(plant), None)):
        text = view.state(plant, index) if index is not None else _control(plant)
        axes[kind, 0].set_ylabel(text)
    axes[0, 0].legend(frameon=False, fontsize=9)
    return figure


def _case(
    axes: Floats, plant: Plant, ours: Run, row: int, best: oracle.Solution, column: int
) -> None:
    time = np.arange(plant.num_steps + 1) * plant.dt
    for axis, index in zip(axes, _leading(plant), strict=False):
        axis.plot(time, ours.states[row, :, index], color=view.COLOURS[0], lw=2.2, label="policy")
        axis.plot(time, best.states[column, :, index], color=view.INK, lw=1.0, ls=(0, (4, 3)),
                  label="optimum")  # fmt: skip
        view.label(axis, "", "")
    axes[-1].stairs(ours.controls[row, :, 0], time, color=view.COLOURS[0], lw=2.0, baseline=None)
    axes[-1].stairs(best.controls[column, :, 0], time, color=view.INK, lw=1.0, ls=(0, (4, 3)),
                    baseline=None)  # fmt: skip
    view.label(axes[-1], "time (s)", "")
    cost, least = ours.cost[row], best.cost[column]
    axes[0].set_title(f"cost {cost:.4g}, optimum {least:.4g}", loc="left", fontsize=10)


def _leading(plant: Plant) -> tuple[int, int]:
    """The first angle and what else moves first: what a person looks at."""
    angle = plant.angles[0] if plant.angles else 0
    return angle, 1 if angle == 0 else 0


def _control(plant: Plant) -> str:
    return f"{plant.control_labels[0]} ({plant.control_units[0]})"


def cloud(task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Figure:
    """Each case at its start, in the plane of the angle and its rate, by its cost above J*."""
    plant = task.truth
    ours, best = view.run(policy, task.trial(cases, rng), rng), task.optimum(cases)[0]
    gap = 100.0 * (ours.cost - best) / np.maximum(best, np.quantile(best, 0.01))
    start = np.asarray(cases["state"], np.float64)
    across, up = _plane(plant)
    order = np.argsort(gap, kind="stable")  # the worst on top
    figure = Figure(figsize=(6.8, 5.2), layout="constrained")
    axes = figure.add_subplot()
    norm = LogNorm(1e-2, max(1.0, 10.0 ** np.ceil(np.log10(max(float(gap.max()), 1e-2)))))
    shown = np.maximum(gap, 1e-2)[order]
    dots = axes.scatter(start[order, across], start[order, up], 46, shown, norm=norm)
    dots.set_edgecolor("white")
    figure.colorbar(dots, ax=axes, label="cost above the optimum (%)")
    total = 100.0 * (ours.cost.sum() / best.sum() - 1.0)
    axes.set_title(f"{len(gap)} cases by their start, together {total:.3g} % above the optimum",
                   loc="left", fontsize=11)  # fmt: skip
    view.label(axes, "initial " + view.state(plant, across), "initial " + view.state(plant, up))
    return figure


def _plane(plant: Plant) -> tuple[int, int]:
    """The angle and its rate of a swing-up, the position of a flight."""
    if plant.name == "cartpole":
        return 1, 3
    return 0, 1
