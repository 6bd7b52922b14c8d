"""`ganglion serve`: what it is told, what it refuses, how several workers behave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ganglion.cli import main
from ganglion.commands.serving import settings_of
from ganglion.commands.verbs import VERBS
from ganglion.core.errors import SettingsError

from .driver import SRC, get, post, serving


def told(home: Path, *words: str) -> object:
    return settings_of(VERBS["serve"].parser().read([*words, "--home", str(home)]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.onnx"], "There is no file none.onnx"),
        (["none"], "There is no run 'none'"),
        (["arm@production"], "model catalogue, which comes with the studio"),
        (["A", "B", "--split", "90"], "--split 90 has 1 shares for 2 policies"),
        (["A", "B", "--split", "90:x"], "--split is shares such as 90:10"),
        (["A", "B", "--split", "0:1"], "--split is shares such as 90:10"),
        (["A", "--split", "1:1", "--shadow", "B"], "either --split or --shadow"),
        (["A", "--pairs", "p"], "--pairs needs --shadow"),
        (["A", "--host", "0.0.0.0"], "give --token-file and --allow-host"),
        (["A", "--host", "0.0.0.0", "--allow-host", "x"], "give --token-file and --allow-host"),
        (["A", "--token-file", "short"], "a token of at least 16 letters"),
        (["A", "--token-file", "none"], "cannot be read: No such file"),
        (["a b=A"], "'a b' is no name"),
        (["A", "--out-of-range", "ignore"], "Unknown choice 'ignore'"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: list[str], said: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("secret\n")
    known = {"A": str(files / "flat.onnx"), "B": str(files / "pair.onnx")}
    words = [w.replace("=A", f"={known['A']}") if "=A" in w else known.get(w, w) for w in words]
    with pytest.raises(SettingsError, match=said):
        told(tmp_path, *words)


def test_names_come_from_files_folders_or_the_command_line(files: Path, tmp_path: Path) -> None:
    (tmp_path / "v" / "1").mkdir(parents=True)
    flat = str(files / "flat.onnx")
    found = told(tmp_path, flat, flat, f"arm={flat}", str(tmp_path / "v"), "--port", "0")
    assert [name for name, _ in found.sources] == ["flat", "flat-2", "arm", "v"]  # type: ignore[attr-defined]
    assert found.host == "127.0.0.1"  # type: ignore[attr-defined]


def test_a_run_is_served_by_its_export(files: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy" / "first"
    (run / "export").mkdir(parents=True)
    for name in ("config.json", "manifest.json"):
        (run / name).write_text("{}")
    with pytest.raises(SettingsError, match="has no export; `ganglion export first` makes one"):
        told(tmp_path, "first")
    (run / "export" / "policy.onnx").write_bytes((files / "flat.onnx").read_bytes())
    found = told(tmp_path, "first")
    assert found.sources == (("first", run / "export" / "policy.onnx"),)  # type: ignore[attr-defined]


def test_a_bad_policy_is_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert main(["serve", str(tmp_path / "bad.onnx"), "--port", "0"]) == 65
    assert "bad.onnx is not an ONNX file" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(files / "flat.onnx"), "--port", port]) == 2
    assert "Address already in use. Choose another --port" in capsys.readouterr().err


def test_policies_that_differ_cannot_be_split(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(files / "flat.onnx"), str(files / "pair.onnx"), "--split", "1:1", "--port", "0"]
    assert main(["serve", *words]) == 2
    assert "do not take and give the same" in capsys.readouterr().err


def test_the_process_has_no_torch_and_is_small(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "flat.onnx")) as server:
        for _ in range(100):
            post(server.port, "/act", {"obs": [0, 0, 0]})
        maps = Path(f"/proc/{server.child.pid}/maps").read_text()
        assert "torch" not in maps
        assert server.resident_bytes() <= 120e6


def test_two_workers_share_a_port_jobs_and_metrics(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "flat.onnx"), "--workers", "2") as server:
        for number in range(40):  # each on a connection of its own
            assert post(server.port, "/act", {"obs": [0, 0, 0]}).status == 200
            ask = {"job_id": number, "input": [[0, 0, 0]]}
            assert post(server.port, "/jobs", ask).status == 202
            assert get(server.port, f"/jobs/{number}").status == 200
        time.sleep(2.2)  # each worker writes its numbers once a second
        text = get(server.port, "/metrics").body.decode()
        line = 'ganglion_requests_total{policy="flat",endpoint="act",status="200"} 40'
        assert line in text.splitlines()
        assert len(list(tmp_path.glob("ganglion-serve-*"))) == 1
        pids = _workers(server.child.pid)
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        for _ in range(100):
            time.sleep(0.1)
            if "is started again" in server.said() and len(_workers(server.child.pid)) == 2:
                break
        time.sleep(2.0)
        statuses = Counter(post(server.port, "/act", {"obs": [0, 0, 0]}).status for _ in range(20))
        assert statuses == {200: 20}
        assert "Worker 0 ended with code -9; it is started again." in server.said()
        assert server.stop() == 0
    assert not list(tmp_path.glob("ganglion-serve-*"))


def _workers(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_workers_that_cannot_start_say_why(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    command = [sys.executable, "-m", "ganglion", "serve", str(tmp_path / "bad.onnx"), "--workers",
               "2", "--port", "0"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 65
    assert done.stderr.count("bad.onnx is not an ONNX file") == 1
