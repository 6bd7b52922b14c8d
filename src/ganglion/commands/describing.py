"""`tasks` and `config`: what there is to train and to set. No torch."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganglion import registry
from ganglion.commands.common import resolved
from ganglion.commands.output import table, write, write_json
from ganglion.core.errors import SettingsError, unknown
from ganglion.core.settings import describe
from ganglion.core.space import Choice, Range, check, read


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
    cls = registry.settings(args.task)
    if args.space is not None:
        return _space(args)
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


def _space(args: Namespace) -> int:
    """List the task's search spaces, or check one of them or of a file, and print it."""
    shipped = registry.spaces(args.task)
    if not args.space:
        known = {name: read(path).about for name, path in shipped.items()}
        if args.json:
            write_json({"task": args.task, "spaces": known})
        else:
            write(table(["space", "what it searches"], [list(row) for row in known.items()]))
        return 0
    path = shipped.get(args.space, Path(args.space))
    if not path.is_file():
        raise SettingsError(unknown("search space", args.space, shipped))
    found = read(path)
    check(found, lambda layer: registry.resolve(args.task, found.preset, [layer]))
    if args.json:
        varied = {
            name: list(p.values) if isinstance(p, Choice) else vars(p)
            for name, p in found.parameters.items()
        }
        write_json({"task": args.task, "about": found.about, "preset": found.preset,
                    "settings": dict(found.settings), "space": varied})  # fmt: skip
        return 0
    some = found.layer({name: p.extremes()[0] for name, p in found.parameters.items()})
    values = flat(registry.resolve(args.task, found.preset, [some]).model_dump(mode="json"))
    helps = {
        row.name: row.help
        for row in describe(registry.settings(args.task))
        if _of_this_kind(row.help, row.name, values)
    }
    write(f"{found.about}\npreset {found.preset}{_fixed(found.settings)}\n")
    rows = [[name, _values(p), helps.get(name, "")] for name, p in found.parameters.items()]
    write(table(["setting", "values", "meaning"], rows))
    return 0


def _fixed(settings: Mapping[str, Any]) -> str:
    return "".join(f" {name}={value}" for name, value in settings.items())


def _values(parameter: Choice | Range) -> str:
    """Return the values of one parameter in words."""
    if isinstance(parameter, Choice):
        return " | ".join(json.dumps(v) for v in parameter.values)
    scale = ", log scale" if parameter.log else f", step {parameter.step}" * bool(parameter.step)
    return f"{parameter.low:g} to {parameter.high:g}{scale}"


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
