"""The shape of a learning curve in a few robust numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.report import curves

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One curve, where lower is better; steps and values (n,), finite and in order.

    head is the median of the first fiftieth, tail of the last tenth; drop = head - tail.
    late_fall is the share of the drop that came in the last third (1/3 for a straight line, near
    0 for a curve that levelled off). swing is the robust standard deviation of the second half
    around its running median. early is the share of the curve after which 90 % of the drop was
    reached.
    """

    steps: Floats
    values: Floats
    head: float
    tail: float
    late_fall: float
    swing: float
    early: float

    @property
    def drop(self) -> float:
        """Return how far the curve fell."""
        return self.head - self.tail

    @property
    def best(self) -> int:
        """Return the index of the lowest value."""
        return int(np.argmin(self.values))


def shape(rows: Sequence[Mapping[str, Any]], name: str, least: int, sign: float = 1.0) -> Shape:
    """Measure one column of `rows`; ValueError where it has fewer than `least` finite values.

    sign -1 turns a curve where higher is better.
    """
    points = np.array(curves.series(rows, name), np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(1)]
    if len(points) < least:
        raise ValueError(f"{name} has {len(points)} finite values, fewer than {least}")
    steps, values = points[:, 0], sign * points[:, 1]
    tenth = max(1, len(values) // 10)
    start = max(1, len(values) // 50)  # short, since much may happen in the first tenth
    head, tail = float(np.median(values[:start])), float(np.median(values[-tenth:]))
    at_third = 2 * len(values) // 3
    before = values[max(0, at_third - tenth) : at_third + 1]
    drop = head - tail
    late = float(np.median(before)) - tail
    return Shape(
        steps, values, head, tail, late / drop if drop > 0 else 0.0, _swing(values),
        _early(values, head, drop),
    )  # fmt: skip


def _swing(values: Floats) -> float:
    second = values[len(values) // 2 :]
    half = max(2, len(second) // 8)
    trend = [np.median(second[max(0, i - half) : i + half + 1]) for i in range(len(second))]
    # 1.4826 MAD estimates a normal standard deviation; single spikes do not move it.
    return 1.4826 * float(np.median(np.abs(second - np.array(trend))))


def _early(values: Floats, head: float, drop: float) -> float:
    below = np.flatnonzero(values <= head - 0.9 * drop)
    return float(below[0]) / len(values) if drop > 0 and below.size else 1.0
