"""Search spaces: read, refused in one sentence, drawn from, tried against the task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ganglion import registry
from ganglion.cli import main
from ganglion.core.errors import SettingsError
from ganglion.core.space import Choice, Range, check, read


def written(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_a_space_is_read_with_its_choices_and_ranges(tmp_path: Path) -> None:
    found = read(written(tmp_path, (
        "preset: quick\nsettings: {model.kind: feedback}\n"
        "space:\n  a: [1, 2]\n  b: {low: 1, high: 100, log: true}\n"
    )))  # fmt: skip
    assert found.parameters == {"a": Choice((1, 2)), "b": Range(1, 100, log=True)}
    assert found.layer({"a": 2}) == {"model": {"kind": "feedback"}, "a": 2}


def test_drawn_values_stay_within_their_ranges() -> None:
    rng = np.random.default_rng(0)
    log, stepped = Range(1e-4, 1e-2, log=True), Range(32, 100, step=32)
    values = [log.draw(rng) for _ in range(2_000)]
    assert 1e-4 <= min(values) < max(values) <= 1e-2
    # half of a log-uniform draw lies below the geometric mean, sqrt(1e-4 * 1e-2) = 1e-3
    assert np.mean(np.array(values) < 1e-3) == pytest.approx(0.5, abs=0.05)
    assert {stepped.draw(rng) for _ in range(100)} == {32, 64, 96}
    assert {Choice(("x", "y")).draw(rng) for _ in range(50)} == {"x", "y"}


@pytest.mark.parametrize(("text", "said"), [
    ("spaces: {a: [1]}", "Did you mean 'space'"),
    ("space: {}", "`space` must map settings"),
    ("space: {a: 3}", "give a list of choices"),
    ("space: {a: [1, 1]}", "each choice once"),
    ("space: {a: {low: 2, high: 1}}", "low below high"),
    ("space: {a: {low: .nan, high: 1}}", "must be numbers"),
    ("space: {a: {low: 0, high: 1, log: true}}", "only above zero"),
    ("space: {a: {low: 0, hihg: 1}}", "Did you mean 'high'"),
    ("space: {a: {low: 0, high: 1, step: 2}}", "step must be"),
    ("settings: {a: 1}\nspace: {a: [1]}", "fixed and varied"),
])  # fmt: skip
def test_a_wrong_space_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read(written(tmp_path, text))


def test_a_setting_that_the_task_does_not_know_is_named(tmp_path: Path) -> None:
    found = read(written(tmp_path, "space: {optim.lrr: [1.0e-3]}"))
    with pytest.raises(SettingsError, match=r"optim\.lr"):
        check(found, lambda layer: registry.resolve("control", found.preset, [layer]))


def test_an_end_that_the_task_refuses_is_found(tmp_path: Path) -> None:
    found = read(written(tmp_path, "space: {optim.lr: {low: 1.0e-3, high: 1.0e+9}}"))
    with pytest.raises(SettingsError, match=r"optim\.lr"):
        check(found, lambda layer: registry.resolve("control", found.preset, [layer]))


@pytest.mark.parametrize("task", registry.names())
def test_every_shipped_space_fits_its_task(task: str) -> None:
    for path in registry.spaces(task).values():
        found = read(path)
        assert found.about, path
        check(found, lambda layer, p=found.preset: registry.resolve(task, p, [layer]))


def test_the_command_line_lists_and_prints_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "control", "--space", "--json"]) == 0
    assert {"guide", "feedback", "trc"} <= set(json.loads(capsys.readouterr().out)["spaces"])
    assert main(["config", "control", "--space", "guide", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["space"]["train.batch_size"] == [32, 64, 128]
    assert main(["config", "control", "--space", "feedback"]) == 0
    assert "[feedback]" in capsys.readouterr().out
    assert main(["config", "control", "--space", "gide"]) == 2
    assert "Did you mean 'guide'" in capsys.readouterr().err
