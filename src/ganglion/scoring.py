"""Scores policies of one task on the same cases, nominal and in every scenario."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ganglion import registry
from ganglion.core import metrics, seeds
from ganglion.core.contracts import Arrays, Policy, Task
from ganglion.core.dataset import Dataset, Recipe
from ganglion.core.errors import DataError
from ganglion.core.settings import difference, digest
from ganglion.train.settings import TaskSettings

Kind = Literal["run", "onnx", "reference", "command", "url", "recorded"]


@dataclass(frozen=True)
class Entry:
    """One policy to score; policy None means the reference `name` of each scenario's own task."""

    name: str
    kind: Kind
    policy: Policy | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Scored:
    """One policy in one scenario: a row per case, and the figures that follow."""

    entry: Entry
    rows: Arrays
    estimates: Mapping[str, metrics.Estimate]

    def to_json(self) -> dict[str, Any]:
        """Return the documented form of `evaluate --json`."""
        return {
            "name": self.entry.name, "kind": self.entry.kind, "digest": self.entry.digest,
            "metrics": metrics.plain(self.estimates),
        }  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """The same problem as it was trained on ("nominal"), or changed by `overrides`."""

    name: str
    overrides: Mapping[str, Any]
    digest: str
    cases: Arrays
    scored: tuple[Scored, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the scenario's part of report.json."""
        return {
            "name": self.name, "overrides": dict(self.overrides), "digest": self.digest,
            "cases": len(next(iter(self.cases.values()))),
            "policies": [s.to_json() for s in self.scored],
        }  # fmt: skip


def recipe(task: str, cfg: TaskSettings, counts: Mapping[str, int] | None = None) -> Recipe:
    """Return the recipe of the dataset that `cfg` asks for; `counts` replaces its splits."""
    data = cfg.data
    if counts is None:
        counts = {"train": data.train, "validation": data.validation, "test": data.test}
        if data.fresh:
            counts.pop("train")
    return Recipe(task, cfg.world(), counts, data.seed, data.shard)


def check_fits(data: Dataset, task: str, cfg: TaskSettings) -> None:
    """DataError where `data` were drawn for another task or from another world than `cfg` says."""
    if data.task != task:
        raise DataError(f"{data.folder} holds data of the task {data.task!r}, not of {task!r}.")
    ours = recipe(task, cfg, {"test": 1})
    if data.world_digest == ours.world_digest:
        return
    theirs = data.card["recipe"]["world"]
    differs = _shown_difference(theirs, ours.world)
    raise DataError(
        f"{data.folder} was generated for other settings than these ({differs}). Generate data "
        "for them, or give the settings the data were made with."
    )


def nominal_cases(data: Dataset, split: str, count: int | None = None) -> Arrays:
    """Return the first `count` rows of a split, in memory; DataError where there are fewer."""
    arrays = data.split(split)
    rows = data.rows(split)
    if count is not None and count > rows:
        raise DataError(f"{data.folder} has {rows} rows of {split}, not {count}.")
    return {name: np.array(column[:count]) for name, column in arrays.items()}


def fresh_cases(task: Task, name: str, cfg: TaskSettings, count: int, seed: int) -> Arrays:
    """Draw `count` cases in shards from the stream (seed, "evaluation", shard)."""
    shards = Recipe(name, {}, {"evaluation": count}, seed, cfg.data.shard).shards()
    parts = [
        task.generate(s.count, "evaluation", seeds.rng(seed, "evaluation", s.index)) for s in shards
    ]
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def score(
    task: str,
    cfg: TaskSettings,
    entries: Iterable[Entry],
    cases: Arrays,
    seed: int,
    scenarios: bool = False,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Scenario]:
    """Score every entry on `cases`, then, if asked for, in each scenario of the task.

    A scenario whose world differs (other horizon, other starts) draws as many cases of its own
    from the stream (seed, "evaluation"), or fewer where it says `data.test`; one that only disturbs
    keeps the cases. Every policy sees the same cases and the same random stream.
    """
    base = registry.make(task, cfg)
    wanted: dict[str, Mapping[str, Any]] = {"nominal": {}}
    if scenarios:
        wanted |= {n: o for n, o in base.scenarios.items() if n != "nominal"}
    wanted |= dict(extra or {})
    entries = list(entries)
    found = []
    for name, overrides in wanted.items():
        changed = registry.override(task, cfg, overrides) if overrides else cfg
        own = registry.make(task, changed)
        same_world = changed.world() == cfg.world()
        count = len(next(iter(cases.values())))
        if "data.test" in overrides:
            count = min(count, changed.data.test)
        mine = cases if same_world else fresh_cases(own, task, changed, count, seed)
        scored = tuple(_score_one(own, e, mine, seed) for e in entries)
        found.append(Scenario(name, overrides, digest(changed), mine, scored))
    return found


def scores_json(
    task: str, cfg: TaskSettings, seed: int, scenarios: list[Scenario]
) -> dict[str, Any]:
    """Return the documented form of `evaluate` and `compare`."""
    made = registry.make(task, cfg)
    nominal = scenarios[0]
    problem = getattr(cfg, "problem", None)
    return {
        "version": 1, "task": task, "problem": getattr(problem, "kind", task),
        "cases": len(next(iter(nominal.cases.values()))), "seed": seed, "goal": made.goal.name,
        "metrics": [asdict(m) for m in made.metrics],
        "policies": [s.to_json() for s in nominal.scored],
        "scenarios": [s.to_json() for s in scenarios[1:]],
        "scenario_note": getattr(made, "scenario_note", ""),
    }  # fmt: skip


def _score_one(task: Task, entry: Entry, cases: Arrays, seed: int) -> Scored:
    policy = entry.policy if entry.policy is not None else task.references()[entry.name]
    rows = task.evaluate(policy, cases, seeds.rng(seed, "evaluate"))
    estimates = metrics.summarise(rows, task.metrics, seed)
    return Scored(entry, rows, estimates)


def _shown_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    pairs = list(difference(old, new).items())[:4]
    return ", ".join(f"{k}: {a} in the data, {b} here" for k, (a, b) in pairs)
