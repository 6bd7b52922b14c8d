from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny import GOAL, learner, rows, train_settings

from ganglion.core.contracts import Metric
from ganglion.core.errors import Preempted, TrainingError
from ganglion.train.loop import Progress, Validation, fit


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


def run(
    values: Sequence[float], goal: Metric = GOAL, book: Book | None = None, **settings: Any
) -> tuple[Progress, Script, Book]:
    cfg = train_settings(**{"steps": len(values), "eval_every": 1, **settings})
    script, book = Script(values), book or Book()
    return (
        fit(script, Validation({}, lambda p: {}, goal), cfg, None, Progress(), book),
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
    judge = Validation({}, lambda p: {"gap": 7.0}, Metric("gap", "1", "lower"))
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


@pytest.mark.parametrize("where", ["update", "loss"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lambda: torch.empty(10**15), r"asked for 3814697266 MiB|asked for \d+ MiB"),
        (lambda: (_ for _ in ()).throw(MemoryError("Unable to allocate 7.11 PiB for an array")),
         r"asked for 7\.11 PiB"),
    ],
)  # fmt: skip
def test_running_out_of_memory_is_named_at_its_step(where: str, error: Any, said: str) -> None:
    class Hungry(Script):
        pass

    def fail(self: Any, *args: Any) -> Any:
        if where == "loss" or self.step == 2:
            return next(iter([error()])) if callable(error) else None
        return Script.update(self)

    setattr(Hungry, where, lambda self, *a: _raise(error) if self.step >= 1 or where == "loss"
            else Script.update(self))  # fmt: skip
    cfg = train_settings(steps=5, eval_every=1)
    with pytest.raises(
        TrainingError, match=rf"Out of memory in the block after step 1.*{said}"
    ) as at:
        fit(Hungry([1.0] * 5), Validation({}, lambda p: {}, GOAL), cfg, None, Progress(), Book())
    assert "MiB free" in str(at.value)
    assert "Lower train.batch_size" in str(at.value)


def _raise(error: Any) -> Any:
    made = error()
    return list(made) if hasattr(made, "__next__") else made


def test_other_errors_are_not_taken_for_memory() -> None:
    class Broken(Script):
        def update(self) -> Mapping[str, float]:
            raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        fit(Broken([1.0]), Validation({}, lambda p: {}, GOAL), train_settings(), None, Progress(),
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
