"""Policies x metrics as cells: what the page, the comparison and the terminal all show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganglion.report import numbers

Json = Mapping[str, Any]
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Column:
    """One metric: its name, unit, direction and one sentence of help."""

    name: str
    unit: str
    better: str
    help: str = ""
    goal: bool = False

    @property
    def arrow(self) -> str:
        """Return ↓ where lower is better, ↑ where higher is, "" where it is not said."""
        return ARROWS.get(self.better, "")

    @property
    def heading(self) -> str:
        """Return the column's head on one line, e.g. "gap [%] ↓"."""
        unit = "" if self.unit in ("1", "") else f"[{self.unit}]"
        return " ".join(part for part in (self.name, unit, self.arrow) if part)


@dataclass(frozen=True)
class Cell:
    """One figure as text and as numbers (as stored; None where unknown)."""

    text: str
    bounds: str
    value: float | None
    low: float | None
    high: float | None
    cases: int | None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One policy: what it is and a cell per column."""

    name: str
    kind: str
    digest: str
    cells: tuple[Cell, ...]

    @property
    def is_oracle(self) -> bool:
        """Say whether this is the bound that the others are measured against."""
        return is_oracle(self.name, self.kind)


@dataclass(frozen=True)
class Grid:
    """The whole table."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def is_oracle(name: str, kind: str) -> bool:
    """Say whether a policy is the oracle: a reference of that name."""
    return name == "oracle" and kind in ("reference", "")


def grid(report: Json, policies: Sequence[Json] | None = None) -> Grid:
    """Lay out `policies` (default: the report's own) by metric, the goal first.

    A metric that applies to none of them has no column, but for the goal.
    The best cell of a column is marked among all policies but the oracle, and only where at least
    two of them have a value.
    """
    listed = list(report.get("policies") or []) if policies is None else list(policies)
    columns = tuple(
        c for c in columns_of(report, listed)
        if c.goal or any(value_of(p, c.name) is not None for p in listed)
    )  # fmt: skip
    best = {c.name: _best(listed, c) for c in columns}
    rows = []
    for policy in listed:
        name, kind = str(policy.get("name", numbers.DASH)), str(policy.get("kind") or "")
        found = policy.get("metrics") or {}
        rival = not is_oracle(name, kind)
        cells = [_cell(found.get(c.name), c, best[c.name] if rival else None) for c in columns]
        rows.append(Row(name, kind, str(policy.get("digest") or ""), tuple(cells)))
    return Grid(columns, tuple(rows))


def columns_of(report: Json, policies: Sequence[Json]) -> tuple[Column, ...]:
    """Return the report's metrics, then those that only policies name; the goal comes first."""
    goal = report.get("goal")
    found: dict[str, Column] = {}
    for spec in report.get("metrics") or []:
        name = str(spec["name"])
        found[name] = Column(
            name, numbers.unit_of(spec), str(spec.get("better") or ""),
            str(spec.get("help") or ""), name == goal,
        )  # fmt: skip
    for policy in policies:
        for name, entry in (policy.get("metrics") or {}).items():
            if name not in found and isinstance(entry, Mapping):
                unit, better = numbers.unit_of(entry), str(entry.get("better") or "")
                found[name] = Column(str(name), unit, better, goal=name == goal)
    return tuple(sorted(found.values(), key=lambda c: not c.goal))


def _cell(entry: Any, column: Column, best: float | None) -> Cell:
    raw = dict(entry) if isinstance(entry, Mapping) else {"value": entry}
    raw = {**raw, "unit": column.unit}
    value = numbers.finite(raw.get("value"))
    digits = numbers.digits_for(value, raw.get("low"), raw.get("high"), column.unit)
    cases = raw.get("cases")
    return Cell(
        numbers.number(numbers.scaled(value, column.unit), digits), numbers.bounds_of(raw), value,
        numbers.finite(raw.get("low")), numbers.finite(raw.get("high")),
        cases if isinstance(cases, int) else None, value is not None and value == best,
    )  # fmt: skip


def _best(policies: Sequence[Json], column: Column) -> float | None:
    values = [
        x
        for p in policies
        if not is_oracle(str(p.get("name")), str(p.get("kind") or ""))
        and (x := value_of(p, column.name)) is not None
    ]
    if len(set(values)) < 2 or column.better not in ARROWS:
        return None
    return min(values) if column.better == "lower" else max(values)


def value_of(policy: Json, metric: str) -> float | None:
    """Return one policy's value of one metric, as stored; None where it has none."""
    entry = (policy.get("metrics") or {}).get(metric)
    return numbers.finite(entry.get("value") if isinstance(entry, Mapping) else entry)


def flatten(value: Any, where: str = "") -> dict[str, Any]:
    """Return dotted name -> leaf of nested mappings; an empty mapping is a leaf."""
    if not isinstance(value, Mapping) or not value:
        return {where: value} if where else {}
    out: dict[str, Any] = {}
    for name, inner in value.items():
        out.update(flatten(inner, f"{where}.{name}" if where else str(name)))
    return out
