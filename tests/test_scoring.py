"""Scenarios: on the cases at hand, on as many of another world, or on fewer where they say so."""

from __future__ import annotations

from typing import Any

import pytest

from ganglion import registry, scoring, testing
from ganglion.scoring import Entry

NAME = registry.names()[0]


def scored(overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Cases on which a scenario of these overrides scores a reference."""
    cfg = testing.small(NAME)
    task = registry.make(NAME, cfg)
    monkeypatch.setattr(task, "scenarios", {"nominal": {}, "other": overrides})
    make = registry.make
    monkeypatch.setattr(registry, "make", lambda n, c: task if c is cfg else make(n, c))
    cases = task.generate(20, "test", scoring.seeds.rng(0, "test"))
    found = scoring.score(NAME, cfg, [Entry("oracle", "reference")], cases, 0, scenarios=True)
    assert found[0].name == "nominal"
    return len(found[1].scored[0].rows[task.goal.name])


WORLD = {"problem.start_scale": 1.5}


def test_another_world_has_as_many_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored(WORLD, monkeypatch) == 20


def test_a_scenario_may_have_fewer_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored({**WORLD, "data.test": 7}, monkeypatch) == 7


def test_a_scenario_never_has_more_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored({**WORLD, "data.test": 900}, monkeypatch) == 20
