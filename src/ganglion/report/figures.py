"""Pictures as PNG bytes: matplotlib without its global state, one style, a colour-blind palette."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ganglion.report import curves as columns
from ganglion.report.svg import Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

# Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/; the yellow last,
# since thin yellow lines do not show on white.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
)  # fmt: skip
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e2e0d8", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.edgecolor": "#5d6770", "axes.labelcolor": "#1d2327", "xtick.color": "#5d6770",
    "ytick.color": "#5d6770", "lines.linewidth": 1.5, "legend.frameon": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "legend.fontsize": 8,
    "figure.constrained_layout.w_pad": 0.08, "figure.constrained_layout.h_pad": 0.06,
}  # fmt: skip


def style() -> AbstractContextManager[Any]:
    """Return a context in which matplotlib draws in the common style and palette."""
    import matplotlib as mpl
    from cycler import cycler

    chosen: Any = {**STYLE, "axes.prop_cycle": cycler(color=PALETTE)}
    return mpl.rc_context(chosen)


def figure(width_in: float = 7.0, height_in: float = 4.0, rows: int = 1, columns: int = 1) -> Any:
    """Return (figure, axes (rows, columns)) in the common style, without pyplot.

    The caller draws on the axes (the default colours are PALETTE; what it adds later, such as
    legends, has the style too inside `with style():`) and hands the figure to `png`.
    """
    from matplotlib.figure import Figure

    with style():
        made = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = made.subplots(rows, columns, squeeze=False)
    return made, axes


def png(drawn: Figure, dpi: int = 120) -> bytes:
    """Return a figure as PNG bytes; equal figures give equal bytes (no date, no version)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    drawn.set_dpi(dpi)
    FigureCanvasAgg(drawn).print_png(out, metadata={"Software": None})
    return out.getvalue()


def curves_png(curves: Mapping[str, Sequence[Json]], goal: str | None = None) -> bytes:
    """Draw training and validation loss, the goal, learning rate and gradient norm as one PNG.

    curves is the report's form: {"train": rows, "validation": rows}, each row with its step.
    """
    charts = [c for c in columns.charts({"curves": curves, "goal": goal}) if c.lines][:4]
    rows = math.ceil(len(charts) / 2) or 1
    made, axes = figure(9.0, 3.2 * rows, rows, min(2, len(charts)) or 1)
    cells = list(axes.flat)
    with style():
        for cell, spec in zip(cells, charts, strict=False):
            _draw(cell, spec)
        for cell in cells[len(charts) :]:
            cell.set_axis_off()
        if not charts:
            cells[0].text(0.5, 0.5, "no curves yet", ha="center", transform=cells[0].transAxes)
        return png(made)


def _draw(axes: Any, spec: Chart) -> None:
    for line in spec.lines:
        colour = PALETTE[0] if line.label == "training" else PALETTE[1]
        xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
        axes.plot(xs, ys, label=line.label, color=colour)
    if spec.logarithmic:
        axes.set_yscale("log")
    for x in spec.skips:
        axes.axvline(x, color="#b3362b", linewidth=0.6, linestyle=":")
    axes.set_title(spec.title)
    axes.set_xlabel("step")
    axes.legend()
