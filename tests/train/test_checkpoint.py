from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganglion.core.errors import CheckpointError
from ganglion.train import checkpoint
from tiny import digest, learner

FIXTURE = Path(__file__).parents[1] / "fixtures" / "checkpoint_v1" / "step_00000005"
FIXTURE_DIGEST = (FIXTURE.parent / "state_digest.txt").read_text().strip()

STATE: dict[str, Any] = {
    "float": torch.tensor([[1.5, -0.0], [float("nan"), float("inf")]]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "whole": torch.tensor([2**60], dtype=torch.int64),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "array": np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1],
    "scalar array": np.array(3.25),
    "numbered": {0: torch.ones(1), 7: {"x": 1}},
    "list": [1, [2.5, None], {"a": True}],
    "tuple": (1, (torch.zeros(1), "b")),
    "text": "ä\n",
    "big": 2**80,
    "small": 5e-324,
    "nothing": None,
    "$tensor": "a name like ours",
    "a/b": torch.ones(1),
    "a": {"b": torch.zeros(1)},
}


def save(folder: Path, step: int = 5, state: Any = STATE) -> Path:
    return checkpoint.save(folder, step, state, {"torch": torch.__version__})


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor | np.ndarray):
        kind, equal = type(a) is type(b), torch.as_tensor(np.array(0))
        one, two = (
            torch.as_tensor(np.array(x) if isinstance(x, np.ndarray) else x) for x in (a, b)
        )
        equal = one.dtype == two.dtype and one.shape == two.shape
        return kind and equal and torch.equal(
            one.contiguous().reshape(-1).view(torch.uint8),
            two.contiguous().reshape(-1).view(torch.uint8),
        )  # fmt: skip
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", STATE)
def test_every_kind_of_leaf_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    found = checkpoint.load(save(tmp_path)).state
    assert same(found[name], STATE[name])
    assert checkpoint.state_digest(found) == checkpoint.state_digest(STATE)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    found = checkpoint.load(save(tmp_path, state={"a": whole, "b": whole, "c": whole[1:3]})).state
    assert found["c"].tolist() == [1, 2]


def test_what_no_state_may_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"may not hold set \(at /x/0\)"):
        save(tmp_path, state={"x": [set()]})
    assert checkpoint.listed(tmp_path) == []


def test_one_bit_of_any_leaf_changes_the_digest() -> None:
    first = checkpoint.state_digest(STATE)
    changes: list[dict[str, Any]] = [
        {"small": 1e-323},
        {"text": "a"},
        {"big": 2**80 + 1},
        {"empty": torch.zeros(3, 0)},
        {"half": STATE["half"].float()},
        {"flags": torch.tensor([True, True])},
        {"nothing": False},
    ]
    for change in changes:
        assert checkpoint.state_digest({**STATE, **change}) != first


def test_files_are_private_and_the_pointer_names_the_newest(tmp_path: Path) -> None:
    path = save(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in path.iterdir()} == {0o600}
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    assert checkpoint.peek(path) == {"torch": torch.__version__}


# ---------------------------------------------------------------- damage


@pytest.fixture
def two(tmp_path: Path) -> Path:
    save(tmp_path, 5)
    save(tmp_path, 10, {**STATE, "text": "newer"})
    return tmp_path


def previous(folder: Path) -> list[str]:
    """The newest that verifies must be the older one; return what is said of the newer."""
    found, bad = checkpoint.load_newest(folder)
    assert found is not None
    assert found.step == 5
    return bad


def test_a_hundred_flipped_bits_are_all_found(two: Path) -> None:
    draw = random.Random(0)
    paths = sorted((two / "step_00000010").iterdir())
    assert len(paths) == 3
    caught = 0
    for turn in range(102):
        path = paths[turn % 3]
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        (sentence,) = previous(two)
        caught += str(two / "step_00000010") in sentence and "\n" not in sentence
        path.write_bytes(data)
    assert caught == 102
    assert checkpoint.load_newest(two)[1] == []


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "longer", "missing", "a folder"])
def test_a_damaged_file_is_found_and_named(name: str, damage: str, two: Path) -> None:
    path = two / "step_00000010" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"truncated": data[:-1], "empty": b"", "longer": data + b" "}[damage])
    (sentence,) = previous(two)
    assert name in sentence


def test_an_extra_file_is_found(two: Path) -> None:
    (two / "step_00000010" / "extra.pt").touch()
    assert "missing or extra files: extra.pt" in previous(two)[0]


def test_a_checkpoint_under_another_steps_name_is_found(two: Path) -> None:
    (two / "step_00000010").rename(two / "step_00000099")
    assert "its digest differs" in previous(two)[0]


@pytest.mark.parametrize(
    "change", [{"files": []}, {"files": {}}, {"about": 3}, {"step": "5"},
               {"files": {"state.json": 3, "state.safetensors": 3}}],
)  # fmt: skip
def test_a_manifest_that_was_forged_badly_is_one_sentence(
    change: dict[str, Any], two: Path
) -> None:
    path = two / "step_00000010" / "manifest.json"
    manifest = {**json.loads(path.read_bytes()), **change}
    manifest.pop("digest")
    manifest["digest"] = checkpoint._sha(checkpoint._canonical(manifest))
    path.write_bytes(checkpoint._canonical(manifest))
    previous(two)


def test_when_none_is_left_every_one_is_named(two: Path) -> None:
    for path in two.glob("step_*/state.json"):
        path.unlink()
    found, bad = checkpoint.load_newest(two)
    assert found is None
    assert len(bad) == 2


# ---------------------------------------------------------------- saving again


def test_left_overs_of_killed_saves_neither_load_nor_block(two: Path) -> None:
    left = two / "step_00000015.tmp-0123abcd"
    shutil.copytree(two / "step_00000010", left)
    assert checkpoint.listed(two) == [5, 10]
    save(two, 15)
    assert not left.exists()
    assert checkpoint.listed(two) == [5, 10, 15]


def test_the_same_step_is_saved_twice(two: Path) -> None:
    save(two, 10, {"x": 1})
    found, bad = checkpoint.load_newest(two)
    assert found is not None
    assert (found.step, found.state, bad) == (10, {"x": 1}, [])


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_failed_save_leaves_the_good_ones(
    broken: str, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="No space"):
            save(two, 15)
    assert sorted(p.name for p in two.iterdir()) == ["latest", "step_00000005", "step_00000010"]
    assert checkpoint.load_newest(two)[1] == []


def test_pruning_keeps_the_best_the_last_two_and_every_kth(tmp_path: Path) -> None:
    for step in range(10, 100, 10):
        save(tmp_path, step, {"x": step})
    checkpoint.prune(tmp_path, 90, best=30, keep_every=40)
    assert checkpoint.listed(tmp_path) == [10, 30, 40, 80, 90]


def test_damaged_later_checkpoints_never_push_out_the_good_ones(tmp_path: Path) -> None:
    for step in (20, 40, 60):
        save(tmp_path, step, {"x": step})
    for step in (40, 60):
        (tmp_path / f"step_{step:08d}" / "state.json").unlink()
    save(tmp_path, 30, {"x": 30})  # training went on from 20
    checkpoint.prune(tmp_path, 30, best=None, keep_every=None)
    assert checkpoint.listed(tmp_path) == [20, 30]


# ---------------------------------------------------------------- versions


def test_a_checkpoint_of_a_newer_version_is_refused_by_name(two: Path) -> None:
    path = two / "step_00000010" / "manifest.json"
    manifest = {**json.loads(path.read_bytes()), "version": 99}
    path.write_bytes(checkpoint._canonical(manifest))
    with pytest.raises(CheckpointError, match=r"checkpoint format 99.*Update ganglion"):
        checkpoint.load_newest(two)  # no silent loss of work by falling back


def test_a_checkpoint_of_version_1_loads() -> None:
    found = checkpoint.load(FIXTURE)
    assert checkpoint.state_digest(found.state) == FIXTURE_DIGEST
    made = learner(ema=0.9)
    made.load_state_dict(found.state["learner"])
    assert made.step == 5
    assert digest(made) == checkpoint.state_digest(found.state["learner"])
    assert found.state["progress"]["best_step"] == 5
