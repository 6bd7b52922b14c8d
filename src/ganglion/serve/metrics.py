"""Counts and times of one process, in Prometheus' text format; several processes are added up.

Each worker keeps its numbers in memory. With more than one, each writes them into a folder that
they share, and whoever is asked adds up what lies there.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

Labels = tuple[tuple[str, str], ...]
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 16384.0)
HELP = {
    "ganglion_requests_total": "Requests answered, by policy, endpoint and status.",
    "ganglion_request_seconds": "Seconds from a request's last header to its answer.",
    "ganglion_run_seconds": "Seconds of one run of a policy.",
    "ganglion_run_rows": "Rows that were answered together in one run.",
    "ganglion_waiting": "Requests that wait for a run.",
    "ganglion_connections": "Open connections.",
    "ganglion_streams": "Open streams.",
    "ganglion_jobs": "Jobs that are kept.",
    "ganglion_clipped_total": "Inputs clipped into their declared range.",
    "ganglion_not_finite_total": "Answers held back because they were not finite.",
    "ganglion_replacements_total": "New versions that took over.",
    "ganglion_refusals_total": "New versions that were refused.",
    "ganglion_model_info": "What is served; the value is always 1.",
    "ganglion_shadow_pairs_total": "Requests that both policies answered.",
    "ganglion_shadow_dropped_total": "Requests that the shadow was too slow for.",
    "ganglion_shadow_difference": "Sum over pairs of the mean absolute difference of an output.",
    "ganglion_resident_bytes": "Resident memory of the serving processes.",
    "ganglion_start_seconds": "When the server began, in Unix time.",
}
_GAUGES = (
    "ganglion_waiting", "ganglion_connections", "ganglion_streams", "ganglion_jobs",
    "ganglion_model_info", "ganglion_resident_bytes", "ganglion_start_seconds",
)  # fmt: skip
_HIGHEST = ("ganglion_model_info", "ganglion_start_seconds", "ganglion_jobs")  # not added up


@dataclass
class Histogram:
    """Counts of values by upper bound; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}
        self.set("ganglion_start_seconds", time.time())

    def add(self, name: str, labels: Labels = (), value: float = 1.0) -> None:
        """Add to a counter."""
        key = (name, labels)
        self._values[key] = self._values.get(key, 0.0) + value

    def set(self, name: str, value: float, labels: Labels = ()) -> None:
        """Set a gauge."""
        self._values[name, labels] = value

    def drop(self, name: str, label: tuple[str, str]) -> None:
        """Forget the gauges `name` that have a label."""
        for key in [k for k in self._values if k[0] == name and label in k[1]]:
            del self._values[key]

    def histogram(self, name: str, labels: Labels, bounds: tuple[float, ...]) -> Histogram:
        """Return the histogram of that name, made where there is none."""
        return self._histograms.setdefault((name, labels), Histogram(bounds))

    def dump(self) -> bytes:
        """Return everything as JSON, for `added`."""
        return orjson.dumps(
            {
                "values": [[*k, v] for k, v in self._values.items()],
                "histograms": [
                    [*k, h.bounds, h.counts, h.total] for k, h in self._histograms.items()
                ],
            }
        )

    def merge(self, dumped: bytes) -> None:
        """Add what another process dumped."""
        found = orjson.loads(dumped)
        for name, raw, value in found["values"]:
            key = (name, _labels(raw))
            if name in _HIGHEST:
                self._values[key] = max(self._values.get(key, 0.0), value)
            else:
                self._values[key] = self._values.get(key, 0.0) + value
        for name, raw, bounds, counts, total in found["histograms"]:
            mine = self.histogram(name, _labels(raw), tuple(bounds))
            mine.counts = [a + b for a, b in zip(mine.counts, counts, strict=True)]
            mine.total += total

    def text(self) -> str:
        """Return everything in Prometheus' text format, version 0.0.4."""
        lines: list[str] = []
        names = sorted({k[0] for k in [*self._values, *self._histograms]})
        for name in names:
            kind = "gauge" if name in _GAUGES else "counter"
            kind = "histogram" if any(k[0] == name for k in self._histograms) else kind
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]
            for (key, labels), value in sorted(self._values.items()):
                if key == name:
                    lines.append(f"{name}{_shown(labels)} {value:.17g}")
            for (key, labels), histogram in sorted(self._histograms.items(), key=lambda i: i[0]):
                if key == name:
                    lines += _bucket_lines(name, labels, histogram)
        return "\n".join(lines) + "\n"


def write(folder: Path, worker: int, metrics: Metrics) -> None:
    """Leave this process' numbers where the others find them."""
    temporary = folder / f".metrics-{worker}.tmp"
    with suppress(OSError):  # a full disk costs numbers, never answers
        temporary.write_bytes(metrics.dump())
        os.replace(temporary, folder / f"metrics-{worker}.json")


def added(folder: Path, worker: int, own: Metrics) -> Metrics:
    """Return the sum of this process' numbers and the last ones of the others."""
    total = Metrics()
    total.merge(own.dump())
    for path in folder.glob("metrics-*.json"):
        if path.name != f"metrics-{worker}.json":
            with suppress(OSError, orjson.JSONDecodeError):
                total.merge(path.read_bytes())
    return total


def resident_bytes() -> float:
    """Return this process' resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def labels(**given: str) -> Labels:
    """Return labels in their order."""
    return tuple(given.items())


def _labels(raw: Iterable[Iterable[str]]) -> Labels:
    return tuple((name, value) for name, value in raw)


def _shown(labels: Labels, more: Mapping[str, str] | None = None) -> str:
    pairs = [*labels, *(more or {}).items()]
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _bucket_lines(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines, total = [], 0
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        lines.append(f"{name}_bucket{_shown(labels, {'le': bound})} {total}")
    lines.append(f"{name}_sum{_shown(labels)} {histogram.total:.17g}")
    lines.append(f"{name}_count{_shown(labels)} {total}")
    return lines
