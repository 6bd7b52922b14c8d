"""The contract that every task meets, as checks that a task's own tests can call.

from ganglion import testing

def test_the_contract(tmp_path):
    testing.check_task("mine", folder=tmp_path)
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ganglion import registry
from ganglion.core import metrics, seeds
from ganglion.core import settings as core_settings
from ganglion.core.contracts import Array, Arrays, Learner, Policy, Ranks, Signature, Task
from ganglion.train.settings import TaskSettings

SMALL: Mapping[str, Any] = {
    "data": {"train": 64, "validation": 32, "test": 32, "shard": 32},
    "train": {"steps": 6, "block": 2, "batch_size": 8, "eval_every": 100},
}
ROWS = 24  # cases that policies are judged on


class BrokenContractError(AssertionError):
    """A task does not do what every task must; the text says which rule and how."""


@dataclass(frozen=True)
class Subject:
    """One task under test, its settings, and an empty folder."""

    name: str
    settings: TaskSettings
    folder: Path

    def task(self) -> Task:
        """Build the task anew."""
        return registry.make(self.name, self.settings)

    def rows(self, count: int, split: str, seed: int = 0) -> Arrays:
        """Generate one shard of a split."""
        return self.task().generate(count, split, seeds.rng(seed, split, 0))

    def learner(self) -> Learner:
        """Build the learner anew, with data where the settings want some."""
        cfg = self.settings
        data = None if cfg.data.fresh else self.rows(cfg.data.train, "train")
        return self.task().learner(data, "cpu", cfg.seed, Ranks())


def check_task(
    name: str, settings: TaskSettings | None = None, *, folder: Path | None = None
) -> None:
    """Run every check on the task `name`; BrokenContractError names the first rule it breaks.

    settings default to the task's own, shrunk to a few rows and steps.
    """
    cfg = settings or small(name)
    with TemporaryDirectory() as made:
        for rule, check in CHECKS.items():
            place = (folder or Path(made)) / rule
            place.mkdir(parents=True)
            check(Subject(name, cfg, place))


def small(name: str, *layers: Mapping[str, Any]) -> TaskSettings:
    """Return a task's settings with few rows and steps, `layers` on top."""
    return registry.resolve(name, None, [SMALL, *layers])


# ---------------------------------------------------------------- the rules


def settings_come_back(subject: Subject) -> None:
    """Settings survive a file, every one of them has a help text, every scenario resolves."""
    cls = type(subject.settings)
    dumped = subject.settings.model_dump(mode="json")
    again = registry.resolve(subject.name, None, [dumped])
    _need(again == subject.settings, "settings change when they are dumped and resolved again")
    for row in core_settings.describe(cls):
        _need(bool(row.help) or row.name.endswith(".kind"), f"setting {row.name} has no help")
    for preset in cls.presets:
        registry.resolve(subject.name, preset)
    for scenario, changes in subject.task().scenarios.items():
        changed = registry.override(subject.name, subject.settings, changes)
        _need(scenario != "nominal" or changed == subject.settings, '"nominal" changes settings')
        registry.make(subject.name, changed)


def torch_stays_out(subject: Subject) -> None:
    """Listing a task, reading its settings, building it and naming its references is light."""
    code = (
        "import sys; from ganglion import registry as r; name = sys.argv[1]; r.summary(name); "
        "t = r.make(name, r.settings(name).model_validate_json(sys.argv[2])); t.references(); "
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, subject.name, subject.settings.model_dump_json()]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    _need(found.returncode == 0, f"importing the task imports torch, or fails: {found.stderr}")


def data_follow_from_seed_and_split(subject: Subject) -> None:
    """Equal streams give equal rows, another split or seed gives others."""
    first, again = subject.rows(16, "train"), subject.rows(16, "train")
    _need(set(first) == set(again), "two generations have different arrays")
    for name, column in first.items():
        _need(len(column) == 16, f"{name} has {len(column)} rows, not 16")
        _need(not column.dtype.hasobject, f"{name} holds Python objects")
        _need(np.array_equal(column, again[name]), f"{name} differs between equal streams")
        if column.dtype.kind == "f":
            _need(bool(np.isfinite(column).all()), f"{name} is not finite")
    for other in (subject.rows(16, "test"), subject.rows(16, "train", seed=1)):
        _need(
            any(not np.array_equal(first[k], other[k]) for k in first),
            "another split or seed gives the same rows",
        )


def training_goes_on_bit_for_bit(subject: Subject) -> None:
    """A learner that is saved half-way and loaded anew ends in the same state."""
    import torch

    from ganglion.train import checkpoint

    torch.set_num_threads(subject.settings.train.threads)
    whole = subject.learner()
    for _ in range(3):
        whole.update()
    first = subject.learner()
    first.update()
    path = checkpoint.save(subject.folder, first.step, first.state_dict(), {})
    torch.manual_seed(999)  # a resumed run must not lean on global state
    second = subject.learner()
    second.load_state_dict(checkpoint.load(path).state)
    _need(second.step == first.step, "the step is not part of the state")
    for _ in range(2):
        second.update()
    ours, theirs = (checkpoint.state_digest(x.state_dict()) for x in (second, whole))
    _need(ours == theirs, "a resumed training ends in another state than an undisturbed one")


def policies_fit_their_signatures(subject: Subject) -> None:
    """Every policy gives what its signature declares, and the same to the same inputs."""
    task = subject.task()
    for name, policy in {**task.references(), "trained": subject.learner().policy()}.items():
        _fits(name, policy, policy.signature)


def evaluation_has_a_row_per_case(subject: Subject) -> None:
    """Every policy is scored: a column per metric, a row per case; the oracle is best."""
    task = subject.task()
    cases = subject.rows(ROWS, "test")
    goals: dict[str, float] = {}
    policies = {**task.references(), "trained": subject.learner().policy()}
    _need("oracle" in policies, 'no reference is named "oracle"')
    for name, policy in policies.items():
        kept = copy.deepcopy(dict(cases))
        rows = task.evaluate(policy, cases, seeds.rng(0, "evaluate"))
        _same(kept, cases, f"evaluating {name} changed the cases")
        for metric in task.metrics:
            for column in filter(None, (metric.name, metric.per)):
                _need(column in rows, f"the rows of {name} lack {column!r}")
                _need(len(rows[column]) == ROWS, f"{column} of {name} is no row per case")
        again = task.evaluate(policy, cases, seeds.rng(0, "evaluate"))
        _same(dict(rows), again, f"{name} is scored differently on the same stream")
        goals[name] = metrics.mean(rows, task.goal)
        _need(bool(np.isfinite(goals[name])), f"{task.goal.name} of {name} is {goals[name]}")
    sign = 1.0 if task.goal.better == "lower" else -1.0
    best = min(goals, key=lambda n: sign * goals[n])
    gap = sign * (goals["oracle"] - goals[best])
    _need(gap <= 1e-6, f"{best} is better than the oracle at {task.goal.name}: {goals}")


def exports_answer_alike(subject: Subject) -> None:
    """The exported file has the signature of the trained policy and gives its answers."""
    from ganglion.export.onnx_export import Checks, export
    from ganglion.export.onnx_policy import OnnxPolicy
    from ganglion.train.policy import TorchPolicy

    policy = subject.learner().policy()
    if not isinstance(policy, TorchPolicy):
        raise BrokenContractError("exports_answer_alike: learner.policy() is no TorchPolicy")
    path = subject.folder / "policy.onnx"
    limit = subject.settings.export.tolerance
    export(
        policy.module, policy.signature, path, {"task": subject.name},
        checks=Checks(rows=100, limit=limit),
    )  # fmt: skip
    _need(OnnxPolicy(path).signature == policy.signature, "the export has another signature")


CHECKS: Mapping[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        settings_come_back, torch_stays_out, data_follow_from_seed_and_split,
        training_goes_on_bit_for_bit, policies_fit_their_signatures,
        evaluation_has_a_row_per_case, exports_answer_alike,
    )
}  # fmt: skip


# ---------------------------------------------------------------- helpers


def _fits(name: str, policy: Policy, signature: Signature) -> None:
    from ganglion.export.inputs import draw

    specs = {**signature.inputs, **signature.outputs}
    sizes = {axis: 8 for spec in specs.values() for axis in spec.shape if isinstance(axis, str)}
    inputs = draw(signature, 5, seeds.rng(0, "contract"), sizes)
    kept = copy.deepcopy(dict(inputs))
    answers = policy.act(inputs)
    _same(kept, inputs, f"{name} changes its inputs")
    _need(
        set(answers) == set(signature.outputs), f"{name} gives {sorted(answers)}, its signature "
        f"says {sorted(signature.outputs)}"
    )  # fmt: skip
    for key, spec in signature.outputs.items():
        axes = (5, *spec.shape) if spec.batched else spec.shape
        wanted = tuple(sizes.get(a, a) if isinstance(a, str) else a for a in axes)
        found = answers[key]
        _need(
            (found.shape, str(found.dtype)) == (wanted, spec.dtype),
            f"{key} of {name} is {found.dtype}{found.shape}, declared {spec.dtype}{wanted}",
        )
    for output, fed in signature.carried.items():
        ours, theirs = signature.outputs[output], signature.inputs[fed]
        _need(
            (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), f"{output} cannot feed {fed}"
        )
    _same(dict(answers), policy.act(inputs), f"{name} answers the same inputs differently")


def _same(first: Mapping[str, Array], second: Arrays, what: str) -> None:
    for name, column in first.items():
        floating = np.asarray(column).dtype.kind == "f"
        _need(np.array_equal(column, second[name], equal_nan=floating), f"{what} ({name})")


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenContractError(otherwise)
