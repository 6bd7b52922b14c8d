"""What made a run: command, versions, source state, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import ganglion

_PACKAGES = (
    "torch", "numpy", "scipy", "pydantic", "onnx", "onnxscript", "onnxruntime", "safetensors",
    "mujoco",
)  # fmt: skip


def record() -> dict[str, Any]:
    """Return the manifest's part that every run shares; torch is not imported."""
    return {
        "ganglion": ganglion.__version__,
        "python": platform.python_version(),
        "packages": {name: v for name in _PACKAGES if (v := _version(name))},
        "git": _git(Path(__file__).parent),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "system": platform.platform(),
        },
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Return commit and cleanness of the checkout this runs from; None in an installation."""
    try:
        found = [
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", str(folder)])
        ]  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": found[0], "clean": not found[1]}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
