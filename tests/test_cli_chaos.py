"""The kill -9 proof proves, and notices what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ganglion import chaos, cli
from ganglion.core.errors import TrainingError

TINY = [
    "train.steps=60", "train.block=5", "train.eval_every=20", "train.batch_size=16",
    "data.validation=20", "data.test=20", "data.shard=20", "export.parity_inputs=10",
    "model.hidden=[8]",
]  # fmt: skip


def test_killed_runs_end_as_the_undisturbed_one(tmp_path: Path) -> None:
    points = ["checkpoint.written", "checkpoint.renamed:2"]
    verdict = chaos.prove("control", TINY, 2, 1, tmp_path, fail_points=points)
    assert verdict.faults == []
    assert verdict.steps == 60
    assert verdict.kills >= 3
    assert verdict.resumes >= 2
    killed = tmp_path / "runs" / "control" / "killed_0"
    calm = tmp_path / "runs" / "control" / "undisturbed"
    # a proof that cannot fail is none: change one byte of the log, then lose the checkpoints
    lines = (calm / "metrics.jsonl").read_bytes()
    assert chaos._compare(killed, verdict.state, lines, None) == []
    assert len(chaos._compare(killed, verdict.state, lines + b"x", None)) == 1
    assert len(chaos._compare(killed, "0" * 64, lines, None)) == 1
    shutil.rmtree(killed / "checkpoints")
    assert "no checkpoint" in chaos._compare(killed, verdict.state, lines, None)[0]


def test_settings_that_cannot_train_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"undisturbed run failed: ganglion: .*optim\.lrr"):
        chaos.prove("control", ["optim.lrr=1"], 1, 0, tmp_path)


def test_small_settings_give_way_to_given_ones() -> None:
    assert "train.steps=200" in chaos._small(["optim.lr=1"])
    assert "train.steps=200" not in chaos._small(["train.epochs=3"])
    assert "data.test=100" not in chaos._small(["data.test=7"])


def test_the_last_step_of_a_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert chaos._reached(path) == 0
    path.write_text('{"kind":"train","step":20,"loss":1}\n{"kind":"train","step":40,"lo')
    assert chaos._reached(path) == 40


def test_the_verb_tells_the_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def prove(task: str, words: list[str], kills: int, *more: object, **named: object) -> object:
        seen.update(task=task, words=words, kills=kills, threads=more[2])
        return chaos.Verdict(task, kills=kills, runs=1, steps=60, faults=faults)

    monkeypatch.setattr(chaos, "prove", prove)
    faults: list[str] = []
    words = ["chaos", "control", "train.threads=2", "--kills", "3", "--home", str(tmp_path)]
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert seen == {"task": "control", "words": ["train.threads=2"], "kills": 3, "threads": 2}
    assert list(tmp_path.iterdir()) == []
    faults.append("it differs")
    assert cli.main(words) == 1
    assert "it differs" in capsys.readouterr().out
