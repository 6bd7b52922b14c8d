"""Quality: the rows of control's goals, each through the real pipeline, on cases never seen.

python benchmarks/quality.py [--seeds 3] [--cases 1000] [--only rest,moving,...] [key=value]

Trains each problem's default preset with seeds 0, 1, ...; judges the exported files on fresh
cases from seeds of 100,000 and up. `key=value` settings (train.steps=50) are for a quick look.
Prints Markdown for RESULTS.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import header, table, verdict

from ganglion import pipeline, registry, scoring
from ganglion.core import seeds
from ganglion.core.run import Run
from ganglion.core.settings import combine, parse_override
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.tasks.control.evaluation import ARRIVED
from ganglion.tasks.control.references import Admm

Figures = dict[str, float]

LABEL_FREE = [  # trials and a learned critic
    "loss.critic=learned", "loss.window=25", "loss.trajectories=320", "loss.td_lambda=0.95",
    "loss.trials=128", "loss.renewal=0", "loss.restarts=0.1", "optim.lr=5e-3",
    "train.steps=1400",
]  # fmt: skip
PROBLEMS: Mapping[str, tuple[str, list[str]]] = {
    "rest": ("double integrator, target at rest", ["problem.target=rest"]),
    "moving": ("double integrator, moving target", ["problem.target=moving"]),
    "vanderpol": ("Van der Pol", ["problem=vanderpol"]),
    "rocket": ("rocket landing", ["problem=rocket_landing"]),
    "pendulum": ("pendulum", ["problem=pendulum"]),
    "pendulum_label_free": ("pendulum, critic learned", ["problem=pendulum", *LABEL_FREE]),
    "cartpole": ("cartpole", ["problem=cartpole"]),
    "quadrotor2d": ("planar quadrotor", ["problem=quadrotor2d"]),
}
# goal: figure, limit (upper where positive is bad), how it reads
GOALS: Mapping[str, list[tuple[str, str, float]]] = {
    "rest": [("gap", "<=", 1e-4), ("success", ">=", 1.0), ("violations", "<=", 0.0),
             ("parameters", "<=", 10_000)],
    "moving": [("gap", "<=", 5e-4), ("gap_x1.5", "<=", 2e-2), ("violations", "<=", 0.0),
               ("rising", "<=", 0.0), ("rising_x1.5", "<=", 0.0), ("parameters", "<=", 10_000),
               ("cpu_s", "<=", 60.0)],
    "vanderpol": [("gap", "<=", 2e-3), ("success", ">=", 1.0), ("violations", "<=", 0.0)],
    "rocket": [("landing", ">=", 1.0), ("gap", "<=", 3e-2), ("violations", "<=", 0.0)],
    "pendulum": [("gap", "<=", 3e-2), ("arrived", ">=", 1.0), ("violations", "<=", 0.0),
                 ("parameters", "<=", 10_000)],
    "pendulum_label_free": [("gap", "<=", 6e-2), ("arrived", ">=", 0.995)],
    "cartpole": [("gap", "<=", 4e-2), ("arrived", ">=", 0.995), ("upright", ">=", 1.0),
                 ("parameters", "<=", 10_000)],
    "quadrotor2d": [("gap", "<=", 5e-3), ("arrived", ">=", 1.0), ("arrived_x1.5", ">=", 0.98),
                    ("violations", "<=", 0.0)],
}  # fmt: skip
COSTLY = 200  # cases with an optimum, where that takes many starts of a solver
FIRST_SEED = 100_000  # no training, validation or test data are drawn from it or above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--only", default=",".join(PROBLEMS))
    parser.add_argument("--home", type=Path, help="keep the runs here (default: thrown away)")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    print(header("Quality"))
    with tempfile.TemporaryDirectory() as folder:
        for problem in args.only.split(","):
            found = [
                measure(problem, seed, args.cases, args.settings, args.home or Path(folder))
                for seed in range(args.seeds)
            ]
            report(problem, found, args.cases)


def measure(problem: str, seed: int, cases: int, words: list[str], home: Path) -> Figures:
    """Train one seed from begin to report and judge its exported policy."""
    layer = combine([parse_override(w) for w in [*PROBLEMS[problem][1], f"seed={seed}", *words]])
    cfg = registry.resolve("control", "standard", [layer])
    run = pipeline.begin("control", cfg, pipeline.Place(home=home), preset="standard")
    outcome = pipeline.train(run)
    print(f"... {problem} seed {seed}: {run.folder}", file=sys.stderr)
    policy = OnnxPolicy(Path(outcome["export"]["path"]))
    efficiency = next(p["efficiency"] for p in outcome["policies"] if p["name"] == _name(run))
    figures = {
        "cpu_s": float(outcome["cpu_s"]), "parameters": float(efficiency["parameters"]),
        "latency_us": float(outcome["export"]["latency_us"]["p50"]),
    }  # fmt: skip
    if problem == "rocket":
        return figures | landed(cfg, policy, cases, FIRST_SEED + seed)
    for scale in (1.0, 1.5, 2.0):
        tail = "" if scale == 1.0 else f"_x{scale:g}"
        changed = registry.override("control", cfg, {"problem.start_scale": scale})
        task = registry.make("control", changed)
        costly = task.plant.method != "exact"  # a second per case, not a millisecond
        if costly:
            found = arrived(task, policy, cases, FIRST_SEED + seed)
            figures |= {k + tail: v for k, v in found.items()}
            if scale > 1.0:
                continue
        count = min(cases, COSTLY) if costly else cases
        fresh = scoring.fresh_cases(task, "control", changed, count, FIRST_SEED + seed)
        figures |= {k + tail: v for k, v in scored(task, policy, fresh).items()}
        curves = task.curves(policy, fresh)
        if curves:
            figures["rising" + tail] = float(np.max(curves["rising"]))
            figures["most_cycles"] = float(curves["cycles"][-1])
        others = dict(task.references())
        if (
            changed.cycles and task.plant.matrices() is not None
        ):  # the not learned alternative at equal cycles
            others[f"admm_{changed.cycles}"] = Admm(task.plant, changed.cycles)
        for name, reference in others.items():
            if name.startswith("admm") or (name.startswith("lqr") and scale == 1.0):
                figures[name + tail] = scored(task, reference, fresh)["gap"]
    return figures


def landed(cfg: Any, policy: Any, cases: int, seed: int) -> Figures:
    """Return the rocket's figures: over the cases that the oracle lands, larger boxes beside."""
    figures: Figures = {}
    for scale in (1.0, 1.25):
        tail = "" if scale == 1.0 else f"_x{scale:g}"
        changed = registry.override("control", cfg, {"problem.start_scale": scale})
        task = registry.make("control", changed)
        fresh = scoring.fresh_cases(task, "control", changed, cases, seed)
        rows = task.evaluate(policy, fresh, seeds.rng(0, "evaluate"))
        figures |= {
            "landing" + tail: float(np.nanmean(rows["landing"])),
            "gap" + tail: float(np.nansum(rows["fuel_gap"]) / np.nansum(rows["optimal_fuel"])),
            "p95" + tail: float(np.nanquantile(rows["case_gap"], 0.95)),
            "max" + tail: float(np.nanmax(rows["case_gap"])),
            "violations" + tail: float(np.nanmean(rows["violations"])),
            "oracle_success" + tail: float(rows["oracle_success"].mean()),
        }
    return figures


def _name(run: Run) -> str:
    return str(run.manifest.get("name") or "policy")


def arrived(task: Any, policy: Any, count: int, seed: int) -> Figures:
    """Return the share of `count` fresh starts that arrive, which takes no optimum."""
    rng, plant = np.random.default_rng(seed), task.truth
    starts = plant.sample_starts(rng, count, task.settings.problem.start_scale)
    cases = {"state": starts, "target": np.zeros_like(starts)}
    run = task.trial(cases, rng).closed_loop(policy, rng)
    groups = {"arrived": None, **{k: g for k, (g, _) in plant.partial_arrivals.items()}}
    far = {k: plant.arrival(run.states, cases["target"], g) for k, g in groups.items()}
    return {k: float((v < ARRIVED).mean()) for k, v in far.items()}


def scored(task: Any, policy: Any, cases: Any) -> Figures:
    """Return gap (ratio of sums), worst and 95 % case gaps, success and violations."""
    rows = task.evaluate(policy, cases, seeds.rng(0, "evaluate"))
    return {
        "gap": float(rows["gap"].sum() / rows["optimal_cost"].sum()),
        "p95": float(np.quantile(rows["case_gap"], 0.95)),
        "max": float(rows["case_gap"].max()),
        "success": float(rows["success"].mean()),
        "oracle_success": float(rows["oracle_success"].mean()),
        "violations": float(rows["violations"].mean()),
        "closed_gap": float(rows["closed_gap"].sum() / rows["optimal_cost"].sum()),
    }


def report(problem: str, found: list[Figures], cases: int) -> None:
    """Print every figure of every seed, then the goals: the worst seed decides."""
    print(f"### {PROBLEMS[problem][0]}, {cases} fresh cases a seed\n")
    names = list(found[0])
    head = ["figure", *[f"seed {i}" for i in range(len(found))]]
    print(table(head, [[n, *[shown(n, f[n]) for f in found]] for n in names]))
    rows = []
    for name, sign, limit in GOALS[problem]:
        values = [f[name] for f in found if name in f]
        if not values:
            rows.append([name, "-", f"{sign} {shown(name, limit)}", "not measured"])
            continue
        worst = max(values) if sign == "<=" else min(values)
        met = worst <= limit if sign == "<=" else worst >= limit
        limit_text = f"{sign} {shown(name, limit)}"
        rows.append([name, shown(name, worst), limit_text, verdict(met)])
    print(table(["goal", "worst seed", "limit", ""], rows))


def shown(name: str, value: float) -> str:
    """Return shares in per cent, others as they are."""
    if name in ("cpu_s", "latency_us"):
        return f"{value:.1f}"
    if name in ("parameters", "most_cycles"):
        return f"{value:,.0f}"
    return f"{100 * value:.4g} %"


if __name__ == "__main__":
    main()
