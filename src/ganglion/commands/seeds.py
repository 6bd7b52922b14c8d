"""`train --seeds N`: one table and one report over N runs that differ in their seed alone."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ganglion import registry
from ganglion.commands.common import home
from ganglion.commands.output import table, write, write_json
from ganglion.console import number
from ganglion.core.contracts import Metric
from ganglion.train.settings import TaskSettings

Outcomes = Sequence[Mapping[str, Any]]


def tell(args: Namespace, cfg: TaskSettings, outcomes: Outcomes) -> None:
    """Print mean, smallest and largest of each metric over the runs, and write their report."""
    metrics = list(registry.make(args.task, cfg).metrics)
    spread = over(outcomes, metrics)
    page = _report(args, cfg, outcomes, metrics, spread)
    if args.json:
        listed = [{k: v for k, v in o.items() if k != "policies"} for o in outcomes]
        write_json(
            {"task": args.task, "status": "succeeded", "runs": listed, "metrics": spread,
             "report": str(page)}, one_line=True,
        )  # fmt: skip
        return
    rows = [
        [name, *[number(s[k] * (100 if s["percent"] else 1)) for k in ("mean", "min", "max")],
         "%" if s["percent"] else "" if s["unit"] == "1" else str(s["unit"])]
        for name, s in spread.items()
    ]  # fmt: skip
    write(table([f"over {len(outcomes)} seeds", "mean", "min", "max", "unit"], rows))
    write(f"report  {page}")


def over(outcomes: Outcomes, metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    """Return {metric: {"mean", "min", "max", "unit", "better"}}; NaN where no run has a value."""
    out: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        entries = [o["metrics"].get(metric.name) or {} for o in outcomes]
        values = [float(e["value"]) for e in entries if e.get("value") is not None]
        values = [v for v in values if v == v]
        nothing = float("nan")
        out[metric.name] = {
            "mean": sum(values) / len(values) if values else nothing,
            "min": min(values, default=nothing), "max": max(values, default=nothing),
            "unit": metric.unit, "percent": metric.percent, "better": metric.better,
        }  # fmt: skip
    return out


def _report(
    args: Namespace,
    cfg: TaskSettings,
    outcomes: Outcomes,
    metrics: Sequence[Metric],
    spread: Mapping[str, Any],
) -> Path:
    """Write report.json and report.html beside the runs, in a folder named after the first."""
    from ganglion.report import page

    first = Path(str(outcomes[0]["run"])).name
    folder = home(args) / "reports" / args.task / f"seeds_{first}"
    rows = [
        {"seed": cfg.seed + n, "run": Path(str(o["run"])).name, "metrics": o["metrics"]}
        for n, o in enumerate(outcomes)
    ]
    report = {
        "version": 1, "task": args.task, "goal": registry.make(args.task, cfg).goal.name,
        "metrics": [asdict(m) for m in metrics], "seeds": rows, "spread": dict(spread),
        "policies": [{**o["policies"][0], "name": f"seed {cfg.seed + n}"}
                     for n, o in enumerate(outcomes) if o.get("policies")],
    }  # fmt: skip
    return page.write(folder, report, {})
