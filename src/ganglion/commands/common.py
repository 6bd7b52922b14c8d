"""What several handlers share: the home folder, resolved settings, the console."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganglion import registry
from ganglion.commands.parsing import layer
from ganglion.console import Console, choose
from ganglion.core import run as runs
from ganglion.core.contracts import Metric
from ganglion.core.errors import SettingsError
from ganglion.core.settings import names_of, read_file
from ganglion.train.settings import TaskSettings


def home(args: Namespace) -> Path:
    """Return the root that --home or GANGLION_HOME names."""
    found = runs.home(args.home)
    if found.exists() and not found.is_dir():
        raise SettingsError(f"--home {found} is a file, not a folder.")
    return found


def layers(args: Namespace, task: str) -> list[Mapping[str, Any]]:
    """Return the layers of a command line, lowest first: its file, its `name=value` words."""
    found: list[Mapping[str, Any]] = []
    if getattr(args, "config", None) is not None:
        found.append(read_file(args.config))
    known = names_of(registry.settings(task))
    found.append(layer(args.settings, known))
    return found


def resolved(args: Namespace) -> TaskSettings:
    """Resolve the settings that a command line with TASK, --preset, --config and k=v asks for."""
    return registry.resolve(args.task, args.preset, layers(args, args.task))


def console(args: Namespace, goal: Metric | None = None) -> Console:
    """Return where progress is shown; `goal` is the metric named in it."""
    if goal is None:
        return choose(args.json, args.quiet)
    return choose(args.json, args.quiet, goal.name, "%" if goal.percent else goal.unit)
