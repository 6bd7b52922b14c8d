"""What others claim, beside what the optimum, chance and our policy measure on the same cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganglion.core.contracts import Claim
from ganglion.report import numbers

Json = Mapping[str, Any]
HEADER = ("claim", "claimed", "random", "optimum")  # and the name of the policy that answers


@dataclass(frozen=True)
class Trained:
    """The policy that answers the claims: its name, its net untrained, its log by step.

    untrained is None where there is no such file; epoch_steps is the number of steps in an epoch,
    None where the training counted none.
    """

    name: str
    untrained: str | None
    lines: Sequence[Json]
    epoch_steps: int | None


def rows(claims: Iterable[Claim], policies: Sequence[Json], trained: Trained) -> list[list[str]]:
    """Return a row of text per claim under `HEADER`; a dash where nothing was measured.

    policies is that part of `compare --json`; those named "random" and "oracle" fill their columns.
    """
    by_name = {str(p.get("name")): p for p in policies}
    out = []
    for claim in claims:
        if claim.metric == "loss":
            measured = ["", "", _loss(trained, claim.epoch or 0)]
        else:
            who = trained.name if claim.of == "trained" else trained.untrained
            asked = [by_name.get(n) if n else None for n in ("random", "oracle", who)]
            measured = [_measured(policy, claim.metric) for policy in asked]
        out.append([claim.what, claim.claimed, *measured])
    return out


def _measured(policy: Json | None, metric: str) -> str:
    if policy is None:
        return numbers.DASH
    if metric == "latency":
        timed = (policy.get("efficiency") or {}).get("latency_us") or {}
        return numbers.latency(timed.get("p50"))
    entry = (policy.get("metrics") or {}).get(metric) or {}
    value, unit = entry.get("value"), numbers.unit_of(entry)
    return numbers.quantity(value, unit if unit == "%" else "1")


def _loss(trained: Trained, epoch: int) -> str:
    """Return "train/validation" loss at the end of `epoch`, or dashes where it was not reached."""
    if trained.epoch_steps is None:
        return numbers.DASH
    end, shown = epoch * trained.epoch_steps, []
    for kind in ("train", "validation"):
        known = [line for line in trained.lines if line.get("kind") == kind]
        reached = bool(known) and known[-1]["step"] >= end
        until = [line.get("loss") for line in known if line["step"] <= end]
        shown.append(numbers.number(until[-1], 2) if reached and until else numbers.DASH)
    return "/".join(shown)
