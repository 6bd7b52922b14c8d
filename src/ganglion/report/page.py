"""The report of a run: report.json, its figures, and one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganglion.core import files
from ganglion.core.errors import DataError, OutputError
from ganglion.report import curves, numbers, rendering, svg, verdict
from ganglion.report.grid import Grid, columns_of, flatten, grid, value_of

Json = Mapping[str, Any]
VERSION = 1
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"GIF87a": "gif", b"GIF89a": "gif"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# What a reader asks provenance first; the rest of the manifest follows in its own order.
_FIRST = ("command", "argv", "version", "versions", "git", "hardware", "threads", "dataset", "seed")


def write(folder: Path, report: Json, figures: Mapping[str, bytes]) -> Path:
    """Write report.json, figures/NAME.png or .gif, and report.html; return the HTML's path.

    figures maps names (letters, digits, `_.-`, without ending) to PNG or GIF bytes; one called
    "curves" is written as curves.png beside the page, which draws the curves itself. Every file
    is there whole or not at all, and report.json comes last. DataError for a figure that is
    neither PNG nor GIF or whose name is no plain file name, OutputError where nothing can be
    written.
    """
    endings = {name: _ending(name, data) for name, data in figures.items()}
    html = render(report, figures)
    page = folder / "report.html"
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, data in figures.items():
            home = folder if name == "curves" else folder / "figures"
            files.write_bytes(home / f"{name}.{endings[name]}", data)
        files.write_bytes(page, html.encode())
        files.write_json(folder / "report.json", {"version": VERSION, **report})
    except OSError as error:
        raise OutputError(f"Cannot write the report {folder}: {error.strerror}.") from error
    return page


def render(report: Json, figures: Mapping[str, bytes] | None = None) -> str:
    """Return the report as one self-contained HTML page; missing keys leave their section out.

    A metric with `percent` is a fraction and shown x 100 with the sign; all others as stored.
    NaN and None show as a dash.
    """
    table = grid(report)
    pictures = _pictures(report, figures or {})
    run = report.get("run") or {}
    charts = [drawn for c in curves.charts(report) if (drawn := svg.chart(c))]
    mine = verdict.trained(report)
    return rendering.render(
        "template.html",
        mine=str(mine.get("name")) if mine else "",
        helps=[(c.name, c.help) for c in table.columns if c.help],
        report=report, run=run, verdict=verdict.verdict(report), tiles=verdict.tiles(report),
        table=table, bars=rendering.bars(table), scenarios=_scenarios(report),
        charts=charts[:6], more_charts=charts[6:],
        efficiency=efficiency(report.get("policies") or [], report.get("efficiency_quotes") or []),
        worst=worst_table(report),
        worst_pictures=[p for p in pictures if p.name.startswith("worst")],
        gallery=[p for p in pictures if not p.name.startswith("worst")],
        changed=_changed(run), settings=flatten(run.get("settings") or {}),
        card=_card(report.get("data") or {}), provenance=_provenance(run),
        seeds=_seeds(report), spread=_spread(report), export=report.get("export") or {},
    )  # fmt: skip


# ---------------------------------------------------------------- figures


@dataclass(frozen=True)
class Picture:
    """One figure, inlined."""

    name: str
    caption: str
    source: str


def _ending(name: str, data: bytes) -> str:
    if not _NAME.fullmatch(name):
        raise DataError(
            f"A figure cannot be called {name!r}; use letters, digits, '_', '-' and '.', beginning "
            "with a letter or digit."
        )
    for start, ending in _SIGNATURES.items():
        if data.startswith(start):
            return ending
    raise DataError(f"Figure {name!r} is neither PNG nor GIF; it begins with {data[:8]!r}.")


def _pictures(report: Json, figures: Mapping[str, bytes]) -> list[Picture]:
    captions = {str(f["name"]): str(f.get("caption") or "") for f in report.get("figures") or []}
    drawn = bool((report.get("curves") or {}).get("train"))
    order = [n for n in captions if n in figures] + [n for n in figures if n not in captions]
    return [
        Picture(
            name, captions.get(name) or name.replace("_", " "),
            f"data:image/{_ending(name, figures[name])};base64,"
            + base64.b64encode(figures[name]).decode(),
        )
        for name in order
        if not (name == "curves" and drawn)
    ]  # fmt: skip


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class Scenario:
    """One line of the scenario table: the goal for each policy, and the whole table below."""

    name: str
    overrides: tuple[str, ...]
    digest: str
    cases: Any
    cells: tuple[str, ...]
    table: Grid


@dataclass(frozen=True)
class Scenarios:
    """Every scenario x policy at the goal metric."""

    goal: str
    policies: tuple[str, ...]
    rows: tuple[Scenario, ...]
    note: str = ""


def _scenarios(report: Json) -> Scenarios | None:
    listed = list(report.get("scenarios") or [])
    if not listed:
        return None
    if report.get("policies") and all(s.get("name") != "nominal" for s in listed):
        mine = {"name": "nominal", "cases": report.get("cases"), "digest": report.get("digest")}
        listed.insert(0, {**mine, "policies": report["policies"]})
    goal = verdict.goal_column(report) or next(iter(columns_of(report, [])), None)
    named = dict.fromkeys(str(p.get("name")) for s in listed for p in s.get("policies") or [])
    rows = []
    for entry in listed:
        found = {str(p.get("name")): p for p in entry.get("policies") or []}
        cells = [
            numbers.quantity(value_of(found[n], goal.name), "%" if goal.unit == "%" else "1")
            if goal is not None and n in found
            else numbers.DASH
            for n in named
        ]
        found_overrides = flatten(entry.get("overrides") or {})
        overrides = tuple(f"{k}={numbers.plain(v, 60)}" for k, v in found_overrides.items())
        rows.append(
            Scenario(
                str(entry.get("name")), overrides, str(entry.get("digest") or ""),
                entry.get("cases"), tuple(cells), grid(report, entry.get("policies") or []),
            )
        )  # fmt: skip
    note = str(report.get("scenario_note") or "")
    return Scenarios(goal.heading if goal else "", tuple(named), tuple(rows), note)


def efficiency(policies: Sequence[Json], quotes: Sequence[Json]) -> list[tuple[str, ...]]:
    """Return (name, parameters, file, peak memory, p50, p99, source) as text, quotes last.

    source is "" for what was measured here; quoted figures are claims of others.
    """
    out: list[tuple[str, ...]] = []
    for policy in policies:
        found = policy.get("efficiency") or {}
        speed = found.get("latency_us") or {}
        if found:
            out.append(
                (
                    str(policy.get("name")), numbers.count(found.get("parameters")),
                    numbers.size(found.get("file_bytes")),
                    numbers.size(found.get("peak_memory_bytes")),
                    numbers.latency(speed.get("p50")), numbers.latency(speed.get("p99")), "",
                )
            )  # fmt: skip
    return out + [_quoted(quote) for quote in quotes]


def _quoted(quote: Json) -> tuple[str, ...]:
    return (
        str(quote.get("name")), _said(quote.get("parameters"), numbers.count, 1.0),
        numbers.DASH, _said(quote.get("memory_mb"), numbers.size, 1e6),
        _said(quote.get("latency_ms"), numbers.latency, 1e3), numbers.DASH,
        str(quote.get("source") or "quoted"),
    )  # fmt: skip


def _said(value: Any, write_as: Any, factor: float) -> str:
    x = numbers.finite(value)
    if x is None:
        return numbers.DASH if value is None else numbers.plain(value)
    return str(write_as(x * factor))


def worst_table(report: Json) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the worst cases: case, metrics, inputs."""
    cases = list(report.get("worst") or [])
    columns = {c.name: c for c in columns_of(report, [])}
    metrics = list(dict.fromkeys(n for c in cases for n in c.get("metrics") or {}))
    inputs = list(dict.fromkeys(n for c in cases for n in c.get("inputs") or {}))
    header = ["case", *(columns[n].heading if n in columns else n for n in metrics), *inputs]
    rows = []
    for case in cases:
        found, given = case.get("metrics") or {}, case.get("inputs") or {}
        units = [columns[n].unit if n in columns else "1" for n in metrics]
        shown = [
            numbers.number(numbers.scaled(found.get(n), u))
            for n, u in zip(metrics, units, strict=True)
        ]
        rows.append([numbers.plain(case.get("case")), *shown,
                     *(numbers.plain(given.get(n), 80) for n in inputs)])  # fmt: skip
    return header, rows


def _seeds(report: Json) -> tuple[list[str], list[list[str]]]:
    rows = list(report.get("seeds") or [])
    columns = {c.name: c for c in columns_of(report, [])}
    plain = dict.fromkeys(k for r in rows for k, v in r.items() if not hasattr(v, "items"))
    metrics = dict.fromkeys(k for r in rows for k in r.get("metrics") or {})
    out = []
    for row in rows:
        found = row.get("metrics") or {}
        cells = []
        for name in metrics:
            entry = found.get(name)
            raw = dict(entry) if isinstance(entry, Mapping) else {"value": entry}
            unit = columns[name].unit if name in columns else numbers.unit_of(raw)
            cells.append(numbers.estimate({**raw, "unit": unit}))
        out.append([*(numbers.plain(row.get(k)) for k in plain), *cells])
    return [*plain, *metrics], out


def _spread(report: Json) -> list[str]:
    """Return a sentence per metric over the seeds: mean, least and greatest."""
    out = []
    for name, found in (report.get("spread") or {}).items():
        unit = numbers.unit_of(found)
        mean, least, most = (numbers.quantity(found.get(k), unit) for k in ("mean", "min", "max"))
        out.append(f"{name}: {mean} on average, from {least} to {most}")
    return out


# ---------------------------------------------------------------- records


def _changed(run: Json) -> list[tuple[str, str, str]]:
    found = run.get("changed") or {}
    return [(name, numbers.plain(old), numbers.plain(new)) for name, (old, new) in found.items()]


def _card(card: Json) -> tuple[list[tuple[str, Any]], list[list[str]]]:
    """Return the card's leaves and a row per array: split, array, shape, type, digest."""
    arrays = []
    for split, found in (card.get("splits") or {}).items():
        for name, entry in (found or {}).items():
            raw = entry if isinstance(entry, Mapping) else {}
            shape = " × ".join(str(n) for n in raw.get("shape") or [])
            unit, digest = raw.get("unit") or raw.get("dtype"), raw.get("sha256") or ""
            arrays.append([str(split), str(name), shape or numbers.DASH, numbers.plain(unit),
                           str(digest)[:12]])  # fmt: skip
    rest = {k: v for k, v in card.items() if k != "splits"}
    return list(flatten(rest).items()), arrays


def _provenance(run: Json) -> list[tuple[str, Any]]:
    record = {k: run[k] for k in ("id", "name", "created", "status") if run.get(k) is not None}
    manifest = {k: v for k, v in (run.get("manifest") or {}).items() if k not in record}
    first = {k: manifest[k] for k in _FIRST if k in manifest}
    merged = {**first, **{k: v for k, v in manifest.items() if k not in first}, **record}
    if "created" in merged:
        merged["created"] = numbers.moment(merged["created"])
    if isinstance(merged.get("command"), list):
        merged["command"] = " ".join(str(part) for part in merged["command"])
    return list(flatten(merged).items())
