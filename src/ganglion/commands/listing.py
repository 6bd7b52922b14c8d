"""`runs`: list, filter, show one, delete. No torch."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from ganglion import registry
from ganglion.commands.common import home
from ganglion.commands.output import table, write, write_json
from ganglion.console import clock, measured
from ganglion.core import run as runs
from ganglion.core.errors import GanglionError, RunError, SettingsError, unknown
from ganglion.core.run import STATES, Run


def runs_(args: Namespace) -> int:
    """List runs, show one run's checkpoints, or delete runs."""
    if args.task is not None and args.task not in registry.names():
        raise SettingsError(unknown("task", args.task, registry.names()))
    if args.status is not None and args.status not in STATES:
        raise SettingsError(unknown("status", args.status, STATES))
    if args.delete:
        return _delete(args)
    if args.run is not None:
        return _show(args)
    rows = [row(run) for run in runs.all_runs(home(args), args.task)]
    rows = [r for r in rows if args.status in (None, r["status"])]
    if args.json:
        write_json({"runs": rows})
        return 0
    if not rows:
        write("No runs.")
        return 0
    write(table(
        ["run", "name", "task", "status", "step", "goal", "best", "age"],
        [[r["run"], r["name"] or "", r["task"], r["status"], _of(r["step"], r["total"]),
          str(r["goal"] or ""), measured(r["value"], _unit(r)), clock(r["age_s"])] for r in rows],
    ))  # fmt: skip
    return 0


def row(run: Run) -> dict[str, Any]:
    """Return one run as the list shows it; a damaged one shows as such."""
    try:
        config, manifest, status = run.config, run.manifest, run.status
        lines = list(run.lines())
        goal, unit, percent = _goal(config)
        steps = [int(line["step"]) for line in lines if "step" in line]
        return {
            "run": run.id, "folder": str(run.folder), "name": manifest.get("name"),
            "task": str(config["task"]), "status": status["state"],
            "step": status.get("step") if status.get("step") is not None else max(steps, default=0),
            "total": status.get("total"), "goal": goal, "value": best(lines, goal),
            "unit": unit, "percent": percent,
            "message": status.get("message"), "created": manifest.get("created"),
            "age_s": max(0.0, time.time() - float(manifest.get("created") or time.time())),
        }  # fmt: skip
    except (GanglionError, KeyError, TypeError, ValueError) as error:
        return {
            "run": run.id, "folder": str(run.folder), "name": None,
            "task": run.folder.parent.name, "status": "damaged", "step": None, "total": None,
            "goal": None, "value": None, "unit": "1",
            "percent": False,
            "message": str(error), "created": None, "age_s": None,
        }  # fmt: skip


def best(lines: Sequence[Mapping[str, Any]], goal: str | None) -> float | None:
    """Return the best validation value of the goal so far, None where there is none."""
    kept = [line for line in lines if line.get("kind") == "validation" and line.get("new_best")]
    value = kept[-1].get(goal) if kept and goal is not None else None
    return None if value is None else float(value)


def _goal(config: Mapping[str, Any]) -> tuple[str | None, str, bool]:
    try:
        task = str(config["task"])
        cfg = registry.resolve(task, config.get("preset"), [config["settings"]])
        found = registry.make(task, cfg).goal
        return found.name, found.unit, found.percent
    except (GanglionError, KeyError):
        return None, "1", False  # of a task that is no longer installed, or of older settings


def _unit(row: Mapping[str, Any]) -> str:
    return "%" if row["percent"] else str(row["unit"])


def _show(args: Namespace) -> int:
    run = runs.find(home(args), args.run)
    shown = row(run)
    folder = run.folder / "checkpoints"
    goal = shown["goal"]
    validations = {
        int(line["step"]): line for line in run.lines() if line.get("kind") == "validation"
    }
    marked = [s for s, line in validations.items() if line.get("new_best")]
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("step_*")):
        if not path.name[5:].isdecimal():
            continue  # what a kill left of an unfinished save
        step = int(path.name[5:])
        found.append(
            {"step": step, "value": validations.get(step, {}).get(goal),
             "best": bool(marked) and step == marked[-1],
             "whole": (path / "manifest.json").is_file()}
        )  # fmt: skip
    if args.json:
        write_json({**shown, "checkpoints": found})
        return 0
    write(f"{shown['run']}  {shown['task']}  {shown['status']}  {shown['folder']}")
    if shown["message"]:
        write(str(shown["message"]))
    cells = [
        [str(c["step"]), measured(c["value"], _unit(shown)), "*" if c["best"] else "",
         "" if c["whole"] else "unfinished"]
        for c in found
    ]  # fmt: skip
    write("")
    write(table(["checkpoint", str(goal or "value"), "best", ""], cells))
    return 0


def _delete(args: Namespace) -> int:
    root = home(args)
    wanted = [runs.find(root, text) for text in ([args.run] if args.run else []) + args.delete]
    busy = [run.id for run in wanted if run.locked]
    if busy:
        raise RunError(f"{', '.join(busy)} is being written; stop it first. Nothing was deleted.")
    for run in wanted:
        run.delete()
    if args.json:
        write_json({"deleted": [run.id for run in wanted]})
    else:
        write("\n".join(f"deleted {run.folder}" for run in wanted))
    return 0


def _of(step: Any, total: Any) -> str:
    if step is None:
        return "-"
    return f"{step:,}/{total:,}" if total else f"{step:,}"
