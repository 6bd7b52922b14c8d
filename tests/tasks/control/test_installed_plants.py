"""A plant of one's own: the worked example of examples/arm_joint, as an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion.tasks.control import problem
from ganglion.tasks.control.plant import VanDerPol
from ganglion.tasks.control.plants.base import Rk4Plant

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "arm_joint"
SMALL = ["train.steps=40", "data.validation=24", "data.test=24", "train.tensorboard=false"]


def install(folder: Path, lines: str = "arm_joint = arm_joint:ArmJointSettings") -> Path:
    """Lay the example out as pip would, without asking pip for its build tools."""
    made = folder / "arm_joint-0.1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: arm-joint\nVersion: 0.1.0\n")
    (made / "entry_points.txt").write_text(f"[ganglion.plants]\n{lines}\n")
    (folder / "arm_joint.py").write_text((EXAMPLE / "arm_joint.py").read_text())
    return folder


def ganglion(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(folder)])}
    command = [sys.executable, "-m", "ganglion", "--home", str(folder), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_example_is_short_and_names_its_entry_point() -> None:
    assert len((EXAMPLE / "arm_joint.py").read_text().splitlines()) < 100
    text = (EXAMPLE / "pyproject.toml").read_text()
    assert '[project.entry-points."ganglion.plants"]' in text
    assert 'arm_joint = "arm_joint:ArmJointSettings"' in text


def test_it_trains_exports_and_is_judged_by_its_own_optimum(tmp_path: Path) -> None:
    install(tmp_path)
    done = ganglion(
        tmp_path, "--json", "train", "control", "problem=arm_joint", "--preset", "quick",
        "--name", "arm", *SMALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    by_name = {p["name"]: p["metrics"] for p in outcome["policies"]}
    assert by_name["oracle"]["gap"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert 0.0 < by_name["arm"]["gap"]["value"] < by_name["zero"]["gap"]["value"]
    assert (Path(outcome["run"]) / "export" / "policy.onnx").is_file()


def test_another_text_is_another_problem(tmp_path: Path) -> None:
    install(tmp_path)
    words = ["generate", "control", "problem=arm_joint", "data.fresh=false", "data.train=8",
             "data.validation=8", "data.test=8", "--out", str(tmp_path / "data")]  # fmt: skip
    assert ganglion(tmp_path, *words).returncode == 0
    file = tmp_path / "arm_joint.py"
    text = file.read_text()
    assert "LENGTH = 0.3, 0.2, 9.81, 0.5" in text
    file.write_text(text.replace("0.3, 0.2, 9.81, 0.5", "0.3, 0.4, 9.81, 0.5"))
    again = ganglion(
        tmp_path, "train", "control", "problem=arm_joint", "data.fresh=false", *SMALL[:1],
        "--data", str(tmp_path / "data"),
    )  # fmt: skip
    assert again.returncode == 65, again.stderr
    assert "was generated for other settings" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_broken_package_is_told_and_harms_nobody(tmp_path: Path) -> None:
    install(tmp_path, "lost = nowhere:Settings\narm_joint = arm_joint:ArmJointSettings")
    done = ganglion(tmp_path, "config", "control", "problem=arm_joint")
    assert done.returncode == 0
    assert "The installed plant 'lost' is left out (ModuleNotFoundError" in done.stderr
    wrong = ganglion(tmp_path, "config", "control", "problem=arm_joimt")
    assert wrong.returncode == 2
    assert "arm_joint" in wrong.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("other", "arm_joint:ArmJointSettings", "its kind is 'arm_joint'"),
        ("arm_joint", "arm_joint:ArmJoint", "is no class of ProblemSettings"),
        ("arm_joint", "arm_joint:Nothing", "AttributeError"),
    ],
)
def test_what_is_no_problem_is_left_out(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(problem, "_FOUND", {})
    entry = EntryPoint(name, value, problem.GROUP)
    monkeypatch.setattr(problem, "entry_points", lambda **_: [entry])
    assert dict(problem.installed(())) == {}
    assert said in caplog.text


def test_a_built_in_kind_cannot_be_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(problem, "_FOUND", {})
    entry = EntryPoint("arm_joint", "arm_joint:ArmJointSettings", problem.GROUP)
    monkeypatch.setattr(problem, "entry_points", lambda **_: [entry])
    assert dict(problem.installed({"arm_joint"})) == {}
    assert "a built-in problem has that kind" in caplog.text


def test_the_tangent_by_a_complex_step_is_the_closed_form() -> None:
    plant = VanDerPol(10, 0.05)
    rng = np.random.default_rng(0)
    x, dx = (tuple(rng.standard_normal((2, 5))) for _ in range(2))
    u, du = (tuple(rng.standard_normal((1, 5))) for _ in range(2))
    exact: Any = plant.tangent(x, u, dx, du)
    np.testing.assert_allclose(Rk4Plant.tangent(plant, x, u, dx, du), exact, rtol=1e-14)
