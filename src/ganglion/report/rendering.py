"""The templates: one environment, everything escaped, everything in one file."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ganglion.report import numbers, svg
from ganglion.report.grid import Grid


@functools.cache
def environment() -> Environment:
    """Return the environment with the filters that the templates use; autoescape is on."""
    env = Environment(
        loader=PackageLoader("ganglion.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.filters.update(
        number=numbers.number, size=numbers.size, count=numbers.count, latency=numbers.latency,
        duration=numbers.duration, plain=numbers.plain, moment=numbers.moment,
        estimate=numbers.estimate, quantity=numbers.quantity, chart=svg.chart,
    )  # fmt: skip
    env.globals["dash"] = numbers.DASH
    return env


def render(template: str, **content: Any) -> str:
    """Fill a template of this package; the style sheet is inlined."""
    style = resources.files("ganglion.report").joinpath("report.css").read_text("utf-8")
    return environment().get_template(template).render(style=Markup(style), **content)


def bars(table: Grid) -> list[list[Markup]]:
    """Return the interval bar of each cell, row by row; one scale per column."""
    columns = [
        svg.bars([(c.value, c.low, c.high) for c in (row.cells[k] for row in table.rows)])
        for k in range(len(table.columns))
    ]
    return [[column[i] for column in columns] for i in range(len(table.rows))]
