"""What the figures were measured on, and the table that they go into."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from ganglion import provenance


def header(title: str) -> str:
    """Return a Markdown heading with date, command, machine and versions."""
    about = provenance.record()
    hardware, packages = about["hardware"], about["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    git = about["git"] or {}
    commit = f"{str(git.get('commit'))[:12]}{'' if git.get('clean') else ' with changes'}"
    command = " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    return "\n".join(
        [
            f"## {title}",
            "",
            f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            f"- command: `{command}`, commit {commit}",
            f"- machine: {hardware['processor']}, {hardware['cores']} cores, "
            f"{hardware['memory_bytes'] / 2**30:.0f} GiB, load {os.getloadavg()[0]:.1f} at start",
            f"- versions: Python {platform.python_version()}, {versions}",
            "",
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def verdict(met: bool) -> str:
    """Return met or missed."""
    return "met" if met else "missed"
