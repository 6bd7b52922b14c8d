"""Pictures: walks beside shortest paths, failures, quality by distance, steps and data size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ganglion.core.contracts import Array, Arrays, Policy
from ganglion.tasks.gridnav import evaluation, paths, references, rollout
from ganglion.tasks.gridnav.evaluation import Trial
from ganglion.tasks.gridnav.grids import STAY, STEPS, UNKNOWN, Bools, Ints

if TYPE_CHECKING:
    from ganglion.tasks.gridnav.task import GridNav

INK, QUIET, LINES = "#1f2933", "#9aa5b1", "#e4e7eb"
COLOURS = ("#2563eb", "#d9480f", "#0f766e", "#9333ea", "#b45309", "#be185d")
WALL, FLOOR, WRONG, LOST = "#b8c2cc", "#ffffff", "#fdd0b5", "#d9efea"
CAPTIONS: Final[Mapping[str, str]] = {
    "paths": "Six maps from short ways to long ones: the policy blue, a shortest path dashed.",
    "field": "The policy's move in every cell: blue optimal, orange not, pale green where it says "
    "that there is no way.",
    "failures": "Where the policy fails: cells whose move is not optimal are orange, and the blue "
    "way is that from the failing start whose way is longest.",
    "distance": "Starts that arrive by their distance to the goal, beside a walk towards the goal.",
    "steps": "Optimal moves and arrivals after fewer and more recursion steps than are used; they "
    "are rounded up to the policy's stride.",
}
CLAIMS: Final = {  # accuracy by number of states, as the original's guide claims
    "claimed, plain": {1_000: (50, 65), 5_000: (65, 80), 10_000: (75, 85), 50_000: (85, 92),
                       100_000: (90, 95)},
    "claimed, augmented": {5_000: (85, 85), 10_000: (90, 90), 50_000: (95, 95)},
}  # fmt: skip
_SHOWN = 6
_GALLERY = 8
_FIELD = 24  # greatest side of a map whose arrows can be told apart


def draw(
    task: GridNav, policy: Policy, cases: Arrays, rng: np.random.Generator,
    curves: Arrays | None = None,
) -> dict[str, Figure]:  # fmt: skip
    """Return figures by name: paths, field, failures (if any), distance, steps (if it has any)."""
    trial = task.trial(cases)
    moves = trial.moves(policy, rng)
    figures = {"paths": _paths(trial, moves, spread(trial))}
    if max(trial.held.free.shape[1:]) <= _FIELD:
        figures["field"] = _field(trial, moves, int(spread(trial)[-1]))
    failures = _failures(trial, moves)
    if failures is not None:
        figures["failures"] = failures
    figures["distance"] = _distance(trial, moves)
    curves = task.curves(policy, cases) if curves is None else curves
    if curves:
        figures["steps"] = steps_figure(curves, trial.steps)
    return figures


def spread(trial: Trial, count: int = _SHOWN) -> Ints:
    """Choose maps whose drawn starts lie from near to far, the farthest last, (count,)."""
    start = trial.held.start
    far = trial.distance[np.arange(len(start)), start[:, 0], start[:, 1]]
    order: Ints = np.argsort(far, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)]


# ---------------------------------------------------------------- maps


def ground(axes: Axes, free: Bools, wrong: Bools | None = None, lost: Bools | None = None) -> None:
    """Draw one map (H, W): walls, floor, and cells that are wrong or have no way."""
    kind = np.where(free, 1, 0)
    if lost is not None:
        kind[lost] = 3
    if wrong is not None:
        kind[wrong] = 2
    colours = ListedColormap([WALL, FLOOR, WRONG, LOST])
    axes.imshow(kind, cmap=colours, vmin=0, vmax=3, interpolation="nearest")
    height, width = free.shape
    if max(free.shape) <= 40:
        for n in range(width + 1):
            axes.axvline(n - 0.5, color=LINES, lw=0.6, zorder=1)
        for n in range(height + 1):
            axes.axhline(n - 0.5, color=LINES, lw=0.6, zorder=1)
    axes.set_xlim(-0.55, width - 0.45)
    axes.set_ylim(height - 0.45, -0.55)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def ends(axes: Axes, start: Ints, goal: Ints, colour: str = COLOURS[0]) -> None:
    """Mark a robot's cell and its goal."""
    axes.plot(start[1], start[0], "o", color=colour, ms=6, mec="white", zorder=5)
    axes.plot(goal[1], goal[0], "X", color=INK, ms=8, mec="white", zorder=5)


def way(axes: Axes, cells: Ints, **how: Any) -> None:
    """Draw a way through cells (T, 2)."""
    axes.plot(cells[:, 1], cells[:, 0], solid_joinstyle="round", solid_capstyle="round", **how)


def walked(trial: Trial, moves: Ints, row: int, start: Ints) -> tuple[Ints, str]:
    """Return the cells (T, 2) that a start leads through, up to arrival, wall or repetition.

    And how it ends: "arrives", "collides" or "goes round".
    """
    free, goal = trial.held.free[row], trial.held.goal[row]
    cell, cells, seen = np.asarray(start), [np.asarray(start)], set()
    while not (cell == goal).all():
        if tuple(cell) in seen:
            return np.array(cells), "goes round"
        seen.add(tuple(cell))
        cell = cell + STEPS[min(int(moves[row][tuple(cell)]), STAY)]
        inside = (cell >= 0).all() and (cell < free.shape).all()
        cells.append(cell)
        if not inside or not free[tuple(cell)]:
            return np.array(cells), "collides"
    return np.array(cells), "arrives"


def shortest(trial: Trial, row: int, start: Ints) -> Ints:
    """Return the cells (T, 2) of a shortest path from a start in one map."""
    oracle = references.Oracle().act(
        references.inputs(trial.held.free[row : row + 1], trial.held.goal[row : row + 1])
    )["moves"]
    most = int(trial.distance[row][tuple(start)])
    found: Ints = paths.walk(oracle, start[None], trial.held.goal[row : row + 1], most)[0][0]
    return found


def finish(axes: Axes, cells: Ints, end: str) -> None:
    """Mark where a way that does not arrive ends: at a wall, or where it begins to repeat."""
    if end != "arrives":
        mark = "x" if end == "collides" else "o"
        axes.plot(cells[-1, 1], cells[-1, 0], mark, color=COLOURS[1], mfc="none", ms=9, mew=2.2,
                  zorder=6, clip_on=False)  # fmt: skip


def _paths(trial: Trial, moves: Ints, rows: Ints) -> Figure:
    figure, panels = _panels(len(rows), 3, 3.3, trial.held.free[0])
    for axes, row in zip(panels, rows, strict=True):
        start, goal = trial.held.start[row], trial.held.goal[row]
        ours, end = walked(trial, moves, row, start)
        best = shortest(trial, row, start)
        ground(axes, trial.held.free[row])
        way(axes, ours, color=COLOURS[0], lw=3.0, alpha=0.75, zorder=3)
        way(axes, best, color=INK, lw=1.1, ls=(0, (4, 3)), zorder=4)
        ends(axes, start, goal)
        finish(axes, ours, end)
        length = f"moves: {len(ours) - 1}" if end == "arrives" else end
        axes.set_title(f"{length}, shortest {len(best) - 1}", loc="left", fontsize=9, color=INK)
    handles = [
        panels[0].plot([], [], color=COLOURS[0], lw=3.0, alpha=0.75, label="policy")[0],
        panels[0].plot([], [], color=INK, lw=1.1, ls=(0, (4, 3)), label="a shortest path")[0],
        panels[0].plot([], [], "o", color=COLOURS[0], label="start", ls="")[0],
        panels[0].plot([], [], "X", color=INK, label="goal", ls="")[0],
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return figure


def _panels(count: int, columns: int, inches: float, free: Bools) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` axes of the shape of a map, `inches` wide each."""
    columns = min(columns, count)
    rows = -(-count // columns)
    height = inches * free.shape[0] / free.shape[1] + 0.3
    figure = Figure(figsize=(inches * columns, height * rows + 0.3), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.set_axis_off()
    return figure, panels[:count]


def _field(trial: Trial, moves: Ints, row: int) -> Figure:
    free, goal, said = trial.held.free[row], trial.held.goal[row], moves[row]
    right = evaluation.optimal(said[None], trial.held.moves[row : row + 1])[0]
    figure, (axes,) = _panels(1, 1, 5.2, free)
    ground(axes, free, lost=free & (said == UNKNOWN))
    going = free & (said < STAY)
    for chosen, colour in ((going & right, COLOURS[0]), (going & ~right, COLOURS[1])):
        row_, column = np.nonzero(chosen)
        step = STEPS[said[chosen]]
        axes.quiver(column, row_, step[:, 1], step[:, 0], color=colour, angles="xy", pivot="mid",
                    scale_units="xy", scale=1.5, width=0.09 / max(free.shape), headwidth=4,
                    headlength=4, headaxislength=3.6, units="width", zorder=3)  # fmt: skip
    axes.plot(goal[1], goal[0], "X", color=INK, ms=9, mec="white", zorder=5)
    wrong = int((free & ~right & (trial.distance[row] >= 0)).sum())
    text = f"{int(free.sum())} free cells, {wrong} with another move than an optimal one"
    axes.set_title(text, loc="left", fontsize=10, color=INK)
    return figure


def _failures(trial: Trial, moves: Ints) -> Figure | None:
    """Draw the maps with most failing starts, then most wrong cells; None where all is right."""
    held, reachable = trial.held, trial.distance >= 0
    wrong = reachable & ~evaluation.optimal(moves, held.moves)
    failing = (trial.distance > 0) & ~rollout.follow(moves, held.free, held.goal).arrived
    order = np.lexsort((-wrong.sum((1, 2)), -failing.sum((1, 2))))
    rows = [int(r) for r in order[:_GALLERY] if wrong[r].any()]
    if not rows:
        return None
    figure, panels = _panels(len(rows), 4, 2.7, held.free[0])
    for axes, row in zip(panels, rows, strict=True):
        among = failing[row] if failing[row].any() else wrong[row]
        far = np.where(among, trial.distance[row], -1)
        start = np.array(np.unravel_index(int(far.argmax()), far.shape))
        cells, end = walked(trial, moves, row, start)
        ground(axes, held.free[row], wrong[row], held.free[row] & ~reachable[row])
        way(axes, cells, color=COLOURS[0], lw=2.4, alpha=0.8, zorder=3)
        ends(axes, start, held.goal[row])
        finish(axes, cells, end)
        made = f"{len(cells) - 1} moves for {far.max()}" if end == "arrives" else end
        axes.set_title(f"{made}; {int(wrong[row].sum())} wrong, {int(failing[row].sum())} fail",
                       loc="left", fontsize=8.5, color=INK)  # fmt: skip
    return figure


# ---------------------------------------------------------------- curves


def _distance(trial: Trial, moves: Ints) -> Figure:
    greedy = references.Greedy().act(references.inputs(trial.held.free, trial.held.goal))["moves"]
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    lines: Sequence[tuple[str, Array, str]] = (
        ("policy arrives", moves, "success"), ("policy's move is optimal", moves, "optimal"),
        ("towards the goal arrives", greedy, "success"),
    )  # fmt: skip
    for (name, said, key), (colour, mark) in zip(
        lines, ((COLOURS[0], "-o"), (COLOURS[2], "--s"), (QUIET, "-^")), strict=True
    ):
        found = evaluation.by_distance(said, trial)
        axes.plot(found["distance"], 100.0 * found[key], mark, color=colour, lw=2.0, ms=4.5,
                  label=name)  # fmt: skip
    axes.set_ylim(-2.0, 103.0)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    axes.set_title("By distance to the goal", loc="left", color=INK, fontsize=11)
    label(axes, "shortest path (moves)", "share of cells (%)")
    return figure


def steps_figure(curves: Arrays, used: int | None) -> Figure:
    """Draw what fewer and more recursion steps achieve; curves as `evaluation.over_steps`."""
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, key, colour, mark in (
        ("move is optimal", "optimal", COLOURS[0], "-o"), ("arrives", "success", COLOURS[2], "--s"),
    ):  # fmt: skip
        axes.plot(curves["steps"], 100.0 * curves[key], mark, color=colour, lw=2.0, ms=4.5,
                  label=name)  # fmt: skip
    if used is not None:
        axes.axvline(used, color=QUIET, lw=1.0)
        axes.annotate("used", (used, 2.0), xytext=(4, 0), textcoords="offset points",
                      color=QUIET, fontsize=9)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(-2.0, 103.0)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.set_title("Over recursion steps", loc="left", color=INK, fontsize=11)
    label(axes, "recursion steps", "share of cells (%)")
    return figure


def learning_curve(measured: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw accuracy over the number of training states, beside the guide's claims.

    measured: name -> {states: accuracy in 0..1}. Claims are ranges in per cent.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, points), colour, mark in zip(
        measured.items(), COLOURS, ("-o", "-s", "-^", "-D", "-v", "-P"), strict=False
    ):
        sizes = sorted(points)
        axes.plot(sizes, [100.0 * points[n] for n in sizes], mark, color=colour, lw=2.2, ms=5,
                  label=name)  # fmt: skip
    for (name, claims), shift, colour in zip(CLAIMS.items(), (0.97, 1.03), (QUIET, INK),
                                             strict=True):  # fmt: skip
        at = shift * np.array(sorted(claims))
        low, high = np.array([claims[n] for n in sorted(claims)], np.float64).T
        middle = (low + high) / 2
        axes.errorbar(at, middle, [middle - low, high - middle], fmt="_", color=colour,
                      capsize=3, lw=1.6, ms=8, label=name)  # fmt: skip
    axes.set_xscale("log")
    least = min((size for points in measured.values() for size in points), default=1_000)
    axes.set_xlim(0.8 * min(1_000, least), 130_000)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.set_title("Accuracy over the number of training states", loc="left", color=INK,
                   fontsize=11)  # fmt: skip
    label(axes, "training states", "accuracy (%)")
    return figure


def label(axes: Axes, x: str, y: str) -> None:
    """Name the axes and give them the look of all pictures here."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color=LINES, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
