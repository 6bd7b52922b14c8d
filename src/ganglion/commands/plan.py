"""`train --dry-run`: what would be done, how large it is and how long it takes. Nothing written."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from ganglion import registry, scoring
from ganglion.commands.common import home
from ganglion.commands.output import size, table, write, write_json
from ganglion.console import clock
from ganglion.core import dataset, seeds
from ganglion.core.contracts import Arrays, Ranks, Task
from ganglion.core.errors import RunError
from ganglion.core.settings import difference
from ganglion.train.settings import TaskSettings

TRIAL_S = 2.0  # of real updates


def show(args: Namespace, cfg: TaskSettings) -> int:
    """Print the resolved plan of `ganglion train`."""
    from ganglion.train import device

    target = device.choose(args.device)
    if args.out is not None and args.out.exists() and (args.out.is_file() or any(_in(args.out))):
        raise RunError(f"{args.out} exists already; a run never overwrites another.")
    task = registry.make(args.task, cfg)
    data, sample, rows = _data(args, cfg, task)
    total = cfg.train.total_steps(rows)
    device.prepare(cfg.train)
    trial = registry.make(args.task, _short(cfg))
    per_step = seconds_per_step(trial, sample, target, cfg.seed)
    plan = {
        "task": args.task, "preset": args.preset or "standard",
        "changed": {k: [a, b] for k, (a, b) in _changed(cfg).items()},
        "data": data, "device": target, "runs": args.seeds, "steps": total,
        "validations": -(-total // cfg.train.evaluation_steps(rows)),
        "batch_size": cfg.train.batch_size * cfg.train.accumulate,
        "seconds_per_step": per_step, "seconds": per_step * total * args.seeds,
    }  # fmt: skip
    if args.json:
        write_json(plan)
        return 0
    changed = [[k, str(a), str(b)] for k, (a, b) in _changed(cfg).items()]
    write(table(["setting", "default", "here"], changed) if changed else "All settings default.")
    write("")
    write(f"data     {_told(data)}")
    write(f"device   {target}, {cfg.train.threads} thread(s)")
    write(f"steps    {total:,} of {plan['batch_size']:,} rows, {plan['validations']} validations")
    whole = clock(per_step * total * args.seeds)
    runs = f" for {args.seeds} runs" if args.seeds > 1 else ""
    write(f"time     about {whole}{runs}, {per_step * 1e3:.2f} ms a step, before export and report")
    write("\nNothing was written (--dry-run).")
    return 0


def seconds_per_step(task: Task, data: Arrays | None, device: str, seed: int) -> float:
    """Time real updates of a throw-away learner for at most a few seconds."""
    learner = task.learner(data, device, seed, Ranks())
    began = time.perf_counter()
    learner.update()  # warms up
    if time.perf_counter() - began > TRIAL_S:
        return (time.perf_counter() - began) / max(1, learner.step)
    first, began = learner.step, time.perf_counter()
    while time.perf_counter() - began < TRIAL_S / 2:
        learner.update()
    return (time.perf_counter() - began) / max(1, learner.step - first)


def _short(cfg: TaskSettings) -> TaskSettings:
    """Return `cfg` with short blocks, no compilation, and no end of steps for the trial."""
    train = cfg.train.model_copy(
        update={"block": min(cfg.train.block, 5), "compile": False, "steps": 1 << 30,
                "epochs": None, "eval_every": 1 << 29}
    )  # fmt: skip
    return cfg.model_copy(update={"train": train})


def _data(
    args: Namespace, cfg: TaskSettings, task: Task
) -> tuple[dict[str, Any], Arrays | None, int | None]:
    """Return what is known of the data, a sample to train on, and the number of rows."""
    wanted = scoring.recipe(args.task, cfg)
    folder = args.data or home(args) / "datasets" / args.task / wanted.digest[:16]
    if args.data is not None or (folder / "card.json").is_file():
        found = dataset.open_dataset(folder)
        scoring.check_fits(found, args.task, cfg)
        counts = {s: found.rows(s) for s in found.card["splits"]}
        held = sum(p.stat().st_size for p in folder.rglob("*.npy"))
        about = {"folder": str(folder), "present": True, "rows": counts, "bytes": held}
        if cfg.data.fresh:
            return about, None, None
        rows = found.split("train")
        return about, {k: np.array(v[:20_000]) for k, v in rows.items()}, counts["train"]
    began = time.perf_counter()
    count = min(cfg.data.shard, 64)
    sample = task.generate(count, "train", seeds.rng(cfg.data.seed, "plan"))
    spent = time.perf_counter() - began
    row = sum(a.nbytes for a in sample.values()) / count
    total = sum(wanted.counts.values())
    about = {"folder": str(folder), "present": False, "rows": dict(wanted.counts),
             "bytes": round(row * total), "seconds": spent / count * total}  # fmt: skip
    if cfg.data.fresh:
        return about, None, None
    repeats = -(-cfg.train.batch_size // count)
    many = {k: np.concatenate([a] * repeats) for k, a in sample.items()}
    return about, many, wanted.counts["train"]


def _told(data: dict[str, Any]) -> str:
    rows = ", ".join(f"{n:,} {s}" for s, n in data["rows"].items())
    state = "is there" if data["present"] else "to be generated"
    text = f"{data['folder']} {state}: {rows} rows, {size(data['bytes'])}"
    return text + (f", at most {clock(data['seconds'])}" if "seconds" in data else "")


def _changed(cfg: TaskSettings) -> dict[str, tuple[Any, Any]]:
    return difference(type(cfg)().model_dump(mode="json"), cfg.model_dump(mode="json"))


def _in(folder: Path) -> list[Path]:
    return list(folder.iterdir())
