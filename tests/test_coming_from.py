"""docs/coming-from.md: every command runs, in the page's order, and does what the page says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion import pipeline
from ganglion.cli import find_verb, main
from ganglion.commands.common import resolved
from ganglion.core.dataset import open_dataset
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.tasks.control.plant import DoubleIntegrator
from ganglion.tasks.motion import gait
from ganglion.tasks.motion.robot import builtin
from ganglion.train import checkpoint
from test_docs import COMING, ROOT, commands

COMMANDS = commands(COMING)
SMALL = {  # a net of two steps, asked for more cycles than trained, amplifies rounding: 0.01
    "train": ["train.epochs=2", "data.train=64", "data.validation=32", "data.test=32",
              "train.tensorboard=false", "export.parity_inputs=20", "export.tolerance=0.01"],
    "generate": ["data.train=96", "data.validation=32", "data.test=32"],
    "train motion": ["train.steps=2", "train.batch_size=96", "data.validation=4", "data.test=4",
                     "train.tensorboard=false", "train.eval_every=2", "evaluation.seconds=0.5",
                     "export.parity_inputs=20"],
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every command of the page once, made small, in one folder; its answers lie there too."""
    folder = tmp_path_factory.mktemp("coming-from")
    before = Path.cwd()
    os.chdir(folder)
    walk = gait.clip(builtin("minibiped"), gait.Gait())
    np.save("gait.npy", walk.at(np.arange(97))[2])
    np.save("random.npy", np.random.default_rng(0).standard_normal((1000, 10)))
    try:
        for line in COMMANDS:
            _run(line, folder)
    finally:
        os.chdir(before)
    return folder


def _run(line: str, folder: Path) -> None:
    words = shlex.split(line)[1:]
    if "--recorded" in words:
        _record(folder / "answers.npz", folder / "runs/mine")
    if "--cases" in words:
        words[words.index("--cases") + 1] = "16"
    script = ROOT / "examples" / "external_controller.py"
    if "--policy-url" in words:
        with external_server() as url:
            words[words.index("--policy-url") + 1] = url
            assert main([*words, "--quiet"]) == 0, line
        return
    words = [
        w.replace("python examples/external_controller.py", f"{sys.executable} {script}")
        for w in words
    ]
    small = SMALL.get(" ".join(words[:2]), SMALL.get(words[0], []))
    words = [w.replace("train.epochs=40", "train.epochs=3") for w in words]  # of 2, made small
    if "quick" in words:  # its rows are fresh draws, which have no epochs
        small = [w.replace("train.epochs=2", "train.steps=20") for w in small]
    assert main([*words, *small, "--quiet"]) == 0, line


@contextmanager
def external_server() -> Iterator[str]:
    """Run the example's server on a free port and give its URL."""
    script = [sys.executable, str(ROOT / "examples" / "external_server.py"), "0", "--sequence"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _record(path: Path, run: Path) -> None:
    """Write what a controller outside would have answered: zeros, for each case it may be asked."""
    controls = OnnxPolicy(run / "export" / "policy.onnx").signature.outputs["controls"]
    np.savez(path, controls=np.zeros((2000, *controls.shape), np.float32))


def settings(begins: str, number: int = 0) -> Any:
    """Resolve the settings of a documented command as it stands, not made small."""
    line = [c for c in COMMANDS if c.startswith(begins)][number]
    verb, rest = find_verb(shlex.split(line)[1:])
    assert verb is not None
    return resolved(verb.parser().read(rest))


def test_the_guide_preset_holds_the_guides_defaults() -> None:
    cfg = settings("ganglion train control --preset guide")
    assert (cfg.data.train, cfg.data.test, cfg.data.seed) == (10_000, 1_000, 42)
    assert (cfg.train.epochs, cfg.train.batch_size, cfg.train.patience) == (100, 64, 20)
    assert (cfg.optim.lr, cfg.optim.schedule) == (1e-3, "cosine")
    assert (cfg.model.kind, cfg.model.size, cfg.loss.kind) == ("trc", "medium", "imitation")


def test_every_flag_of_the_trainer_is_honoured() -> None:
    cfg = settings("ganglion train control --preset guide --data")
    assert (cfg.model.size, cfg.model.latent_dim, cfg.model.outer_cycles) == ("small", 256, 5)
    assert (cfg.train.epochs, cfg.train.batch_size, cfg.train.patience) == (100, 64, 20)
    assert (cfg.optim.lr, cfg.optim.schedule) == (1e-3, "cosine")


@pytest.mark.parametrize(("preset", "epochs", "patience"), [
    ("guide20", 20, 20), ("guide", 100, 20), ("guide200", 200, 30),
])  # fmt: skip
def test_the_three_lengths_of_the_guide_are_presets(
    preset: str, epochs: int, patience: int
) -> None:
    from ganglion import registry

    cfg = registry.resolve("control", preset)
    assert (cfg.train.epochs, cfg.train.patience) == (epochs, patience)


@pytest.mark.parametrize("schedule", ["cosine", "step", "plateau", "none"])
def test_every_schedule_of_the_guide_exists(schedule: str) -> None:
    from ganglion import registry

    cfg = registry.resolve("control", "guide", [{"optim": {"schedule": schedule}}])
    assert cfg.optim.schedule == schedule


def test_latent_width_and_cycles_are_saved_and_reach_the_exported_file(home: Path) -> None:
    config = json.loads((home / "runs/mine/config.json").read_text())["settings"]
    assert (config["model"]["latent_dim"], config["model"]["outer_cycles"]) == (256, 5)
    steps = checkpoint.listed(home / "runs/mine/checkpoints")
    state = checkpoint.load(home / f"runs/mine/checkpoints/step_{steps[-1]:08d}").state
    assert state["learner"]["module"]["first.weight"].shape[1] == 256
    policy = OnnxPolicy(home / "runs/mine/export/policy.onnx")
    assert policy.card["steps"] == {"cycles": 5}


def test_the_time_step_follows_and_enters_the_digest(home: Path) -> None:
    from ganglion import registry, scoring

    data = open_dataset(home / "datasets/lqr")
    problem = data.card["recipe"]["world"]["problem"]
    assert problem["horizon_s"] / problem["num_steps"] == pytest.approx(5 / 15)
    cfg = settings("ganglion generate")
    other = registry.override("control", cfg, {"problem.num_steps": 30})
    ours, theirs = scoring.recipe("control", cfg), scoring.recipe("control", other)
    assert ours.world_digest == data.world_digest
    assert theirs.world_digest != data.world_digest


def test_data_of_another_time_step_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(home / "runs/mine"), "--data", str(home / "datasets/lqr-test")]
    assert main([*words, "problem.num_steps=30", "problem.horizon_s=5.0"]) == 65
    assert "num_steps" in capsys.readouterr().err


def test_the_test_set_is_other_data(home: Path) -> None:
    first, second = (open_dataset(home / "datasets" / n) for n in ("lqr", "lqr-test"))
    assert (first.card["recipe"]["seed"], second.card["recipe"]["seed"]) == (42, 123)
    assert first.digest != second.digest
    assert first.world_digest == second.world_digest


def test_the_npz_has_the_originals_five_arrays(home: Path) -> None:
    with np.load(home / "lqr_dataset.npz", allow_pickle=False) as file:
        shapes = {name: file[name].shape for name in file.files}
        states = file["state_trajectories"].astype(np.float64)
        controls = file["control_sequences"].astype(np.float64)
    assert shapes == {
        "initial_states": (96, 2), "target_states": (96, 2), "state_trajectories": (96, 16, 2),
        "control_sequences": (96, 15, 1), "costs": (96,),
    }  # fmt: skip
    plant = DoubleIntegrator(15, 5 / 15, cost_kind="original", target_kind="moving")
    assert np.abs(plant.rollout(states[:, 0], controls) - states).max() < 1e-4


def test_an_imported_file_keeps_its_controls(home: Path) -> None:
    found = open_dataset(home / "datasets/imported")
    rows = sum(found.rows(split) for split in found.card["splits"])
    assert rows == 96
    imported = np.concatenate([found.split(s)["controls"] for s in found.card["splits"]])
    with np.load(home / "lqr_dataset.npz", allow_pickle=False) as file:
        original = file["control_sequences"]
    assert np.sort(imported.ravel()) == pytest.approx(np.sort(original.ravel()), abs=1e-6)


def test_the_files_of_a_run_have_their_counterparts(home: Path) -> None:
    run = home / "runs/mine"
    for name in ("metrics.jsonl", "timing.jsonl", "report/curves.png", "report/report.html",
                 "report/report.json", "export/policy.onnx"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert checkpoint.listed(run / "checkpoints")


def test_the_evaluation_has_error_success_and_gap(home: Path) -> None:
    result = json.loads((home / "result.json").read_text())
    (policy,) = result["policies"]
    assert {"final_error", "success", "gap", "error_against_random"} <= set(policy["metrics"])
    assert result["cases"] == 32
    assert policy["metrics"]["gap"]["value"] > 0.0


def test_the_comparison_has_random_trained_lqr_and_the_optimum(home: Path) -> None:
    table = json.loads((home / "table.json").read_text())
    gaps = {p["name"]: p["metrics"]["gap"]["value"] for p in table["policies"]}
    assert {"random", "lqr", "oracle"} <= set(gaps)
    assert len(gaps) == 5
    assert gaps["oracle"] == pytest.approx(0.0, abs=1e-5)
    assert gaps["random"] > gaps["lqr"]
    efficiency = table["policies"][0]["efficiency"]
    assert efficiency["parameters"] > 0
    assert efficiency["file_bytes"] > 0
    assert efficiency["latency_us"]["p50"] > 0
    assert any("Qwen" in json.dumps(quote) for quote in table["efficiency_quotes"])


def test_the_guides_claims_stand_beside_the_optimum_and_ours(home: Path) -> None:
    found = json.loads((home / "claims.json").read_text())
    claims, mine = found["claims"], found["policies"][0]["name"]
    assert claims["header"] == ["claim", "claimed", "random", "optimum", mine]
    rows = {row[0]: row[1:] for row in claims["rows"]}
    assert len(rows) == 12
    assert rows["mean final error"][0] == "< 0.5"
    assert float(rows["mean final error"][2]) < float(rows["mean final error"][1])
    assert rows["gap, untrained"][0] == "~300 %"
    assert "/" in rows["loss at epoch 1, train/validation"][3]


def test_claims_are_on_the_page_and_need_a_run_of_the_guides_problem(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--home", str(home), "compare"]
    page = home / "claims.html"
    assert (
        main([*words, str(home / "runs/mine"), "--claims", "--cases", "8", "--html", str(page)])
        == 0
    )
    assert "What others claim" in page.read_text()
    capsys.readouterr()
    assert main([*words, "oracle", "--task", "control", "--claims"]) == 2
    assert "name a run first" in capsys.readouterr().err
    assert main([*words, "larger", "--claims"]) == 2
    assert "No claims are known" in capsys.readouterr().err


def test_the_later_problems_of_the_guide_train_and_land(home: Path) -> None:
    from ganglion.core import run as runs

    run = runs.find(home, "oscillator").folder
    policies = json.loads((run / "report" / "report.json").read_text())["policies"]
    assert policies[0]["metrics"]["violations"]["value"] == 0.0
    landings = json.loads((home / "landings.json").read_text())["policies"]
    assert {p["name"]: p["metrics"]["landing"]["value"] for p in landings}["oracle"] == 1.0


def test_a_larger_box_of_starts_is_trained_and_drawn(home: Path) -> None:
    from ganglion.core import run as runs

    found = runs.find(home, "larger")
    assert found.config["settings"]["problem"]["start_scale"] == 2.0
    data = open_dataset(Path(found.manifest["data"]["folder"]))
    assert np.abs(data.split("validation")["state"]).max() > 2.0


def test_the_exported_file_answers_as_the_run(home: Path) -> None:
    onnx = OnnxPolicy(home / "policy.onnx")
    policy = pipeline.load(home / "runs/mine")
    rows = {"state": [[1.0, 0.5]], "target": [[0.0, 0.0]], "time_left_s": [[5.0]]}
    inputs = {k: np.array(v, np.float32) for k, v in rows.items()}
    for steps in ({}, {"cycles": np.array([5])}, {"cycles": 5}):  # as trained; said; said plainly
        answers = [p.act({**inputs, **steps})["controls"] for p in (onnx, policy)]
        assert answers[0] == pytest.approx(answers[1], abs=1e-4)


def test_the_grids_recipe_holds_every_flag_of_the_guide(home: Path) -> None:
    cfg = settings("ganglion train gridnav")
    assert (cfg.model.kind, cfg.model.dim, cfg.model.depth) == ("mixer", 64, 2)
    assert (cfg.model.dropout, cfg.model.augment) == (0.1, True)
    assert (cfg.optim.weight_decay, cfg.optim.lr) == (0.01, 1e-3)
    assert (cfg.train.epochs, cfg.train.patience, cfg.train.batch_size) == (30, 10, 64)
    state = json.loads((home / "runs/grid/status.json").read_text())
    assert state["state"] == "succeeded"


def test_tokens_and_actions_come_back_as_they_went(home: Path) -> None:
    ours, theirs = (open_dataset(home / "datasets" / n) for n in ("grid", "theirs"))
    rows = sum(theirs.rows(split) for split in theirs.card["splits"])
    assert rows == ours.rows("train") == 96
    labels = np.concatenate([theirs.split(s)["label"] for s in theirs.card["splits"]])
    assert np.bincount(labels).tolist() == np.bincount(ours.split("train")["label"]).tolist()


def test_grid_policies_are_compared_and_judged(home: Path) -> None:
    found = json.loads((home / "grid.json").read_text())
    wrong = {p["name"]: p["metrics"]["wrong"]["value"] for p in found["policies"]}
    assert wrong["oracle"] == 0.0
    assert len(wrong) == 4
    assert {"best", "last"} <= set(found["policies"][0]["training"])
    judged = json.loads((home / "grid-result.json").read_text())["policies"][0]["metrics"]
    assert {"label_accuracy", "label_random_optimal", "success", "path_ratio", "exact"} <= set(
        judged
    )


def test_the_page_runs_every_command_it_shows() -> None:
    verbs = {shlex.split(line)[1] for line in COMMANDS}
    assert verbs >= {"train", "generate", "data", "config", "evaluate", "compare", "export"}


# ---------------------------------------------------------------- motion


def test_the_form_of_motion_is_the_preset_guide() -> None:
    from ganglion import registry

    assert settings("ganglion train motion --preset guide") == registry.resolve("motion", "guide")


def test_the_plain_file_of_motion_maps_input_to_output(home: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(home / "policy_form.onnx"))
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (given.name, gives.name) == ("input", "output")
    assert given.shape[0] == gives.shape[0] == "batch"
    for batch in (1, 5):
        seen = np.zeros((batch, given.shape[1]), np.float32)
        assert session.run(None, {"input": seen})[0].shape == (batch, 10)


def test_a_random_array_is_cloned_and_its_report_says_so(home: Path) -> None:
    reports = [json.loads(p.read_text()) for p in home.glob("runs/motion/*/report/report.json")]
    notes = {r["run"]["name"]: r["remarks"] for r in reports}
    assert "Kinematic only" in notes["random"][0]
    assert any("frame 0, joint" in said for said in notes["random"])
    assert not any("Kinematic only" in said for said in notes["real"])
