"""Each finding on a curve made for it, and none of them on a healthy one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ganglion.report.diagnosis import diagnose

SETTINGS: dict[str, Any] = {
    "model": {"kind": "trm", "dim": 128, "depth": 2, "dropout": 0.1},
    "data": {"train": 10_000, "fresh": False, "augment": False},
    "train": {"steps": 4_000, "epochs": None, "batch_size": 64, "accumulate": 1, "patience": 0,
              "precision": "fp32", "compile": False, "tensorboard": True, "eval_every": 100,
              "checkpoint_seconds": 10.0, "block": 20},
    "optim": {"lr": 1e-3, "weight_decay": 0.01, "clip_norm": 1.0},
}  # fmt: skip
Curve = Callable[[float], float]
BROKEN = ["out of memory", "not finite (NaN)"]


def healthy(share: float) -> float:
    return math.exp(-6 * share) + 0.01


def level(value: float) -> Curve:
    return lambda _share: value


def curves(
    train: Curve = healthy,
    validation: Curve | None = None,
    *,
    noise: float = 0.05,
    points: int = 200,
    seed: int = 0,
    **columns: Curve,
) -> dict[str, list[dict[str, Any]]]:
    """Make curves over shares (0, 1] with log-normal noise on the training loss."""
    rng = np.random.default_rng(seed)
    shares = [(i + 1) / points for i in range(points)]
    rows = [{"step": 20 * (i + 1), "loss": train(s) * math.exp(noise * rng.standard_normal())}
            for i, s in enumerate(shares)]  # fmt: skip
    judged = validation or (lambda s: 1.1 * train(s))
    held = [{"step": 20 * (i + 1), "loss": judged(s) * math.exp(0.02 * rng.standard_normal()),
             **{name: curve(s) for name, curve in columns.items()}}
            for i, s in enumerate(shares) if i % 10 == 9]  # fmt: skip
    return {"train": rows, "validation": held}


def names(*args: Any, **facts: Any) -> list[str]:
    return [f.finding for f in diagnose(args[0], SETTINGS, facts)]


def advice(found: list[Any], name: str) -> tuple[str, ...]:
    return next(f.advice for f in found if f.finding == name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize(
    "curve",
    [
        healthy,
        lambda s: 5.2 * math.exp(-7 * s) + 0.1,
        lambda s: 1 / (1 + 60 * s),
        lambda s: 1.6 * math.exp(-9 * s) + 0.35,
        lambda s: 0.02 + (1 - s) ** 6,
    ],
)
def test_a_healthy_run_has_no_finding(curve: Curve, noise: float, seed: int) -> None:
    assert names(curves(curve, noise=noise, seed=seed)) == []


@pytest.mark.parametrize("seed", range(5))
def test_validation_that_rises_again_is_overfitting(seed: int) -> None:
    rises = curves(healthy, lambda s: 0.3 + 0.8 * (s - 0.35) ** 2, seed=seed)
    found = diagnose(rises, SETTINGS)
    assert [f.finding for f in found] == ["overfitting"]
    assert "best at step" in found[0].seen
    # the order of the guides: augmentation, dropout .2, decay .05, 100k samples, a smaller model
    assert found[0].advice[:5] == (
        "data.augment=true (now false): augmentation",
        "model.dropout=0.2 (now 0.1)",
        "optim.weight_decay=0.05 (now 0.01)",
        "data.train=100000 (now 10000): more data",
        "model.dim=64 (now 128): a smaller model",
    )


def test_validation_left_far_behind_is_overfitting() -> None:
    assert names(curves(healthy, lambda s: 0.6 + 0.4 * math.exp(-9 * s))) == ["overfitting"]


def test_a_high_plateau_is_underfitting() -> None:
    found = diagnose(curves(lambda s: 0.7 + 0.5 * math.exp(-12 * s), noise=0.02), SETTINGS)
    assert [f.finding for f in found] == ["underfitting"]
    assert found[0].advice[:4] == (
        "model.dim=256 (now 128): a larger model",
        "model.depth=3 (now 2): a deeper model",
        "model.dropout=0 (now 0.1)",
        "optim.weight_decay=0 (now 0.01)",
    )
    assert "train.steps=8000 (now 4000): train longer" in found[0].advice


def test_a_plateau_of_a_policy_that_beats_the_baselines_is_no_fault() -> None:
    flat = curves(lambda s: 0.7 + 0.5 * math.exp(-12 * s), noise=0.02)
    assert "underfitting" not in names(flat, beats_baselines=True)


def test_a_policy_behind_a_baseline_is_underfitted_at_a_lower_plateau() -> None:
    level = curves(lambda s: 0.25 + math.exp(-12 * s), noise=0.02)
    assert names(level) == []
    assert names(level, beats_baselines=False) == ["underfitting"]


@pytest.mark.parametrize("seed", range(5))
def test_a_flat_loss_does_not_fall(seed: int) -> None:
    found = diagnose(curves(level(1.61), noise=0.03, seed=seed), SETTINGS)
    assert found[0].finding == "loss not falling"
    assert found[0].advice[0] == "optim.lr=0.003 (now 0.001)"
    assert any("ganglion data check" in a for a in found[0].advice)


def test_a_rising_loss_wants_a_lower_rate() -> None:
    found = diagnose(curves(lambda s: 1 + 3 * s, noise=0.02), SETTINGS)
    assert advice(found, "loss not falling")[0].startswith("optim.lr=0.0001 (now 0.001)")


@pytest.mark.parametrize("period", [0.02, 0.04, 0.1])
def test_a_swinging_loss_oscillates(period: float) -> None:
    swing = curves(lambda s: 0.6 + 0.4 * math.exp(-9 * s) + 0.35 * math.sin(6.283 * s / period))
    found = diagnose(swing, SETTINGS)
    assert found[0].finding == "oscillation"
    assert found[0].advice[0] == "optim.lr=0.0005 (now 0.001)"
    assert not {"loss not falling", "underfitting"} & {f.finding for f in found}


@pytest.mark.parametrize("seed", range(5))
def test_a_straight_line_down_is_slow_descent(seed: int) -> None:
    found = diagnose(curves(lambda s: 1 - 0.6 * s, noise=0.02, seed=seed), SETTINGS)
    assert [f.finding for f in found] == ["slow descent"]
    assert found[0].advice[0] == "optim.lr=0.002 (now 0.001)"
    assert "still falls" in found[0].seen


def test_patience_that_ended_a_falling_run_is_named() -> None:
    found = diagnose(curves(lambda s: 1 - 0.6 * s, noise=0.02), SETTINGS, {"stopped_early": True})
    assert found[0].finding == "stopped too early"
    assert found[0].advice[0].startswith("train.patience=20 (now 0)")


def test_accuracy_at_chance_asks_for_the_data_first() -> None:
    guess = curves(level(1.61), noise=0.03, accuracy=level(0.205))
    found = diagnose(guess, SETTINGS, {"chance": 0.2, "data_path": "datasets/x"})
    assert [f.finding for f in found] == ["accuracy at chance"]
    assert "20.5 % where guessing scores 20 %" in found[0].seen
    assert found[0].advice[0].startswith("ganglion data check datasets/x")
    assert "does the smallest model learn?" in found[0].advice[1]
    assert names(curves(accuracy=level(0.5)), chance=0.2) == []


def test_nan_halves_the_rate_and_says_that_clipping_was_active() -> None:
    bad = curves()
    for row in bad["train"]:
        row["grad_norm"] = 2.0 if row["step"] <= 1000 else 0.3
    bad["train"][100] |= {"loss": math.nan, "skipped": 1}
    found = diagnose(bad, SETTINGS)
    assert [f.finding for f in found] == ["not finite (NaN)"]
    assert found[0].advice[0] == "optim.lr=0.0005 (now 0.001)"
    assert found[0].advice[1].startswith("ganglion data check")
    # 50 of 200 updates had a norm of 2 > 1
    assert "1 update " in found[0].seen
    assert "clipping was active (optim.clip_norm=1, reached on 25 % of" in found[0].seen
    assert "first at step 2,020" in found[0].seen


def test_nan_without_clipping_advises_to_clip() -> None:
    settings = {**SETTINGS, "optim": {"lr": 1e-4, "clip_norm": 0.0}}
    found = diagnose({}, settings, {"nonfinite": 5})
    assert "clipping was off" in found[0].seen
    assert found[0].advice[0] == "optim.lr=5e-5 (now 0.0001)"
    assert "optim.clip_norm=1 (now 0)" in found[0].advice


def test_out_of_memory_says_what_was_asked_for_and_what_to_lower() -> None:
    fact = {"device": "cuda", "step": 40, "requested_bytes": 2.1e9, "free_bytes": 3e8,
            "checkpoint_step": 20, "run": "latest"}  # fmt: skip
    found = diagnose({}, SETTINGS, {"out_of_memory": fact})
    assert found[0].seen == (
        "Memory ran out on the GPU at step 40: 2.1 GB requested, 300 MB free. "
        "The checkpoint of step 20 is good."
    )
    assert found[0].advice[0] == (
        "train.batch_size=32 (now 64) with train.accumulate=2 (now 1): the effective batch stays"
    )
    assert "train.precision=bf16 (now fp32)" in found[0].advice
    assert found[0].advice[-1].startswith("ganglion resume latest")
    assert any("--device cpu" in a for a in found[0].advice)


@pytest.mark.parametrize(
    ("limit", "remedy"),
    [
        ("data", "local disk"),
        ("compute", "train.compile=true (now false)"),
        ("logging", "train.tensorboard=false (now true)"),
    ],
)
def test_slower_than_estimated_names_the_limit(limit: str, remedy: str) -> None:
    facts = {"seconds": 100.0, "estimated_seconds": 50.0, f"seconds_{limit}": 80.0}
    facts |= {f"seconds_{n}": 10.0 for n in {"data", "compute", "logging"} - {limit}}
    found = diagnose(curves(), SETTINGS, facts)
    assert [f.finding for f in found] == ["slower than estimated"]
    assert f"{limit.capitalize()} limits" in found[0].seen
    assert f"{limit} 80 %" in found[0].seen
    assert any(remedy in a for a in found[0].advice)
    assert names(curves(), seconds=60.0, estimated_seconds=50.0) == []
    allowed = {**facts, "accepts": lambda flat: "train.compile" not in flat}
    advice = diagnose(curves(), SETTINGS, allowed)[0].advice
    assert not any("train.compile" in a for a in advice)  # the run would refuse it


def test_a_run_that_went_on_for_nothing_could_stop_earlier() -> None:
    still = curves(
        lambda s: 0.05 + math.exp(-40 * s),
        level(0.05),
        gap=lambda s: 0.1 if s < 0.2 else 0.1 + 0.001 * s,
    )
    found = diagnose(still, SETTINGS, {"goal": "gap", "better": "lower"})
    assert [f.finding for f in found] == ["could stop earlier"]
    assert found[0].advice[0].startswith("train.patience=5 (now 0)")


def test_of_equal_validations_the_one_that_was_kept_counts() -> None:
    still = curves(lambda s: 0.05 + math.exp(-40 * s), level(0.05), gap=lambda s: float(s < 0.2))
    told = {"goal": "gap", "better": "lower"}
    assert [f.finding for f in diagnose(still, SETTINGS, told)] == ["could stop earlier"]
    still["validation"][-1]["new_best"] = True  # as good, with less loss
    assert diagnose(still, SETTINGS, told) == []


def test_a_setting_that_the_run_does_not_have_is_not_advised() -> None:
    found = diagnose(curves(healthy, lambda s: 0.3 + 0.8 * s), {"optim": {"lr": 1e-3}})
    assert found[0].finding == "overfitting"
    assert found[0].advice == ()


@pytest.mark.parametrize("facts", [None, {}, {"goal": "gap", "chance": 0.2}])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"train": [], "validation": []},
        {"train": [{"step": 1, "loss": 1.0}], "validation": [{"step": 1}]},
        {"train": [{"step": None, "loss": "x"}], "validation": None},
        {"train": [{"step": i} for i in range(50)]},
        {"train": [{"step": i, "loss": 0.0} for i in range(5)]},
    ],
)
def test_short_or_empty_curves_say_nothing(given: Any, facts: Any) -> None:
    assert diagnose(given, {}, facts) == []


def test_curves_of_nan_alone_are_not_finite_and_nothing_else() -> None:
    rows = [{"step": i, "loss": math.nan} for i in range(50)]
    assert names({"train": rows, "validation": rows}) == ["not finite (NaN)"]


def test_a_finding_has_the_form_of_the_report() -> None:
    found = diagnose({}, SETTINGS, {"nonfinite": 1})[0].to_json()
    assert sorted(found) == ["advice", "finding", "seen"]
    assert isinstance(found["advice"], list)
