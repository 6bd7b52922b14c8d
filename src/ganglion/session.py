"""From a run folder to a learner ready to train: its settings, data, checkpoint and journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganglion import registry
from ganglion.core import dataset, metrics, seeds
from ganglion.core.contracts import Arrays, Learner, Metrics, Policy, Ranks, Signature, Task
from ganglion.core.errors import CheckpointError, DataError, RunError, SettingsError
from ganglion.core.run import Run
from ganglion.core.settings import difference
from ganglion.sources import data_of, settings_of
from ganglion.train import checkpoint, device
from ganglion.train.journal import Console, Plan, RunJournal
from ganglion.train.loop import Progress, Validation
from ganglion.train.policy import TorchPolicy
from ganglion.train.settings import TaskSettings


@dataclass(frozen=True)
class Session:
    """What `loop.fit` needs, and what comes after it."""

    task: Task
    cfg: TaskSettings
    data: dataset.Dataset
    learner: Learner
    validation: Validation
    rows: int | None
    progress: Progress
    journal: RunJournal


def open_session(
    run: Run, console: Console, stop: Callable[[], str | None], strict: bool = False
) -> Session:
    """Build the learner of `run` and bring it to the newest checkpoint that verifies.

    The caller holds the run's lock. With strict, a machine that cannot continue bit for bit is
    refused.
    """
    name, cfg = settings_of(run)
    device.prepare(cfg.train)
    task = registry.make(name, cfg)
    data = data_of(run)
    validation_rows = _validation_rows(run, data)
    rows = None if cfg.data.fresh else data.rows("train")
    train_data = None if cfg.data.fresh else data.split("train")
    learner = task.learner(train_data, run.manifest["device"], cfg.seed, Ranks())
    validation = Validation(validation_rows, judge(task, validation_rows, cfg.seed), task.goal)
    about = {"settings": cfg.model_dump(mode="json"), "data": data.digest, "task": name}
    plan = Plan(cfg.train.total_steps(rows), cfg.train.batch_size * cfg.train.accumulate, about)
    journal = RunJournal(run, cfg.train, plan, console, stop)
    progress = _restore(run, learner, cfg, console, strict)
    if progress.finished and learner.step < plan.total:  # more steps or patience were asked for
        progress.finished = bool(cfg.train.patience) and progress.stale >= cfg.train.patience
    journal.resume(progress)
    return Session(task, cfg, data, learner, validation, rows, progress, journal)


def judge(task: Task, cases: Arrays, seed: int) -> Callable[[Policy], Metrics]:
    """Return the function that scores a policy on `cases`, always on the same random stream."""

    def score(policy: Policy) -> Metrics:
        rows = task.evaluate(policy, cases, seeds.rng(seed, "validation"))
        return {m.name: metrics.mean(rows, m) for m in task.metrics}

    return score


def trained(run: Run, which: str | int = "best") -> tuple[Learner, Task, TaskSettings, int]:
    """Return a run's learner at checkpoint `best`, `last` or a step, on the CPU."""
    name, cfg = settings_of(run)
    task = registry.make(name, cfg)
    found = chosen_checkpoint(run, which)
    learner = task.learner(None, "cpu", cfg.seed, Ranks())  # nothing is drawn: no data needed
    _load(learner, found)
    return learner, task, cfg, found.step


def deployed(run: Run, which: str | int = "best") -> tuple[Policy, int]:
    """Return the policy of a run's checkpoint, which knows its numbers of steps, and the step."""
    learner, task, _, step = trained(run, which)
    policy = learner.policy()
    if isinstance(policy, TorchPolicy):
        policy.steps = steps_of(task, policy.signature)
    return policy, step


def steps_of(task: Task, signature: Signature) -> dict[str, int]:
    """Return what inputs of role "steps" get where a caller leaves them out."""
    return {
        name: int(getattr(task, "steps", {}).get(name, spec.high or 1))
        for name, spec in signature.inputs.items()
        if spec.role == "steps"
    }


def chosen_checkpoint(
    run: Run, which: str | int, instead: Callable[[str], None] | None = None
) -> checkpoint.Loaded:
    """Return one verified checkpoint of a run; the errors say which there are.

    Where the best one is damaged, `instead` is told so and the newest is returned; without it
    that is a CheckpointError.
    """
    folder = run.folder / "checkpoints"
    steps = checkpoint.listed(folder)
    if isinstance(which, int):
        if which not in steps:
            raise RunError(f"{run.id} has no checkpoint at step {which}; it has {steps or 'none'}.")
        return checkpoint.load(folder / f"step_{which:08d}")
    newest, bad = checkpoint.load_newest(folder)
    if newest is None:
        raise CheckpointError(f"{run.folder} has no readable checkpoint. {' '.join(bad)}".strip())
    best = newest.state["progress"]["best_step"]
    if which == "best" and best is not None and best != newest.step and best in steps:
        try:
            return checkpoint.load(folder / f"step_{best:08d}")
        except CheckpointError as error:
            if instead is None:
                raise CheckpointError(
                    f"The best checkpoint is lost: {error} The newest good one is step "
                    f"{newest.step}; name it, or `last`."
                ) from error
            instead(f"The best checkpoint is lost ({error}); step {newest.step} stands in.")
    if which not in ("best", "last"):
        raise SettingsError(f"A checkpoint is best, last or step=N, not {which!r}.")
    return newest


def _restore(
    run: Run, learner: Learner, cfg: TaskSettings, console: Console, strict: bool
) -> Progress:
    found, bad = checkpoint.load_newest(run.folder / "checkpoints")
    for sentence in bad:
        console.say(f"Left out: {sentence}")
    if bad:
        step = 0 if found is None else found.step
        lost = max(checkpoint.listed(run.folder / "checkpoints"))
        console.say(f"Going on from step {step}; the work since (step {lost}) is redone.")
    if found is None:
        return _begin_from_parent(run, learner)
    resume_changes(found.about["settings"], cfg)
    _check_exactness(found, console, strict)
    _load(learner, found)
    return Progress(**found.state["progress"])


def _begin_from_parent(run: Run, learner: Learner) -> Progress:
    parent = run.manifest.get("parent")
    if not parent:
        return Progress()
    found = checkpoint.load(Path(parent["checkpoint"]))
    if parent["whole"]:
        _load(learner, found)
        return Progress(updates=found.state["progress"]["updates"])
    warm = getattr(learner, "warm_start", None)
    if warm is None:
        raise RunError("This task's learner cannot start from another run's weights.")
    try:
        warm(found.state["learner"])
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise RunError(
            f"The weights of {parent['run']} do not fit these settings: {reason}"
        ) from error
    return Progress()


def _load(learner: Learner, found: checkpoint.Loaded) -> None:
    try:
        learner.load_state_dict(found.state["learner"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{found.path} does not fit the run's settings: {reason}") from error


def _check_exactness(found: checkpoint.Loaded, console: Console, strict: bool) -> None:
    now = device.capability()
    differs = difference({k: found.about.get(k) for k in now}, now)
    if not differs:
        return
    shown = ", ".join(f"{k}: {old} then, {new} now" for k, (old, new) in differs.items())
    text = f"Going on, but not bit for bit as an undisturbed run ({shown})."
    if strict:
        raise RunError(f"Refused with --strict: {shown}.")
    console.say(text)


def _validation_rows(run: Run, data: dataset.Dataset) -> Arrays:
    other = run.manifest.get("val_data")
    if not other:
        return _in_memory(data, "validation")
    found = dataset.open_dataset(Path(other["folder"]))
    if found.digest != other["digest"]:
        raise DataError(f"The validation data {found.folder} changed since the run began.")
    split = next(s for s in ("validation", "test", "train") if s in found.card["splits"])
    return _in_memory(found, split)


def _in_memory(data: dataset.Dataset, split: str) -> Arrays:
    return {name: np.array(column) for name, column in data.split(split).items()}


def resume_changes(old: dict[str, Any], new: TaskSettings) -> None:
    """RunError where settings differ that may not change when a run goes on."""
    changed = difference(old, new.model_dump(mode="json"))
    fixed = {k: v for k, v in changed.items() if k not in new.resumable}
    if fixed:
        shown = ", ".join(f"{k}: {a} -> {b}" for k, (a, b) in fixed.items())
        raise RunError(
            f"These settings cannot change when a run goes on: {shown}. "
            f"Resumable are {', '.join(new.resumable)}. `ganglion resume RUN --from best k=v` "
            "opens a new run with other settings."
        )
