"""Pictures as PNG bytes, without matplotlib's global state."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ganglion.report import figures

from . import sample


def test_equal_figures_give_equal_bytes_of_the_right_size() -> None:
    def draw() -> bytes:
        made, axes = figures.figure(4.0, 2.0, 1, 2)
        axes[0, 1].plot([1, 2], [3, 4])
        return figures.png(made, dpi=100)

    data = draw()
    assert data == draw()
    assert Image.open(io.BytesIO(data)).size == (400, 200)


@pytest.mark.parametrize("points", [0, 1, 3, 200])
def test_the_curves_picture_draws_whatever_there_is(points: int) -> None:
    data = figures.curves_png(sample.curves(points), "gap")
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert pixels.std() > 1  # something is drawn


def test_the_report_imports_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys\n"
        "from ganglion.report import compare, diagnosis, figures, page\n"
        "print(sorted(m for m in ('torch', 'matplotlib') if m in sys.modules))\n"
        "figures.curves_png({})\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"]
