from __future__ import annotations

import numpy as np
import pytest

from ganglion.core import metrics
from ganglion.core.contracts import Metric
from ganglion.core.errors import DataError

COST = Metric("cost", "1", "lower")
GAP = Metric("gap", "1", "lower", per="optimum")
HIT = Metric("hit", "1", "higher")
SHARE = Metric("hit", "1", "higher", share=True)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_ratio_of_means_divides_sums_over_the_same_cases() -> None:
    # (1 + 3) / (2 + 8) = 0.4; the mean of the ratios would be (0.5 + 0.375) / 2 = 0.4375
    rows = {"gap": np.array([1.0, 3.0]), "optimum": np.array([2.0, 8.0])}
    assert metrics.mean(rows, GAP) == pytest.approx(0.4)
    assert metrics.summarise(rows, [GAP], rng())["gap"].value == pytest.approx(0.4)


def test_nan_is_left_out_of_both_sums() -> None:
    # the second case applies to neither: 1 / 2; the third has no optimum
    rows = {"gap": np.array([1.0, np.nan, 5.0]), "optimum": np.array([2.0, 8.0, np.nan])}
    assert metrics.mean(rows, GAP) == pytest.approx(0.5)
    found = metrics.summarise({"cost": np.array([1.0, np.nan, 5.0])}, [COST], rng())["cost"]
    assert (found.value, found.cases) == (3.0, 2)


def test_a_metric_that_applies_nowhere_is_nan() -> None:
    found = metrics.summarise({"cost": np.full(3, np.nan)}, [COST], rng())["cost"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_the_interval_is_the_percentile_bootstrap() -> None:
    column = np.array([0.0, 1.0, 2.0, 10.0])
    found = metrics.summarise({"cost": column}, [COST], rng(), resamples=400)["cost"]
    draws = rng().multinomial(4, [0.25] * 4, size=400)
    by_hand = np.array([np.repeat(column, d).mean() for d in draws])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    assert found.low < found.value < found.high


def test_the_interval_of_a_share_is_exact_and_never_empty() -> None:
    # no fault in 100 cases: 1 - .025 ** (1 / 100); 1 of 2: the roots of 1 - (1 - p)^2 = .025
    column = {"hit": np.ones(100)}
    found = metrics.summarise(column, [SHARE], rng())["hit"]
    assert (found.low, found.high) == pytest.approx((0.025 ** (1 / 100), 1.0))
    found = metrics.summarise({"hit": np.zeros(100)}, [SHARE], rng())["hit"]
    assert (found.low, found.high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))
    found = metrics.summarise({"hit": np.array([1.0, np.nan, 0.0])}, [SHARE], rng())["hit"]
    assert (found.value, found.cases) == (0.5, 2)
    assert (found.low, found.high) == pytest.approx((1 - 0.975**0.5, 0.975**0.5))
    found = metrics.summarise({"hit": np.full(3, np.nan)}, [SHARE], rng())["hit"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_share_of_groups_counts_groups() -> None:
    rows = {"hit": np.array([0.0, 0.0, 1.0, 1.0]), "group": np.array([7, 7, 9, 9])}
    found = metrics.summarise(rows, [SHARE], rng())["hit"]
    assert (found.low, found.high) == (0.0, 1.0)  # drawn by groups
    found = metrics.summarise({**rows, "hit": np.zeros(4)}, [SHARE], rng())["hit"]
    assert (found.low, found.high) == pytest.approx((0.0, 1 - 0.025**0.5))


def test_parts_of_cases_are_drawn_but_not_where_no_case_has_any() -> None:
    part = Metric("wrong", "1", "lower", per="cells", share=True)
    cells = np.array([50.0, 60.0, 0.0, 40.0])
    rows = {"wrong": np.array([0.0, 3.0, 0.0, 0.0]), "cells": cells}
    found = metrics.summarise(rows, [part], rng())["wrong"]
    assert (found.low, found.value, found.high) == pytest.approx((0.0, 0.02, 0.05), abs=0.011)
    none = metrics.summarise({**rows, "wrong": np.zeros(4)}, [part], rng())["wrong"]
    # three maps have cells at all
    assert (none.low, none.high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 3)))
    every = metrics.summarise({**rows, "wrong": cells}, [part], rng())["wrong"]
    assert (every.low, every.high) == pytest.approx((0.025 ** (1 / 3), 1.0))


def test_one_case_alone_has_no_interval_but_that_of_a_share() -> None:
    found = metrics.summarise({"cost": np.array([3.0])}, [COST], rng())["cost"]
    assert found.value == 3.0
    assert np.isnan([found.low, found.high]).all()
    found = metrics.summarise({"hit": np.ones(1)}, [SHARE], rng())["hit"]
    assert (found.low, found.high) == pytest.approx((0.025, 1.0))


def test_the_bootstrap_draws_whole_groups() -> None:
    # two groups of equal rows: a resample is all of one, half and half, or all of the other
    rows = {"cost": np.array([0.0, 0.0, 4.0, 4.0]), "group": np.array([7, 7, 9, 9])}
    found = metrics.summarise(rows, [COST], rng())["cost"]
    assert (found.value, found.low, found.high) == (2.0, 0.0, 4.0)
    alone = metrics.summarise({"cost": np.tile(rows["cost"], 50)}, [COST], rng())["cost"]
    assert alone.high - alone.low < 1.0


def test_groups_of_other_sizes_count_by_their_rows() -> None:
    # (1 + 1 + 1 + 5) / 4 = 2
    rows = {"cost": np.array([1.0, 1.0, 1.0, 5.0]), "group": np.array([0, 0, 0, 1])}
    assert metrics.mean(rows, COST) == 2.0


def test_a_seed_reuses_the_same_draws_for_every_policy() -> None:
    column = np.random.default_rng(1).random(30)
    one, two = (metrics.summarise({"cost": column}, [COST], 5)["cost"] for _ in range(2))
    other = metrics.summarise({"cost": column}, [COST], 6)["cost"]
    assert one == two
    assert one != other


def test_a_case_has_its_own_ratio() -> None:
    rows = {"gap": np.array([1.0, 3.0]), "optimum": np.array([2.0, 0.0]), "cost": np.ones(2)}
    assert metrics.of_case(rows, GAP, 0) == 0.5
    assert np.isnan(metrics.of_case(rows, GAP, 1))
    assert metrics.of_case(rows, COST, 1) == 1.0


def test_the_worst_come_first_by_direction() -> None:
    rows = {"cost": np.array([1.0, np.nan, 3.0, 2.0]), "hit": np.array([1.0, 0.0, 0.5, np.nan])}
    assert metrics.worst(rows, COST, 2).tolist() == [2, 3]
    assert metrics.worst(rows, HIT, 5).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("metric", "new", "old", "said"),
    [
        (COST, 1.0, 2.0, True), (COST, 2.0, 2.0, False), (HIT, 2.0, 1.0, True),
        (HIT, 1.0, 2.0, False), (COST, np.nan, None, False), (COST, 1.0, None, True),
        (COST, 1.0, np.nan, True), (COST, np.nan, 1.0, False),
    ],
)  # fmt: skip
def test_nan_is_never_better(metric: Metric, new: float, old: float | None, said: bool) -> None:
    assert metrics.better(metric, new, old) is said


def test_missing_columns_and_no_cases_are_named() -> None:
    with pytest.raises(DataError, match=r"column of the evaluation 'optimum'.*'optimun'"):
        metrics.mean({"gap": np.ones(2), "optimun": np.ones(2)}, GAP)
    with pytest.raises(DataError, match="no cases"):
        metrics.summarise({"cost": np.ones(0)}, [COST], rng())
