from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ganglion.core import run as runs
from ganglion.core.errors import DataError, OutputError, RunError
from ganglion.core.run import Lines, Run


def made(folder: Path, **manifest: Any) -> Run:
    return Run.create(folder, {"task": "t", "settings": {}}, manifest)


def hold(folder: str, ready: Any) -> None:
    with Run(Path(folder)).writer():
        ready.set()
        signal.pause()


@contextmanager
def holder(run: Run) -> Iterator[Any]:
    """Another process that holds the run's lock."""
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(run.folder), ready))
    process.start()
    try:
        assert ready.wait(30)
        yield process
    finally:
        process.kill()
        process.join()


# ---------------------------------------------------------------- the lock


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with holder(run) as other:
        assert run.locked
        with pytest.raises(RunError, match=f"is being written by process {other.pid} on "):
            run.writer().__enter__()
        with pytest.raises(RunError, match="wait for it, or stop it first"):
            run.delete()
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        assert not run.locked  # it went with its holder
        with run.writer():
            pass


def test_a_killed_writer_shows_as_failed_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with holder(run) as other:
        run.set("running", step=7)
        assert run.status["state"] == "running"
        other.kill()
        other.join()
    found = run.status
    assert (found["state"], found["error"], found["step"]) == ("failed", "killed", 7)
    assert f"ganglion resume {run.folder}" in found["message"]


def test_readers_of_the_lock_never_keep_a_writer_out(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            _ = run.locked

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(100):
            with run.writer():
                pass
    finally:
        over.set()
        for reader in readers:
            reader.join()


# ---------------------------------------------------------------- making and finding


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    before = run.manifest
    with pytest.raises(RunError, match=r"exists already.*ganglion resume"):
        made(run.folder)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="exists already"):
        made(tmp_path / "file")
    assert run.manifest == before


def test_a_run_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write into .*: Not a directory\."):
        made(tmp_path / "file" / "run")


def test_ids_sort_by_time_and_differ() -> None:
    ids = {runs.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(i.startswith("run_20") for i in ids)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for created, (run_id, name) in enumerate([("run_1_aaaa", "first"), ("run_2_bbbb", "second"),
                                              ("run_2_bbcc", None)]):  # fmt: skip
        made(tmp_path / "runs" / "t" / run_id, created=created, name=name)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [("latest", "run_2_bbcc"), ("first", "run_1_aaaa"), ("run_2_bbbb", "run_2_bbbb"),
     ("run_1", "run_1_aaaa")],
)  # fmt: skip
def test_a_run_is_found_by_id_name_beginning_or_latest(text: str, found: str, home: Path) -> None:
    assert runs.find(home, text).id == found
    assert runs.find(home, str(home / "runs" / "t" / found)).id == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secnd", r"There is no run 'secnd'.*Did you mean 'second'\?"),
        ("run_2_bb", "There is no run 'run_2_bb'"),  # two begin so
        ("", "There is no run ''"),
        ("x\0y", "There is no run"),
        ("x" * 300, "no path or name is that long"),
        ("x/" * 3000, "no path or name is that long"),
    ],
)
def test_an_unknown_run_is_one_sentence(text: str, said: str, home: Path) -> None:
    with pytest.raises(RunError, match=said):
        runs.find(home, text)


def test_a_folder_that_is_no_run_says_what_it_lacks(home: Path) -> None:
    with pytest.raises(RunError, match=r"is no run: it lacks config\.json"):
        runs.find(home, str(home))
    with pytest.raises(RunError, match="There are no runs"):
        runs.find(home / "empty", "latest")


@pytest.mark.parametrize("name", ["latest", "", "a b", "../x", "-x", "x" * 65, ".x", "a/b"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(RunError, match="cannot name a run"):
        runs.check_name(name)
    assert runs.check_name("ok-1.2_x") == "ok-1.2_x"


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": NaN}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (run.folder / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json is damaged"):
        _ = run.config


# ---------------------------------------------------------------- lines


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (run.folder / "metrics.jsonl").write_bytes(b'{"a":1}\n{"a":2}\n{"a":')
    assert [line["a"] for line in run.lines()] == [1, 2]
    assert list(run.lines("none.jsonl")) == []


def test_a_line_that_is_no_json_is_left_out(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (run.folder / "metrics.jsonl").write_bytes(b'{"a":{"a":2}\n\xff\xfe\n{"a":3}\n')
    assert [line["a"] for line in run.lines()] == [3]


def test_lines_are_cut_back_to_the_checkpoint_and_continue(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = Lines(path)
    lines.append({"step": 1})
    kept = lines.offset
    lines.append({"step": 2, "loss": float("nan")})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"ste')  # killed while writing the third
    again = Lines(path)
    again.truncate(kept)
    again.append({"step": 2, "loss": None})
    assert path.read_bytes() == whole


def test_lines_that_were_cut_behind_our_back_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(DataError, match=r"3 bytes long, the checkpoint knows of 100"):
        Lines(path).truncate(100)


def test_lines_wait_in_memory_while_the_disk_is_full(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "metrics.jsonl")
    lines.append({"n": 0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12, before[1]))  # room for half a line
    try:
        lines.append({"n": 1})
        assert not lines.flush(durably=True)
        lines.append({"n": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len((tmp_path / "metrics.jsonl").read_bytes()) == 12  # torn
    assert lines.offset == 24
    lines.append({"n": 3})
    assert lines.flush(durably=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(
        b'{"n":%d}\n' % n for n in range(4)
    )


def test_lines_into_a_folder_that_went_away_are_an_output_error(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "gone" / "metrics.jsonl")
    with pytest.raises(OutputError, match=r"Cannot write .*metrics\.jsonl: No such file"):
        lines.append({"n": 1})
