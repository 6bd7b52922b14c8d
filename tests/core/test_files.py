from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ganglion.core import files
from ganglion.core.errors import OutputError


def refuse(number: int) -> Any:
    def fail(*args: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    broken: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, refuse(number))
        with pytest.raises(OSError, match=os.strerror(number)):
            files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_replaces_the_file_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"long old text", 0o600)
    files.write_bytes(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_json_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"a": float("nan"), "b": [float("inf"), 1.5], "c": ({"d": -0.0},)})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 1.5], "c": [{"d": 0.0}]}
    assert "NaN" not in path.read_text()


def test_a_small_file_is_overwritten_in_place_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status"
    files.replace_text(path, "a longer text")
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC))
    files.replace_text(path, "short")
    assert path.read_text() == "short"
    assert [p.name for p in tmp_path.iterdir()] == ["status"]
    with pytest.raises(OSError, match="No space"):
        files.replace_text(tmp_path / "fresh", "x")


def test_other_faults_of_a_replacement_are_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status"
    files.replace_text(path, "old")
    monkeypatch.setattr(os, "replace", refuse(errno.EACCES))
    with pytest.raises(PermissionError):
        files.replace_text(path, "new")
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write into .*file/sub: Not a directory\."):
        files.ensure_writable(tmp_path / "file" / "sub")
    files.ensure_writable(tmp_path / "new" / "sub")
    assert not list((tmp_path / "new" / "sub").iterdir())


def test_a_sum_is_that_of_the_whole_file(tmp_path: Path) -> None:
    # SHA-256 of "abc", FIPS 180-2, appendix B.1
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert files.sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")
