"""Search spaces: which settings to vary, over which values. A file in YAML or JSON.

about: one sentence
preset: guide
settings: {model.size: small}          # fixed for the whole search, optional
space:
  train.batch_size: [32, 64, 128]      # one of these
  optim.lr: {low: 1.0e-4, high: 5.0e-3, log: true}
  model.latent_dim: {low: 32, high: 256, step: 32}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganglion.core.errors import SettingsError, unknown
from ganglion.core.settings import dotted, read_file

_KEYS = ("about", "preset", "settings", "space")
_RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one of the values."""
        return self.values[int(rng.integers(len(self.values)))]

    def extremes(self) -> Sequence[Any]:
        """Return the values that a check should try: all."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number between low and high, both included; on a log scale; or low + k step."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def draw(self, rng: np.random.Generator) -> float | int:
        """Return a number of the range."""
        if self.step is not None:
            steps = math.floor((self.high - self.low) / self.step + 1e-9)
            return self.low + self.step * int(rng.integers(steps + 1))
        if self.log:
            return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    def extremes(self) -> Sequence[Any]:
        """Return the values that a check should try: both ends."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Space:
    """What a search varies: dotted setting -> values, beside a preset and fixed settings."""

    about: str
    preset: str
    settings: Mapping[str, Any]
    parameters: Mapping[str, Choice | Range]

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return one point: dotted setting -> value."""
        return {name: p.draw(rng) for name, p in self.parameters.items()}

    def layer(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the layer of settings at one point, nested."""
        return dotted({**self.settings, **point})


def read(path: Path) -> Space:
    """Read a space; SettingsError names the word that is wrong."""
    raw = read_file(path)
    for key in raw:
        if key not in _KEYS:
            raise SettingsError(f"{path}: {unknown('part of a search space', str(key), _KEYS)}")
    listed = raw.get("space")
    if not isinstance(listed, Mapping) or not listed:
        raise SettingsError(f"{path}: `space` must map settings to their values.")
    fixed = raw.get("settings") or {}
    if not isinstance(fixed, Mapping):
        raise SettingsError(f"{path}: `settings` must map settings to values.")
    parameters = {str(name): _parameter(f"{path}: {name}", v) for name, v in listed.items()}
    both = sorted(set(parameters) & set(map(str, fixed)))
    if both:
        raise SettingsError(f"{path}: {both[0]} is fixed and varied at once.")
    return Space(
        str(raw.get("about", "")), str(raw.get("preset", "standard")), dict(fixed), parameters
    )


def check(space: Space, resolve: Callable[[Mapping[str, Any]], object]) -> None:
    """Try every choice and both ends of every range; SettingsError where one is no setting.

    resolve takes a nested layer and raises SettingsError for what the task does not know. Settings
    are tried one at a time beside the first values of the others, and at 20 random points.
    """
    first = {name: p.extremes()[0] for name, p in space.parameters.items()}
    for point in _points(space, first):
        resolve(space.layer(point))


def _points(space: Space, first: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, parameter in space.parameters.items():
        for value in parameter.extremes():
            yield {**first, name: value}
    rng = np.random.default_rng(0)
    for _ in range(20):
        yield space.draw(rng)


def _parameter(where: str, raw: Any) -> Choice | Range:
    if isinstance(raw, list):
        if not raw or len({str(v) for v in raw}) != len(raw):
            raise SettingsError(f"{where}: name each choice once, and at least one.")
        return Choice(tuple(raw))
    if not isinstance(raw, Mapping):
        raise SettingsError(
            f"{where}: give a list of choices, or {{low: ..., high: ..., log: true}}."
        )
    for key in raw:
        if key not in _RANGE:
            raise SettingsError(f"{where}: {unknown('part of a range', str(key), _RANGE)}")
    low, high, step = (raw.get(k) for k in ("low", "high", "step"))
    log = raw.get("log", False)
    numbers = [v for v in (low, high) if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
        raise SettingsError(f"{where}: low and high must be numbers, low below high.")
    if not isinstance(log, bool) or (log and numbers[0] <= 0):
        raise SettingsError(f"{where}: log is true or false, and true only above zero.")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float)
                             or not 0 < step <= numbers[1] - numbers[0] or log):  # fmt: skip
        raise SettingsError(f"{where}: step must be above zero, within the range, without log.")
    return Range(numbers[0], numbers[1], log, step)
