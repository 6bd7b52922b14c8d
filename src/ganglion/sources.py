"""From the words of a command line to a policy: RUN, FILE.onnx, or the name of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganglion import registry
from ganglion.core import dataset
from ganglion.core import run as runs
from ganglion.core.contracts import Policy
from ganglion.core.dataset import Dataset
from ganglion.core.errors import DataError, GanglionError, RunError, SettingsError, nearest
from ganglion.core.run import Run
from ganglion.scoring import Entry
from ganglion.train.settings import TaskSettings

Layers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Source:
    """One policy and where it comes from. Task and settings are those it was trained with."""

    entry: Entry
    task: str | None = None
    cfg: TaskSettings | None = None
    run: Run | None = None
    onnx: Path | None = None


def find(text: str, home: Path, task: str | None = None, layers: Layers = ()) -> Source:
    """Find the policy that `text` names; SettingsError names the nearest run or reference.

    References are those of `task` under the settings `layers`.
    """
    if text.endswith(".onnx"):
        return of_file(Path(text))
    if task is not None and text in _references(task, layers):
        return Source(Entry(text, "reference"), task)
    try:
        return of_run(runs.find(home, text))
    except RunError as error:
        if type(error) is not RunError or "There is no run" not in str(error) or task is None:
            raise
        names = _references(task, layers)
        near = nearest(text, names)
        hint = f" Did you mean {near!r}?" if near else ""
        raise SettingsError(
            f"{text!r} is no run under {home / 'runs'}, no .onnx file and no reference of {task} "
            f"({', '.join(names)}).{hint}"
        ) from None


def of_file(path: Path) -> Source:
    """Open an exported file; its card says which task and settings it was trained with."""
    from ganglion.export.onnx_policy import OnnxPolicy

    if not path.exists():
        raise SettingsError(f"There is no file {path}.")
    policy = OnnxPolicy(path)
    task, cfg = _from_card(policy.card, path)
    return Source(Entry(path.name, "onnx", policy, policy.digest), task, cfg, onnx=path)


def of_run(run: Run, checkpoint: str | int = "best") -> Source:
    """Open a run's policy: its exported file where there is one (no torch), else a checkpoint."""
    task, cfg = settings_of(run)
    name = run.manifest.get("name") or run.id
    exported = run.folder / "export" / "policy.onnx"
    if checkpoint == "best" and exported.is_file():
        found = of_file(exported)
        return Source(
            Entry(name, "run", found.entry.policy, found.entry.digest), task, cfg, run, exported
        )
    from ganglion.session import deployed

    policy, step = deployed(run, checkpoint)
    return Source(Entry(name, "run", policy, f"step {step}"), task, cfg, run)


def trained_under(names: Sequence[str], home: Path) -> tuple[str | None, TaskSettings | None]:
    """Return task and settings of the first run or file among `names`: references follow them."""
    for name in names:
        try:
            if name.endswith(".onnx"):
                found = of_file(Path(name))
                return found.task, found.cfg
            return settings_of(runs.find(home, name))
        except RunError:
            continue
    return None, None


def policy(source: Source) -> Policy:
    """Return the policy itself; SettingsError for a reference without settings."""
    if source.entry.policy is not None:
        return source.entry.policy
    if source.task is None or source.cfg is None:
        raise SettingsError(f"The reference {source.entry.name!r} needs --task and its settings.")
    return registry.make(source.task, source.cfg).references()[source.entry.name]


def data_for(source: Source, given: Path | None) -> Dataset | None:
    """Return the dataset to judge on: `given`, or the run's own where it is still there."""
    if given is not None:
        found = dataset.open_dataset(given)
        found.verify()
        return found
    if source.run is None:
        return None
    try:
        return data_of(source.run)
    except SettingsError:  # the folder is gone; cases are drawn anew
        return None


def common_task(sources: Sequence[Source], task: str | None) -> str:
    """Return the one task of all sources; SettingsError where they differ or none says one."""
    named = sorted({s.task for s in sources if s.task} | ({task} if task else set()))
    if len(named) > 1:
        raise SettingsError(f"These policies belong to different tasks: {', '.join(named)}.")
    if not named:
        raise SettingsError("Say which task with --task; none of these policies names one.")
    return named[0]


def settings_of(run: Run) -> tuple[str, TaskSettings]:
    """Read a run's task and settings back; SettingsError where they no longer fit."""
    config = run.config
    try:
        name, raw = config["task"], config["settings"]
    except KeyError as error:
        raise DataError(f"{run.folder}/config.json is damaged: it lacks {error}.") from error
    return name, registry.resolve(name, config.get("preset"), [raw])


def data_of(run: Run) -> dataset.Dataset:
    """Open the dataset a run was begun on; DataError names the file that changed since."""
    entry = run.manifest["data"]
    found = dataset.open_dataset(Path(entry["folder"]))
    if found.digest != entry["digest"]:
        raise DataError(
            f"The dataset {found.folder} is not the one that run {run.id} was begun on: its digest "
            f"is {found.digest[:12]}, the run's {entry['digest'][:12]} (card.json changed)."
        )
    found.verify()
    return found


def _from_card(card: Mapping[str, Any], path: Path) -> tuple[str | None, TaskSettings | None]:
    task, raw = card.get("task"), card.get("settings")
    if not isinstance(task, str) or not isinstance(raw, dict) or task not in registry.names():
        return None, None
    try:
        return task, registry.resolve(task, None, [raw])
    except GanglionError as error:
        raise DataError(f"The policy card of {path} does not fit this version: {error}") from error


def _references(task: str, layers: Layers) -> list[str]:
    return sorted(registry.make(task, registry.resolve(task, None, layers)).references())
