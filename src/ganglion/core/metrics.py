"""From one row per case to figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Metric
from ganglion.core.errors import DataError, unknown

Floats = NDArray[np.float64]

_BOUNDS = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """One figure: its value, the bounds of its 95 % interval, unit and direction."""

    value: float
    low: float
    high: float
    unit: str
    better: str
    cases: int
    percent: bool = False  # shown x 100 with a % sign; value, low and high are fractions

    def to_json(self) -> dict[str, Any]:
        """Return the documented JSON form."""
        return asdict(self)


def summarise(
    rows: Arrays,
    metrics: Sequence[Metric],
    rng: np.random.Generator | int,
    resamples: int = 1000,
) -> dict[str, Estimate]:
    """Average each metric's column over the cases, with a percentile bootstrap interval.

    rows maps names to (cases,) columns; NaN means that a metric does not apply to a case and is
    left out. `Metric.per` divides by the mean of another column over the same cases. A column
    `group` (cases,) makes the bootstrap draw whole groups (maps, scenes, clips), since cases of
    one group are not independent. An integer seed instead of a generator reuses the draws of the
    last call of that size (policies on the same cases are resampled alike). A `Metric.share` whose
    cases are yes or no, or all alike at one end, has the exact binomial interval instead, counted
    in cases (groups); NaN bounds where one case alone is all there is. Sources: Efron and
    Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile interval); Clopper and
    Pearson, Biometrika 26 (1934).
    """
    units, member = _groups(rows)
    if isinstance(rng, int):
        draws = _cached_draws(rng, units, resamples)
    else:
        draws = _draws(rng, units, resamples)
    out = {}
    for metric in metrics:
        top, bottom = _sums(rows, metric, member, units)
        value = float(_ratio(top.sum(), bottom.sum()))
        count = int(np.isfinite(np.asarray(rows[metric.name], np.float64)).sum())
        low, high = _interval(metric, top, bottom, draws)
        out[metric.name] = Estimate(
            value, low, high, metric.unit, metric.better, count, metric.percent
        )
    return out


def _interval(metric: Metric, top: Floats, bottom: Floats, draws: Floats) -> tuple[float, float]:
    used = bottom != 0
    alike = int((top[used] == bottom[used]).sum()), int((top[used] == 0).sum())
    whole = (bottom[used] == 1).all() or max(alike) == used.sum()
    if metric.share and whole and sum(alike) == used.sum():
        return _exact(*alike)
    many = _ratio(draws @ top, draws @ bottom)
    many = many[np.isfinite(many)]
    if not many.size or used.sum() < 2:  # one alone says nothing of others
        return float("nan"), float("nan")
    low, high = np.quantile(many, _BOUNDS)
    return float(low), float(high)


def _exact(yes: int, no: int) -> tuple[float, float]:
    """Return the interval of a share by the binomial distribution, after so many cases of each."""
    from scipy.special import betaincinv

    if not yes + no:
        return float("nan"), float("nan")
    low = float(betaincinv(yes, no + 1, _BOUNDS[0])) if yes else 0.0
    high = float(betaincinv(yes + 1, no, _BOUNDS[1])) if no else 1.0
    return low, high


def _draws(rng: np.random.Generator, units: int, resamples: int) -> Floats:
    """Return how often each of `units` is drawn in each resample, (resamples, units)."""
    even = np.full(units, 1 / units)
    return rng.multinomial(units, even, size=resamples).astype(np.float64)


@lru_cache(maxsize=2)
def _cached_draws(seed: int, units: int, resamples: int) -> Floats:
    return _draws(seeds.rng(seed, "bootstrap"), units, resamples)


def mean(rows: Arrays, metric: Metric) -> float:
    """Return one metric without its interval; NaN where it applies to no case."""
    units, member = _groups(rows)
    top, bottom = _sums(rows, metric, member, units)
    return float(_ratio(top.sum(), bottom.sum()))


def of_case(rows: Arrays, metric: Metric, case: int) -> float:
    """Return the metric of one case, a ratio where it is one; NaN where it does not apply."""
    value = float(rows[metric.name][case])
    if metric.per is None:
        return value
    below = float(rows[metric.per][case])
    return value / below if below else float("nan")


def worst(rows: Arrays, metric: Metric, count: int) -> NDArray[np.int64]:
    """Return the indices of the `count` worst cases, worst first; cases of NaN are left out."""
    column = np.asarray(rows[metric.name], np.float64)
    order = np.argsort(-column if metric.better == "lower" else column, kind="stable")
    return order[np.isfinite(column[order])][:count]


def _groups(rows: Arrays) -> tuple[int, NDArray[np.int64]]:
    cases = len(next(iter(rows.values())))
    if cases == 0:
        raise DataError("There are no cases to evaluate on.")
    if "group" not in rows:
        return cases, np.arange(cases)
    _, member = np.unique(rows["group"], return_inverse=True)
    return int(member.max()) + 1, member


def _sums(
    rows: Arrays, metric: Metric, member: NDArray[np.int64], units: int
) -> tuple[Floats, Floats]:
    for name in (metric.name, metric.per):
        if name is not None and name not in rows:
            raise DataError(unknown("column of the evaluation", name, rows))
    top = np.asarray(rows[metric.name], np.float64)
    bottom = np.ones_like(top) if metric.per is None else np.asarray(rows[metric.per], np.float64)
    use = ~np.isnan(top) & ~np.isnan(bottom)
    top_sums = np.bincount(member[use], weights=top[use], minlength=units)
    bottom_sums = np.bincount(member[use], weights=bottom[use], minlength=units)
    return top_sums.astype(np.float64), bottom_sums.astype(np.float64)


def _ratio(top: Any, bottom: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(top, bottom)


def better(metric: Metric, new: float, old: float | None) -> bool:
    """Say whether `new` improves on `old`; NaN never does."""
    if np.isnan(new):
        return False
    if old is None or np.isnan(old):
        return True
    return new < old if metric.better == "lower" else new > old


def plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Return estimates as JSON."""
    return {name: e.to_json() for name, e in estimates.items()}
