"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ganglion.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.5, "0.5"), (0.0031234, "0.00312"), (5.306, "5.31"), 
        (1234.5, "1,234"), (999.6, "1,000"), (3.14e-7, "3.14e-7"), (1e-7, "1e-7"), (2.5e9, "2.5e9"),
        (-0.25, "-0.25"), (None, "–"), (math.nan, "–"), (math.inf, "–"), ("x", "–"), (True, "–"),
    ],
)  # fmt: skip
def test_a_number_has_three_significant_digits(value: Any, text: str) -> None:
    assert numbers.number(value) == text


def test_a_percent_metric_is_stored_as_a_fraction() -> None:
    assert numbers.quantity(0.006, "%") == "0.6 %"
    assert numbers.quantity(0.006, "1") == "0.006"
    assert numbers.quantity(0.006, "m") == "0.006 m"
    assert numbers.quantity(math.nan, "%") == "–"


def test_an_estimate_has_its_interval_with_enough_digits() -> None:
    entry = {"value": 0.9997, "low": 0.9996, "high": 0.9998, "unit": "%"}
    assert numbers.estimate(entry) == "99.97 % [99.96, 99.98]"
    assert numbers.estimate({**entry, "low": None}) == "99.97 %"
    close = {"value": 10.001, "low": 10.0, "high": 10.002, "unit": "m"}
    assert numbers.estimate(close) == "10.001 m [10, 10.002]"
    assert numbers.estimate(None) == "–"


def test_sizes_counts_and_times_have_prefixes() -> None:
    assert [numbers.size(b) for b in (0, 999, 2_151_692, 6e9, None)] == [
        "0 B", "999 B", "2.15 MB", "6 GB", "–",
    ]  # fmt: skip
    assert [numbers.count(c) for c in (530_123, 50e6, math.nan)] == ["530,123", "50 M", "–"]
    assert [numbers.latency(t) for t in (48.21, 5000, 1.2e6)] == ["48.2 µs", "5 ms", "1.2 s"]
    assert [numbers.duration(t) for t in (0.85, 42.14, 725, 12_000)] == [
        "850 ms", "42.1 s", "12 min 5 s", "3 h 20 min",
    ]  # fmt: skip


def test_a_moment_is_read_from_text_or_seconds() -> None:
    assert numbers.moment("2026-01-31T23:59:59Z") == "2026-01-31 23:59 UTC"
    assert numbers.moment(0) == "1970-01-01 00:00 UTC"
    assert [numbers.moment(v) for v in (None, "soon", 1e300)] == ["–", "soon", "–"]


def test_any_value_fits_on_one_line() -> None:
    assert numbers.plain([1, 2.5, None, True]) == "[1, 2.5, –, true]"
    assert numbers.plain(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, … 20 in all]"
    assert numbers.plain({"a": {"b": 1}}) == "a=b=1"
    assert numbers.plain("x" * 200, 10) == "x" * 9 + "…"
