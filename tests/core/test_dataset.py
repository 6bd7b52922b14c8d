from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion.core import dataset, seeds
from ganglion.core.contracts import Arrays
from ganglion.core.dataset import Dataset, Recipe, Shard
from ganglion.core.errors import DataError, OutputError, SettingsError

COUNTS = {"train": 25, "validation": 10, "test": 3}
RECIPE = Recipe("toy", {"size": 2}, COUNTS, seed=5, shard=10)


def shard(of: Shard) -> Arrays:
    rng = seeds.rng(RECIPE.seed, of.split, of.index)
    return {"x": rng.random((of.count, 2), np.float32), "label": rng.integers(0, 9, of.count)}


def make(shards: Iterable[Shard]) -> Iterable[tuple[Shard, Arrays]]:
    return ((s, shard(s)) for s in shards)


def backwards(shards: Iterable[Shard]) -> Iterable[tuple[Shard, Arrays]]:
    return make(reversed(list(shards)))


def silent(done: int, total: int) -> None:
    return None


def generate(folder: Path, by: Any = make, recipe: Recipe = RECIPE) -> Dataset:
    return dataset.generate(folder, recipe, by, {"x": "m"}, silent)


def contents(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(found)}


# ---------------------------------------------------------------- what is written


def test_the_card_describes_every_array(tmp_path: Path) -> None:
    found = generate(tmp_path / "ds")
    entry = found.card["splits"]["train"]["x"]
    assert (entry["shape"], entry["dtype"], entry["unit"]) == ([25, 2], "float32", "m")
    assert found.rows("train") == 25
    assert found.task == "toy"
    assert found.card["recipe"] == RECIPE.to_json()
    assert not (found.folder / "parts").exists()
    np.testing.assert_array_equal(found.split("train")["x"][20:], shard(Shard("train", 2, 5))["x"])
    found.verify()


def test_rows_follow_from_seed_split_and_shard_whatever_the_order(tmp_path: Path) -> None:
    one, two = generate(tmp_path / "a"), generate(tmp_path / "b", backwards)
    assert contents(one.folder) == contents(two.folder)
    assert one.digest == two.digest


def test_other_seeds_and_worlds_have_other_digests(tmp_path: Path) -> None:
    other = Recipe("toy", {"size": 3}, COUNTS, 5, 10)
    later = Recipe("toy", {"size": 2}, COUNTS, 6, 10)
    assert len({RECIPE.digest, other.digest, later.digest}) == 3
    assert RECIPE.world_digest == later.world_digest != other.world_digest
    assert generate(tmp_path / "a", recipe=RECIPE).world_digest == RECIPE.world_digest


def test_whole_arrays_are_written_once(tmp_path: Path) -> None:
    arrays = {"train": {"x": np.ones((3, 2), np.float32)}}
    found = dataset.write_arrays(tmp_path / "ds", arrays, RECIPE, source="a.npz")
    assert found.card["about"] == {"source": "a.npz"}
    with pytest.raises(SettingsError, match="holds a dataset already"):
        dataset.write_arrays(tmp_path / "ds", arrays, RECIPE)


# ---------------------------------------------------------------- generation goes on


def slowly(folder: str, begun: Any) -> None:
    def by(shards: Iterable[Shard]) -> Iterable[tuple[Shard, Arrays]]:
        for done, pair in enumerate(make(shards)):
            if done == 2:
                begun.set()
                time.sleep(60)
            yield pair

    generate(Path(folder), by)


def test_a_killed_generation_goes_on_where_it_was(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    begun = context.Event()
    process = context.Process(target=slowly, args=(str(tmp_path / "ds"), begun))
    process.start()
    assert begun.wait(30)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with pytest.raises(DataError, match="generation did not finish"):
        dataset.open_dataset(tmp_path / "ds")
    asked: list[Shard] = []

    def by(shards: Iterable[Shard]) -> Iterable[tuple[Shard, Arrays]]:
        asked.extend(shards)
        return make(asked)

    found = generate(tmp_path / "ds", by)
    assert [(s.split, s.index) for s in asked] == [
        ("train", 2), ("validation", 0), ("test", 0),
    ]  # fmt: skip
    assert contents(found.folder) == contents(generate(tmp_path / "whole").folder)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_shard_is_made_again(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    for todo in dataset.missing_shards(folder, RECIPE):
        dataset.store_shard(folder, todo, shard(todo))
    part = folder / "parts" / "train" / "000001.npz"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes({"truncated": data[:-40], "empty": b"", "flipped": bytes(data)}[damage])
    with pytest.raises(DataError, match=r"000001\.npz was damaged and is removed"):
        generate(folder)
    assert contents(generate(folder).folder) == contents(generate(tmp_path / "whole").folder)


def test_left_over_parts_of_a_killed_write_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    todo = dataset.missing_shards(folder, RECIPE)[0]
    (folder / "parts" / "train").mkdir()
    (folder / "parts" / todo.split / "000000.part").write_bytes(b"torn")
    assert generate(folder).rows("train") == 25


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SettingsError, match="holds other files"):
        generate(tmp_path)
    folder = tmp_path / "ds"
    dataset.missing_shards(folder, RECIPE)
    with pytest.raises(SettingsError, match="unfinished dataset of other settings"):
        generate(folder, recipe=Recipe("toy", {}, COUNTS, 5, 10))
    (folder / "parts" / "recipe.json").write_text("{")
    with pytest.raises(DataError, match=r"recipe\.json is damaged"):
        generate(folder)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write the dataset"):
        generate(tmp_path / "file" / "ds")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.ones(9)}, "made 9 rows of 'x'"),
        ({"x": np.array([np.nan] * 10)}, r"non-finite value: x\[0\]"),
        ({"x": np.array([{}] * 10)}, "dtype object or a bad name"),
        ({"../x": np.ones(10)}, "a bad name"),
    ],
)
def test_a_generator_that_makes_nonsense_is_named(
    arrays: Arrays, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        generate(tmp_path / "ds", lambda shards: ((s, arrays) for s in shards))


@pytest.mark.parametrize(
    "second",
    [{"y": np.ones(10)}, {"x": np.ones(10), "y": np.ones(10)}, {"x": np.ones((10, 2))},
     {"x": np.ones(10, np.float32)}],
)  # fmt: skip
def test_shards_must_agree_on_names_dtypes_and_shapes(second: Arrays, tmp_path: Path) -> None:
    recipe = Recipe("toy", {}, {"train": 20}, 5, 10)

    def by(shards: Iterable[Shard]) -> Iterable[tuple[Shard, Arrays]]:
        return ((s, second if s.index else {"x": np.ones(10)}) for s in shards)

    with pytest.raises(DataError, match="arrays differ between shard 0 of train and shard 1"):
        generate(tmp_path / "ds", by, recipe)


# ---------------------------------------------------------------- damage


@pytest.fixture
def good(tmp_path: Path) -> Dataset:
    return generate(tmp_path / "ds")


def check(folder: Path) -> None:
    dataset.open_dataset(folder).verify()


def test_every_damage_to_an_array_names_the_file(good: Dataset) -> None:
    path = good.folder / "validation" / "x.npy"
    data = path.read_bytes()
    damages: dict[str, bytes | None] = {
        "is missing": None,
        "is damaged": data[:-4],
        r"is damaged|holds": b"",
        "was changed after": data + b"more",
    }
    for said, new in damages.items():
        path.unlink() if new is None else path.write_bytes(new)
        with pytest.raises(DataError, match=said) as caught:
            check(good.folder)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        path.write_bytes(data)
    check(good.folder)


def test_every_flipped_byte_of_a_small_array_is_found(good: Dataset) -> None:
    path = good.folder / "test" / "x.npy"
    data = path.read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"x\.npy"):
            check(good.folder)


@pytest.mark.parametrize("array", [np.ones((10, 2)), np.ones((10, 3), np.float32),
                                   np.array([{}] * 10)])  # fmt: skip
def test_another_dtype_or_shape_is_refused(array: Any, good: Dataset) -> None:
    path = good.folder / "validation" / "x.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"{path} (holds|is damaged)"):
        good.split("validation")


def test_a_pickle_under_an_arrays_name_is_not_opened(good: Dataset) -> None:
    import pickle

    path = good.folder / "validation" / "x.npy"
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match=r"x\.npy is damaged"):
        good.split("validation")


def test_an_archive_under_an_arrays_name_is_not_opened(good: Dataset) -> None:
    path = good.folder / "validation" / "x.npy"
    with path.open("wb") as file:
        np.savez(file, x=np.ones(10))
    with pytest.raises(DataError, match=r"x\.npy is damaged"):
        good.split("validation")


def test_files_that_the_card_does_not_name_do_no_harm(good: Dataset) -> None:
    np.save(good.folder / "train" / "extra.npy", np.ones(3))
    check(good.folder)
    assert set(good.split("train")) == {"x", "label"}


EDITS: list[Any] = [
    lambda card: card.update(recipe={**card["recipe"], "seed": 6}),
    lambda card: card["splits"].pop("test"),
    lambda card: card["splits"]["test"]["x"].update(sha256="0" * 64),
    lambda card: card["splits"]["test"]["x"].update(sha256=3),
    lambda card: card["splits"]["test"]["x"].update(shape="big"),
    lambda card: card["splits"]["test"].update({"../../x": card["splits"]["test"]["x"]}),
    lambda card: card.update(world_digest="0" * 64),
    lambda card: card.update(digest="0" * 64),
    lambda card: card.update(splits={}),
    lambda card: card.pop("recipe"),
    lambda card: card.update(version="1"),
]


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_an_edited_card_is_refused(number: int, good: Dataset) -> None:
    path = good.folder / "card.json"
    card = json.loads(path.read_bytes())
    EDITS[number](card)
    path.write_text(json.dumps(card))
    with pytest.raises(DataError, match=r"card\.json (was edited|is no dataset card)"):
        check(good.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"version": NaN}'])
def test_a_card_that_is_no_card_is_refused(text: str, good: Dataset) -> None:
    (good.folder / "card.json").write_text(text)
    with pytest.raises(DataError, match=r"card\.json is"):
        check(good.folder)


def test_a_card_of_a_newer_version_is_refused_by_name(good: Dataset) -> None:
    path = good.folder / "card.json"
    path.write_text(json.dumps({**good.card, "version": 99}))
    with pytest.raises(DataError, match=r"format version 99.*reads up to 1\. Update ganglion"):
        check(good.folder)


def test_what_is_not_there_is_said(good: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no dataset"):
        dataset.open_dataset(tmp_path / "none")
    with pytest.raises(DataError, match=r"has no card\.json"):
        dataset.open_dataset(tmp_path)
    with pytest.raises(DataError, match="has no split 'tset'; it has train, validation, test"):
        good.split("tset")
