"""Several policies or runs side by side: a text table for terminals, a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganglion.report import curves, numbers, rendering, svg
from ganglion.report.grid import Column, columns_of, flatten, grid
from ganglion.report.page import efficiency
from ganglion.report.pairs import Difference, verdict_of
from ganglion.report.svg import Chart, Line

Json = Mapping[str, Any]
BEST = "*"
_ABSENT = object()


def table(report: Json, metrics: Sequence[str] | None = None) -> list[list[str]]:
    """Return policies x metrics as text, the header first: "4.13 [3.63, 4.58]".

    The unit and direction stand in the header; `*` marks the best but for the oracle. metrics
    chooses columns by name. The rows suit rich's tables and `text` alike.
    """
    laid = grid(report)
    use = [k for k, c in enumerate(laid.columns) if metrics is None or c.name in metrics]
    out = [["policy", *(laid.columns[k].heading for k in use)]]
    for row in laid.rows:
        cells = [row.cells[k] for k in use]
        texts = [
            " ".join(part for part in (c.text + (BEST if c.best else ""), c.bounds) if part)
            for c in cells
        ]
        out.append([row.name, *texts])
    return out


def efficiency_table(report: Json) -> list[list[str]]:
    """Return parameters, file, peak memory and latency as text, the header first.

    [] where no policy was measured. Quoted figures of others say so in the last column.
    """
    rows = efficiency(report.get("policies") or [], report.get("efficiency_quotes") or [])
    if not rows:
        return []
    header = ["policy", "parameters", "file", "peak memory", "p50", "p99", "source"]
    return [header, *([*row[:6], f"quoted: {row[6]}" if row[6] else "measured"] for row in rows)]


def text(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows as plain text: first column left, the others right, a rule under the header."""
    if not rows:
        return ""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


# ---------------------------------------------------------------- several runs


@dataclass(frozen=True)
class RunLine:
    """One run in the comparison: best and last validation value, at which step, how long."""

    name: str
    best: float | None
    best_step: float | None
    last: float | None
    steps: float | None
    seconds: float | None


def run_lines(reports: Sequence[Json]) -> tuple[str, list[RunLine]]:
    """Return what validation value is meant (the goal, or else "loss"), and a line per run."""
    judged, better = _judged(reports)
    out = []
    for report, name in zip(reports, run_names(reports), strict=True):
        rows = list((report.get("curves") or {}).get("validation") or [])
        points = [p for p in curves.series(rows, judged) if p[1] == p[1]]
        run = report.get("run") or {}
        sign = -1.0 if better == "higher" else 1.0
        best = min(points, key=lambda p: sign * p[1]) if points else None
        out.append(
            RunLine(
                name, best[1] if best else None, best[0] if best else None,
                points[-1][1] if points else None, numbers.finite(run.get("steps")),
                numbers.finite(run.get("seconds")),
            )
        )  # fmt: skip
    return judged, out


def run_names(reports: Sequence[Json]) -> list[str]:
    """Return a name per run, its id added where two are called the same."""
    runs = [report.get("run") or {} for report in reports]
    names = [str(r.get("name") or r.get("id") or f"run {k + 1}") for k, r in enumerate(runs)]
    return [
        n if names.count(n) == 1 else f"{n} ({r.get('id') or k + 1})"
        for k, (n, r) in enumerate(zip(names, runs, strict=True))
    ]


def setting_differences(reports: Sequence[Json]) -> list[tuple[str, list[str]]]:
    """Return (dotted name, its value in each run) for every setting that is not equal in all."""
    flat = [flatten((report.get("run") or {}).get("settings") or {}) for report in reports]
    names = dict.fromkeys(name for settings in flat for name in settings)
    out = []
    for name in names:
        values = [settings.get(name, _ABSENT) for settings in flat]
        if any(v != values[0] for v in values[1:]):
            out.append((name, ["not there" if v is _ABSENT else numbers.plain(v) for v in values]))
    return out


def compare_page(
    report: Json, runs: Sequence[Json] = (), pairs: Sequence[Difference] = ()
) -> str:  # fmt: skip
    """Return the comparison as one self-contained HTML page.

    report holds the policies scored on the same cases (the form of `evaluate` and `compare`);
    runs are the report.json of each run compared, for settings, validation values and curves;
    pairs come from `pairs.differences` over the evaluation's rows, the first policy being what
    the others are compared with. Without them the page shows what the report states itself:
    "differences" {setting: {policy: value}}, "paired" [{name, against, goal, difference, low,
    high}], and each policy's "training" {best, best_step, last, last_step}.
    """
    laid = grid(report)
    judged, lines = run_lines(runs) if runs else _stated_lines(report)
    unit = next((c.unit for c in _columns([report, *runs]) if c.name == judged), "1")
    charts = [drawn for c in _overlaid(runs, judged, unit) if (drawn := svg.chart(c))]
    names, settings = _stated_settings(report)
    if runs:
        names, settings = run_names(runs), setting_differences(runs)
    paired = [_pair_texts(pair) for pair in pairs] or _stated_pairs(report)
    stated = report.get("paired") or [{}]
    return rendering.render(
        "compare.html",
        report=report, table=laid, bars=rendering.bars(laid), judged=judged,
        lines=[_line_texts(line, unit) for line in lines], names=names, settings=settings,
        charts=charts, pairs=paired,
        against=pairs[0].against if pairs else str(stated[0].get("against") or "the first"),
        efficiency=efficiency(report.get("policies") or [], report.get("efficiency_quotes") or []),
    )  # fmt: skip


# ---------------------------------------------------------------- what the report states itself


def _stated_lines(report: Json) -> tuple[str, list[RunLine]]:
    out, judged = [], str(report.get("goal") or "loss")
    for policy in report.get("policies") or []:
        found = policy.get("training") or {}
        if found:
            best, last = numbers.finite(found.get("best")), numbers.finite(found.get("last"))
            steps = numbers.finite(found.get("last_step"))
            best_step = numbers.finite(found.get("best_step"))
            out.append(RunLine(str(policy.get("name")), best, best_step, last, steps, None))
    return judged, out


def _stated_settings(report: Json) -> tuple[list[str], list[tuple[str, list[str]]]]:
    found = report.get("differences") or {}
    names = list(dict.fromkeys(str(n) for values in found.values() for n in values))
    return names, [
        (str(key), [numbers.plain(values.get(n)) for n in names]) for key, values in found.items()
    ]


def _stated_pairs(report: Json) -> list[list[str]]:
    units = {c.name: (c.unit, c.better) for c in _columns([report])}
    out = []
    for pair in report.get("paired") or []:
        metric = str(pair.get("goal"))
        unit, better = units.get(metric, ("1", "lower"))
        value, low, high = (numbers.finite(pair.get(k)) for k in ("difference", "low", "high"))
        said = verdict_of(low, high, better) if low is not None and high is not None else ""
        sign = "+" if value is not None and value > 0 else ""
        entry = {"value": value, "low": low, "high": high, "unit": unit}
        cases = numbers.count(pair.get("cases"))
        out.append([str(pair.get("name")), metric, sign + numbers.estimate(entry), cases, said])
    return out


def _columns(reports: Sequence[Json]) -> list[Column]:
    return [c for r in reports for c in columns_of(r, list(r.get("policies") or []))]


def _judged(reports: Sequence[Json]) -> tuple[str, str]:
    for report in reports:
        goal = report.get("goal")
        rows = (report.get("curves") or {}).get("validation") or []
        if goal and any(goal in row for row in rows):
            better = next((c.better for c in _columns([report]) if c.goal), "lower")
            return str(goal), better
    return "loss", "lower"


def _overlaid(reports: Sequence[Json], judged: str, unit: str) -> list[Chart]:
    wanted = [("train", "loss", "Training loss"), ("validation", "loss", "Validation loss")]
    if judged != "loss":
        shown = f"Validation {judged}" + ("" if unit == "1" else f" [{unit}]")
        wanted.append(("validation", judged, shown))
    out = []
    for split, name, title in wanted:
        lines = []
        for k, (report, called) in enumerate(zip(reports, run_names(reports), strict=True)):
            rows = list((report.get("curves") or {}).get(split) or [])
            points = curves.series(rows, name)
            if split == "train" and len(points) > 60:
                finite = [p for p in points if p[1] == p[1]]
                points = svg.running_mean(finite)
            lines.append(Line(called, points, f"c{k % 8}"))
        out.append(Chart(title, lines, unit=unit if name == judged else "1"))
    return out


def _line_texts(line: RunLine, unit: str) -> list[str]:
    return [
        line.name, numbers.quantity(line.best, unit), numbers.count(line.best_step),
        numbers.quantity(line.last, unit), numbers.count(line.steps),
        numbers.duration(line.seconds),
    ]  # fmt: skip


def _pair_texts(pair: Difference) -> list[str]:
    entry = {"value": pair.value, "low": pair.low, "high": pair.high, "unit": pair.unit}
    shown = numbers.estimate(entry)
    sign = "+" if pair.value > 0 else ""
    return [pair.policy, pair.metric, sign + shown, numbers.count(pair.cases), pair.verdict]
