"""Every registered task meets the same contract; a new task gets these tests for free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion import registry, testing
from ganglion.core.contracts import Arrays

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.onnx warns about its own internals

# Settings that a task needs to be small, on top of `testing.SMALL`; kinds worth a run of their own.
SHORT: dict[str, Any] = {
    "evaluation": {"seconds": 0.6}, "train": {"batch_size": 32}, "loss": {"horizon": 4},
}  # fmt: skip
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "control": {
        "standard": {},
        "imitation": {"data": {"fresh": False}, "model": "mlp", "loss": "imitation"},
        "moving": {"problem": {"target": "moving"}, "train": {"ema": 0.9}},
    },
    "gridnav": {
        "standard": {},
        "two latents": {"model": "trm", "data": {"fresh": False}},
        "mixer": {"model": "mixer", "train": {"epochs": None, "steps": 6}},
    },
    "motion": {
        "standard": SHORT,
        "disturbed": {
            **SHORT,
            "problem": {
                "observation": "proprio",
                "sensor_noise": 1.0,
                "latency": 1,
                "push": 0.3,
                "randomise": 0.2,
            },
        },
        "commanded": {
            **SHORT,
            "clip": {"kind": "sweep", "forward_steps": 2, "turn_steps": 1},
            "problem": {"goal": "command", "action": "absolute"},
            "loss": {"horizon": 4, "style": {"on": True, "hidden": [16], "batch": 16}},
        },
        "cloning": {"evaluation": {"seconds": 0.6}, "loss": "cloning"},
    },
}
CASES = [
    pytest.param(name, layer, id=f"{name}-{variant}")
    for name in registry.names()
    for variant, layer in VARIANTS.get(name, {"standard": {}}).items()
]


@pytest.mark.parametrize("rule", testing.CHECKS)
@pytest.mark.parametrize(("name", "layer"), CASES)
def test_every_task_keeps_the_contract(
    name: str, layer: Mapping[str, Any], rule: str, tmp_path: Path
) -> None:
    testing.CHECKS[rule](testing.Subject(name, testing.small(name, layer), tmp_path))


def test_a_plug_in_checks_its_task_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[testing.Subject] = []
    monkeypatch.setattr(testing, "CHECKS", {"first": called.append, "second": called.append})
    testing.check_task("control", folder=tmp_path)
    assert [s.folder for s in called] == [tmp_path / "first", tmp_path / "second"]
    assert called[0].settings == testing.small("control")


# ---------------------------------------------------------------- the checks can fail


class Cheat:
    """A task that breaks one rule at a time."""

    def __init__(self, task: Any, **changes: Any) -> None:
        self._task = task
        self.__dict__.update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def careless(count: int, split: str, rng: np.random.Generator) -> Arrays:
    return {"x": np.random.default_rng().random(count)}


def same_for_every_split(count: int, split: str, rng: np.random.Generator) -> Arrays:
    return {"x": np.ones(count)}


def nothing(*given: Any) -> Arrays:
    return {}


class Wrong:
    """An oracle that does nothing."""

    def __init__(self, policy: Any, answer: Any) -> None:
        self.signature, self._policy, self._answer = policy.signature, policy, answer

    def act(self, inputs: Arrays) -> Arrays:
        return {k: self._answer(v) for k, v in self._policy.act(inputs).items()}


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        ("data_follow_from_seed_and_split", {"generate": careless}, "differs between equal"),
        ("data_follow_from_seed_and_split", {"generate": same_for_every_split}, "the same rows"),
        ("policies_fit_their_signatures", {"answer": lambda v: v[:, :0]}, "declared float32"),
        ("policies_fit_their_signatures", {"answer": lambda v: v.astype(np.float64)}, "float64"),
        ("evaluation_has_a_row_per_case", {"answer": lambda v: v * 0}, "better than the oracle"),
        ("evaluation_has_a_row_per_case", {"references": dict}, 'no reference is named "oracle"'),
        ("evaluation_has_a_row_per_case", {"evaluate": nothing}, "lack"),
    ],
)
def test_a_task_that_breaks_a_rule_is_told(
    rule: str, changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = testing.small("control")
    task = registry.make("control", cfg)
    if answer := changes.pop("answer", None):
        good = task.references()
        changes["references"] = lambda: {**good, "oracle": Wrong(good["oracle"], answer)}
    cheat = Cheat(task, **changes)
    monkeypatch.setattr(registry, "make", lambda name, settings: cheat if name else settings)
    with pytest.raises(testing.BrokenContractError, match=said):
        testing.CHECKS[rule](testing.Subject("control", cfg, tmp_path))
