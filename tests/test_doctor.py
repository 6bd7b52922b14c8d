"""The doctor names what is wrong and the command that mends it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ganglion import cli, doctor
from ganglion.core.run import Run


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
    ],
)
def test_which_sqlite_has_the_wal_reset_bug(version: tuple[int, ...], bad: bool) -> None:
    assert doctor.wal_reset_bug(version) == bad


def test_this_machine_can_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--home", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    names = {f["name"] for f in found["findings"]}
    assert {"interpreter", "torch", "onnxruntime", "sqlite", "home", "disk", "fsync", "clock",
            "threads", "compiler", "runs"} <= names  # fmt: skip
    assert all(f["mend"] for f in found["findings"] if f["level"] != "ok")
    assert list(tmp_path.iterdir()) == []


def test_the_lines_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--home", str(tmp_path / "not" / "there")]) == 0
    out = capsys.readouterr().out
    assert "(made when needed)" in out
    assert out.startswith("ok ")


def test_a_home_that_cannot_be_written_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert cli.main(["doctor", "--home", str(tmp_path)]) == 1
    assert "fail home: chmod u+rwx" in capsys.readouterr().out


def test_a_home_that_everybody_can_write_is_warned_about(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (found,) = doctor.folder(tmp_path)
    assert found.level == "warn"
    assert found.mend.startswith("chmod o-w")


def test_little_disk_is_warned_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    (found,) = doctor.disk(tmp_path)
    assert (found.level, found.text) == ("warn", "0.0 GB free")


def test_no_compiler_is_warned_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    (found,) = doctor.compiler(tmp_path)
    assert found.level == "warn"


def test_a_clock_before_its_files_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 1e9)  # 2001
    (found,) = doctor.clock(tmp_path)
    assert found.level == "warn"
    assert found.text.startswith("2001-09-09 01:46:40 UTC")


def test_a_killed_run_is_named_with_what_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "control" / "run_1"
    run = Run.create(folder, {"task": "control"}, {"created": 1.0})
    run.set("running")
    (found,) = doctor.stale_runs(tmp_path)
    assert found.level == "warn"
    assert found.mend == "ganglion resume run_1"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(path: Path) -> object:
        raise OSError("odd")

    monkeypatch.setattr(doctor.shutil, "disk_usage", broken)
    found = {f.name: f for f in doctor.examine(tmp_path)}
    assert found["disk"].level == "fail"
    assert "odd" in found["disk"].text
