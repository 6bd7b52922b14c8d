"""A run's training curves as charts: losses, the goal, rate, gradient norm, and the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ganglion.report import numbers
from ganglion.report.svg import Chart, Line, Point

Json = Mapping[str, Any]
RATE = ("lr", "learning_rate", "rate")
GRADIENT = ("grad_norm", "gradient_norm")
SKIPPED = ("nonfinite", "skipped", "bad")
_NO_CURVES = {"step", "epoch", "seed", "time", "seconds", *SKIPPED}


def series(rows: Sequence[Json], name: str) -> list[Point]:
    """Return (step, value) of one column; a value that is missing or not finite is NaN."""
    out = []
    for row in rows:
        step = numbers.finite(row.get("step"))
        if step is not None and name in row:
            value = numbers.finite(row[name])
            out.append((step, math.nan if value is None else value))
    return out


def skipped_steps(rows: Sequence[Json]) -> list[float]:
    """Return the steps whose update was left out: marked so, or with a loss that is not finite."""
    out = []
    for row in rows:
        step = numbers.finite(row.get("step"))
        marked = any((numbers.finite(row.get(name)) or 0) > 0 for name in SKIPPED)
        if step is not None and (marked or ("loss" in row and numbers.finite(row["loss"]) is None)):
            out.append(step)
    return out


def names(rows: Sequence[Json]) -> list[str]:
    """Return the numeric columns in order of appearance, bookkeeping left out."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            if name not in _NO_CURVES and numbers.finite(value) is not None:
                found[name] = None
    return list(found)


def charts(report: Json) -> list[Chart]:
    """Return the charts of one run, the telling ones first: loss, goal, rate, gradient norm."""
    curves = report.get("curves") or {}
    train, validation = list(curves.get("train") or []), list(curves.get("validation") or [])
    best = numbers.finite(report.get("best_step"))
    marks = {} if best is None else {"best": best}
    skips = skipped_steps(train)
    units = {str(m["name"]): numbers.unit_of(m) for m in report.get("metrics") or []}
    out = []
    for name in _order(names(train), names(validation), report.get("goal")):
        lines = [
            Line("training", series(train, name), "c0", smooth=True),
            Line("validation", series(validation, name), "c1", dots=True),
        ]
        lines = [line for line in lines if line.points]
        rate = name in RATE
        out.append(
            Chart(
                _title(name, report.get("goal"), units.get(name, "1")), lines,
                marks={} if rate else marks, skips=skips if name == "loss" else (),
                scale="linear" if rate else "auto", unit=units.get(name, "1"),
            )
        )  # fmt: skip
    return out


def _title(name: str, goal: Any, unit: str) -> str:
    called = {"loss": "Loss", **dict.fromkeys(RATE, "Learning rate")}
    called |= dict.fromkeys(GRADIENT, "Gradient norm")
    text = called.get(name, name) + ("" if unit == "1" else f" [{unit}]")
    return f"{text}: the goal" if name == goal else text


def _order(train: Sequence[str], validation: Sequence[str], goal: Any) -> list[str]:
    first = ["loss", *([str(goal)] if goal else []), *RATE, *GRADIENT]
    every = dict.fromkeys([*train, *validation])
    return [n for n in first if n in every] + [n for n in every if n not in first]
