"""The examples run, in seconds, and do what they say."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ganglion import pipeline, registry
from ganglion.core.run import Run
from ganglion.train import checkpoint

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("home")
    small = {"data": {"validation": 64, "test": 32}, "train": {"steps": 100, "tensorboard": False}}
    cfg = registry.resolve("control", "quick", [small])
    made = pipeline.begin("control", cfg, pipeline.Place(home=home), preset="quick")
    pipeline.train(made)
    return made


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_example_has_under_60_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


def test_the_custom_loop_saves_what_loads_again(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data.train=128", "data.validation=16", "data.test=16", "train.steps=40"]
    saved = load("custom_loop").main(words)
    found = checkpoint.load(saved)
    assert found.step == 40
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < losses[0]


def test_the_loop_proper_is_under_ten_lines() -> None:
    text = (ROOT / "examples" / "custom_loop.py").read_text()
    body = text.split("# --- the loop")[1].split("# --- saved")[0].splitlines()[1:]
    assert len([line for line in body if line.strip()]) < 10


def test_a_run_loads_and_closes_the_loop(run: Run) -> None:
    act = load("load_and_act").main
    torch_error = act(str(run.folder))
    onnx_error = act(str(run.folder / "export" / "policy.onnx"))
    assert torch_error == pytest.approx(onnx_error, abs=1e-3)
    assert torch_error < np.hypot(1.5, 0.5)  # nearer than it began


def test_a_stopped_training_ends_with_the_same_bits() -> None:
    assert load("resume").main(60)


def test_the_comparison_ranks_the_oracle_first(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    gap = load("compare_with_oracle").main(str(run.folder), 20)
    assert gap >= 0.0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert float(rows["oracle"].rstrip("%")) == pytest.approx(0.0, abs=1e-3)


def test_the_external_controller_joins_a_comparison(run: Run) -> None:
    command = [sys.executable, str(ROOT / "examples" / "external_controller.py"), "1.2", "1.8"]
    report = pipeline.compare([str(run.folder)], policy_cmd=shlex.join(command), cases=20)
    assert [p["kind"] for p in report["policies"]] == ["run", "command"]
    ours = report["policies"][1]["metrics"]
    assert ours["violations"]["value"] == 0.0
    assert ours["gap"]["value"] > 0.0


def test_the_external_controller_plans_by_hand() -> None:
    # u = 1 (0 - 1) + 0 = -1; x = 1 - 0.5 / 9 = 0.94444; then u = -0.94444
    got = load("external_controller").plan([1.0, 0.0], [0.0, 0.0], [1.0, 0.0], 2)
    assert got == [[-1.0], [pytest.approx(-(1.0 - 0.5 / 9.0))]]


def test_the_exported_file_runs_without_torch(run: Run) -> None:
    path = run.folder / "export" / "policy.onnx"
    script = ROOT / "examples" / "onnx_without_torch.py"
    done = subprocess.run(
        [sys.executable, str(script), str(path), "20"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert "over 20 calls on one thread" in done.stdout
