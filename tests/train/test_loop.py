from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ganglion.core.contracts import Metric
from ganglion.core.errors import Preempted, TrainingError
from ganglion.train.loop import Progress, Validation, fit
from tiny import GOAL, learner, rows, train_settings


@dataclass
class Script:
    """A learner whose validation values are written down beforehand."""

    values: Sequence[float]
    step: int = 0
    heard: list[float] = field(default_factory=list)

    def update(self) -> Mapping[str, float]:
        self.step += 1
        return {"loss": 0.0}

    def loss(self, data: Any) -> Mapping[str, float]:
        return {"loss": self.values[self.step - 1]}

    def observe(self, value: float) -> None:
        self.heard.append(value)

    def notes(self) -> Sequence[Mapping[str, Any]]:
        return []

    def policy(self) -> Any:
        return None


@dataclass
class Book:
    """A journal in memory."""

    stop_at: int | None = None
    saved: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    bests: list[int] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    step: int = 0

    def trained(self, step: int, metrics: Any, seconds: float) -> None:
        self.step = step

    def noted(self, note: Any) -> None:
        self.events.append(note)

    def judged(self, step: int, metrics: Any, seconds: float, new_best: bool) -> None:
        self.bests += [step] if new_best else []

    def save(self, learner: Any, progress: Progress) -> None:
        self.saved.append((learner.step, progress.to_json()))

    def due(self, step: int) -> bool:
        return False

    def stopping(self) -> str | None:
        return "Stopped by SIGTERM" if self.stop_at and self.step >= self.stop_at else None


def no_scores(policy: Any) -> dict[str, float]:
    return {}


def seven(policy: Any) -> dict[str, float]:
    return {"gap": 7.0}


JUDGE = Validation({}, no_scores, GOAL)


def run(
    values: Sequence[float], goal: Metric = GOAL, book: Book | None = None, **settings: Any
) -> tuple[Progress, Script, Book]:
    cfg = train_settings(**{"steps": len(values), "eval_every": 1, **settings})
    script, book = Script(values), book or Book()
    return (
        fit(script, Validation({}, no_scores, goal), cfg, None, Progress(), book),
        script,
        book,
    )


def test_the_best_is_saved_when_it_comes_and_the_last_at_the_end() -> None:
    progress, _, book = run([3.0, 2.0, 4.0, 2.0, 1.0, 5.0])
    assert (progress.best, progress.best_step) == (1.0, 5)
    assert book.bests == [1, 2, 5]
    assert [step for step, _ in book.saved] == [1, 2, 5, 6]
    assert progress.finished


def test_patience_counts_validations_without_a_better_value() -> None:
    progress, script, book = run([3.0, 2.0, 2.0, 4.0, 2.5, 1.0], patience=3)
    assert (script.step, progress.stale, progress.finished) == (5, 3, True)
    assert book.saved[-1][1]["finished"]


def test_of_equal_goals_the_one_with_less_loss_is_the_best() -> None:
    cfg, book = train_settings(steps=4, block=1, eval_every=1), Book()
    judge = Validation(rows(), seven, Metric("gap", "1", "lower"))
    progress = fit(Script([0.5, 0.6, 0.4, 0.4]), judge, cfg, None, Progress(), book)
    assert book.bests == [1, 3]
    assert (progress.best, progress.best_step, progress.best_loss) == (7.0, 3, 0.4)


def test_nan_is_never_the_best() -> None:
    progress, _, book = run([math.nan, 2.0, math.nan, 3.0])
    assert (progress.best, progress.best_step) == (2.0, 2)
    assert book.bests == [2]


def test_a_higher_goal_is_heard_with_its_sign_turned() -> None:
    progress, script, _ = run([1.0, 3.0, 2.0], Metric("loss", "1", "higher"))
    assert progress.best == 3.0
    assert script.heard == [-1.0, -3.0, -2.0]


def test_a_goal_that_the_loss_does_not_have_comes_from_the_judge() -> None:
    cfg = train_settings(steps=2, eval_every=1)
    judge = Validation({}, seven, Metric("gap", "1", "lower"))
    assert fit(Script([1.0, 2.0]), judge, cfg, None, Progress(), Book()).best == 7.0


def test_a_signal_saves_and_leaves_at_the_next_boundary() -> None:
    book = Book(stop_at=3)
    with pytest.raises(Preempted, match=r"Stopped by SIGTERM at step 3 of 5; the run is saved"):
        run([1.0] * 5, book=book)
    assert book.saved[-1][0] == 3


def test_a_signal_at_the_last_step_leaves_a_finished_run() -> None:
    progress, *_ = run([1.0] * 3, book=Book(stop_at=3))
    assert progress.finished


def test_progress_reads_its_own_form_back() -> None:
    progress = Progress(3, 0.5, 20, 1, 999, True)
    assert Progress(**progress.to_json()) == progress


@dataclass
class Hungry(Script):
    """A learner that asks for too much at its second step or its first validation."""

    where: str = "update"
    ask: Callable[[], Any] = dict

    def update(self) -> Mapping[str, float]:
        if self.where == "update" and self.step == 1:
            self.ask()
        return super().update()

    def loss(self, data: Any) -> Mapping[str, float]:
        if self.where == "loss":
            self.ask()
        return super().loss(data)


@pytest.mark.parametrize("where", ["update", "loss"])
@pytest.mark.parametrize(
    ("ask", "said"),
    [(partial(torch.empty, 10**15), r"\d+ MiB"), (partial(np.empty, 10**15), r"7\.11 PiB")],
)
def test_running_out_of_memory_is_named_at_its_step(
    where: str, ask: Callable[[], Any], said: str
) -> None:
    hungry = Hungry([1.0] * 5, where=where, ask=ask)
    expected = rf"Out of memory in the block after step 1 on cpu: asked for {said}, \d+ MiB free"
    with pytest.raises(TrainingError, match=expected) as caught:
        fit(hungry, JUDGE, train_settings(steps=5, eval_every=1), None, Progress(), Book())
    assert "Lower train.batch_size" in str(caught.value)


def test_other_errors_are_not_taken_for_memory() -> None:
    class Broken(Script):
        def update(self) -> Mapping[str, float]:
            raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        fit(Broken([1.0]), JUDGE, train_settings(), None, Progress(),
            Book())  # fmt: skip


def test_plateau_lowers_the_rate_when_validation_stalls() -> None:
    cfg = {"schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.5}
    made = learner(optim=cfg, steps=10, block=1)
    made.observe(1.0)
    first = made.update()["lr"]
    made.observe(2.0)
    assert made.update()["lr"] == pytest.approx(first / 2)
    again = learner(optim=cfg, steps=10, block=1)
    again.load_state_dict(made.state_dict())
    assert again.update()["lr"] == pytest.approx(first / 2)


def test_other_schedules_do_not_listen() -> None:
    made = learner(steps=10, block=1, optim={"schedule": "none"})
    for _ in range(20):
        made.observe(1.0)
    assert made.update()["lr"] == 0.01


def test_blocks_end_at_validations_and_at_the_end() -> None:
    cfg = train_settings(steps=23, block=5, eval_every=7)
    ends, step = [], 0
    while step < 23:
        step = cfg.next_boundary(step, None)
        ends.append(step)
    assert ends == [5, 7, 10, 14, 15, 20, 21, 23]


def test_epochs_count_the_short_last_batch() -> None:
    cfg = train_settings(steps=None, epochs=3, batch_size=8, accumulate=2, eval_every=None)
    assert (cfg.epoch_steps(33), cfg.total_steps(33), cfg.evaluation_steps(33)) == (3, 9, 3)
    assert rows(33)["x"].shape == (33, 3)
