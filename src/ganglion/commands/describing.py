"""`tasks` and `config`: what there is to train and to set. No torch."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from argparse import Namespace
from typing import Any

from ganglion import registry
from ganglion.commands.common import resolved
from ganglion.commands.output import table, write, write_json


def tasks(args: Namespace) -> int:
    """Print every task with what is learned and its presets."""
    found = [
        {"task": name, "learns": registry.summary(name),
         "presets": dict(registry.settings(name).presets)}
        for name in registry.names()
    ]  # fmt: skip
    if args.json:
        write_json({"tasks": found})
        return 0
    rows = [[str(t["task"]), str(t["learns"]), ", ".join(t["presets"])] for t in found]
    write(table(["task", "what is learned", "presets"], rows))
    return 0


def config(args: Namespace) -> int:
    """Print every setting of a task as it is resolved, or the schema of all."""
    from ganglion.core.settings import describe

    cls = registry.settings(args.task)
    cfg = resolved(args)
    if args.schema:
        write_json(cls.model_json_schema())
        return 0
    values = flat(cfg.model_dump(mode="json"))
    rows = []
    for row in describe(cls):
        named = row.name if row.name in values else f"{row.name}.kind"
        if named in values and _of_this_kind(row.help, row.name, values):
            value = values[named]
            rows.append(
                {"name": row.name, "value": value, "default": row.default,
                 "is_default": value == row.default, "type": row.type, "unit": row.unit,
                 "limits": row.limits, "help": row.help}
            )  # fmt: skip
    preset = args.preset or "standard"
    if args.json:
        write_json({"task": args.task, "preset": preset, "presets": dict(cls.presets),
                    "settings": rows})  # fmt: skip
        return 0
    write(f"{args.task}: {registry.summary(args.task)}\n")
    write("\n".join(f"  --preset {n}: {text}" for n, text in cls.presets.items()) + "\n")
    if sys.stdout.isatty():
        write("\n".join(_paragraph(r) for r in rows))
        write("\n* differs from the setting's own default")
        return 0
    cells = [
        [str(r["name"]), json.dumps(r["value"]), "" if r["is_default"] else "*", str(r["unit"]),
         f"{r['type']} {r['limits']}".strip(), str(r["help"])]
        for r in rows
    ]  # fmt: skip
    write(table(["setting", preset, "", "unit", "type and range", "meaning"], cells))
    write("\n* differs from the setting's own default")
    return 0


def _paragraph(row: dict[str, Any]) -> str:
    """Return one setting for a terminal: its value and range, and below it what it means."""
    unit = f" {row['unit']}" if row["unit"] != "1" else ""
    mark = " *" if not row["is_default"] else ""
    head = f"{row['name']} = {json.dumps(row['value'])}{unit}{mark}"
    width = min(100, shutil.get_terminal_size().columns)
    kind = f"{row['type']} {row['limits']}".strip()
    below = textwrap.wrap(
        f"{row['help']} ({kind}; default {json.dumps(row['default'])})", width - 4
    )
    return "\n    ".join([head, *below])


def flat(nested: Any, where: str = "") -> dict[str, Any]:
    """Return dotted name -> leaf."""
    out: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            out.update(flat(value, f"{where}{name}."))
        else:
            out[where + name] = value
    return out


def _of_this_kind(help: str, name: str, values: dict[str, Any]) -> bool:
    """Say whether a setting belongs to the variant in force: its help begins with [kind]."""
    head = help.partition("] ")[0]
    if not head.startswith("["):
        return True
    return values.get(f"{name.rpartition('.')[0]}.kind") == head[1:]
