"""Speed against the obvious alternative, measured in one run: medians over interleaved repeats.

python benchmarks/bench.py [--fast] [--only generate,train,latency,loop,start]

Prints Markdown for RESULTS.md and writes no file of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import header, table, verdict
from torch.utils.data import DataLoader, TensorDataset

from ganglion import registry
from ganglion.core.contracts import Ranks
from ganglion.core.run import Run
from ganglion.core.settings import combine, parse_override
from ganglion.export.latency import latency
from ganglion.export.onnx_export import Checks, export
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.tasks.control import oracle
from ganglion.tasks.control.plants.settings import DoubleIntegratorSettings
from ganglion.tasks.control.riccati import clipped_rollout, steady_tracking_gain
from ganglion.train import device
from ganglion.train.journal import Plan, RunJournal
from ganglion.train.loop import Progress, Validation, fit

Row = tuple[str, str, str, str]  # what, measured, goal, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="few repeats: to see that it runs")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(header("Speed"))
    rows: list[Row] = []
    for part in args.only.split(","):
        rows += PARTS[part](args.fast)
        print(f"... {part} done", file=sys.stderr)
    print(table(["what", "measured", "goal", ""], rows))


def alternately(
    ways: Sequence[Callable[[], object]], repeats: int, warmup: int = 1
) -> list[list[float]]:
    """Time each way `repeats` times, taking turns so that a busy machine hurts them alike.

    A way that returns a float has timed itself: what it prepared is not counted.
    """
    for _ in range(warmup):
        for way in ways:
            way()
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, found in zip(ways, times, strict=True):
            began = time.perf_counter()
            told = way()
            found.append(told if isinstance(told, float) else time.perf_counter() - began)
    return times


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the pairwise ratios."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def settings(preset: str, *words: str) -> Any:
    """Resolve settings as the command line does."""
    return registry.resolve("control", preset, [combine([parse_override(w) for w in words])])


# ---------------------------------------------------------------- generation


def generation(fast: bool) -> list[Row]:
    """10,000 clipped-gain LQR trajectories, and as many exact optima."""
    plant = DoubleIntegratorSettings(target="moving", cost="original").plant()
    count = 500 if fast else 10_000

    def ours() -> object:
        rng = np.random.default_rng(42)
        x0, target = plant.sample_starts(rng, count), plant.sample_targets(rng, count)
        states, controls = clipped_rollout(plant, steady_tracking_gain(plant), x0, target)
        return states, controls, plant.cost(states, controls, target)

    plain, batched = alternately([lambda: newcomers_loop(count), ours], 2 if fast else 5)
    ratio = median_ratio(plain, batched)
    problem = DoubleIntegratorSettings(target="moving").plant()
    rng = np.random.default_rng(0)
    x0, target = problem.sample_starts(rng, count), problem.sample_targets(rng, count)
    (exact,) = alternately([lambda: oracle.solve(problem, x0, target)], 2 if fast else 5)
    seconds = statistics.median(exact)
    return [
        (
            f"{count:,} clipped-gain LQR trajectories in memory, against a per-sample loop",
            f"{ratio:.0f}x ({statistics.median(plain):.2f} s -> "
            f"{1e3 * statistics.median(batched):.1f} ms)",
            ">= 200x",
            verdict(ratio >= 200),
        ),
        (f"{count:,} exact box-constrained optima", f"{seconds:.2f} s", "<= 1 s",
         verdict(seconds <= 1.0)),
    ]  # fmt: skip


def newcomers_loop(count: int) -> object:
    """Generate the same arrays as one would first write it: sample by sample, step by step."""
    plant = DoubleIntegratorSettings(target="moving", cost="original").plant()
    a, b = plant.matrices()
    gain = steady_tracking_gain(plant)[0]
    q, r, bound = np.diag(plant.q), np.diag(plant.r), float(plant.bound[0])
    rng = np.random.default_rng(42)
    states, controls, costs = [], [], []
    for _ in range(count):
        x = rng.uniform(-2.0, 2.0, 2)
        target = rng.uniform(-2.0, 2.0, 2)
        path, inputs, cost = [x], [], 0.0
        for _ in range(plant.num_steps):
            e = x - target
            u = np.clip(-gain @ e, -bound, bound)
            cost += e @ q @ e + u @ r @ u
            x = a @ x + b @ u
            path.append(x)
            inputs.append(u)
        states.append(np.array(path))
        controls.append(np.array(inputs))
        costs.append(cost)
    return np.array(states), np.array(controls), np.array(costs)


# ---------------------------------------------------------------- training steps


def training(fast: bool) -> list[Row]:
    """Steps per second of the same net, batch and loss, against a plain DataLoader loop."""
    compiler = shutil.which("g++") or shutil.which("c++")
    imitation = ("data.train=2000", "data.validation=64", "data.test=64")
    jobs = [
        (
            "trc small two_level, imitation, b64",
            settings("guide", "model=trc", "model.size=small", *imitation),
        ),
        ("trc medium two_level, imitation, b64", settings("guide", *imitation)),
        ("feedback, preset quick, b256", settings("quick")),
    ]
    rows: list[Row] = []
    for name, cfg in jobs:
        modes = ["eager", "compiled"] if compiler and not fast else ["eager"]
        medium, quick = "medium" in name, "quick" in name
        steps = 20 if fast else (40 if medium else 100)
        for mode in modes:
            if mode == "compiled" and (medium or quick):
                continue
            ratio, theirs, ours = _against_dataloader(cfg, mode == "compiled", steps, fast)
            goal, met = (">= 1.3x", ratio >= 1.3) if mode == "compiled" else (
                "never slower (>= 0.97, the noise)", ratio >= 0.97)  # fmt: skip
            shown = f"{ratio:.2f}x ({1e3 * theirs:.2f} -> {1e3 * ours:.2f} ms a step)"
            rows.append((f"training step, {name}, {mode}", shown, goal, verdict(met)))
    if not compiler:
        rows.append(("training step, compiled", "no C++ compiler here", ">= 1.3x", "not measured"))
    return rows


def _against_dataloader(
    cfg: Any, compiled: bool, steps: int, fast: bool
) -> tuple[float, float, float]:
    """Return the ratio of the medians' pairs, and seconds a step of each."""
    whole = {"steps": 10**6, "eval_every": 10**6, "block": 20, "compile": compiled, "epochs": None}
    cfg = registry.override("control", cfg, {f"train.{k}": v for k, v in whole.items()})
    task = registry.make("control", cfg)
    rows = 2_000 if not cfg.data.fresh else 20_000
    data = task.generate(rows, "train", np.random.default_rng(0))
    learner = task.learner(None if cfg.data.fresh else data, "cpu", 0, Ranks())

    def ours() -> None:
        last = learner.step + steps
        while learner.step < last:
            learner.update()

    plain = plain_loop(task, data, cfg, steps)
    theirs, mine = alternately([plain, ours], 2 if fast else 9)
    return (
        median_ratio(theirs, mine), statistics.median(theirs) / steps,
        statistics.median(mine) / steps,
    )  # fmt: skip


def plain_loop(task: Any, data: Any, cfg: Any, steps: int) -> Callable[[], None]:
    """Return the loop of a tutorial: DataLoader, zero_grad, backward, clip, step, loss.item()."""
    twin = task.learner(None, "cpu", 0, Ranks())  # its own net and loss, never its update
    module, loss_of = twin._module, twin._parts.loss
    names = ["state", "target", "time_left_s"]
    names += [] if cfg.data.fresh else ["controls", "states"]
    columns = [torch.tensor(np.asarray(data[n], np.float32)) for n in names]
    loader = DataLoader(TensorDataset(*columns), cfg.train.batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=cfg.optim.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10**6)
    draw = torch.Generator()

    def batches() -> Any:
        while True:
            yield from loader

    source, history = batches(), []

    def run() -> None:
        module.train()
        for _ in range(steps):
            batch = dict(zip(names, next(source), strict=True))
            optimizer.zero_grad()
            loss, _ = loss_of(module, batch, draw)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            history.append(loss.item())

    return run


# ---------------------------------------------------------------- latency


def latencies(fast: bool) -> list[Row]:
    """One decision of each exported net on one thread; weights do not matter for the time."""
    moving, trc = "problem.target=moving", ("model=trc",)
    jobs = [
        ("feedback", settings("quick"), 0.015),
        ("feedback, Van der Pol", settings("quick", "problem.kind=vanderpol"), None),
        ("trc tiny, preconditioned", settings("quick", moving), None),
        ("trc small, preconditioned", settings("quick", moving, *trc, "model.size=small"), 0.12),
        ("trc small, single",
         settings("quick", moving, *trc, "model.form=single", "model.size=small"), 0.12),
        ("trc small, two_level", settings("guide", *trc, "model.size=small"), 0.12),
    ]  # fmt: skip
    rows: list[Row] = []
    for name, cfg, goal in jobs:
        policy = registry.make("control", cfg).learner(None, "cpu", 0, Ranks()).policy()
        steps = {"cycles": cfg.model.cycles} if cfg.model.kind == "trc" else {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "policy.onnx"
            export(policy.module, policy.signature, path, {"steps": steps}, checks=Checks(rows=0))
            found = latency(OnnxPolicy(path), 200 if fast else 5_000)
        shown = f"p50 {found.p50_us / 1e3:.4f} ms, p99 {found.p99_us / 1e3:.4f} ms"
        limit = "-" if goal is None else f"p50 <= {goal:g} ms"
        met = "-" if goal is None else verdict(found.p50_us <= 1e3 * goal)
        name += f", {cfg.model.cycles} cycles" if steps else ""
        rows.append((f"latency, {name}", shown, limit, met))
    return rows


# ---------------------------------------------------------------- the loop


def loop(fast: bool) -> list[Row]:
    """What metrics, timing, TensorBoard, status and checkpoints cost above the bare steps."""
    rows: list[Row] = []
    for name, cfg, steps in (
        ("feedback, preset quick", settings("quick"), 60 if fast else 400),
        (
            "trc tiny, preset quick",
            settings("quick", "problem.target=moving"),
            60 if fast else 400,
        ),
    ):
        bare, whole = alternately(
            [lambda c=cfg, n=steps: _bare(c, n), lambda c=cfg, n=steps: _logged(c, n)],
            2 if fast else 17,
        )  # fmt: skip
        share = median_ratio(whole, bare) - 1.0
        shown = f"{share:+.1%} ({1e3 * statistics.median(bare) / steps:.2f} ms a bare step)"
        rows.append((f"the visible loop, {name}", shown, "<= 5 %", verdict(share <= 0.05)))
    return rows


def _learner(cfg: Any, steps: int) -> tuple[Any, Any]:
    cfg = registry.override(
        "control", cfg, {"train.steps": steps, "train.eval_every": steps, "data.fresh": True}
    )
    device.prepare(cfg.train)
    return cfg, registry.make("control", cfg)


def _bare(cfg: Any, steps: int) -> float:
    cfg, task = _learner(cfg, steps)
    learner = task.learner(None, "cpu", 0, Ranks())
    began = time.perf_counter()
    while learner.step < steps:
        learner.update()
    return time.perf_counter() - began


def _logged(cfg: Any, steps: int) -> float:
    cfg, task = _learner(cfg, steps)
    learner = task.learner(None, "cpu", 0, Ranks())
    one = task.generate(1, "validation", np.random.default_rng(0))
    judged = Validation(one, lambda _: {"gap": 1.0}, task.goal)  # its time is not the loop's
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {}, {})
        journal = RunJournal(
            run, cfg.train, Plan(steps, cfg.train.batch_size, {}), _Silent(), lambda: None
        )
        began = time.perf_counter()
        fit(learner, judged, cfg.train, None, Progress(), journal)  # the last checkpoint included
        journal.close()
        return time.perf_counter() - began


class _Silent:
    def trained(self, step: int, total: int, metrics: Any, rate: float) -> None:
        """Show nothing."""

    def judged(self, step: int, total: int, metrics: Any, new_best: bool) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Show nothing."""


# ---------------------------------------------------------------- start-up


def start(fast: bool) -> list[Row]:
    """How long the command line takes to say something."""
    python = sys.executable
    jobs = [
        ("the interpreter alone", [python, "-c", "pass"], None),
        ("import ganglion", [python, "-c", "import ganglion"], None),
        ("ganglion --help", [python, "-m", "ganglion", "--help"], 0.5),
        ("ganglion train --help", [python, "-m", "ganglion", "train", "--help"], 0.5),
        ("ganglion config control", [python, "-m", "ganglion", "config", "control"], None),
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "NO_COLOR": "1"}}

    def call(words: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run(words, check=True, **quiet)

    times = alternately([call(words) for _, words, _ in jobs], 2 if fast else 9)
    rows: list[Row] = []
    for (name, _, goal), found in zip(jobs, times, strict=True):
        seconds = statistics.median(found)
        limit = "-" if goal is None else f"<= {goal:g} s"
        met = "-" if goal is None else verdict(seconds <= goal)
        rows.append((f"start-up, {name}", f"{seconds:.2f} s", limit, met))
    return rows


PARTS: dict[str, Callable[[bool], list[Row]]] = {
    "generate": generation, "train": training, "latency": latencies, "loop": loop, "start": start,
}  # fmt: skip

if __name__ == "__main__":
    main()
