"""The child process for files of others: it answers, refuses, and is stopped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganglion.core.errors import DataError
from ganglion.importers.confinement import Limits, confined


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
        confined("ganglion.importers.values:unpickled", bytes(100), Limits(given=10))
    assert Limits().seconds == 30


def writes(data: bytes) -> bytes:
    Path(data.decode()).write_bytes(bytes(100))
    return b"written"


def where(data: bytes) -> bytes:
    import json  # found where the parent finds it, whatever lies in the current folder

    return json.dumps([json.__file__, sorted(os.environ)]).encode()


def test_a_child_writes_no_more_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(DataError, match="could not be read"):
        confined(f"{__name__}:writes", str(path).encode())
    assert path.stat().st_size == 0
    assert confined(f"{__name__}:writes", str(path).encode(), Limits(written=100)) == b"written"


def test_a_child_reads_no_module_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANGLION_SECRET", "x")
    answer = confined(f"{__name__}:where", b"").decode()
    assert str(tmp_path) not in answer
    assert "GANGLION_SECRET" not in answer
