"""What a person sees of a running command: progress on stderr, as a bar or as plain lines.

Results never pass through here; they go to stdout (`commands/output.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Metrics = Mapping[str, float]
Counter = Callable[[int, int], None]


class Console(Protocol):
    """The interface that training and its verbs write to."""

    def trained(self, step: int, total: int, metrics: Metrics, rate: float) -> None: ...
    def judged(self, step: int, total: int, metrics: Metrics, new_best: bool) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def stage(self, text: str) -> None: ...
    def counting(self, what: str) -> Counter: ...
    def close(self) -> None: ...


class Quiet:
    """Show nothing but what a person must do something about (`warn`)."""

    def trained(self, step: int, total: int, metrics: Metrics, rate: float) -> None:
        """Show nothing."""

    def judged(self, step: int, total: int, metrics: Metrics, new_best: bool) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing; the event is in metrics.jsonl."""

    def warn(self, text: str) -> None:
        """Write one line."""
        _write(text)

    def stage(self, text: str) -> None:
        """Show nothing."""

    def counting(self, what: str) -> Counter:
        """Return a counter that shows nothing."""
        return _uncounted

    def close(self) -> None:
        """Nothing is open."""


class Plain:
    """One line per validation, for files and pipes; `goal` names the metric that decides."""

    def __init__(self, goal: str | None = None, unit: str = "1") -> None:
        self._goal, self._unit = goal, unit
        self._pace = Pace()
        self._rate = 0.0

    def trained(self, step: int, total: int, metrics: Metrics, rate: float) -> None:
        """Note the pace; lines come with validations."""
        self._pace.note(step)
        self._rate = rate

    def judged(self, step: int, total: int, metrics: Metrics, new_best: bool) -> None:
        """Write the line of one validation, `*` at a new best."""
        parts = [f"step {step:>{len(str(total))}}/{total}", *shown(metrics, self._goal, self._unit)]
        parts.append("*" if new_best else " ")
        if self._rate:
            parts.append(f"{throughput(self._rate)}  ETA {clock(self._pace.left(step, total))}")
        _write("  ".join(parts).rstrip())

    def say(self, text: str) -> None:
        """Write one line."""
        _write(text)

    def warn(self, text: str) -> None:
        """Write one line."""
        _write(text)

    def stage(self, text: str) -> None:
        """Write one line."""
        _write(f"{text} ...")

    def counting(self, what: str) -> Counter:
        """Return a counter that writes a line every few seconds, and one at the end."""
        last = [time.monotonic()]

        def count(done: int, total: int) -> None:
            if done >= total or time.monotonic() - last[0] >= 5.0:
                last[0] = time.monotonic()
                _write(f"{what} {done:,}/{total:,}")

        return count

    def close(self) -> None:
        """Nothing is open."""


class Rich:
    """A progress bar with loss, metric, throughput and time left, on a terminal."""

    def __init__(self, goal: str | None = None, unit: str = "1") -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._goal, self._unit = goal, unit
        self._pace = Pace()
        self._terminal = RichConsole(stderr=True, highlight=False)
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[note]}"),
            console=self._terminal, transient=True, expand=True,
        )  # fmt: skip
        self._row: Any = None
        self._value = ""

    def trained(self, step: int, total: int, metrics: Metrics, rate: float) -> None:
        """Move the bar."""
        self._pace.note(step)
        parts = [f"loss {number(metrics['loss'])}"] if "loss" in metrics else []
        parts += [self._value] if self._value else []
        left = clock(self._pace.left(step, total))
        self._show("train", step, total, "  ".join([*parts, throughput(rate), f"ETA {left}"]))

    def judged(self, step: int, total: int, metrics: Metrics, new_best: bool) -> None:
        """Write the line of one validation above the bar."""
        parts = shown(metrics, self._goal, self._unit)
        self._value = parts[-1] if parts else ""
        mark = " *" if new_best else ""
        self._print(f"step {step:>{len(str(total))}}/{total}  {'  '.join(parts)}{mark}")

    def say(self, text: str) -> None:
        """Write one line above the bar."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Write one line above the bar."""
        self._print(text)

    def stage(self, text: str) -> None:
        """Write one line above the bar."""
        self._print(f"{text} ...")

    def counting(self, what: str) -> Counter:
        """Return a counter that moves a bar, gone once it is full."""

        def count(done: int, total: int) -> None:
            self._show(what, done, total, "")
            if done >= total:
                self.close()

        return count

    def close(self) -> None:
        """Take the bar away; what comes later is plain lines until the next bar."""
        if self._row is not None:
            self._bar.stop()
            self._bar.remove_task(self._row)
            self._row = None

    def _show(self, what: str, done: int, total: int, note: str) -> None:
        if self._row is None:
            self._row = self._bar.add_task(what, total=total, note=note)
            self._bar.start()
        self._bar.update(self._row, completed=done, total=total, description=what, note=note)

    def _print(self, text: str) -> None:
        self._terminal.print(text, markup=False)


class Pace:
    """Steps per second since the first step seen, validations included."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._per_step = 0.0

    def note(self, step: int) -> None:
        """Take the time at `step`; a smaller step than the first begins anew."""
        now = time.monotonic()
        if self._first is None or step < self._first[0]:
            self._first = (step, now)
        elif step > self._first[0]:
            self._per_step = (now - self._first[1]) / (step - self._first[0])

    def left(self, step: int, total: int) -> float | None:
        """Return the seconds left, or None while unknown."""
        return (total - step) * self._per_step if self._per_step else None


def _uncounted(done: int, total: int) -> None:
    return None


def choose(json: bool, quiet: bool, goal: str | None = None, unit: str = "1") -> Console:
    """Return the console that fits: nothing, a bar on a terminal, else plain lines.

    goal is the metric that decides; for a `unit` of "%" its fraction is shown x 100.
    """
    if quiet:
        return Quiet()
    fancy = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return Rich(goal, unit) if fancy and not json else Plain(goal, unit)


def shown(metrics: Metrics, goal: str | None, unit: str = "1") -> list[str]:
    """Return train loss, validation loss and goal metric as text, what there is of them."""
    parts = []
    if "train_loss" in metrics:
        parts.append(f"train loss {number(metrics['train_loss'])}")
    if "loss" in metrics:
        parts.append(f"validation loss {number(metrics['loss'])}")
    rest = [name for name in metrics if name not in ("train_loss", "loss")]
    name = goal if goal in metrics else next(iter(rest), None)
    if name is not None:
        parts.append(f"{name} {measured(metrics[name], unit if name == goal else '1')}")
    return parts


def number(value: float | None) -> str:
    """Return a figure with four digits, a dash where there is none."""
    if value is None or value != value:
        return "-"
    return f"{value:.4g}"


def measured(value: float | None, unit: str) -> str:
    """Return a figure with its unit; for "%" the value is a fraction."""
    if unit == "%":
        return f"{number(None if value is None else value * 100)} %"
    return number(value) + (f" {unit}" if unit != "1" else "")


def throughput(rate: float) -> str:
    """Return rows per second."""
    return f"{rate:,.0f} rows/s"


def clock(seconds: float | None) -> str:
    """Return 75.2 as 1m15s."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


def _write(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # whoever was watching has gone; the work goes on
