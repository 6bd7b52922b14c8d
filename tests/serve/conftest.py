from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import toys
from .driver import Process, serving


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every toy policy."""
    return toys.write(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="session")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of all toys; the first, `flat`, answers where none is named."""
    words = [str(files / f"{name}.onnx") for name in toys.TOYS]
    with serving(tmp_path_factory.mktemp("server"), *words) as process:
        yield process
