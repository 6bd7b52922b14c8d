"""The rules of the diagnosis: each looks at one run and finds one thing, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ganglion.report import numbers
from ganglion.report.curves import GRADIENT, series, skipped_steps
from ganglion.report.remedies import Remedies
from ganglion.report.shape import Shape

Json = Mapping[str, Any]
TRAIN_POINTS, VALIDATION_POINTS = 8, 4  # fewer say nothing about a shape

OVERFIT_RISE = 0.1  # share of the validation's drop that was lost again
OVERFIT_GAP = 0.35  # share of the drop by which validation stays above training
SWING = 0.12  # robust deviation around the trend, as a share of the drop or of the level
LATE_FALL = 0.15  # share of the drop in the last third: 1/3 for a straight line
LEVEL = 0.05  # late_fall below which a curve has levelled off
UNDERFIT_LEFT = 0.4  # share of the first loss that is left when the curve levels off
SLOWER = 1.3  # measured over estimated seconds


@dataclass(frozen=True)
class Finding:
    """What is the matter, what was seen (with numbers), and what to try, first things first."""

    finding: str
    seen: str
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the form that the report holds."""
        return {**asdict(self), "advice": list(self.advice)}


@dataclass(frozen=True)
class Case:
    """One run as every rule sees it; train and validation are None where too short to judge."""

    curves: Mapping[str, Sequence[Json]]
    facts: Json
    tips: Remedies
    train: Shape | None
    validation: Shape | None
    judged: Shape | None  # the goal on the validation split, turned so that lower is better

    @property
    def served(self) -> bool:
        """Say whether the policy is known to be good, so that a flat curve is no fault."""
        return self.facts.get("beats_baselines") is True or bool(self.facts.get("parent"))


def _n(value: float) -> str:
    return numbers.number(value)


# ---------------------------------------------------------------- what broke it


def out_of_memory(case: Case) -> Finding | None:
    """Memory ran out on host or GPU."""
    fact = case.facts.get("out_of_memory")
    if not fact:
        return None
    raw: Json = fact if isinstance(fact, Mapping) else {}
    on_gpu = str(raw.get("device") or "cpu").startswith("cuda")
    seen = f"Memory ran out on the {'GPU' if on_gpu else 'host'}"
    if raw.get("step") is not None:
        seen += f" at step {numbers.count(raw['step'])}"
    if raw.get("requested_bytes") is not None or raw.get("free_bytes") is not None:
        asked, free = numbers.size(raw.get("requested_bytes")), numbers.size(raw.get("free_bytes"))
        seen += f": {asked} requested, {free} free"
    advice = case.tips.less_memory(on_gpu=on_gpu)
    if raw.get("checkpoint_step") is not None:
        at = numbers.count(raw["checkpoint_step"])
        seen += f". The checkpoint of step {at} is good"
        advice.append(f"ganglion resume {raw.get('run') or 'RUN'}: goes on from step {at}")
    return Finding("out of memory", seen + ".", tuple(advice))


def nonfinite(case: Case) -> Finding | None:
    """Updates were left out because loss or gradient was not finite."""
    skipped = skipped_steps(case.curves["train"])
    count = max(len(skipped), int(numbers.finite(case.facts.get("nonfinite")) or 0))
    if not count:
        return None
    first = case.facts.get("first_nonfinite", skipped[0] if skipped else None)
    at = "" if first is None else f", the first at step {numbers.count(first)}"
    times = "update" if count == 1 else "updates"
    seen = f"{numbers.count(count)} {times} had a loss or gradient that is not finite{at}. "
    clip = numbers.finite(case.tips.get("optim.clip_norm")) or 0.0
    norms = [y for g in GRADIENT for _, y in series(case.curves["train"], g) if np.isfinite(y)]
    advice = [*case.tips.rate(0.5), *case.tips.check_data("values that are NaN or out of range?")]
    if not clip:
        seen += "Gradient clipping was off."
        advice += case.tips.change("optim.clip_norm", 1.0)
    else:
        seen += f"Gradient clipping was active (optim.clip_norm={_n(clip)}"
        share = float(np.mean(np.array(norms) > clip)) if norms else None
        seen += ")." if share is None else f", reached on {100 * share:.0f} % of the updates)."
    if case.tips.get("train.precision") == "bf16":
        advice += case.tips.change("train.precision", "fp32")
    return Finding("not finite (NaN)", seen, tuple(advice))


# ---------------------------------------------------------------- what the training loss shows


def not_falling(case: Case) -> Finding | None:
    """The training loss ends where it began, or above."""
    t = case.train
    if t is None or case.served or t.drop > 0.05 * max(abs(t.head), t.swing):
        return None
    rising = t.drop < -0.2 * max(abs(t.head), t.swing)
    seen = (
        f"The training loss went from {_n(t.head)} to {_n(t.tail)} in "
        f"{numbers.count(t.steps[-1])} steps."
    )
    rate = case.tips.rate(0.1, "it rises: the rate is too high") if rising else case.tips.rate(3.0)
    checks = case.tips.check_data("are the labels right?")
    return Finding("loss not falling", seen, (*rate, *case.tips.larger(), *checks))


def at_chance(case: Case) -> Finding | None:
    """Accuracy is what guessing would score."""
    chance = numbers.finite(case.facts.get("chance"))
    name = str(case.facts.get("accuracy") or "accuracy")
    if chance is None:
        return None
    rows = case.curves["validation"] or case.curves["train"]
    scores = [y for _, y in series(rows, name) if np.isfinite(y)][-5:]
    if len(scores) < 3:
        return None
    tail = float(np.median(scores))
    if tail > chance + max(0.02, 0.15 * chance):
        return None
    seen = f"{name} ends at {_n(100 * tail)} % where guessing scores {_n(100 * chance)} %."
    advice = [
        *case.tips.check_data("are the paths valid, are the tokens right?"),
        *case.tips.smaller("does the smallest model learn?"),
        *case.tips.rate(0.3),
    ]
    return Finding("accuracy at chance", seen, tuple(advice))


def oscillation(case: Case) -> Finding | None:
    """The training loss swings widely around its trend."""
    t = case.train
    if t is None or len(t.values) < 2 * TRAIN_POINTS:
        return None
    level = abs(t.tail)
    if t.swing <= SWING * max(t.drop, 0.0) or t.swing <= SWING * level:
        return None
    seen = (
        f"In its second half the training loss swings by ± {_n(t.swing)} around {_n(t.tail)}, "
        f"after a fall of {_n(max(t.drop, 0.0))} in all."
    )
    batch = case.tips.get("train.batch_size")
    larger = case.tips.change("train.batch_size", 2 * batch) if isinstance(batch, int) else []
    return Finding("oscillation", seen, (*case.tips.rate(0.5), *larger))


def slow_descent(case: Case) -> Finding | None:
    """The training loss still falls at the end."""
    t, v = case.train, case.validation
    if t is None or t.drop <= 0.05 * abs(t.head) or t.late_fall < LATE_FALL:
        return None
    if t.late_fall * t.drop < 2 * t.swing:
        return None  # within the noise
    if v is not None and v.best < 0.8 * (len(v.values) - 1):
        return None
    seen = (
        f"The training loss still falls at the end: {100 * t.late_fall:.0f} % of its fall from "
        f"{_n(t.head)} to {_n(t.tail)} came in the last third of the steps."
    )
    if case.facts.get("stopped_early"):
        patience = case.tips.get("train.patience") or 0
        wait = case.tips.patience(max(20, 2 * patience), "it was stopped early")
        return Finding("stopped too early", seen, (*wait, *case.tips.rate(2.0)))
    return Finding("slow descent", seen, (*case.tips.rate(2.0), *case.tips.longer()))


def underfitting(case: Case) -> Finding | None:
    """The training loss levelled off high, and validation with it."""
    t, v = case.train, case.validation
    if t is None or case.served or t.late_fall > LEVEL or t.drop <= 0.05 * abs(t.head):
        return None
    beaten = case.facts.get("beats_baselines") is False
    left = t.tail / t.head if t.head > 0 and t.tail > 0 else 0.0
    if left < (0.1 if beaten else UNDERFIT_LEFT):
        return None
    if v is not None and v.tail - t.tail > OVERFIT_GAP * t.drop:
        return None
    seen = (
        f"The training loss levelled off at {_n(t.tail)}, {100 * left:.0f} % of where it began"
        + (f", and validation beside it at {_n(v.tail)}" if v is not None else "")
        + ("; a baseline does better." if beaten else ".")
    )
    by_shape = (
        case.tips.rate(0.3, "it fell fast and stuck: lower")
        if t.early < 0.15
        else case.tips.rate(2.0, "it fell slowly: higher")
    )
    advice = [
        *(case.tips.check_data() if beaten else []), *case.tips.larger(), *case.tips.dropout(0.0),
        *case.tips.no_decay(), *case.tips.longer(), *by_shape, *case.tips.auxiliary_weight(),
    ]  # fmt: skip
    return Finding("underfitting", seen, tuple(advice))


# ---------------------------------------------------------------- what validation shows


def overfitting(case: Case) -> Finding | None:
    """Validation rises again, or stays far behind training."""
    t, v = case.train, case.validation
    if t is None or v is None or t.drop <= 0:
        return None
    best = float(v.values[v.best])
    fall = max(float(v.values[0]) - best, 1e-12)
    noise = max(v.swing, 0.02 * abs(best))
    rise = v.tail - best
    rose = rise > OVERFIT_RISE * min(fall, abs(best) or fall) and rise > 3 * noise
    rose = rose and v.best < 0.8 * (len(v.values) - 1)
    apart = v.tail - t.tail
    wide = apart > OVERFIT_GAP * t.drop and apart > 3 * noise and apart > 0.5 * abs(t.tail)
    # A wide gap is overfitting only where training went on without validation.
    wide = wide and t.drop > 0.2 * abs(t.head) and fall < (1 - OVERFIT_GAP) * t.drop
    if not (rose or wide):
        return None
    at = numbers.count(v.steps[v.best])
    seen = (
        f"Validation loss was best at step {at} with {_n(best)} and ended at {_n(v.tail)}, while "
        f"the training loss fell to {_n(t.tail)}."
    )
    tips = case.tips
    wait = tips.patience(5, "stop soon after the best") if rose and _patience(case) != 5 else []
    advice = [*tips.augmentation(), *tips.more_dropout(), *tips.more_decay(),
              *tips.more_data(100_000), *tips.smaller(), *wait]  # fmt: skip
    return Finding("overfitting", seen, tuple(advice))


def _patience(case: Case) -> int:
    return int(numbers.finite(case.tips.get("train.patience")) or 0)


def stop_early(case: Case) -> Finding | None:
    """The best validation was long before the end."""
    v = case.judged or case.validation
    if v is None or _patience(case) or len(v.values) < 2 * VALIDATION_POINTS:
        return None
    best = _kept(case, v)
    after = len(v.values) - 1 - best
    if after < 0.4 * len(v.values):
        return None
    share = 1 - v.steps[best] / v.steps[-1]
    seen = (
        f"The best validation was at step {numbers.count(v.steps[best])} of "
        f"{numbers.count(v.steps[-1])}; the {after} validations after it brought nothing, "
        f"{100 * share:.0f} % of the run."
    )
    wait = case.tips.patience(max(5, round(0.2 * len(v.values))), "stop when nothing improves")
    return Finding("could stop earlier", seen, tuple(wait))


def _kept(case: Case, shape: Shape) -> int:
    """Return the index of the validation whose policy was kept: of equal ones the later may be."""
    kept = [row["step"] for row in case.curves["validation"] if row.get("new_best")]
    found = np.flatnonzero(shape.steps == kept[-1]) if kept else np.empty(0, int)
    return int(found[0]) if len(found) else shape.best


def slower(case: Case) -> Finding | None:
    """The run took longer than was estimated."""
    took = numbers.finite(case.facts.get("seconds"))
    planned = numbers.finite(case.facts.get("estimated_seconds"))
    if took is None or planned is None or planned <= 0 or took < SLOWER * planned:
        return None
    named = {n: numbers.finite(case.facts.get(f"seconds_{n}")) for n in
             ("data", "compute", "logging")}  # fmt: skip
    parts = {name: x for name, x in named.items() if x is not None}
    seen = f"{numbers.duration(took)} where {numbers.duration(planned)} were estimated."
    if not parts:
        return Finding("slower than estimated", seen, tuple(_quiet_machine()))
    limit = max(parts, key=lambda name: parts[name])
    whole = max(sum(parts.values()), 1e-12)
    seen += f" {limit.capitalize()} limits: " + ", ".join(
        f"{name} {100 * x / whole:.0f} %" for name, x in parts.items()
    )
    on_gpu = str(case.facts.get("device") or "cpu").startswith("cuda")
    advice = [*case.tips.faster(limit, on_gpu=on_gpu), *_quiet_machine()]
    return Finding("slower than estimated", seen + ".", tuple(advice))


def _quiet_machine() -> list[str]:
    return ["ganglion doctor: do other processes share the machine?"]
