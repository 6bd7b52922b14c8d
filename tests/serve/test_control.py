"""A task's exported policy behind a URL: compared, closed in a loop, shadowed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ganglion import pipeline, registry, testing
from ganglion.core.contracts import Ranks
from ganglion.core.errors import SettingsError
from ganglion.export.onnx_export import Checks, export
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.models import load

from .driver import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """feedback.onnx (one control at a time) and two open loop plans, not trained."""
    folder = tmp_path_factory.mktemp("control")
    for name, seed, layer in (
        ("feedback", 0, {"model": {"kind": "feedback"}}),
        ("one", 1, {"model": {"kind": "mlp"}, "loss": {"kind": "imitation"}}),
        ("two", 2, {"model": {"kind": "mlp"}, "loss": {"kind": "imitation"}}),
    ):
        cfg = testing.small("control", layer)
        learner = registry.make("control", cfg).learner(None, "cpu", seed, Ranks())
        policy = learner.policy()
        card = {"task": "control", "settings": cfg.model_dump(mode="json"), "steps": {}}
        module = policy.module  # type: ignore[attr-defined]
        export(module, policy.signature, folder / f"{name}.onnx", card, checks=Checks(rows=0))
    return folder


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_served_policy_scores_as_its_file(policies: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(policies / "feedback.onnx")) as server:
        file = str(policies / "feedback.onnx")
        report = pipeline.compare([file], policy_url=f"{server.url}/act", cases=50)
        here, there = report["policies"]
        assert there["kind"] == "url"
        for name, found in here["metrics"].items():
            assert there["metrics"][name]["value"] == found["value"], name


def test_the_example_closes_the_loop_as_the_file_does(policies: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(policies / "feedback.onnx")) as server:
        there = example("served_loop").main(server.url)
    here = example("load_and_act").main(str(policies / "feedback.onnx"))
    assert there == pytest.approx(here, abs=1e-6)
    assert len((ROOT / "examples/served_loop.py").read_text().splitlines()) < 40


def test_pairs_of_a_shadow_are_compared_as_recorded_answers(policies: Path, tmp_path: Path) -> None:
    """In a closed loop the states are those of the policy that answered: its file is compared."""
    one, two = (str(policies / f"{name}.onnx") for name in ("one", "two"))
    pairs = tmp_path / "pairs"
    with serving(tmp_path, one, "--shadow", two, "--pairs", str(pairs)) as server:
        pipeline.compare([one], policy_url=f"{server.url}/act", cases=40)
        assert server.stop() == 0
    (recorded,), (shadowed,) = (list(pairs.glob(f"*.{name}.npz")) for name in ("one", "two"))
    report = pipeline.compare([one], recorded=recorded, cases=40)
    here, there = report["policies"]
    for name, found in here["metrics"].items():
        assert there["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-5), name
    with np.load(shadowed) as seen:  # what the other one would have done in the same states
        asked = {k: seen[f"input.{k}"] for k in ("state", "target", "time_left_s")}
        answers = OnnxPolicy(two).act(asked)
        assert seen["controls"] == pytest.approx(answers["controls"], abs=1e-5)


def test_loading_takes_seconds_and_warms(policies: Path) -> None:
    from ganglion.serve.settings import ProbeLimits

    began = time.monotonic()
    model = load("feedback", policies / "feedback.onnx", None, ProbeLimits())
    assert time.monotonic() - began < 12.0
    assert model.version == model.digest[:12]
    inputs = {"state": [[1.0, 0.0]], "target": [[0.0, 0.0]], "time_left_s": [[5.0]]}
    arrays = {k: np.array(v, np.float32) for k, v in inputs.items()}
    same = OnnxPolicy(policies / "feedback.onnx")
    assert np.array_equal(model.policy.act(arrays)["controls"], same.act(arrays)["controls"])


def test_act_on_the_command_line_and_over_http_are_the_same(policies: Path, tmp_path: Path) -> None:
    from .driver import post

    inputs = {"state": [1.0, 0.5], "target": [0.0, 0.0], "time_left_s": [5.0]}
    with serving(tmp_path, str(policies / "feedback.onnx")) as server:
        there = post(server.port, "/act", inputs).json
    here = pipeline.act(str(policies / "feedback.onnx"), inputs)
    assert json.loads(json.dumps(there))["controls"] == pytest.approx(
        np.array(here["outputs"]["controls"][0]), abs=1e-7
    )
    with pytest.raises(SettingsError, match=r"Input 'state' has shape \(\)"):
        pipeline.act(str(policies / "feedback.onnx"), dict.fromkeys(inputs, 1))


def curl_lines(page: str) -> list[str]:
    """The `curl` lines of a page's bash blocks, as printed."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


@pytest.mark.parametrize(("page", "count"), [("README.md", 4), ("docs/serving.md", 6)])
def test_the_curl_lines_of_a_page_work_as_printed(
    page: str, count: int, policies: Path, tmp_path: Path
) -> None:
    lines = curl_lines(page)
    assert len(lines) == count
    with serving(tmp_path, str(policies / "feedback.onnx")) as server:
        for line in lines:
            words = shlex.split(line.replace(":8080", f":{server.port}"))
            done = subprocess.run([*words, "-w", "\n%{http_code}"], capture_output=True, check=True)
            body, _, status = done.stdout.decode().rpartition("\n")
            assert status in ("200", "202"), (line, body)
            assert isinstance(json.loads(body), dict)
