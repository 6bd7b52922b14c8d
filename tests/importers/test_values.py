"""Pickles of plain values: what is read, and what is refused without being run."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion.core.errors import DataError
from ganglion.importers.values import read_values


class Runs:
    """A pickle of it runs a command when it is read."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self._target}",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_values_and_numpy_numbers_come_as_json(protocol: int, tmp_path: Path) -> None:
    held = {
        "a": [np.float32(0.5), np.float64(2.0), np.int64(3), True, None, "x"],
        "b": np.arange(4.0).reshape(2, 2), "c": (1, 2),
    }  # fmt: skip
    path = tmp_path / "held.pkl"
    path.write_bytes(pickle.dumps(held, protocol))
    wanted = {"a": [0.5, 2.0, 3, True, None, "x"], "b": [[0, 1], [2, 3]], "c": [1, 2]}
    assert read_values(path) == wanted
    path.write_bytes(gzip.compress(pickle.dumps(held, protocol)))
    assert read_values(path) == wanted


def test_a_pickle_that_runs_a_command_is_refused_and_runs_none(tmp_path: Path) -> None:
    target, path = tmp_path / "owned", tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"a": Runs(target)}))
    with pytest.raises(DataError, match=r"bad.pkl: the pickle names posix\.system; only plain"):
        read_values(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (np.array([{}], object), "an array holds object|numbers were expected"),
        ({"a": {1, 2}}, "is a set|builtins.set"),
        ([[[[[[[[[[1]]]]]]]]]], "nested more than 8 deep"),
        (b"bytes", "is a bytes"),
    ],
)
def test_what_is_no_plain_value_is_refused(held: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(held))
    with pytest.raises(DataError, match=said):
        read_values(path)


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"a": [1.0] * 100})[:-20])
    with pytest.raises(DataError, match=r"bad.pkl: .*pickle"):
        read_values(path)
    with pytest.raises(DataError, match="Cannot read"):
        read_values(tmp_path / "none.pkl")
