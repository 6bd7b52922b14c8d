"""Quality of the presets of gridnav on maps from seeds that nothing is trained or selected on.

    python benchmarks/gridnav_quality.py --preset standard --seeds 0,1,2 --home /tmp/gridnav

trains each seed (or takes the finished run that lies in --home), asks the exported file for every
cell of every set, writes one JSON line per set to HOME/figures.jsonl as it comes, and prints
markdown: every figure of every seed, then the goals, where the worst seed decides. What is in
figures.jsonl already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import header, table, verdict

from ganglion import pipeline, registry, scoring, session
from ganglion.core import metrics, seeds
from ganglion.core import run as runs
from ganglion.core.run import Run
from ganglion.core.settings import combine, parse_override
from ganglion.export.onnx_policy import OnnxPolicy

TASK = "gridnav"
FIRST_SEED = 100_000  # no training, validation or test data are drawn from it or above
BRAIDED = {"problem.kind": "maze", "problem.braid": [0.0, 1.0], "problem.openings": [0.0, 0.1]}


def _square(side: int, **more: Any) -> dict[str, Any]:
    return {"problem.height": side, "problem.width": side, **more}


def _density(side: int) -> dict[str, Any]:
    return {"problem.kind": "density", **_square(side)}


def _hard(variant: str) -> dict[str, Any]:
    return {"problem.kind": "hard", "problem.variants": [variant]}


# name -> overrides, maps; and the presets that are measured on it besides `max`
SETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "8x8 density": (_density(8), 10_000),
    "16x16 density": (_density(16), 1_000),
    "32x32 density": (_density(32), 1_000),
    "64x64 density": (_density(64), 200),
    "hard perfect": (_hard("perfect"), 1_000),
    "hard braided": (_hard("braided"), 1_000),
    "hard walls": (_hard("walls"), 1_000),
    "32x32 rooms": ({"problem.kind": "rooms", **_square(32)}, 200),
    "64x64 braided": ({**BRAIDED, **_square(64)}, 200),
    "64x64 perfect": ({"problem.kind": "maze", **_square(64)}, 20),
    "128x128 braided": ({**BRAIDED, **_square(128)}, 200),
    "128x128 perfect": ({"problem.kind": "maze", **_square(128)}, 20),
    "256x256 braided": ({**BRAIDED, **_square(256)}, 50),
    "256x256 perfect": ({"problem.kind": "maze", **_square(256)}, 5),
}
TRIPLED = {  # without halting, at the steps for their size and at three times as many
    "8x8 density": 1_000, "32x32 density": 50, "hard perfect": 20, "hard braided": 20,
    "hard walls": 20,
}  # fmt: skip
SMALL = ("8x8 density", "32x32 density", "hard perfect", "hard braided", "hard walls")
LARGE = tuple(name for name in SETS if name.startswith(("128", "256")))
ASKED: Mapping[str, Sequence[str]] = {
    "quick": SMALL,
    "standard": tuple(n for n in SETS if n not in LARGE),
    "puzzles": SMALL,
    "trm": SMALL,
    "max": tuple(SETS),
    "recipe1": ("8x8 density",),
}
HARD = ("hard perfect", "hard braided", "hard walls")
# preset -> (set, figure, limit); shares from below, "drop" from above
GOALS: Mapping[str, Sequence[tuple[str, str, float]]] = {
    "quick": [
        ("8x8 density", "optimal", 0.999), ("8x8 density", "success", 0.9999),
        ("32x32 density", "optimal", 0.995), ("32x32 density", "success", 0.999),
        ("hard perfect", "exact", 0.95), ("hard braided", "exact", 0.95),
        ("hard walls", "exact", 0.90), *((n, "drop", 1e-3) for n in TRIPLED),
    ],
    "standard": [
        ("8x8 density", "optimal", 0.99999), ("8x8 density", "success", 0.99999),
        ("32x32 density", "optimal", 0.9999), ("32x32 density", "success", 0.99999),
        ("64x64 density", "optimal", 0.9999), ("64x64 density", "success", 0.9999),
        *((n, "exact", 0.998) for n in HARD),
        ("64x64 braided", "success", 0.999), ("64x64 braided", "optimal", 0.9999),
        *((n, "drop", 1e-4) for n in TRIPLED),
        ("8x8 density", "no_way_known", 0.999), ("hard walls", "no_way_known", 0.999),
    ],
    "puzzles": [(n, "exact", 0.98) for n in HARD],
    "trm": [("8x8 density", "success", 0.999), *((n, "exact", 0.90) for n in HARD)],
    "max": [
        ("8x8 density", "optimal", 1.0), ("32x32 density", "optimal", 0.99999),
        ("32x32 density", "success", 1.0), ("64x64 density", "optimal", 0.99999),
        ("64x64 density", "success", 1.0), *((n, "exact", 1.0) for n in HARD),
        *((n, "perfect_maps", 0.998) for n in HARD),
        ("64x64 braided", "success", 0.99999), ("64x64 braided", "optimal", 0.99999),
        *((n, "success", 0.999) for n in LARGE), *((n, "drop", 0.0) for n in TRIPLED),
        ("8x8 density", "no_way_known", 0.9999), ("hard walls", "no_way_known", 0.9999),
    ],
    "recipe1": [],
}  # fmt: skip
SHOWN = ("optimal", "wrong", "success", "exact", "perfect_maps", "path_ratio", "no_way_known",
         "loops", "collisions", "label_accuracy", "label_random_optimal")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--preset", default="standard", choices=sorted(GOALS))
    parser.add_argument("--name", help="of the runs and the block (default: the preset)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sets", help="names of sets, by commas (default: those of the preset)")
    parser.add_argument("--maps", type=int, default=1 << 30, help="at most so many of a set")
    parser.add_argument("--no-drop", action="store_true", help="leave three times the steps out")
    parser.add_argument("--home", type=Path, required=True, help="runs and figures stay here")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    name = args.name or args.preset
    names = args.sets.split(",") if args.sets else ASKED[args.preset]
    wanted = {n: min(args.maps, SETS[n][1]) for n in names}
    chosen = [int(s) for s in args.seeds.split(",")]
    for seed in chosen:
        run = trained(args.home, args.preset, name, seed, args.settings)
        measured(args.home, run, name, seed, wanted, drop=not args.no_drop)
    print(header(f"gridnav, {name}"))
    report(args.home, name, args.preset, chosen)


# ---------------------------------------------------------------- measuring


def trained(home: Path, preset: str, name: str, seed: int, words: Sequence[str]) -> Run:
    """Return the finished run of a seed: the one in `home`, gone on with if need be, or new."""
    folder = home / "runs" / TASK / f"{name}-{seed}"
    if not (folder / "config.json").is_file():
        layer = combine([parse_override(w) for w in [f"seed={seed}", *words]])
        cfg = registry.resolve(TASK, preset, [layer])
        place = pipeline.Place(home=home, out=folder)
        run = pipeline.begin(TASK, cfg, place, preset=preset)
    else:
        run = Run.open(folder)
    if json.loads((folder / "status.json").read_bytes())["state"] != "succeeded":
        began = _spent()
        pipeline.train(run)
        note = {"name": name, "seed": seed, "set": "command", "cpu_s": _spent() - began}
        append(home, note)
    return runs.find(home, str(folder))


def _spent() -> float:
    """CPU seconds of this process and those that it waited for."""
    own, children = (
        resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return sum(u.ru_utime + u.ru_stime for u in (own, children))


def append(home: Path, line: Mapping[str, Any]) -> None:
    with (home / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def measured(
    home: Path, run: Run, name: str, seed: int, wanted: Mapping[str, int], *, drop: bool
) -> None:
    """Append the figures of one run that are not there yet; wanted is set -> number of maps."""
    done = {(line["name"], line["seed"], line["set"]) for line in lines(home)}

    def note(where: str, figures: Mapping[str, Any]) -> None:
        append(home, {"name": name, "seed": seed, "set": where, **figures})
        print(f"... {name} seed {seed}: {where}", file=sys.stderr, flush=True)

    if (name, seed, "training") not in done:
        note("training", training(run))
    policy = OnnxPolicy(run.folder / "export" / "policy.onnx")
    for where, count in wanted.items():
        if (name, seed, where) not in done:
            note(where, scored(run, policy, where, count, seed))
    if not drop:
        return
    longer = None
    for where in (w for w in TRIPLED if w in wanted):
        if (name, seed, f"{where}, x3") not in done:
            longer = longer or unhalting(run)
            once = scored(run, longer, where, TRIPLED[where], seed)
            thrice = scored(run, longer, where, TRIPLED[where], seed, 3.0)
            fall = {"drop": max(0.0, once["optimal"] - thrice["optimal"]), "once": once["optimal"],
                    "thrice": thrice["optimal"]}  # fmt: skip
            note(f"{where}, x3", fall)


def training(run: Run) -> dict[str, Any]:
    """Return what training cost and what was exported."""
    report = json.loads((run.folder / "report" / "report.json").read_bytes())
    own = report["policies"][0]["efficiency"]
    exported = report["export"]
    return {
        "cpu_s": report["run"]["cpu_seconds"], "steps": report["run"]["steps"],
        "best_step": report["best_step"], "parameters": own["parameters"],
        "parity": exported["parity"],
    }  # fmt: skip


def scored(
    run: Run, policy: Any, where: str, count: int, seed: int, factor: float = 1.0
) -> dict[str, Any]:
    """Score `policy` on fresh maps of a set; the steps follow from size and kind."""
    cfg = registry.settings(TASK).model_validate(run.config["settings"])
    overrides = {**SETS[where][0], "evaluation.factor": factor}
    changed = registry.override(TASK, cfg, overrides)
    task = registry.make(TASK, changed)
    cases = scoring.fresh_cases(task, TASK, changed, count, FIRST_SEED + seed)
    began = time.process_time()
    rows = task.evaluate(policy, cases, seeds.rng(0, "evaluate"))
    spent = time.process_time() - began
    found = metrics.summarise(rows, task.metrics, 0)
    figures = {name: found[name].value for name in SHOWN}
    counts = {
        "maps": count, "cells": int(rows["cells"].sum()), "wrong_cells": int(rows["wrong"].sum()),
        "exact_maps": int(rows["exact"].sum()), "success_low": found["success"].low,
    }  # fmt: skip
    return {**figures, **counts, "steps": changed.steps, "evaluation_s": spent}


def unhalting(run: Run) -> Any:
    """Return the run's policy as a torch module that takes exactly the steps it is asked for."""
    learner, _, _, _ = session.trained(run, "best")
    policy: Any = learner.policy()
    policy.module.halting = False
    return policy


# ---------------------------------------------------------------- reporting


def lines(home: Path) -> list[dict[str, Any]]:
    """Return what was measured so far."""
    path = home / "figures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(home: Path, name: str, preset: str, chosen: Sequence[int]) -> None:
    """Print figures and goals in markdown."""
    found = {(x["set"], x["seed"]): x for x in lines(home) if x["name"] == name}
    rows = []
    for seed in chosen:
        cost, whole = found["training", seed], found.get(("command", seed))
        rows.append([str(seed), f"{cost['cpu_s']:.0f}", f"{whole['cpu_s']:.0f}" if whole else "-",
                     f"{cost['steps']:,}",
                     f"{cost['parameters']:,}", json.dumps(cost["parity"]["max_abs"])])  # fmt: skip
    print(
        table(["seed", "training, CPU-s", "whole command", "steps", "parameters", "parity"], rows)
    )
    head = ["set", "seed", "maps", "cells", "wrong cells", *SHOWN[2:7], "loops", "collisions",
            "CPU-s"]  # fmt: skip
    rows = []
    for where in SETS:
        for seed in chosen:
            if line := found.get((where, seed)):
                rows.append([
                    where, str(seed), f"{line['maps']:,}", f"{line['cells']:,}",
                    f"{line['wrong_cells']:,}", *(_share(line[k]) for k in SHOWN[2:7]),
                    _share(line["loops"]), _share(line["collisions"]),
                    f"{line['evaluation_s']:.0f}",
                ])  # fmt: skip
    print(table(head, rows))
    _print_goals(found, preset, chosen)


def _print_goals(
    found: Mapping[tuple[str, int], Mapping[str, Any]], preset: str, chosen: Sequence[int]
) -> None:
    rows = []
    for where, figure, limit in GOALS[preset]:
        falls = figure == "drop"
        place = f"{where}, x3" if falls else where
        values = [found[place, s][figure] for s in chosen if (place, s) in found]
        shown = " / ".join(_share(v) for v in values)
        if len(values) < len(chosen):
            rows.append([where, figure, shown or "-", _limit(limit, falls), "not measured"])
            continue
        met = max(values) <= limit if falls else min(values) >= limit
        rows.append([where, figure, shown, _limit(limit, falls), verdict(met)])
    if rows:
        print(table(["set", "figure", "by seed", "goal", ""], rows))


def _limit(limit: float, falls: bool) -> str:
    return f"{'<=' if falls else '>='} {limit:g}"


def _share(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.7g}" if value < 1.0 or value != round(value) else f"{value:g}"


if __name__ == "__main__":
    main()
