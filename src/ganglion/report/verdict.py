"""What a report comes to: one sentence at the top, and the key figures below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ganglion.report import numbers
from ganglion.report.grid import Column, columns_of, is_oracle, value_of

Json = Mapping[str, Any]
Level = Literal["good", "mixed", "bad", "plain"]


@dataclass(frozen=True)
class Verdict:
    """The headline with how good its news is, and one sentence about the export."""

    text: str
    level: Level
    export: str
    export_level: Level


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    note: str = ""


def trained(report: Json) -> Json | None:
    """Return the policy that the report is about: the first run, ONNX file or command."""
    for kind in ("run", "onnx", "command", "url"):
        for policy in report.get("policies") or []:
            if policy.get("kind") == kind:
                found: Json = policy
                return found
    return None


def oracle(report: Json) -> Json | None:
    """Return the oracle among the policies, or None."""
    for policy in report.get("policies") or []:
        if is_oracle(str(policy.get("name")), str(policy.get("kind") or "")):
            found: Json = policy
            return found
    return None


def best_baseline(report: Json, goal: Column) -> Json | None:
    """Return the reference that does best at the goal, the oracle left out; None where none is."""
    rivals = [
        (value, policy)
        for policy in report.get("policies") or []
        if policy.get("kind") == "reference"
        and not is_oracle(str(policy.get("name")), "reference")
        and (value := value_of(policy, goal.name)) is not None
    ]
    if not rivals:
        return None
    sign = -1.0 if goal.better == "higher" else 1.0
    found: Json = min(rivals, key=lambda pair: sign * pair[0])[1]
    return found


def goal_column(report: Json) -> Column | None:
    """Return the goal metric's column; None where the report names no goal."""
    columns = columns_of(report, list(report.get("policies") or []))
    return next((c for c in columns if c.goal), None)


def verdict(report: Json) -> Verdict:
    """Say in one sentence how the policy stands against oracle and baselines."""
    export, export_level = _export(report.get("export"))
    policy, goal = trained(report), goal_column(report)
    where = _where(report)
    if policy is None or goal is None or value_of(policy, goal.name) is None:
        text = f"{where}: no result for the goal metric yet."
        return Verdict(text, "plain", export, export_level)
    mine = (policy.get("metrics") or {})[goal.name]
    text = f"On {where}, {policy.get('name')} reaches {goal.name} {_estimate(mine, goal)}"
    best = oracle(report)
    if best is not None and value_of(best, goal.name) is not None:
        text += f" where the oracle has {_short(best, goal)}"
    rival = best_baseline(report, goal)
    if rival is None:
        return Verdict(f"{text}.", "plain", export, export_level)
    if best is not None and value_of(best, goal.name) == value_of(rival, goal.name):
        text += f"; the baseline {rival.get('name')} is as good as the oracle here"
        return Verdict(f"{text}.", "mixed", export, export_level)
    clause, level = _against(policy, rival, goal)
    return Verdict(f"{text}, {clause}.", level, export, export_level)


def tiles(report: Json) -> list[Tile]:
    """Return the key figures that the report has, most telling first."""
    out: list[Tile] = []
    policy, goal = trained(report), goal_column(report)
    if policy is not None and goal is not None and value_of(policy, goal.name) is not None:
        entry = {**(policy.get("metrics") or {})[goal.name], "unit": goal.unit}
        note = f"95 % interval {bounds}" if (bounds := numbers.bounds_of(entry)) else goal.help
        value = numbers.estimate({**entry, "low": None, "high": None})
        out.append(Tile(f"{goal.name} {goal.arrow}".strip(), value, note))
        rival = best_baseline(report, goal)
        if rival is not None:
            out.append(Tile(f"best baseline: {rival.get('name')}", _short(rival, goal), goal.name))
    out += _efficiency_tiles(policy, report.get("export") or {})
    out += _run_tiles(report)
    return out


def _where(report: Json) -> str:
    task, problem = report.get("task"), report.get("problem")
    named = str(task or "this task")
    return f"{named} ({problem})" if problem and problem != task else named


def _estimate(entry: Any, goal: Column) -> str:
    raw = dict(entry) if isinstance(entry, Mapping) else {"value": entry}
    return numbers.estimate({**raw, "unit": goal.unit})


def _short(policy: Json, goal: Column) -> str:
    return numbers.quantity(value_of(policy, goal.name), goal.unit)


def _against(policy: Json, rival: Json, goal: Column) -> tuple[str, Level]:
    mine, theirs = value_of(policy, goal.name), value_of(rival, goal.name)
    name = f"the best baseline, {rival.get('name')},"
    shown = _short(rival, goal)
    if mine is None or theirs is None or goal.better not in ("lower", "higher"):
        return f"and {name} has {shown}", "plain"
    sign = -1.0 if goal.better == "higher" else 1.0
    low, high = _interval(policy, goal)
    other_low, other_high = _interval(rival, goal)
    overlap = low <= other_high and other_low <= high
    if mine == theirs:
        return f"and {name} has the same", "mixed"
    ahead = sign * mine < sign * theirs
    if overlap:
        side = "ahead of" if ahead else "behind"
        return f"{side} {name} at {shown}, but the intervals overlap", "mixed"
    if ahead:
        return f"and beats {name} at {shown}", "good"
    return f"and does not reach {name} at {shown}", "bad"


def _interval(policy: Json, goal: Column) -> tuple[float, float]:
    entry = (policy.get("metrics") or {}).get(goal.name)
    value = value_of(policy, goal.name) or 0.0
    raw = entry if isinstance(entry, Mapping) else {}
    low, high = numbers.finite(raw.get("low")), numbers.finite(raw.get("high"))
    return value if low is None else low, value if high is None else high


def _export(export: Any) -> tuple[str, Level]:
    if not isinstance(export, Mapping) or not export:
        return "Nothing was exported.", "plain"
    parity = export.get("parity") or {}
    seen = numbers.finite(parity.get("max_abs"))
    detail = ""
    if seen is not None:
        inputs = numbers.finite(parity.get("inputs"))
        among = "" if inputs is None else f" on {numbers.count(inputs)} inputs"
        detail = f": it differs from the trained policy by at most {numbers.number(seen, 2)}{among}"
    if export.get("refused"):
        return f"The export was refused: {export['refused']}", "bad"
    if export.get("ok") is True:
        return f"The export is verified{detail}.", "good"
    if export.get("ok") is False:
        return f"The export failed its verification{detail}.", "bad"
    return f"The export was not verified{detail}.", "mixed"


def _efficiency_tiles(policy: Json | None, export: Json) -> list[Tile]:
    found = dict((policy or {}).get("efficiency") or {})
    found.setdefault("file_bytes", export.get("bytes"))
    speed = found.get("latency_us") or export.get("latency_us") or {}
    out = []
    if numbers.finite(speed.get("p50")) is not None:
        tail = speed.get("p99")
        note = f"p99 {numbers.latency(tail)}" if numbers.finite(tail) is not None else ""
        out.append(Tile("one decision (p50)", numbers.latency(speed["p50"]), note))
    if numbers.finite(found.get("parameters")) is not None:
        size = numbers.finite(found.get("file_bytes"))
        note = "" if size is None else f"{numbers.size(size)} on disk"
        out.append(Tile("parameters", numbers.count(found["parameters"]), note))
    if numbers.finite(found.get("peak_memory_bytes")) is not None:
        memory = numbers.size(found["peak_memory_bytes"])
        out.append(Tile("peak memory", memory, "in a fresh process"))
    return out


def _run_tiles(report: Json) -> list[Tile]:
    run = report.get("run") or {}
    out = []
    if numbers.finite(run.get("seconds")) is not None:
        cpu = numbers.finite(run.get("cpu_seconds"))
        note = "" if cpu is None else f"{numbers.duration(cpu)} of CPU"
        out.append(Tile("training", numbers.duration(run["seconds"]), note))
    if numbers.finite(run.get("steps")) is not None:
        best = numbers.finite(report.get("best_step"))
        note = "" if best is None else f"best at {numbers.count(best)}"
        out.append(Tile("steps", numbers.count(run["steps"]), note))
    if numbers.finite(report.get("cases")) is not None:
        seed = report.get("seed")
        note = "" if seed is None else f"seed {seed}"
        out.append(Tile("test cases", numbers.count(report["cases"]), note))
    return out
