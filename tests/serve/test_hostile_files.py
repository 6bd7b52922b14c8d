"""Files that mean harm are refused in seconds, by a child that they cannot get out of."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ganglion.core.errors import DataError
from ganglion.serve.models import load, versions
from ganglion.serve.probe import probe
from ganglion.serve.settings import ProbeLimits

from . import toys
from .hostile_files import HOSTILE, make

QUICK = replace(ProbeLimits(), wall_s=10.0, cpu_s=2)  # make soak takes the real limits


def test_there_are_thirty_or_more_hostile_files() -> None:
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    before, open_files = sorted(tmp_path.iterdir()), len(os.listdir("/proc/self/fd"))
    began = time.monotonic()
    with pytest.raises(DataError) as told:
        load("policy", path, None, QUICK)
    assert time.monotonic() - began < 12.0
    assert re.search(HOSTILE[name][1], str(told.value)), str(told.value)
    assert "\n" not in str(told.value)
    assert sorted(tmp_path.iterdir()) == before
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert not Path("/tmp/ganglion-pickle-was-opened").exists()


def test_a_good_file_passes_and_its_cost_is_known() -> None:
    found = probe(toys.flat(), "flat")
    assert found.inspection.signature == toys.FLAT
    assert found.inspection.card == {"task": "toy", "gain": 1.0}
    assert 0.0 < found.call_s < 0.1
    assert 0.0 <= found.row_s < found.call_s


def test_the_newest_numbered_version_comes_first(tmp_path: Path) -> None:
    for number in ("2", "10", "9", "x", "-1"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "policy.onnx").write_bytes(b"")
    (tmp_path / "11").mkdir()  # holds nothing yet
    assert [version for _, version in versions(tmp_path)] == ["10", "9", "2"]
