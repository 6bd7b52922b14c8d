"""The faults of specs/reliability.md that a single run meets, each injected on purpose.

F4-F7, F9-F11, F16 and F26-F34 belong to the services and have their tests there.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import driver
import ganglion
from ganglion import pipeline
from ganglion.core.errors import CheckpointError, DataError, OutputError, RunError, TrainingError
from ganglion.core.run import Run
from ganglion.train import checkpoint, device
from tiny import begin, fingerprint, settings, status

Ending = tuple[str, bytes]


def layers(threads: int = 1, **train: Any) -> dict[str, Any]:
    return {"train": {"threads": threads, **train}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all runs, so that the dataset is generated once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def calm(home: Path) -> dict[int, Ending]:
    """How undisturbed runs end, by number of threads."""
    endings = {}
    for threads in (1, 2):
        run = begin(home, layers(threads))
        assert driver.train(run) == 0, driver.said(run)
        endings[threads] = fingerprint(run)
    return endings


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in this very process leaves the report out, too."""
    stub = driver.without_report()
    monkeypatch.setitem(sys.modules, "ganglion.finish", stub)
    monkeypatch.setattr(ganglion, "finish", stub, raising=False)


def steps(run: Run) -> list[int]:
    return checkpoint.listed(run.folder / "checkpoints")


def killed(home: Path, failpoint: str = "checkpoint.pointed:4", **train: Any) -> Run:
    run = begin(home, layers(**train))
    assert driver.train(run, failpoint=failpoint) == -9
    return run


# ---------------------------------------------------------------- F1-F3: kill -9


@pytest.mark.parametrize("threads", [1, 2])
def test_f1_a_run_killed_at_random_moments_ends_as_if_nothing_had_been(
    threads: int, home: Path
) -> None:
    long = layers(threads, steps=600, eval_every=200, checkpoint_every=20)
    undisturbed = begin(home, long)
    assert driver.train(undisturbed) == 0, driver.said(undisturbed)
    draw = random.Random(threads)
    run = begin(home, long)
    kills = 0
    for _ in range(8):
        process = driver.start(run)
        if kills < 6:
            before = (run.folder / "status.json").stat().st_mtime_ns
            driver.wait(
                lambda b=before: (run.folder / "status.json").stat().st_mtime_ns > b, process
            )
            process.join(draw.uniform(0.0, 0.4))
            if process.exitcode is None:
                process.kill()
                kills += 1
        if driver.ends(process) == 0:
            break
    assert kills >= 3
    assert fingerprint(run) == fingerprint(undisturbed)


@pytest.mark.parametrize(
    "failpoint",
    [
        "checkpoint.written:1", "checkpoint.written:3", "checkpoint.renamed:1",
        "checkpoint.renamed:2", "checkpoint.pointed:1", "checkpoint.pruned:1", "lines.written:9",
        "status.replaced:1",
    ],
)  # fmt: skip
def test_f2_f3_a_kill_at_a_named_moment_of_a_save_loses_nothing(
    failpoint: str, home: Path, calm: dict[int, Ending]
) -> None:
    run = begin(home, layers())
    assert driver.train(run, failpoint=failpoint) == -9
    assert run.status["error"] == "killed"
    assert driver.train(run) == 0, driver.said(run)
    assert fingerprint(run) == calm[1]
    assert not list((run.folder / "checkpoints").glob("*.tmp-*"))


def test_f1_the_command_line_itself_resumes_bit_for_bit(
    home: Path, calm: dict[int, Ending]
) -> None:
    run = begin(home, layers())
    command = [sys.executable, "-m", "ganglion", "--home", str(home), "resume", str(run.folder)]
    killed = subprocess.run(
        command, env={**os.environ, "GANGLION_FAILPOINT": "lines.written:7"}, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr
    assert driver.train(run) == 0, driver.said(run)
    assert fingerprint(run) == calm[1]


# ---------------------------------------------------------------- F8: signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_f8_a_signal_saves_and_exits_with_75(
    number: signal.Signals, home: Path, calm: dict[int, Ending]
) -> None:
    run = begin(home, layers())
    process = driver.start(run)
    driver.wait((run.folder / "metrics.jsonl").exists, process)
    os.kill(process.pid or 0, number)
    began = time.monotonic()
    code = driver.ends(process)
    if code != 0:  # it may have been at its last step
        assert code == 75
        assert time.monotonic() - began < 10
        found = status(run)
        assert (found["state"], "error" in found) == ("paused", False)
        assert f"Stopped by {number.name} at step" in found["message"]
        assert driver.train(run) == 0
    assert fingerprint(run) == calm[1]


def test_f8_a_second_signal_exits_at_once(home: Path) -> None:
    run = begin(home, layers(steps=10**6, block=10**6, eval_every=10**6))
    process = driver.start(run)
    driver.wait(lambda: status(run)["state"] == "running", process)
    time.sleep(0.3)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(0.5)
    assert process.exitcode is None  # no boundary is near
    os.kill(process.pid or 0, signal.SIGTERM)
    assert driver.ends(process, 5) == 75
    assert not run.locked


def test_f8_a_signal_after_the_last_step_leaves_a_run_that_can_be_finished(
    home: Path, calm: dict[int, Ending], here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganglion.core.errors import Preempted

    def report(*given: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal came too late")

    run = begin(home, layers())
    with monkeypatch.context() as patch:
        patch.setattr(ganglion.finish, "after_training", report)  # type: ignore[attr-defined]
        with pytest.raises(Preempted, match="Stopped by SIGTERM after the last step"):
            pipeline.train(run)
    assert status(run)["state"] == "paused"
    pipeline.train(run)
    assert status(run)["state"] == "succeeded"
    assert fingerprint(run) == calm[1]


# ---------------------------------------------------------------- F12: two trainers


def test_f12_a_second_trainer_is_refused_and_the_first_goes_on(home: Path, here: None) -> None:
    run = begin(home, layers(steps=10**6, eval_every=10**6, block=10))
    process = driver.start(run)
    try:
        driver.wait((run.folder / "metrics.jsonl").exists, process)
        with pytest.raises(RunError, match=f"is being written by process {process.pid}"):
            pipeline.train(run)
        with pytest.raises(RunError, match="is being written by"):
            pipeline.reopen(run, [{"train": {"patience": 3}}])
        assert status(run)["state"] == "running"  # the refusal left the status alone
    finally:
        process.kill()
        process.join()
    with run.writer():
        pass


# ---------------------------------------------------------------- F13-F15: disks


@pytest.mark.parametrize("limit", [1_500, 20_000])  # metrics do not fit, or checkpoints do not
def test_f13_f14_a_full_disk_pauses_the_run_and_room_lets_it_go_on(
    limit: int, home: Path, calm: dict[int, Ending]
) -> None:
    run = begin(home, layers())
    process = driver.start(run, file_limit=limit)
    driver.wait(lambda: status(run)["state"] == "blocked", process)
    assert status(run)["message"].startswith("disk full, need ")
    assert status(run)["message"].endswith(" MB")
    assert run.status["state"] == "blocked"  # readers work meanwhile
    list(run.lines())
    resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, driver.UNLIMITED)
    assert driver.ends(process) == 0, driver.said(run)
    assert "Disk full: no checkpoint at step" in driver.said(run)
    assert "There is room again" in driver.said(run)
    assert fingerprint(run) == calm[1]


def test_f13_a_blocked_run_can_be_stopped_and_goes_on_later(
    home: Path, calm: dict[int, Ending]
) -> None:
    run = begin(home, layers())
    process = driver.start(run, file_limit=20_000)
    driver.wait(lambda: status(run)["state"] == "blocked", process)
    os.kill(process.pid or 0, signal.SIGTERM)
    assert driver.ends(process, 10) == 75
    assert "while paused (disk full" in status(run)["message"]
    assert driver.train(run) == 0
    assert fingerprint(run) == calm[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_f13_a_disk_that_others_fill_up(
    small_disk: Path, home: Path, calm: dict[int, Ending]
) -> None:
    run = begin(home, layers(), out=small_disk / "run")
    free = os.statvfs(small_disk)
    (small_disk / "others").write_bytes(b"x" * (free.f_bavail * free.f_frsize - 12 * 4096))
    process = driver.start(Run(run.folder))
    driver.wait(lambda: status(run)["state"] == "blocked", process)
    assert status(run)["message"].startswith("disk full, need ")
    (small_disk / "others").unlink()
    assert driver.ends(process) == 0
    assert fingerprint(run) == calm[1]


@pytest.mark.parametrize("kind", ["below a file", "in /proc", "over a file"])
def test_f15_a_folder_that_cannot_be_written_fails_before_the_first_step(
    kind: str, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = {
        "below a file": tmp_path / "file" / "run", "in /proc": Path("/proc/ganglion"),
        "over a file": tmp_path / "file",
    }[kind]  # fmt: skip
    with pytest.raises((OutputError, RunError)) as caught:
        begin(home, out=out)
    assert str(caught.value).count("\n") == 0
    assert str(out) in str(caught.value)


def test_f15_a_run_whose_data_do_not_fit_leaves_no_folder(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        begin(home, out=tmp_path / "run", data=_other_world(tmp_path))
    assert not (tmp_path / "run").exists()


def _other_world(folder: Path) -> Path:
    other = settings({"problem": {"horizon_s": 3.0}})
    return pipeline.generate("control", other, folder / "other").folder


# ---------------------------------------------------------------- F17-F18: memory, NaN


def test_f17_a_failed_allocation_names_what_was_asked_and_what_is_free(
    home: Path, here: None
) -> None:
    run = begin(home, layers(batch_size=10**14))
    with pytest.raises(TrainingError, match=r"asked for \S+ \w+, \d+ MiB free.*train\.batch_size"):
        pipeline.train(run)
    assert (status(run)["state"], status(run)["error"]) == ("failed", "training")


def test_f18_a_nan_is_left_out_and_a_kill_around_it_changes_nothing(home: Path) -> None:
    whole = begin(home, layers())
    assert driver.train(whole, poison=23) == 0
    ending = fingerprint(whole)
    (event,) = [line for line in whole.lines() if line["kind"] == "event"]
    assert (event["event"], event["step"], event["rate_scale"]) == ("nonfinite", 23, 0.5)
    assert "batch rows [3]" in event["message"]
    assert event["message"] in driver.said(whole)
    for failpoint in ("checkpoint.renamed:2", "lines.written:11"):
        run = begin(home, layers())
        assert driver.train(run, failpoint=failpoint, poison=23) == -9
        assert driver.train(run, poison=23) == 0
        assert fingerprint(run) == ending


def test_f18_a_run_may_stop_instead_and_says_what_to_try(home: Path) -> None:
    run = begin(home, layers(on_nonfinite="stop"))
    assert driver.train(run, poison=23) == 1
    found = status(run)
    assert (found["state"], found["error"]) == ("failed", "training")
    assert "not finite at step 23" in found["message"]
    assert "Try optim.lr=" in found["message"]
    assert steps(run)[-1] == 20  # the last checkpoint is from before


# ---------------------------------------------------------------- F19-F25: what lies on disk


@pytest.mark.parametrize("damage", ["flipped", "missing", "extra"])
def test_f19_f21_a_damaged_checkpoint_is_left_out_and_the_loss_is_stated(
    damage: str, home: Path, calm: dict[int, Ending]
) -> None:
    run = killed(home)
    last = steps(run)[-1]
    folder = run.folder / "checkpoints" / f"step_{last:08d}"
    path = folder / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    {
        "flipped": lambda: path.write_bytes(data),
        "missing": path.unlink,
        "extra": (folder / "weights.pt").touch,
    }[damage]()  # type: ignore[operator]
    older = steps(run)[-2]
    assert driver.train(run) == 0
    assert f"Left out: {folder}" in driver.said(run)
    assert f"Going on from step {older}; the work since (step {last}) is redone" in driver.said(run)
    assert fingerprint(run) == calm[1]


def test_f20_without_any_readable_checkpoint_the_run_begins_anew_and_says_so(
    home: Path, calm: dict[int, Ending]
) -> None:
    run = killed(home)
    for path in run.folder.glob("checkpoints/step_*/manifest.json"):
        path.unlink()
    assert driver.train(run) == 0
    assert "Going on from step 0" in driver.said(run)
    assert fingerprint(run) == calm[1]


def test_f22_a_checkpoint_of_a_newer_version_is_refused_by_name(home: Path, here: None) -> None:
    run = killed(home)
    path = run.folder / "checkpoints" / f"step_{steps(run)[-1]:08d}" / "manifest.json"
    newer = {**json.loads(path.read_bytes()), "version": 99}
    path.write_bytes(checkpoint._canonical(newer))
    with pytest.raises(CheckpointError, match=r"checkpoint format 99.*Update ganglion"):
        pipeline.train(run)


def test_f23_another_thread_count_is_warned_about_or_refused(
    home: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = killed(home)
    there = device.capability()
    monkeypatch.setattr(device, "capability", lambda: {**there, "threads": 7, "torch": "9.9"})
    with pytest.raises(RunError, match=r"Refused with --strict: .*threads: 1 then, 7 now"):
        pipeline.train(run, strict=True)
    pipeline.train(run, driver.Notebook(run))
    assert "not bit for bit" in driver.said(run)
    assert "torch: 2" in driver.said(run)


def test_f24_a_dataset_that_changed_is_refused_naming_the_file(
    home: Path, tmp_path: Path, here: None, calm: dict[int, Ending]
) -> None:
    run = killed(tmp_path)
    path = Path(run.manifest["data"]["folder"]) / "validation" / "state.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match=str(path)):
        pipeline.train(run)
    path.write_bytes(data)
    pipeline.train(run)
    assert fingerprint(run) == calm[1]


def test_f24_a_dataset_made_anew_is_refused_by_its_digest(tmp_path: Path, here: None) -> None:
    run = killed(tmp_path)
    folder = Path(run.manifest["data"]["folder"])
    shutil.rmtree(folder)
    pipeline.generate("control", settings({"data": {"seed": 7}}), folder)
    with pytest.raises(DataError, match=r"is not the one that run .* was begun on"):
        pipeline.train(run)


def test_f25_settings_that_changed_are_shown_and_refused_unless_resumable(
    home: Path, here: None, calm: dict[int, Ending]
) -> None:
    run = killed(home)
    with pytest.raises(RunError, match=r"optim\.lr: 0\.\d+ -> 0\.5.*Resumable are train\.steps"):
        pipeline.reopen(run, [{"optim": {"lr": 0.5}}])
    path = run.folder / "config.json"
    config = path.read_text()
    path.write_text(config.replace('"ema": 0.9', '"ema": 0.5'))
    with pytest.raises(RunError, match=r"train\.ema: 0\.9 -> 0\.5"):
        pipeline.train(run)
    path.write_text(config)
    pipeline.reopen(run, [{"train": {"keep_every": 20, "tensorboard": True}}])
    pipeline.train(run)
    assert fingerprint(run)[1] == calm[1][1]
    assert list((run.folder / "tensorboard").iterdir())


def test_f25_more_steps_may_be_asked_for_after_the_end(home: Path, here: None) -> None:
    run = begin(home, layers())
    assert driver.train(run) == 0
    pipeline.reopen(run, [{"train": {"steps": 80}}])
    pipeline.train(run)
    assert steps(run)[-1] == 80
