"""The one training loop: updates, validations, patience, checkpoints. It knows no task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ganglion.core.contracts import Arrays, Learner, Metric, Metrics, Policy
from ganglion.core.errors import Preempted
from ganglion.core.metrics import better
from ganglion.train.device import naming_memory
from ganglion.train.settings import TrainSettings


@dataclass
class Progress:
    """What a run has reached; part of every checkpoint. `offset` is the length of metrics.jsonl.

    stale counts the validations in which neither the goal nor the loss was better than ever.
    best_loss is the loss at the best step: of equal goals the one with less loss is the better.
    """

    updates: int = 0
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    offset: int = 0
    finished: bool = False
    least_loss: float | None = None
    best_loss: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that `Progress(**form)` reads back."""
        return asdict(self)


class Journal(Protocol):
    """Where the loop writes: metrics, timing, checkpoints, and what a person sees."""

    def trained(self, step: int, metrics: Metrics, seconds: float) -> None: ...
    def noted(self, note: Mapping[str, Any]) -> None: ...
    def judged(self, step: int, metrics: Metrics, seconds: float, new_best: bool) -> None: ...
    def save(self, learner: Learner, progress: Progress) -> None: ...
    def due(self, step: int) -> bool: ...
    def stopping(self) -> str | None: ...


@dataclass(frozen=True)
class Validation:
    """What the loop judges on: rows for the loss, and a function that scores a policy."""

    data: Arrays
    judge: Callable[[Policy], Metrics]
    goal: Metric


def fit(
    learner: Learner,
    validation: Validation,
    cfg: TrainSettings,
    rows: int | None,
    progress: Progress,
    journal: Journal,
) -> Progress:
    """Train until the last step or until patience ends; `progress` may come from a checkpoint.

    rows is the number of training rows (None: fresh draws). Preempted is raised once a signal was
    seen and the run is saved; TrainingError when memory runs out or the loss stays non-finite.
    """
    total, every = cfg.total_steps(rows), cfg.evaluation_steps(rows)
    while learner.step < total and not progress.finished:
        before, began = learner.step, time.perf_counter()
        with naming_memory(before):
            metrics = learner.update()
        progress.updates += 1
        journal.trained(learner.step, metrics, time.perf_counter() - began)
        for note in learner.notes():
            journal.noted(note)
        new_best = False
        if learner.step // every > before // every or learner.step >= total:
            with naming_memory(learner.step):
                new_best = _judge(learner, validation, progress, journal)
            done = bool(cfg.patience) and progress.stale >= cfg.patience
            progress.finished = done or learner.step >= total
        stop = journal.stopping()
        if new_best or progress.finished or stop or journal.due(learner.step):
            journal.save(learner, progress)
        if stop and not progress.finished:
            raise Preempted(f"{stop} at step {learner.step} of {total}; the run is saved there.")
    return progress


def _judge(learner: Learner, validation: Validation, progress: Progress, journal: Journal) -> bool:
    began = time.perf_counter()
    goal = validation.goal
    metrics = {**learner.loss(validation.data), **validation.judge(learner.policy())}
    value = float(metrics.get(goal.name, np.nan))
    loss = float(metrics.get("loss", np.nan))
    least = progress.best_loss if value == progress.best else None
    new_best = better(goal, value, progress.best) or (least is not None and loss < least)
    progress.stale += 1
    if new_best:
        progress.best, progress.best_step, progress.stale = value, learner.step, 0
        progress.best_loss = loss if math.isfinite(loss) else None
    if math.isfinite(loss) and (progress.least_loss is None or loss < progress.least_loss):
        progress.least_loss, progress.stale = loss, 0
    learner.observe(value if goal.better == "lower" else -value)
    journal.judged(learner.step, metrics, time.perf_counter() - began, new_best)
    return new_best
