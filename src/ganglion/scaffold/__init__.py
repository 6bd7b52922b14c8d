"""`ganglion init`: an installable folder with a small, complete task that trains at once.

The templates beside this file are the task: a net that finds the joint angles of a planar
two-link arm. `{{name}}` stands for the new task's name.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from ganglion import registry
from ganglion.core.errors import OutputError, SettingsError

TEMPLATES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "readme.txt",
    "src/{{name}}/__init__.py": "init.py.txt",
    "src/{{name}}/config.py": "config.py.txt",
    "src/{{name}}/task.py": "task.py.txt",
    "src/{{name}}/learning.py": "learning.py.txt",
    "tests/test_task.py": "test_task.py.txt",
}


def make(name: str, folder: Path) -> list[Path]:
    """Write the folder of a task called `name`; returns its files.

    SettingsError where the name will not do or `folder` exists, OutputError where it cannot be
    written (what was written is then removed).
    """
    check_name(name)
    if folder.exists() or folder.is_symlink():
        raise SettingsError(f"{folder} exists already; choose another name.")
    here = Path(__file__).parent
    written: list[Path] = []
    try:
        for target, template in TEMPLATES.items():
            path = folder / target.replace("{{name}}", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (here / template).read_text(encoding="utf-8")
            path.write_text(text.replace("{{name}}", name), encoding="utf-8")
            written.append(path)
    except OSError as error:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        raise OutputError(f"Cannot write {folder}: {error.strerror}.") from error
    return written


def check_name(name: str) -> None:
    """SettingsError where `name` cannot be a task, a folder and a Python package."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise SettingsError(
            f"{name!r} cannot name a task: use up to 40 small letters, digits and '_', beginning "
            "with a letter, and no word of Python."
        )
    if name in registry.names():
        raise SettingsError(f"There is a task {name!r} already; choose another name.")
    if name in sys.stdlib_module_names or name in ("ganglion", "torch", "numpy", "tests"):
        raise SettingsError(f"{name!r} is a Python package already; choose another name.")
