"""The one diagnosis of every supervised training: what its curves show, and what to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ganglion.report import rules
from ganglion.report.remedies import Remedies
from ganglion.report.rules import TRAIN_POINTS, VALIDATION_POINTS, Case, Finding
from ganglion.report.shape import Shape, shape

__all__ = ["Finding", "diagnose"]
Json = Mapping[str, Any]

_RULES: tuple[Callable[[Case], Finding | None], ...] = (
    rules.out_of_memory, rules.nonfinite, rules.not_falling, rules.at_chance, rules.oscillation,
    rules.overfitting, rules.underfitting, rules.slow_descent, rules.stop_early, rules.slower,
)  # fmt: skip
# A finding is dropped where a graver one explains it and would advise the opposite.
_EXPLAINED_BY: dict[str, set[str]] = {
    "loss not falling": {"oscillation", "accuracy at chance"},
    "underfitting": {"oscillation", "accuracy at chance"},
    "slow descent": {"oscillation", "overfitting"},
    "could stop earlier": {
        "overfitting",
        "underfitting",
        "oscillation",
        "loss not falling",
        "accuracy at chance",
    },
}


def diagnose(
    curves: Mapping[str, Sequence[Json]], settings: Json, facts: Json | None = None
) -> list[Finding]:
    """Return the findings of one run, the gravest first; [] for a healthy or too short one.

    curves: {"train": rows, "validation": rows}; a row has step and loss, and may have grad_norm,
    accuracy, and `skipped` or `nonfinite` (> 0 where the update was left out).
    settings: the resolved settings, nested. facts, each optional:
    goal (name of the validation column that is judged), better or goal_better ("lower", "higher"),
    chance (what guessing scores) and accuracy (its column, default "accuracy"),
    beats_baselines (bool), parent (the run it began from), data_path, device ("cpu", "cuda"),
    nonfinite (count of updates left out) and first_nonfinite (step), stopped_early (bool),
    out_of_memory {device, step, requested_bytes, free_bytes, checkpoint_step, run},
    accepts (function from {dotted name: value} to whether the run's settings allow it),
    seconds, estimated_seconds, seconds_data, seconds_compute, seconds_logging.
    """
    known = facts or {}
    train = list(curves.get("train") or [])
    validation = list(curves.get("validation") or [])
    goal, better = known.get("goal"), known.get("better") or known.get("goal_better")
    case = Case(
        {"train": train, "validation": validation}, known, Remedies(settings, known),
        _shape(train, "loss", TRAIN_POINTS), _shape(validation, "loss", VALIDATION_POINTS),
        _shape(validation, str(goal), VALIDATION_POINTS, better) if goal else None,
    )  # fmt: skip
    found = [finding for rule in _RULES if (finding := rule(case)) is not None]
    present = {f.finding for f in found}
    return [f for f in found if not present & _EXPLAINED_BY.get(f.finding, set())]


def _shape(rows: Sequence[Json], name: str, least: int, better: Any = "lower") -> Shape | None:
    try:
        return shape(rows, name, least, -1.0 if better == "higher" else 1.0)
    except ValueError:
        return None
