"""Every error that a user can meet, with its stable code and the exit code of the command line.

GanglionError (1)
├── SettingsError (2)     a setting, name, argument or path is wrong
│   └── RunError (2)      a run cannot be opened, is locked, or does not fit what was asked
├── DataError (65)        a dataset, motion or imported file is damaged or does not fit
│   └── CheckpointError   no checkpoint of a run can be read
├── ServiceError (69)     something that must be installed or running is missing
├── OutputError (73)      a file or folder cannot be written
├── Preempted (75)        a signal asked to stop; the run was saved and `resume` goes on
├── TrainingError (1)     the loss is not finite, memory ran out, ...
└── ExportError (1)       an exported file does not answer as the policy does
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GanglionError(Exception):
    """Base class. The message says what was wrong, what was expected and what to do."""

    code = "error"
    exit_code = 1


class SettingsError(GanglionError):
    """A setting, name, argument or path is wrong."""

    code = "settings"
    exit_code = 2


class RunError(SettingsError):
    """A run cannot be opened, is locked by another process, or does not fit what was asked."""

    code = "run"


class DataError(GanglionError):
    """A dataset or imported file is damaged, or does not fit the task."""

    code = "data"
    exit_code = 65


class CheckpointError(DataError):
    """No checkpoint of a run can be read."""

    code = "checkpoint"


class ServiceError(GanglionError):
    """Something that must be installed or running is missing."""

    code = "service"
    exit_code = 69


class OutputError(GanglionError):
    """A file or folder cannot be written."""

    code = "output"
    exit_code = 73


class Preempted(GanglionError):  # noqa: N818 - a stop that was asked for, not a fault
    """A signal asked to stop; the run was saved and can be resumed."""

    code = "preempted"
    exit_code = 75


class TrainingError(GanglionError):
    """Training cannot go on: the loss is not finite, or memory ran out."""

    code = "training"


class ExportError(GanglionError):
    """An exported file cannot be made, or does not answer as the policy does."""

    code = "export"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is no known `kind`, offer the nearest name, and list what there is."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"Unknown {kind} {name!r}.{hint} Known: {listed or 'none'}."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name nearest to `name`, or None where none is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.55)
    return close[0] if close else None
