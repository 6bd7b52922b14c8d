"""A GIF of the policy beside the optimum: both move through the phase plane at the same time.

A plant that can be drawn as one sees it stands beside that, in the case that costs most.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ganglion.core.contracts import Arrays, Policy
from ganglion.tasks.control import oracle, view
from ganglion.tasks.control.plant import Floats, Plant

if TYPE_CHECKING:
    from ganglion.tasks.control.task import Control

_FRAMES = 60  # at most; longer tasks show every so many steps
_HOLD = 12  # times that the last frame is repeated


def animate(task: Control, policy: Policy, cases: Arrays, rng: np.random.Generator) -> bytes:
    """Return a GIF in the task's own time of a few cases, policy and optimum together."""
    trial = task.trial(view.spread(cases), rng)
    ours = view.run(policy, trial, rng).states
    best = oracle.remembered(trial.plant, trial.state, trial.target).states
    every = max(1, ours.shape[1] // _FRAMES)
    times = [*range(0, ours.shape[1] - 1, every), ours.shape[1] - 1]
    pictures = [_frame(trial.plant, ours, best, trial.target, t) for t in times]
    held = [*pictures, *[pictures[-1]] * _HOLD]
    out = BytesIO()
    held[0].save(
        out, "GIF", save_all=True, append_images=held[1:], loop=0, optimize=True,
        duration=max(40, round(1000 * trial.plant.dt * every)),
    )  # fmt: skip
    return out.getvalue()


def _frame(plant: Plant, ours: Floats, best: Floats, target: Floats, t: int) -> Image.Image:
    drawn = bool(plant.body(ours[0, t]))
    figure = Figure(figsize=(10.6 if drawn else 6.0, 5.2), dpi=90, layout="constrained")
    axes = figure.add_subplot(1, 2 if drawn else 1, 1)
    view.phase(axes, plant, ours[:, : t + 1], best[:, : t + 1], target)
    for row, colour in zip(ours[:, t], view.COLOURS, strict=False):
        axes.plot(*row[:2], "o", color=colour, ms=9, mec="white", zorder=6)
    both = np.concatenate([ours[..., :2], best[..., :2]]).reshape(-1, 2)
    both = np.concatenate([both, target[:, :2]])
    margin = 0.08 * (both.max(0) - both.min(0)) + 1e-9
    axes.set_xlim(both[:, 0].min() - margin[0], both[:, 0].max() + margin[0])
    axes.set_ylim(both[:, 1].min() - margin[1], both[:, 1].max() + margin[1])
    axes.set_title(f"t = {t * plant.dt:.2f} s", loc="left", fontsize=11)
    if drawn:
        _bodies(figure.add_subplot(1, 2, 2), plant, ours, best, t)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return picture.quantize(64, dither=Image.Dither.NONE)


def _bodies(axes: Axes, plant: Plant, ours: Floats, best: Floats, t: int) -> None:
    """Draw the case that is worst off at its start, by the policy and by the optimum."""
    error = plant.error(ours[:, 0], np.zeros_like(ours[:, 0]))
    worst = int(np.asarray(plant.final_cost(error)).argmax())
    colour = view.COLOURS[worst % len(view.COLOURS)]
    dashed: dict[str, Any] = {"color": "0.35", "lw": 1.2, "ls": "--"}
    solid: dict[str, Any] = {"color": colour, "lw": 3.0, "solid_capstyle": "round"}
    for states, style in ((best, dashed), (ours, solid)):
        for line in plant.body(states[worst, t]):
            axes.plot(*line.T, **style)
    corners = [plant.body(x[worst, k]) for x in (ours, best) for k in range(x.shape[1])]
    points = np.concatenate([line for lines in corners for line in lines])
    low, high = points.min(0), points.max(0)
    middle, reach = 0.5 * (low + high), 0.55 * float((high - low).max())
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_aspect("equal")
    view.label(axes, "across (m)", "up (m)")
    axes.set_title("one of them (dashed: the optimum)", loc="left", fontsize=11)
