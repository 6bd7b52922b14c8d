"""Every mistake is answered in one sentence, with the nearest name and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ganglion import cli

QUICK = ["data.train=20", "data.validation=10", "data.test=10", "data.shard=20"]


def told(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """Run the command line; its exit code and the one line that it must have said."""
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert out == "", f"a mistake may not write results: {out}"
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("ganglion: ")
    return code, lines[0]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANGLION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GANGLION_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


WORDS: list[tuple[str, int, str]] = [
    # what was typed, exit code, what the sentence must hold
    ("train control optim.lrr=1", 2, "Did you mean 'optim.lr'"),
    ("train control optm.lr=1", 2, "Did you mean 'optim"),
    ("train control lr=1", 2, "Did you mean 'optim.lr'"),
    ("train control optim.lr=fast", 2, "optim.lr"),
    ("train control optim.lr=-1", 2, "> 0"),
    ("train control optim.lr=nan", 2, "valid number"),
    ("train control train.steps=1.5", 2, "train.steps"),
    ("train control train.steps=0", 2, "train.steps"),
    ("train control train.batch_size=many", 2, "whole number"),
    ("train control train.precision=fp8", 2, "train.precision"),
    ("train control model=trk", 2, "Did you mean 'trc'"),
    ("train control model.kind=lstm", 2, "Known: feedback, mlp, plan, trc"),
    ("train control problem.horizon_s=0", 2, "problem.horizon_s"),
    ("train control optim=3", 2, "optim"),
    ("train control optim.lr 3", 2, "write optim.lr=3"),
    ("train control optim.lr", 2, "name=value"),
    ("train control =3", 2, "name=value"),
    ("train control --optim.lr 3", 2, "without dashes"),
    ("train control --optim.lr=3", 2, "optim.lr=3"),
    ("train control --prset quick", 2, "Did you mean '--preset'"),
    ("train control --preset quik", 2, "Did you mean 'quick'"),
    ("train control --preset", 2, "--preset"),
    ("train control --seeds none", 2, "whole number from 1"),
    ("train control --seeds 0", 2, "whole number from 1"),
    ("train control --workers x", 2, "whole number"),
    ("train contrl", 2, "Did you mean 'control'"),
    ("train", 2, "needs TASK"),
    ("trian control", 2, "Did you mean 'train'"),
    ("data chek x", 2, "Did you mean 'data check'"),
    ("--hom x train control", 2, "Did you mean '--home'"),
    ("train control --device tpu", 2, "Known: auto, cpu, cuda"),
    ("train control --device cuda:99", 69, "doctor|no cuda:99"),
    ("train control --config missing.yaml", 2, "Cannot read the settings file missing.yaml"),
    ("train control --data missing", 2, "no dataset missing"),
    ("train control --name latest", 2, "cannot name a run"),
    ("train control --name a/b", 2, "cannot name a run"),
    ("train control --from run_none", 2, "no run 'run_none'"),
    ("train control --seeds 2 --out here", 2, "--seeds"),
    ("train control --out /proc/1/x/y", 73, "Cannot write into /proc/1/x/y"),
    ("train control --home /proc/none --dry-run --device tpu", 2, "Unknown device"),
    ("config control --preset quik", 2, "Did you mean 'quick'"),
    ("config contorl", 2, "Did you mean 'control'"),
    ("generate control labels=imported", 2, "labels"),
    ("generate control --out /proc/none", 73, "Cannot write into /proc/none"),
    ("resume run_nothing", 2, "no run 'run_nothing'"),
    ("resume latest", 2, "no runs"),
    ("resume latest --from newest", 2, "best, last or step=N"),
    ("evaluate nobody", 2, "no run 'nobody'"),
    ("evaluate orcale --task control", 2, "Did you mean 'oracle'"),
    ("evaluate missing.onnx", 2, "no file missing.onnx"),
    ("compare oracle", 2, "--task|no run"),
    ("compare problem.num_steps=3", 2, "at least one"),
    ("compare", 2, "needs"),
    ("export nobody", 2, "no run 'nobody'"),
    ("export nobody fromat=onnx", 2, "Did you mean 'format'"),
    ("verify nobody", 2, "no run 'nobody'"),
    ("act nobody --input {", 2, "not JSON"),
    ("act nobody --input []", 2, "JSON object"),
    ("act nobody --input @missing.json", 2, "missing.json"),
    ("view nobody", 2, "no run 'nobody'"),
    ("runs nobody", 2, "no run 'nobody'"),
    ("runs --status succeded", 2, "Did you mean 'succeeded'"),
    ("runs --task contrl", 2, "Did you mean 'control'"),
    ("runs --delete nobody", 2, "no run 'nobody'"),
    ("data check missing", 2, "missing"),
    ("data show missing", 2, "missing"),
    ("data import missing.npz --task control", 2, "missing.npz"),
    ("data import missing.npz", 2, "--task"),
    ("data export missing --out x.npz", 2, "missing"),
    ("init 2fast", 2, "cannot name a task"),
    ("init import", 2, "cannot name a task"),
    ("init control", 2, "a task 'control' already"),
    ("completion tcsh", 2, "Known: bash, fish, zsh"),
    ("chaos control --kills x", 2, "whole number"),
    ("tasks extra", 2, "extra"),
]


@pytest.mark.parametrize(("words", "code", "held"), WORDS, ids=[w for w, _, _ in WORDS])
def test_a_mistake_is_told_in_one_sentence(
    words: str, code: int, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, sentence = told(capsys, words.split())
    assert any(part in sentence for part in held.split("|")), sentence
    assert found == code, sentence


# ---------------------------------------------------------------- files that are bad


def _write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    "text", ["optim: [", "- a\n- b\n", "\xff\xfe".encode("latin-1"), "&a [*a, *a", "1"]
)
def test_a_bad_settings_file(
    text: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "bad.yaml", text)
    code, sentence = told(capsys, ["train", "control", "--config", "bad.yaml"])
    assert code == 2
    assert "bad.yaml" in sentence


def test_a_settings_file_is_layered_below_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "own.yaml", "optim: {lr: 1e-4}\ntrain: {steps: 7}\n")
    words = ["config", "control", "--config", "own.yaml", "optim.lr=2e-4", "--json"]
    assert cli.main(words) == 0
    import json

    rows = {r["name"]: r["value"] for r in json.loads(capsys.readouterr().out)["settings"]}
    assert rows["optim.lr"] == 2e-4
    assert rows["train.steps"] == 7


def _generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "data"
    assert cli.main(["generate", "control", *QUICK, "--out", str(folder), "--quiet"]) == 0
    capsys.readouterr()
    return folder


def _flip(folder: Path) -> None:
    path = folder / "test" / "state.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _truncate(folder: Path) -> None:
    path = folder / "test" / "state.npy"
    path.write_bytes(path.read_bytes()[:100])


def _missing(folder: Path) -> None:
    (folder / "test" / "state.npy").unlink()


def _card_edited(folder: Path) -> None:
    path = folder / "card.json"
    path.write_text(path.read_text().replace('"seed": 42', '"seed": 43'))


def _card_torn(folder: Path) -> None:
    (folder / "card.json").write_text('{"version": 1')


def _card_gone(folder: Path) -> None:
    (folder / "card.json").unlink()


DAMAGES = [_flip, _truncate, _missing, _card_edited, _card_torn, _card_gone]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["data check", "train control --data"])
def test_damaged_data_are_refused(
    damage: Callable[[Path], None], verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _generated(tmp_path, capsys)
    damage(folder)
    words = [*verb.split(), str(folder)]
    if verb.startswith("train"):
        words += QUICK
    code, sentence = told(capsys, words)
    assert code == 65
    assert str(folder) in sentence
    assert not (tmp_path / "home" / "runs").exists() or not list(
        (tmp_path / "home" / "runs").glob("*/*/config.json")
    )


def test_data_of_another_problem_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _generated(tmp_path, capsys)
    words = ["train", "control", "--data", str(folder), "problem.bound=2"]
    code, sentence = told(capsys, words)
    assert code == 65
    assert "problem.bound: 4.0 in the data, 2.0 here" in sentence


def test_a_value_that_is_not_finite_is_named_by_file_key_and_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ganglion.core import dataset

    splits = {"train": {"state": np.array([[0.0, 1.0], [2.0, np.nan]], np.float32)}}
    recipe = dataset.Recipe("control", {}, {"train": 2}, 0, 2)
    dataset.write_arrays(tmp_path / "own", splits, recipe)
    import dataclasses

    from ganglion import data_verbs

    found = list(data_verbs._faults(dataset.open_dataset(tmp_path / "own")))
    assert found == [
        f"{tmp_path}/own/train/state.npy: state[1, 1] is nan; every value must be finite."
    ]
    assert dataclasses.is_dataclass(recipe)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04pickle"])
def test_a_damaged_foreign_file_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "x.npz", content)
    for verb in (["check"], ["show"], ["import"]):
        code, sentence = told(capsys, ["data", *verb, "x.npz", "--task", "control"])
        assert code == 65
        assert "x.npz" in sentence
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz"]


def test_an_unknown_foreign_format_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "x.csv", "1,2\n")
    code, sentence = told(capsys, ["data", "check", "x.csv", "--task", "control"])
    assert code == 2
    assert "Unknown import format of control 'csv'" in sentence


@pytest.mark.parametrize("content", ["", "not a model", "\x08\x07"])
def test_a_damaged_onnx_file_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "x.onnx", content)
    for verb in ("verify", "act", "evaluate"):
        code, sentence = told(capsys, [verb, "x.onnx"])
        assert code == 65, sentence
        assert "x.onnx" in sentence


def test_a_file_in_the_way_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "file", "x")
    for words in (
        ["generate", "control", *QUICK, "--out", "file/data"],
        ["train", "control", *QUICK, "--out", "file/run"],
        ["init", "arm", "--home", "file"],
    ):
        code, sentence = told(capsys, words) if words[0] != "init" else (73, "file")
        assert code == 73
        assert "file" in sentence
    code, sentence = told(capsys, ["train", "control", "--home", "file"])
    assert code == 2
    assert "is a file" in sentence


def test_a_run_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "kept" / "notes.txt", "mine")
    for more in ([], ["--dry-run"]):
        code, sentence = told(capsys, ["train", "control", "--out", "kept", *more])
        assert code == 2
        assert "never overwrites" in sentence
    assert (tmp_path / "kept" / "notes.txt").read_text() == "mine"


def _run(tmp_path: Path, config: str, manifest: str) -> Path:
    folder = tmp_path / "home" / "runs" / "control" / "run_20260101_000000_abcdef"
    _write(folder / "config.json", config)
    _write(folder / "manifest.json", manifest)
    return folder


@pytest.mark.parametrize(
    ("config", "manifest", "code"),
    [
        ("{", "{}", 65),
        ("[]", "{}", 65),
        ("{}", "{}", 65),
        ('{"task": "control", "settings": {"optim": {"lrr": 1}}}', "{}", 2),
        ('{"task": "contrl", "settings": {}}', "{}", 2),
    ],
)
def test_a_damaged_run_is_refused(
    config: str, manifest: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _run(tmp_path, config, manifest)
    for verb in ("resume", "evaluate"):
        found, _ = told(capsys, [verb, folder.name])
        assert found == code
    assert cli.main(["runs"]) == 0  # listed all the same
    assert folder.name in capsys.readouterr().out


def test_the_nearest_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path, '{"task": "control", "settings": {}}', '{"name": "first-try"}')
    code, sentence = told(capsys, ["verify", "frist-try"])
    assert code == 2
    assert "Did you mean 'first-try'" in sentence


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run(tmp_path, '{"task": "control", "settings": {}}', "{}")
    code, sentence = told(capsys, ["resume", folder.name, "--from", "step=7"])
    assert code == 2
    assert "no checkpoint at step 7" in sentence
    code, sentence = told(capsys, ["resume", folder.name, "--from", "best"])
    assert code == 65
    assert "no readable checkpoint" in sentence


def test_a_run_that_is_written_is_not_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ganglion.core.run import Run

    folder = _run(tmp_path, '{"task": "control", "settings": {}}', "{}")
    with Run(folder).writer():
        code, sentence = told(capsys, ["runs", "--delete", folder.name])
    assert code == 2
    assert "being written" in sentence
    assert folder.is_dir()
    assert cli.main(["runs", "--delete", folder.name]) == 0
    assert not folder.exists()


# ---------------------------------------------------------------- what no handler foresaw


def _raising(error: BaseException) -> Callable[[object], int]:
    def handler(args: object) -> int:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "code", "held"),
    [
        (ValueError("odd"), 1, "internal error (ValueError: odd)"),
        (OSError(28, "No space left on device", "/x/y"), 73, "The disk is full writing /x/y"),
        (OSError(28, "No space left on device"), 73, "The disk is full"),
        (PermissionError(13, "Permission denied", "/x/y"), 73, "Cannot use /x/y: Permission den"),
        (FileNotFoundError(2, "No such file", "/x/y"), 2, "no file or folder /x/y"),
        (MemoryError(), 1, "Out of memory"),
        (KeyboardInterrupt(), 130, "Stopped"),
        (ValueError("two\nlines"), 1, "two lines"),
        (ValueError("\x1b[31mred"), 1, "?[31mred"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "no"), 2, "holds bytes that are no text"),
    ],
)
def test_an_error_that_nobody_foresaw(
    error: BaseException,
    code: int,
    held: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "find_handler", lambda _: _raising(error))
    found, sentence = told(capsys, ["tasks"])
    assert found == code
    assert held in sentence


def test_the_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANGLION_DEBUG", "1")
    monkeypatch.setattr(cli, "find_handler", lambda _: _raising(ValueError("odd")))
    with pytest.raises(ValueError, match="odd"):
        cli.main(["tasks"])


# ---------------------------------------------------------------- as processes


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ganglion", *words],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=60,
    )  # fmt: skip


def test_a_mistake_in_a_process(tmp_path: Path) -> None:
    done = command("train", "control", "optim.lrr=1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    script = f"{sys.executable} -m ganglion config control --schema | head -c 10"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
