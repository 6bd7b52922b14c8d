"""The task: settings and presets, data, scenarios, foreign files; and no torch to read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganglion import data_verbs, registry
from ganglion.core import dataset, metrics
from ganglion.core.contracts import Task
from ganglion.core.dataset import Dataset, Recipe
from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.gridnav import formats, moving_ai, packing, records, symmetry, tokens
from ganglion.tasks.gridnav.config import Config
from ganglion.tasks.gridnav.task import GridNav


def resolved(*layers: dict[str, Any], preset: str = "standard") -> Config:
    cfg = registry.resolve("gridnav", preset, list(layers))
    assert isinstance(cfg, Config)
    return cfg


def make(*layers: dict[str, Any], preset: str = "standard") -> GridNav:
    return GridNav(resolved(*layers, preset=preset))


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("preset", "samples", "shape", "recipe"),
    [
        ("recipe1", 5_000, (64, 2, 0.1), (30, 10, 64, 1e-3, 0.01, False)),
        ("recipe2", 50_000, (128, 3, 0.15), (100, 20, 64, 5e-4, 0.01, True)),
        ("recipe3", 100_000, (256, 4, 0.2), (150, 30, 128, 3e-4, 0.02, True)),
    ],
)
def test_the_recipes_are_those_of_the_guide(
    preset: str, samples: int, shape: tuple[Any, ...], recipe: tuple[Any, ...]
) -> None:
    cfg = resolved(preset=preset)
    net, train = cfg.model, cfg.train
    assert net.kind == "mixer"
    assert (net.dim, net.depth, net.dropout) == shape  # type: ignore[union-attr]
    assert cfg.data.train == samples
    assert recipe == (
        train.epochs, train.patience, train.batch_size, cfg.optim.lr, cfg.optim.weight_decay,
        net.augment,  # type: ignore[union-attr]
    )  # fmt: skip


def test_a_preset_follows_the_model() -> None:
    largest = resolved({"model": "trm"}, preset="max")
    assert (largest.model.kind, largest.pool.cycles, largest.pool.pockets) == ("trm", 5, 0.25)
    assert largest.train.batch_size == 32
    assert resolved(preset="trm").model.kind == "trm"
    assert resolved(preset="trm").pool.cycles == 5
    assert resolved({"pool": {"cycles": 8}}, preset="trm").pool.cycles == 8
    assert resolved({"model": "mixer"}).data.fresh is False
    puzzles = resolved(preset="puzzles")
    assert (puzzles.problem.kind, puzzles.data.train, puzzles.data.fresh) == ("hard", 1_000, False)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"model": {"kind": "wave", "dropout": 0.1}}, "dropout"),
        ({"train": {"accumulate": 2}}, "train.accumulate, train.compile and train.epochs are for"),
        (
            {"model": {"positions": "rotary"}},
            "model.positions=rotary is for model.mixing=attention",
        ),
        ({"model": {"mixing": "mlp"}, "problem": {"height": 9}}, "train on square maps"),
        ({"pool": {"sides": [16, 9]}}, r"pool.sides=\[16, 9\]: the smaller number comes first"),
        ({"pool": {"sides": [0, 16]}}, "greater than or equal to 4"),
        ({"pool": {"stay": [1.5, 0.2]}}, "the smaller number comes first"),
        ({"pool": {"stay": [-1.0, 0.2]}}, "greater than 0"),
        ({"problem": {"kind": "rooms", "sides": [7, 3]}}, "the smaller number comes first"),
        ({"problem": {"kind": "rooms", "sides": [-1, 3]}}, "greater than or equal to 1"),
        ({"problem": {"kind": "maze", "braid": [0.9, 0.1]}}, "the smaller number comes first"),
        ({"problem": {"kind": "maze", "braid": 0.5}}, "list of 2: number >= 0.0, <= 1.0"),
        ({"model": {"kind": "trm", "mixing": "attention", "dim": 10}}, "multiple of 16"),
        (
            {"model": {"kind": "mixer", "augment": True}, "problem": {"height": 6}},
            "they must be square",
        ),
    ],
)
def test_settings_that_do_nothing_here_are_refused(layer: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolved(layer)


def test_steps_follow_from_size_and_kind() -> None:
    assert resolved().steps == 32
    assert resolved({"problem": {"height": 64, "width": 64}}).steps == 256
    # a perfect maze of 30 x 30 has corridors through half of its cells
    assert resolved({"problem": "hard"}).steps == 450 + 60
    assert resolved({"evaluation": {"factor": 3.0}}).steps == 96


def test_claims_are_those_about_the_maps_that_are_judged() -> None:
    guide = [c.metric for c in make().claims]
    assert guide == ["success", "path_ratio", *["label_accuracy"] * 4]
    assert [c.claimed for c in make({"problem": "hard"}).claims] == ["85.3 %", "74.5 %", "-"]
    assert not make({"problem": {"height": 16, "width": 16}}).claims
    assert not make({"problem": "rooms"}).claims


def test_a_policy_that_halts_is_told_no_number_of_steps_unless_somebody_says_one() -> None:
    assert make().steps == {"steps": 80_000}
    assert make({"evaluation": {"steps": 50}}).steps == {"steps": 50}
    assert make({"model": {"halting": False}}).steps == {"steps": 32}
    assert make(preset="recipe1").steps == {}


def test_imported_maps_get_as_many_steps_as_they_have_cells() -> None:
    assert make({"labels": "imported"}).settings.steps == 64
    hard = make({"labels": "imported", "problem": {"height": 30, "width": 30}})
    cases = make({"problem": "hard"}).generate(3, "test", np.random.default_rng(0))
    assert hard.trial(cases).steps == 900
    assert make({"labels": "imported", "evaluation": {"steps": 50}}).settings.steps == 50


def test_attention_is_judged_on_maps_that_it_can_afford() -> None:
    made = make({"model": {"kind": "trm", "mixing": "attention"}})
    sides = [o.get("problem.height", 8) for o in made.scenarios.values()]
    assert max(sides) <= 16


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("kind", ["density", "rooms", "maze", "mixed"])
def test_generated_data_pass_their_own_check(kind: str) -> None:
    task = make({"problem": {"kind": kind, "height": 12, "width": 12}})
    assert isinstance(task, Task)
    arrays = task.generate(40, "train", np.random.default_rng(0))
    task.check(arrays)
    assert set(arrays) == set(task.units)


def test_no_map_is_in_two_splits_or_twice_in_one() -> None:
    task = make({"problem": {"height": 4, "width": 4, "density": 0.4}})
    found = {}
    for split in ("train", "validation", "test"):
        arrays = task.generate(60, split, np.random.default_rng(0))
        found[split] = packing.digests(packing.unpack(np.asarray(arrays["free"]), 4, 4))
        assert len(np.unique(found[split])) == 60
    assert not set(found["train"]) & set(found["validation"])
    assert not set(found["train"]) & set(found["test"])
    fresh = task.generate(60, "evaluation", np.random.default_rng(7))
    other = packing.digests(packing.unpack(np.asarray(fresh["free"]), 4, 4))
    assert not set(found["train"]) & set(other)


def test_more_maps_than_there_are_is_an_error() -> None:
    task = make({"problem": {"height": 2, "width": 2}})
    with pytest.raises(SettingsError, match="too few different maps of these settings for 50"):
        task.generate(50, "test", np.random.default_rng(0))


def test_a_file_of_another_size_says_which_settings_fit(tmp_path: Path) -> None:
    small = make({"problem": {"height": 6, "width": 6}, "labels": "first"})
    arrays = small.generate(5, "test", np.random.default_rng(0))
    formats.FORMATS["pt"](arrays, tmp_path / "states.pt")
    found = make({"problem": {"height": 6, "width": 6}}).importers["pt"](tmp_path / "states.pt")
    assert (found["label"] == arrays["label"]).all()
    with pytest.raises(DataError, match=r"Give problem\.height=6 problem\.width=6"):
        make().importers["pt"](tmp_path / "states.pt")


def test_imported_labels_cannot_be_generated() -> None:
    with pytest.raises(SettingsError, match="labels=imported is for data from a file"):
        make({"labels": "imported"}).generate(2, "test", np.random.default_rng(0))


# ---------------------------------------------------------------- judging


def test_every_scenario_draws_maps_that_the_oracle_walks() -> None:
    for preset in ("standard", "recipe1"):
        task = make(preset=preset)
        assert len(task.scenarios) > 2
        for name, changes in task.scenarios.items():
            other = GridNav(registry.override("gridnav", task.settings, changes))  # type: ignore[arg-type]
            cases = other.generate(2, "evaluation", np.random.default_rng(0))
            rows = other.evaluate(other.references()["oracle"], cases, np.random.default_rng(0))
            assert metrics.mean(rows, other.goal) == 0.0, name


def test_a_policy_for_one_size_is_not_tried_on_others() -> None:
    for layer in ({"model": "mixer"}, {"model": {"mixing": "mlp"}}):
        task = make(layer)
        for changes in task.scenarios.values():
            changed = registry.override("gridnav", task.settings, changes)
            assert changed.problem.height == 8  # type: ignore[attr-defined]


def test_cases_become_what_a_policy_takes() -> None:
    task = make()
    cases = task.generate(3, "test", np.random.default_rng(0))
    given, held = task.inputs(cases), records.read(cases)
    assert (given["free"] == held.free).all()
    assert given["goal"].sum() == 3
    assert given["goal"][1, held.goal[1, 0], held.goal[1, 1]] == 1.0


# ---------------------------------------------------------------- data of others, by the verbs


def imported(source: Path, out: Path, *layers: Mapping[str, Any], **more: Any) -> Dataset:
    shares = more.get("shares", {"train": 0.8, "validation": 0.1, "test": 0.1})
    return data_verbs.import_file(
        source, "gridnav", None, layers, out=out, home=out, shares=shares, seed=0
    )


def turned_states(path: Path, bases: int) -> Path:
    """States in all 8 symmetries, as the original's augmentation writes them."""
    arrays = make().generate(bases, "train", np.random.default_rng(1))
    held = records.read(arrays)
    rows = []
    for k in range(8):
        free, goal, masks = symmetry.transform(k, held.free, held.goal, arrays["moves"])
        start = symmetry.cells(k, held.start, 8, 8)
        label = np.array([moves_of(m[tuple(s)]) for m, s in zip(masks, start, strict=True)])
        rows.append((tokens.encode(free, start, goal), label))
    states, labels = (np.concatenate(part) for part in zip(*rows, strict=True))
    torch.save({"tokens": torch.tensor(states), "actions": torch.tensor(labels)}, path)
    return path


def moves_of(mask: int) -> int:
    return int(np.flatnonzero([(mask >> bit) & 1 for bit in range(5)])[0])


def test_imported_maps_are_in_one_split_however_they_are_turned(tmp_path: Path) -> None:
    source = turned_states(tmp_path / "train.pt", 40)
    found = imported(source, tmp_path / "theirs")
    seen = {s: set(make().groups(found.split(s)).tolist()) for s in found.card["splits"]}
    assert sum(map(len, seen.values())) == 40
    assert {s: found.rows(s) for s in seen} == {"train": 256, "validation": 32, "test": 32}
    assert data_verbs.check(tmp_path / "theirs", None, None, ())["ok"]


def test_a_dataset_whose_splits_share_maps_fails_its_check(tmp_path: Path) -> None:
    arrays = make({"labels": "imported"}).importers["pt"](turned_states(tmp_path / "a.pt", 6))
    rows = np.random.default_rng(0).permutation(48)
    splits = {n: {k: v[np.sort(rows[part])] for k, v in arrays.items()}
              for n, part in (("train", slice(0, 40)), ("test", slice(40, 48)))}  # fmt: skip
    world = make({"labels": "imported"}).settings.world()
    recipe = Recipe("gridnav", world, {"train": 40, "test": 8}, 0, 40)
    dataset.write_arrays(tmp_path / "mixed", splits, recipe, imported={"file": "a.pt"})
    said = data_verbs.check(tmp_path / "mixed", None, None, ())
    assert not said["ok"]
    assert "8 of 8 rows of test are in train too" in said["faults"][0]


def test_one_map_cannot_be_split(tmp_path: Path) -> None:
    arrays = make().generate(1, "train", np.random.default_rng(3))
    moving_ai.write_map(arrays, tmp_path / "one.map")
    with pytest.raises(SettingsError, match="100 rows of 1 different ones leave none"):
        imported(tmp_path / "one.map", tmp_path / "no")
    found = imported(tmp_path / "one.map", tmp_path / "test", shares={"test": 1.0})
    assert found.rows("test") == 100


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.map")
    with pytest.raises(SettingsError, match="no file that can be read as a whole"):
        imported(tmp_path / "pipe.map", tmp_path / "no")
