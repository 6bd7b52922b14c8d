from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ganglion.export.onnx_export import Checks, export

from .toys import FIELD, FLAT, MEMORY, Cell, Mlp, Recursion

CARD = {"task": "toy", "steps": {"cycles": 3}}


@pytest.fixture(scope="session")
def modules() -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"flat": Mlp(), "field": Recursion(), "memory": Cell()}


@pytest.fixture(scope="session")
def files(modules: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with flat.onnx, field.onnx and memory.onnx."""
    folder = tmp_path_factory.mktemp("exported")
    for name, signature in (("flat", FLAT), ("field", FIELD), ("memory", MEMORY)):
        checks = Checks(rows=200, sizes={"height": (3, 7), "width": (6, 2)})
        export(modules[name], signature, folder / f"{name}.onnx", CARD, checks=checks)
    return folder
