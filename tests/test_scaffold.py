"""`ganglion init` writes a task that installs, trains, exports and passes its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganglion import scaffold
from ganglion.core.errors import OutputError, SettingsError


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh task `reach`, installed with pip beside the product; its parent folder."""
    root = tmp_path_factory.mktemp("scaffold")
    scaffold.make("reach", root / "reach")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--disable-pip-version-check", "--target", str(root / "site"),
         str(root / "reach")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return root


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(root / "site"), "GANGLION_HOME": str(root / "home"),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=root,
        timeout=300,
    )  # fmt: skip


def ganglion(root: Path, *words: str) -> str:
    done = run(root, "-m", "ganglion", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_new_task_is_listed_with_the_built_in_ones(installed: Path) -> None:
    out = ganglion(installed, "tasks")
    assert "reach" in out
    assert "two-link arm" in out


def test_the_new_task_trains_exports_and_is_judged(installed: Path) -> None:
    out = ganglion(installed, "train", "reach", "--preset", "quick", "--json", "--quiet")
    done = json.loads(out)
    policies = {p["name"]: p["metrics"]["distance"]["value"] for p in done["policies"]}
    assert policies["oracle"] < 1e-6
    assert policies["policy"] < 0.5 * policies["straight"] < policies["untrained"]
    table = json.loads(ganglion(installed, "compare", "latest", "oracle", "straight", "--json"))
    assert [p["name"] for p in table["policies"]][1:] == ["oracle", "straight"]
    checked = json.loads(ganglion(installed, "verify", "latest", "--json"))
    assert checked["ok"]
    answer = json.loads(ganglion(installed, "act", "latest", "--input", '{"target": [0.3, 0.1]}'))
    assert len(answer["outputs"]["angles"][0]) == 2


def test_the_new_tasks_own_tests_pass(installed: Path) -> None:
    done = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "reach/tests")
    assert done.returncode == 0, done.stdout


def test_the_new_task_is_small(installed: Path) -> None:
    files = list((installed / "reach" / "src").rglob("*.py"))
    assert len(files) == 4
    assert sum(len(f.read_text().splitlines()) for f in files) < 150


def test_its_settings_and_world_need_no_torch(installed: Path) -> None:
    script = (
        "import sys; from ganglion import registry; registry.make('reach', "
        "registry.resolve('reach')).references(); sys.exit('torch' in sys.modules)"
    )
    assert run(installed, "-c", script).returncode == 0


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(SettingsError, match="exists already"):
        scaffold.make("mine", tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "Big", "a-b", "1a", "class", "../up", "a/b", "control", "json", "torch", "x" * 41]
)
def test_names_that_will_not_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        scaffold.make(name, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Cannot write"):
        scaffold.make("mine", tmp_path / "file" / "mine")
