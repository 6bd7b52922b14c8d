"""Results on stdout: tables for people, one JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def write(text: str) -> None:
    """Write one result to stdout."""
    sys.stdout.write(text + "\n")


def write_json(value: Any, *, one_line: bool = False) -> None:
    """Write the one JSON document of a verb; NaN and Infinity become null."""
    from ganglion.core.files import finite

    write(json.dumps(finite(value), indent=None if one_line else 1))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with columns as wide as their widest cell; the last one is not padded."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def figure(entry: Any) -> str:
    """Return one metric as text: value, interval and unit, or a bare number."""
    from ganglion.console import number

    if not isinstance(entry, Mapping):
        return number(entry)
    unit = "%" if entry.get("percent") else str(entry.get("unit", "1"))
    factor = 100.0 if unit == "%" else 1.0  # stored as a fraction

    def scaled(key: str) -> str:
        value = entry.get(key)
        return number(None if value is None else value * factor)

    text = scaled("value")
    if _known(entry.get("low")) and _known(entry.get("high")):
        text += f" [{scaled('low')}, {scaled('high')}]"
    return text + (f" {unit}" if unit != "1" else "")


def policies(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return policies (rows) by metrics (columns: those that apply to any of them) as a table."""
    names = [
        name
        for name in dict.fromkeys(name for e in entries for name in e["metrics"])
        if any(_known(e["metrics"].get(name)) for e in entries)
    ]
    rows = [
        [str(e["name"]), *[figure(e["metrics"].get(n)) for n in names]]
        for e in entries
    ]  # fmt: skip
    return table(["policy", *names], rows)


def _known(entry: Any) -> bool:
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return value is not None and value == value


def size(count: float) -> str:
    """Return bytes as text: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
