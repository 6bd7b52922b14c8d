"""A whole small run of motion: its folder, its card, its visible loop, and a kill in the middle."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from ganglion import cli, pipeline, registry, sources
from ganglion.core.run import Run
from ganglion.results import evaluate
from ganglion.tasks.motion import motion_file
from ganglion.train import checkpoint

SMALL: dict[str, Any] = {
    "data": {"validation": 2, "test": 3, "shard": 4}, "evaluation": {"seconds": 0.4},
    "train": {"steps": 4, "batch_size": 96, "eval_every": 2, "tensorboard": False,
              "checkpoint_every": 1},
    "export": {"parity_inputs": 20},
}  # fmt: skip


def begin(home: Path) -> Run:
    return pipeline.begin("motion", registry.resolve("motion", "quick", [SMALL]),
                          pipeline.Place(home=home))  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = begin(tmp_path_factory.mktemp("run"))
    pipeline.train(made)
    return made


def test_the_run_keeps_the_motions_it_learned_and_what_was_found_in_them(run: Run) -> None:
    clips = motion_file.read(run.folder / "inputs" / "motion.npz")
    assert [c.frames for c in clips] == [32]
    stages = json.loads((run.folder / "inputs" / "stages.json").read_text())
    assert list(stages) == ["import", "preprocess", "validate"]
    (read,), (made,), (judged,) = stages.values()
    assert read["frames"] == made["frames"] == 32
    assert made["digest"] == clips[0].digest != read["digest"]
    assert made["notes"] == ["moved by 2 mm onto the ground"]
    assert judged["findings"] == []
    assert judged["measured"]["fps"] == 50.0


def test_the_exported_file_says_how_to_run_it(run: Run) -> None:
    source = sources.of_file(run.folder / "export" / "policy.onnx")
    about = source.entry.policy.card["about"]  # type: ignore[union-attr]
    assert about["control_hz"] == 50.0
    assert about["action_scale"] == 0.25
    assert about["observation"][0] == {"name": "phase", "offset": 0, "size": 2, "unit": "1"}
    sizes = [p["size"] for p in about["observation"]]
    assert sum(sizes) == source.entry.policy.signature.inputs["observation"].shape[0]  # type: ignore[union-attr]
    assert about["joints"][3] == "left_knee"
    assert len(about["robot"]) == len(about["motions"][0]["digest"]) == 64


def test_the_report_has_file_and_policy_side_by_side_in_physics(run: Run) -> None:
    report = json.loads((run.folder / "report" / "report.json").read_text())
    trained, exported = report["export"]["in_use"]["joint_rmse"]
    assert exported == pytest.approx(trained, rel=0.02)
    assert {p["name"] for p in report["policies"][1:]} == {
        "oracle", "standing", "open_loop", "cloning", "untrained",
    }  # fmt: skip
    assert [s["name"] for s in report["scenarios"]] == [
        "timestep_2ms", "friction_0.7", "friction_1.3", "mass_0.9", "mass_1.1", "push_0.3",
        "sensor_noise",
    ]  # fmt: skip


def test_the_file_is_judged_again_with_the_same_figures(run: Run) -> None:
    report = json.loads((run.folder / "report" / "report.json").read_text())
    again = evaluate(str(run.folder / "export" / "policy.onnx"), data=Path(
        run.manifest["data"]["folder"]))  # fmt: skip
    ours = again["policies"][0]["metrics"]["tracking_error"]["value"]
    assert ours == report["policies"][0]["metrics"]["tracking_error"]["value"]


def test_a_killed_training_ends_with_the_same_bits(run: Run, tmp_path: Path) -> None:
    import driver

    other = begin(tmp_path)
    assert driver.train(other, failpoint="checkpoint.renamed:2") == -9
    assert checkpoint.listed(other.folder / "checkpoints")[-1] < 4
    assert driver.train(other) == 0
    digests = [
        checkpoint.state_digest(checkpoint.load(r.folder / "checkpoints" / "step_00000004").state)
        for r in (run, other)
    ]
    assert digests[0] == digests[1]
    ours, theirs = ((r.folder / "metrics.jsonl").read_bytes() for r in (run, other))
    assert ours == theirs


def test_five_frames_lie_between_main_and_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    frames: list[str] = []

    class Seen(Exception):  # noqa: N818
        pass

    def step(*args: Any, **more: Any) -> None:
        own = [f for f in traceback.extract_stack() if "/ganglion/" in f.filename]
        frames.extend(f"{Path(f.filename).stem}.{f.name}" for f in own)
        raise Seen

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    cli.main(["--home", str(tmp_path), "--quiet", "train", "motion", "train.steps=1",
              "train.batch_size=96", "data.validation=2", "data.test=2", "data.shard=2",
              "train.tensorboard=false"])  # fmt: skip
    assert frames == [
        "cli.main", "training.train", "pipeline.train", "loop.fit", "ppo.update",
    ]  # fmt: skip
