"""Tables of policies, and the page that sets runs side by side."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from ganglion.core.contracts import Metric
from ganglion.core.errors import DataError
from ganglion.report import compare
from ganglion.report.pairs import differences

from . import sample
from .test_page import check

GAP = Metric("gap", "%", "lower")


def other() -> dict[str, Any]:
    found = copy.deepcopy(sample.report())
    found["run"] |= {"name": "calm-otter", "id": "run_2"}
    found["run"]["settings"]["optim"]["lr"] = 5e-4
    del found["run"]["settings"]["model"]["dropout"]
    found["curves"]["validation"][4]["gap"] = 1e-6
    return found


def test_the_table_has_headings_intervals_and_the_best_marked() -> None:
    rows = compare.table(sample.report())
    assert rows[0] == ["policy", "gap [%] ↓", "success [%] ↑", "error [m] ↓", "effort [m²/s³] ↓",
                       "violation ↓"]  # fmt: skip
    assert rows[1][:2] == ["brisk-heron", "0.0061* [0.00537, 0.00676]"]
    assert rows[3][:2] == ["oracle", "0 [0, 0]"]
    assert rows[7][:3] == ["random", "590 [519, 654]", "–"]


def test_the_table_of_chosen_metrics_lines_up_as_text() -> None:
    lines = compare.text(compare.table(sample.report(), ["gap"])).splitlines()
    assert lines[0].split() == ["policy", "gap", "[%]", "↓"]
    assert set(lines[1]) == {"-", " "}
    assert len({len(line) for line in lines}) == 1
    assert compare.text([]) == ""
    assert compare.table({}) == [["policy"]]


def test_the_efficiency_table_says_what_is_quoted() -> None:
    rows = compare.efficiency_table(sample.report())
    assert rows[1] == ["brisk-heron", "530,123", "2.15 MB", "46.3 MB", "212 µs", "488 µs",
                       "measured"]  # fmt: skip
    assert rows[-2] == ["Qwen 2.5-3B", "50M trainable", "–", "6 GB", "100 ms", "–", "quoted: guide"]
    assert compare.efficiency_table({"policies": [{"name": "a"}]}) == []


def test_settings_that_differ_are_named_and_no_others() -> None:
    assert compare.setting_differences([sample.report(), other()]) == [
        ("model.dropout", ["0", "not there"]),
        ("optim.lr", ["0.001", "0.0005"]),
    ]


def test_the_best_and_last_validation_value_of_each_run() -> None:
    judged, lines = compare.run_lines([sample.report(), other()])
    assert judged == "gap"
    assert [line.name for line in lines] == ["brisk-heron", "calm-otter"]
    assert lines[1].best == 1e-6
    assert lines[1].best_step == 1000  # the fifth validation, each 200 steps
    assert lines[0].last == lines[0].best == pytest.approx(2.9 * np.exp(-11) + 6e-5)


def test_the_comparison_page_is_one_valid_file() -> None:
    rows = {"a": {"gap": np.arange(20.0)}, "b": {"gap": np.arange(20.0) + 1}}
    pairs = differences(rows, [GAP], np.random.default_rng(0))
    found = check(compare.compare_page(sample.report(), [sample.report(), other()], pairs))
    for text in ("Settings that differ", "optim.lr", "Difference to a", "+100 % [100, 100]",
                 "worse", "Validation gap [%]", "calm-otter"):  # fmt: skip
        assert text in found.text
    check(compare.compare_page({}))
    check(compare.compare_page({"policies": [{"name": "a"}]}, [{}, {}]))


def test_the_comparison_page_shows_what_the_report_states_itself() -> None:
    report = sample.report()
    report["differences"] = {"optim.lr": {"brisk-heron": 1e-3, "calm-otter": 5e-4}}
    report["paired"] = [{"name": "lqr", "against": "brisk-heron", "goal": "gap",
                         "difference": 0.04, "low": 0.03, "high": 0.05}]  # fmt: skip
    report["policies"][0]["training"] = {"goal": "gap", "best": 1e-4, "best_step": 900,
                                         "last": 2e-4, "last_step": 1000}  # fmt: skip
    found = check(compare.compare_page(report))
    for text in ("Difference to brisk-heron", "+4 % [3, 5]", "worse", "Settings that differ",
                 "0.0005", "best validation gap", "0.01 %"):  # fmt: skip
        assert text in found.text


def test_two_runs_of_one_name_are_told_apart() -> None:
    first, second = sample.report(), other()
    second["run"]["name"] = "brisk-heron"
    assert compare.run_names([first, second]) == [
        "brisk-heron (run_20260131_235959_9f3a2c)", "brisk-heron (run_2)",
    ]  # fmt: skip


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    # b is 0.1 worse on every case, though the cases differ by far more than that
    cost = np.random.default_rng(1).normal(0, 10, 400)
    rows = {"a": {"gap": cost}, "b": {"gap": cost + 0.1}}
    (found,) = differences(rows, [GAP], np.random.default_rng(0))
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.verdict == "worse"
    higher = Metric("gap", "%", "higher")
    assert differences(rows, [higher], np.random.default_rng(0))[0].verdict == "better"


def test_a_difference_of_ratios_pairs_sums_and_leaves_nan_out_of_both() -> None:
    # cases 0 and 1 count: a = (1 + 2) / (4 + 2) = 0.5, b = (2 + 4) / (4 + 2) = 1; case 2 is NaN
    base = np.array([4.0, 2.0, 9.0])
    rows = {"a": {"gap": np.array([1.0, 2.0, 3.0]), "cost": base},
            "b": {"gap": np.array([2.0, 4.0, np.nan]), "cost": base}}  # fmt: skip
    metric = Metric("gap", "%", "lower", per="cost")
    (found,) = differences(rows, [metric], np.random.default_rng(0))
    assert found.value == pytest.approx(0.5)
    assert found.cases == 2
    assert (found.policy, found.against) == ("b", "a")


def test_policies_on_other_cases_cannot_be_paired() -> None:
    rows = {"a": {"gap": np.zeros(3)}, "b": {"gap": np.zeros(4)}}
    with pytest.raises(DataError, match="a was scored on 3 cases and b on 4; only policies"):
        differences(rows, [GAP], np.random.default_rng(0))


def test_cases_that_are_nan_everywhere_have_no_clear_difference() -> None:
    rows = {"a": {"gap": np.full(3, np.nan)}, "b": {"gap": np.zeros(3)}}
    (found,) = differences(rows, [GAP], np.random.default_rng(0))
    assert (found.cases, found.verdict) == (0, "no clear difference")
    assert np.isnan(found.value)
