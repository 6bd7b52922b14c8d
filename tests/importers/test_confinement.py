"""The child process for files of others: it answers, refuses, and is stopped."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion.core.errors import DataError
from ganglion.importers.confinement import Limits, confined, read_pickle


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
    assert read_pickle(path) == wanted
    path.write_bytes(gzip.compress(pickle.dumps(held, protocol)))
    assert read_pickle(path) == wanted


def test_a_pickle_that_runs_a_command_is_refused_and_runs_none(tmp_path: Path) -> None:
    target, path = tmp_path / "owned", tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"a": Runs(target)}))
    with pytest.raises(DataError, match=r"bad.pkl: the pickle names posix\.system; only plain"):
        read_pickle(path)
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
        read_pickle(path)


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"a": [1.0] * 100})[:-20])
    with pytest.raises(DataError, match=r"bad.pkl: .*pickle"):
        read_pickle(path)
    with pytest.raises(DataError, match="Cannot read"):
        read_pickle(tmp_path / "none.pkl")


def endless(data: bytes) -> bytes:
    while True:
        pass


def greedy(data: bytes) -> bytes:
    return bytes(8 << 30)


def crash(data: bytes) -> bytes:
    os.abort()


@pytest.mark.parametrize("name", ["endless", "greedy", "crash"])
def test_a_child_that_takes_too_much_is_stopped(name: str) -> None:
    with pytest.raises(DataError, match="could not be read within 1 s and 3072 MB"):
        confined(f"{__name__}:{name}", b"", Limits(seconds=1))


def test_input_is_capped() -> None:
    with pytest.raises(DataError, match="has 100 bytes; at most 10 are read"):
        confined("ganglion.importers.confinement:unpickled", bytes(100), Limits(given=10))
    assert Limits().seconds == 30
