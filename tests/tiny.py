"""The smallest settings, learners and runs that the tests of core and train share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganglion import pipeline, registry
from ganglion.core.contracts import Arrays, Metric, Ranks, Signature, TensorSpec
from ganglion.core.run import Run
from ganglion.train import checkpoint
from ganglion.train.batches import Resident
from ganglion.train.settings import OptimSettings, TaskSettings, TrainSettings
from ganglion.train.supervised import Loss, Supervised, SupervisedLearner, initialised

TASK = "control"
TINY: dict[str, Any] = {
    "data": {"validation": 50, "test": 50, "shard": 50},
    "train": {
        "steps": 60, "batch_size": 16, "block": 5, "eval_every": 20, "checkpoint_every": 10,
        "ema": 0.9, "tensorboard": False,
    },
}  # fmt: skip
SIGNATURE = Signature(inputs={"x": TensorSpec((3,))}, outputs={"y": TensorSpec((1,))})
GOAL = Metric("loss", "1", "lower")


# ---------------------------------------------------------------- a toy learner


def rows(count: int = 40, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """y = sum of x, with the row's number beside it."""
    x = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    number = np.arange(count, dtype=np.float32)[:, None]
    return {"x": x, "y": x.sum(1, keepdims=True), "number": number}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def squared(
    module: nn.Module, batch: Mapping[str, Tensor], draw: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    loss = ((module(batch["x"]) - batch["y"]) ** 2).mean()
    return loss, {"noise": torch.rand((), generator=draw)}


def train_settings(**changes: Any) -> TrainSettings:
    given = {"steps": 20, "batch_size": 8, "block": 5, "eval_every": 100, **changes}
    return TrainSettings(**given)


def learner(
    loss: Loss = squared,
    data: Arrays | None = None,
    build: Any = net,
    optim: Mapping[str, Any] | None = None,
    **changes: Any,
) -> SupervisedLearner:
    """A toy learner on `rows()`; changes are train settings."""
    cfg = train_settings(**changes)
    batches = Resident(rows() if data is None else data, cfg, 0, "cpu", Ranks())
    parts = Supervised(initialised(0, build), loss, batches, SIGNATURE)
    return SupervisedLearner(parts, cfg, OptimSettings(**{"lr": 0.01, **(optim or {})}), 0)


def digest(made: SupervisedLearner) -> str:
    return checkpoint.state_digest(made.state_dict())


def run_out(made: SupervisedLearner) -> SupervisedLearner:
    """Update until the last step; the events are kept in `made.seen`."""
    seen: list[Mapping[str, Any]] = []
    while made.step < made._total:
        made.update()
        seen += made.notes()
    made.seen = seen  # type: ignore[attr-defined]
    return made


# ---------------------------------------------------------------- tiny runs


def settings(*layers: Mapping[str, Any]) -> TaskSettings:
    return registry.resolve(TASK, None, [TINY, *layers])


def begin(home: Path, *layers: Mapping[str, Any], **place: Any) -> Run:
    made = replace(pipeline.Place(home=home), **place)
    return pipeline.begin(TASK, settings(*layers), made)


def fingerprint(run: Run) -> tuple[str, bytes]:
    """The state of the newest checkpoint over all tensors and counters, and metrics.jsonl."""
    found, bad = checkpoint.load_newest(run.folder / "checkpoints")
    if found is None or bad:
        raise ValueError(f"no checkpoint, or bad ones: {bad}")
    return checkpoint.state_digest(found.state), (run.folder / "metrics.jsonl").read_bytes()


def status(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.folder / "status.json").read_bytes()))
