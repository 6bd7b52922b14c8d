"""The guard against NaN and Inf: skipped, named, replayed, and the same after a resume."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganglion.core.contracts import Ranks
from ganglion.core.errors import TrainingError
from ganglion.train.batches import Resident
from tiny import digest, learner, rows, run_out, squared

STEP = 7  # in the middle of the second block of 5


def poisoned(*steps: int, value: float = float("nan")) -> dict[str, Any]:
    """Rows of which one row of each of `steps` is not finite."""
    data = rows(320)
    batches = Resident(data, learner(data=data, steps=40)._cfg, 0, "cpu", Ranks())
    for step in steps:
        data["x"][int(batches.batch(step, 0)["number"][3, 0])] = value
    return data


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_step_is_left_out_and_named(value: float) -> None:
    made = learner(data=poisoned(STEP, value=value), ema=0.9)
    made.update()
    before = copy.deepcopy(made)
    metrics = made.update()
    (note,) = made.notes()
    assert (note["event"], note["step"], note["rate_scale"]) == ("nonfinite", STEP, 0.5)
    assert f"not finite at step {STEP}" in note["message"]
    assert "gradient of '0.bias'" in note["message"]
    assert "batch rows [3]" in note["message"]
    assert "clipping at norm 1 was active" in note["message"]
    assert metrics["nonfinite"] == 1.0
    assert made.step == STEP + 1
    # the state is that of the step before: replay the good steps of the block alone
    before._cfg = before._cfg.model_copy(update={"block": 1})
    while before.step < STEP:
        before.update()
    ours, theirs = made.state_dict(), before.state_dict()
    for part in ("module", "ema"):
        for name, tensor in theirs[part].items():
            assert torch.equal(ours[part][name], tensor), (part, name)
    for index, moments in theirs["optimizer"].items():
        for name, tensor in moments.items():
            assert torch.equal(ours["optimizer"][index][name], tensor)


def test_later_steps_take_half_the_rate() -> None:
    good, bad = learner(data=rows(320)), learner(data=poisoned(STEP))
    usual = [good.update()["lr"] for _ in range(4)]
    bad.update()
    bad.update()  # ends after the bad step, 8
    bad.update()  # 8..10
    assert bad.update()["lr"] == pytest.approx(usual[2] / 2)


def test_training_goes_on_bit_for_bit_after_a_resume_across_the_event() -> None:
    data = poisoned(3, STEP, 12)
    whole = run_out(learner(data=data, ema=0.9))
    assert [n["step"] for n in whole.seen] == [3, 7, 12]  # type: ignore[attr-defined]
    for stops in range(1, 7):
        first = learner(data=data, ema=0.9)
        for _ in range(stops):
            first.update()
        second = learner(data=data, ema=0.9)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        assert digest(run_out(second)) == digest(whole)
    assert all(torch.isfinite(t).all() for t in whole.state_dict()["module"].values())


def test_a_bad_first_step_leaves_the_fresh_state() -> None:
    made, fresh = learner(data=poisoned(0), ema=0.9), learner(ema=0.9)
    made.update()
    ours, theirs = made.state_dict(), fresh.state_dict()
    assert (ours["step"], ours["optimizer"]) == (1, {})
    assert all(torch.equal(ours["module"][k], v) for k, v in theirs["module"].items())


def test_every_part_of_an_accumulated_step_is_looked_at() -> None:
    def loss(module: nn.Module, batch: Any, draw: Any) -> tuple[Tensor, dict[str, Tensor]]:
        fine, terms = squared(module, batch, draw)
        there = (batch["number"] == first).any()  # in the first part only, and no gradient
        return fine + torch.where(there, torch.inf, 0.0), terms

    data = rows(320)
    cfg = learner(data=data, accumulate=2)._cfg
    first = float(Resident(data, cfg, 0, "cpu", Ranks()).batch(2, 0)["number"][0, 0])
    made = run_out(learner(loss, data, accumulate=2))
    assert [n["step"] for n in made.seen] == [2]  # type: ignore[attr-defined]
    assert "first in the loss" in made.seen[0]["message"]  # type: ignore[attr-defined]


def test_stopping_says_what_to_try() -> None:
    made = learner(data=poisoned(STEP), on_nonfinite="stop", optim={"clip_norm": 0.0})
    made.update()
    with pytest.raises(
        TrainingError, match=r"step 7.*clipping was off.*Try optim\.lr=0\.005"
    ) as at:
        made.update()
    assert "ganglion data check" in str(at.value)
    assert made.step == STEP  # the step before is what stands


def test_too_many_bad_steps_end_the_run() -> None:
    made = learner(data=poisoned(*range(10)), nonfinite_limit=3)
    with pytest.raises(TrainingError, match="after 4 such steps"):
        run_out(made)
