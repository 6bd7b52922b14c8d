"""Task names -> packages. Names, settings and task objects are read without importing torch."""

from __future__ import annotations

import importlib
import importlib.resources
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ganglion.core import settings as core_settings
from ganglion.core.contracts import Task
from ganglion.core.errors import ServiceError, SettingsError, unknown
from ganglion.train.settings import TaskSettings

GROUP = "ganglion.tasks"
_BUILTIN = {name: f"ganglion.tasks.{name}" for name in ("control", "gridnav", "motion")}


def _table() -> dict[str, str]:
    installed = {e.name: e.value for e in entry_points(group=GROUP)}
    return {**installed, **_BUILTIN}  # a plug-in cannot take a built-in name


def names() -> list[str]:
    """Return every task name, built in or of an installed plug-in."""
    return sorted(_table())


def summary(name: str) -> str:
    """Return what a task learns: the first line of its package's docstring."""
    return (_module(name).__doc__ or "").strip().split("\n")[0]


def settings(name: str) -> type[TaskSettings]:
    """Return the settings class of one task; SettingsError names the nearest task."""
    found: type[TaskSettings] = _module(name, "config").Config
    return found


def resolve(
    name: str, preset: str | None = None, layers: Sequence[Mapping[str, Any]] = ()
) -> TaskSettings:
    """Resolve the settings of a task: defaults < preset < `layers` (nested, lowest first)."""
    cls = settings(name)
    core_settings.check_names(cls, layers)  # before a preset reads them
    preset = preset or "standard"
    if preset not in cls.presets:
        raise SettingsError(unknown("preset", preset, cls.presets))
    return core_settings.resolve(
        cls, [cls.preset(preset, core_settings.said(cls, layers)), *layers]
    )


def spaces(name: str) -> dict[str, Path]:
    """Return the search spaces that a task ships, name -> file: `spaces/*.yaml` of its package."""
    folder = Path(str(importlib.resources.files(_module(name)))) / "spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def make(name: str, cfg: TaskSettings) -> Task:
    """Build one task from its settings."""
    task: Task = _module(name, "task").TASK(cfg)
    return task


def override(name: str, cfg: TaskSettings, flat: Mapping[str, Any]) -> TaskSettings:
    """Return `cfg` with dotted settings replaced, e.g. {"problem.start_scale": 1.5}."""
    base = cfg.model_dump(mode="json")
    return core_settings.resolve(type(cfg), [base, core_settings.dotted(flat)])


def _module(name: str, part: str | None = None) -> ModuleType:
    table = _table()
    if name not in table:
        raise SettingsError(unknown("task", name, table))
    target = f"{table[name]}.{part}" if part else table[name]
    try:
        return importlib.import_module(target)
    except ImportError as error:
        if name in _BUILTIN:
            raise
        raise ServiceError(
            f"The installed task {name!r} cannot be imported ({error}). Install it again, or "
            "remove it."
        ) from error
