"""Policies on the same cases, case by case: the difference to the first, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Arrays, Metric
from ganglion.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """`policy` minus `against` in one metric: value, 95 % interval, and what it means.

    verdict is "better", "worse", or "no clear difference" where the interval holds 0.
    """

    policy: str
    against: str
    metric: str
    unit: str
    value: float
    low: float
    high: float
    cases: int
    verdict: str


def differences(
    rows: Mapping[str, Arrays],
    metrics: Sequence[Metric],
    rng: np.random.Generator,
    resamples: int = 1000,
) -> list[Difference]:
    """Compare each policy with the first of `rows`, paired by case, by metric.

    rows: policy -> columns (cases,), all on the same cases in the same order; a column `group`
    makes the bootstrap draw whole groups. Cases where either policy's value is NaN are left out of
    both. Metrics that a policy lacks are skipped. DataError where the numbers of cases differ.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 8 (two paired samples).
    """
    names = list(rows)
    if len(names) < 2:
        return []
    first, out = rows[names[0]], []
    for name in names[1:]:
        for metric in metrics:
            if metric.name in first and metric.name in rows[name]:
                _check(names[0], first, name, rows[name], metric)
                out.append(_difference(names[0], first, name, rows[name], metric, rng, resamples))
    return out


def _check(one: str, a: Arrays, other: str, b: Arrays, metric: Metric) -> None:
    counts = len(a[metric.name]), len(b[metric.name])
    if counts[0] != counts[1]:
        raise DataError(
            f"{one} was scored on {counts[0]} cases and {other} on {counts[1]}; only policies "
            "scored on the same cases can be paired. Evaluate both with the same --cases and "
            "--seed."
        )


def _difference(
    one: str, a: Arrays, other: str, b: Arrays, metric: Metric, rng: np.random.Generator,
    resamples: int,
) -> Difference:  # fmt: skip
    top_a, bottom_a = _columns(a, metric)
    top_b, bottom_b = _columns(b, metric)
    use = ~np.isnan(top_a + bottom_a + top_b + bottom_b)
    group = np.asarray(a["group"])[use] if "group" in a else np.arange(int(use.sum()))
    sums = [_by_group(column[use], group) for column in (top_a, bottom_a, top_b, bottom_b)]
    units = len(sums[0])
    value, low, high = np.nan, np.nan, np.nan
    if units:
        draws = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(sums[2].sum() / sums[3].sum() - sums[0].sum() / sums[1].sum())
            many = (draws @ sums[2]) / (draws @ sums[3]) - (draws @ sums[0]) / (draws @ sums[1])
        many = many[np.isfinite(many)]
        if many.size:
            low, high = (float(x) for x in np.quantile(many, [0.025, 0.975]))
    cases = int(use.sum())
    said = verdict_of(low, high, metric.better)
    return Difference(other, one, metric.name, metric.unit, value, low, high, cases, said)


def _columns(rows: Arrays, metric: Metric) -> tuple[Floats, Floats]:
    top = np.asarray(rows[metric.name], np.float64)
    if metric.per is None:
        return top, np.ones_like(top)
    return top, np.asarray(rows[metric.per], np.float64)


def _by_group(values: Floats, group: NDArray[np.int64]) -> Floats:
    _, member = np.unique(group, return_inverse=True)
    sums: Floats = np.bincount(member, weights=values).astype(np.float64)
    return sums


def verdict_of(low: float, high: float, better: str) -> str:
    """Say what an interval of differences means; no clear one where it holds 0 or is NaN."""
    if low > 0:
        return "worse" if better == "lower" else "better"
    if high < 0:
        return "better" if better == "lower" else "worse"
    return "no clear difference"
