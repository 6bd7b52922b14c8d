"""Quality of the presets of motion, on episodes from seeds that nothing is trained or selected on.

python benchmarks/motion_quality.py --preset quick --seeds 0,1,2 --home /tmp/motion

Trains each seed through the whole pipeline (or takes the run that lies in --home, gone on with if
it was stopped), runs the exported file in physics beside open loop, cloning and standing, writes
one JSON line per policy to HOME/figures.jsonl as it comes, and prints Markdown: every seed, then
the goals, where the worst seed decides. What is in figures.jsonl is not measured again.
`key=value` settings change the preset (robot=miniquad); then --name names the block.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import header, table, verdict

from ganglion import pipeline, registry, scoring
from ganglion.core import metrics, seeds
from ganglion.core.contracts import Policy, Task
from ganglion.core.run import Run
from ganglion.core.settings import combine, parse_override
from ganglion.export.onnx_policy import OnnxPolicy

TASK = "motion"
FIRST_SEED = 100_000  # no training, validation or test data are drawn from it or above
TRACKED = ("survived", "tracked", "joint_rmse", "r_mpjpe", "mpjpe", "distance_error",
           "speed_error", "contact_f1", "action_rate", "torque_rms")  # fmt: skip
COMMANDED = ("command_error", "survived", "contact_f1", "action_rate", "torque_rms")
GATE = (
    ("survived", ">=", 0.99), ("tracked", ">=", 0.95), ("joint_rmse", "<=", 0.08),
    ("r_mpjpe", "<=", 5.0), ("distance_error", "<=", 0.10), ("cpu_s", "<=", 90.0),
)  # fmt: skip
# preset -> block of the specification -> figure, sign, limit
GOALS: Mapping[str, Mapping[str, Sequence[tuple[str, str, float]]]] = {
    "quick": {
        "gate": GATE,
        "goal": (("joint_rmse", "<=", 0.07), ("r_mpjpe", "<=", 4.0), ("distance_error", "<=", 0.05),
                 ("cpu_s", "<=", 60.0), ("wall_s", "<=", 180.0)),
    },
    "standard": {"goal": (("distance_error", "<=", 0.05), ("joint_rmse", "<=", 0.065))},
}  # fmt: skip
COMMAND_GOALS = {"goal": (("command_error", "<=", 0.20), ("cpu_s", "<=", 1200.0))}

Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--name", help="of the runs and the block (default: the preset)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--home", type=Path, required=True, help="runs and figures stay here")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    name = args.name or args.preset
    chosen = [int(s) for s in args.seeds.split(",")]
    for seed in chosen:
        run = trained(args.home, args.preset, name, seed, args.settings)
        measured(args.home, run, name, seed, args.episodes)
    changed = ", ".join(args.settings) or "as it is"
    print(header(f"motion, preset {args.preset} ({changed}), {args.episodes} episodes a seed"))
    lines = [x for x in figures(args.home) if x["name"] == name and x["seed"] in chosen]
    report(lines, chosen)
    goals = GOALS.get(args.preset, {}) if name == args.preset else {}
    commanded = any("command_error" in x for x in lines)
    print_goals(lines, chosen, COMMAND_GOALS if commanded else goals)


# ---------------------------------------------------------------- measuring


def trained(home: Path, preset: str, name: str, seed: int, words: Sequence[str]) -> Run:
    """Return the finished run of a seed: the one in `home`, gone on with if need be, or new."""
    folder = home / "runs" / TASK / f"{name}-{seed}"
    if not (folder / "config.json").is_file():
        layer = combine([parse_override(w) for w in [f"seed={seed}", *words]])
        cfg = registry.resolve(TASK, preset, [layer])
        run = pipeline.begin(TASK, cfg, pipeline.Place(home=home, out=folder), preset=preset)
    else:
        run = Run.open(folder)
    if json.loads((folder / "status.json").read_bytes())["state"] != "succeeded":
        began = _spent(), time.monotonic()
        pipeline.train(run)
        spent = {"cpu_s": _spent() - began[0], "wall_s": time.monotonic() - began[1]}
        _append(home, {"name": name, "seed": seed, "policy": "command", **spent})
    return Run.open(folder)


def measured(home: Path, run: Run, name: str, seed: int, episodes: int) -> None:
    """Score the exported file and what it is compared with, each once."""
    done = {x["policy"] for x in figures(home) if (x["name"], x["seed"]) == (name, seed)}
    cfg = registry.settings(TASK).model_validate(run.config["settings"])
    task = registry.make(TASK, cfg)
    cases = scoring.fresh_cases(task, TASK, cfg, episodes, FIRST_SEED + seed)
    for policy_name, policy in policies(run, task):
        if policy_name not in done:
            rows = task.evaluate(policy, cases, seeds.rng(0, "evaluate"))
            found = metrics.summarise(rows, task.metrics, 0)
            values = {key: estimate.value for key, estimate in found.items()}
            cost = training(run) if policy_name == "policy" else {}
            _append(home, {"name": name, "seed": seed, "policy": policy_name, **values, **cost})


def policies(run: Run, task: Task) -> Iterable[tuple[str, Policy]]:
    """Yield the exported policy, then the references."""
    yield "policy", OnnxPolicy(run.folder / "export" / "policy.onnx")
    yield from task.references().items()


def training(run: Run) -> Line:
    """Return what training cost and what was exported."""
    found = json.loads((run.folder / "report" / "report.json").read_bytes())
    exported = found["export"]
    return {
        "cpu_s": found["run"]["cpu_seconds"], "steps": found["run"]["steps"],
        "best_step": found["best_step"], "parity": exported["parity"]["max_abs"],
        "latency_us": exported["latency_us"]["p50"],
    }  # fmt: skip


def figures(home: Path) -> list[Line]:
    """Return what was measured so far."""
    path = home / "figures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(home: Path, line: Mapping[str, Any]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _spent() -> float:
    """CPU seconds of this process and those that it waited for."""
    usages = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)


# ---------------------------------------------------------------- reporting


def report(lines: Sequence[Line], chosen: Sequence[int]) -> None:
    """Print what the runs cost, then every figure of every policy of every seed."""
    rows = []
    for seed in chosen:
        own, whole = of(lines, "policy", seed), of(lines, "command", seed)
        rows.append([
            str(seed), f"{own['cpu_s']:.0f}", f"{whole['cpu_s']:.0f}" if whole else "-",
            f"{whole['wall_s']:.0f}" if whole else "-",
            f"{own['steps']}", f"{own['best_step']}", f"{own['parity']:.1e}",
            f"{own['latency_us']:.1f}",
        ])  # fmt: skip
    head = ["seed", "training, CPU-s", "all, CPU-s", "all, wall s", "updates", "best", "parity",
            "latency p50, us"]  # fmt: skip
    print(table(head, rows))
    names = [n for n in dict.fromkeys(x["policy"] for x in lines) if n != "command"]
    shown = COMMANDED if any("command_error" in x for x in lines) else TRACKED
    rows = [
        [name, str(seed), *(_text(key, line.get(key)) for key in shown)]
        for name in names for seed in chosen if (line := of(lines, name, seed))
    ]  # fmt: skip
    print(table(["policy", "seed", *shown], rows))


def of(lines: Sequence[Line], policy: str, seed: int) -> Line:
    """Return the line of a policy and a seed, empty where there is none."""
    return next((x for x in lines if (x["policy"], x["seed"]) == (policy, seed)), {})


def print_goals(
    lines: Sequence[Line], chosen: Sequence[int], goals: Mapping[str, Sequence[Any]]
) -> None:
    """Print each goal with the figure of every seed."""
    rows = []
    for block, wanted in goals.items():
        for key, sign, limit in wanted:
            source = "command" if key == "wall_s" else "policy"
            found = [of(lines, source, s).get(key) for s in chosen]
            values = [float(v) for v in found if v is not None]
            shown = " / ".join(_text(key, v) for v in found)
            if len(values) < len(chosen):
                met = "not measured"
            else:
                met = verdict(max(values) <= limit if sign == "<=" else min(values) >= limit)
            rows.append([block, key, shown, f"{sign} {_text(key, limit)}", met])
    if rows:
        print(table(["", "figure", "by seed", "limit", ""], rows))


def _text(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key in ("survived", "tracked", "distance_error", "command_error"):
        return f"{100 * value:.3g} %"
    return f"{value:.0f}" if key in ("cpu_s", "wall_s") else f"{value:.3g}"


if __name__ == "__main__":
    main()
