"""A dataset is a folder: one .npy per array and split, and a card written last.

FOLDER/card.json            task, recipe (what the bytes follow from), shapes, SHA-256 sums
FOLDER/<split>/<array>.npy  read memory-mapped
FOLDER/parts/...            shards of an unfinished generation; gone once the card is there
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tokenize
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ganglion.core import files
from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError, OutputError, SettingsError
from ganglion.core.settings import digest

VERSION = 1
SPLITS = ("train", "validation", "test")
_UNREADABLE = (  # what reading a header raises, by where the damage is
    OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError,
    tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that a generated dataset follows from. Equal recipes give equal bytes."""

    task: str
    world: Mapping[str, Any]
    counts: Mapping[str, int]
    seed: int
    shard: int

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the recipe."""
        return digest(self.to_json())

    @property
    def world_digest(self) -> str:
        """Return the SHA-256 of task and world alone, whatever the seed and the counts."""
        return _world_digest(self.task, self.world)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as the card holds it."""
        return {
            "task": self.task, "world": dict(self.world), "counts": dict(self.counts),
            "seed": self.seed, "shard": self.shard,
        }  # fmt: skip

    def shards(self) -> Iterator[Shard]:
        """Yield every shard in order."""
        for split, count in self.counts.items():
            for index, start in enumerate(range(0, count, self.shard)):
                yield Shard(split, index, min(self.shard, count - start))


@dataclass(frozen=True)
class Shard:
    """`count` rows of one split, drawn from the stream (seed, split, index)."""

    split: str
    index: int
    count: int


@dataclass(frozen=True)
class Dataset:
    """A finished dataset on disk; `card` is its parsed card.json."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Return the digest over all contents."""
        return str(self.card["digest"])

    @property
    def task(self) -> str:
        """Return the name of the task it belongs to."""
        return str(self.card["recipe"]["task"])

    @property
    def world_digest(self) -> str:
        """Return the digest of the world it was drawn from."""
        return str(self.card["world_digest"])

    def rows(self, split: str) -> int:
        """Return the number of rows of one split; DataError where there is no such split."""
        entry = self._entry(split)
        return int(next(iter(entry.values()))["shape"][0])

    def split(self, name: str) -> dict[str, Array]:
        """Memory-map one split; DataError names a missing, truncated or ill-shaped file."""
        return {a: self._map(name, a, e) for a, e in self._entry(name).items()}

    def verify(self) -> None:
        """Compare every file with the card's SHA-256; DataError names the first that differs."""
        for split in self.card["splits"]:
            self.split(split)
            for array, entry in self._entry(split).items():
                path = self._path(split, array)
                if files.sha256(path) != entry["sha256"]:
                    raise DataError(
                        f"{path} was changed after it was generated (its SHA-256 differs from the "
                        "card). Generate the dataset again, or restore the file."
                    )

    def _path(self, split: str, array: str) -> Path:
        return self.folder / split / f"{array}.npy"

    def _entry(self, split: str) -> Mapping[str, Any]:
        splits = self.card["splits"]
        if split not in splits:
            raise DataError(f"{self.folder} has no split {split!r}; it has {', '.join(splits)}.")
        found: Mapping[str, Any] = splits[split]
        return found

    def _map(self, split: str, array: str, entry: Mapping[str, Any]) -> Array:
        path = self._path(split, array)
        try:
            with warnings.catch_warnings():  # a damaged header may look like one of Python 2
                warnings.simplefilter("ignore")
                found: Array = np.lib.format.open_memmap(path, mode="r")
        except FileNotFoundError:
            raise DataError(f"{path} is missing, though its card names it.") from None
        except _UNREADABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path} is damaged: {reason}.") from error
        if list(found.shape) != entry["shape"] or str(found.dtype) != entry["dtype"]:
            raise DataError(
                f"{path} holds {found.dtype}{list(found.shape)}, its card says "
                f"{entry['dtype']}{entry['shape']}. Generate it again."
            )
        return found


def open_dataset(folder: Path) -> Dataset:
    """Open a dataset folder; SettingsError where there is none, DataError where it is damaged."""
    if not folder.exists():
        raise SettingsError(f"There is no dataset {folder}.")
    path = folder / "card.json"
    if not path.is_file():
        raise DataError(
            f"{folder} has no card.json: it is no dataset, or generation did not finish "
            "(`ganglion generate` with the same settings goes on)."
        )
    try:
        card = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    _check_card(path, card)
    return Dataset(folder, card)


def _check_card(path: Path, card: Any) -> None:
    try:
        if card["version"] > VERSION:
            raise DataError(
                f"{path} has format version {card['version']}; this version of ganglion reads up "
                f"to {VERSION}. Update ganglion."
            )
        recipe = card["recipe"]
        texts = [recipe["task"], card["digest"], card["world_digest"]]
        entries = [(s, a, e) for s, arrays in card["splits"].items() for a, e in arrays.items()]
        fine = (
            all(isinstance(t, str) for t in texts)
            and bool(entries)
            and all(_plain(s) and _plain(a) for s, a, _ in entries)
            and all(
                isinstance(e["sha256"], str) and isinstance(e["dtype"], str) for *_, e in entries
            )
            and all(e["shape"] and all(isinstance(n, int) for n in e["shape"]) for *_, e in entries)
            and card["digest"] == _content_digest(recipe, card["splits"])
            and card["world_digest"] == _world_digest(recipe["task"], recipe["world"])
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no dataset card: {error!r} is missing or malformed.") from error
    if not fine:
        raise DataError(f"{path} was edited or damaged: its digest does not fit its contents.")


def _plain(name: str) -> bool:
    return name.replace("_", "").isalnum()


def write_arrays(
    folder: Path, splits: Mapping[str, Arrays], recipe: Recipe, **about: Any
) -> Dataset:
    """Write whole arrays (an import) as a dataset; the card comes last."""
    if (folder / "card.json").exists():
        raise SettingsError(f"{folder} holds a dataset already; choose another folder.")
    try:
        for split, arrays in splits.items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            for name, array in arrays.items():
                np.save(folder / split / f"{name}.npy", array, allow_pickle=False)
        entries = {s: {n: _describe(folder, s, n) for n in arrays} for s, arrays in splits.items()}
        return _write_card(folder, recipe, entries, about)
    except OSError as error:
        raise OutputError(f"Cannot write the dataset {folder}: {error.strerror}.") from error


def missing_shards(folder: Path, recipe: Recipe) -> list[Shard]:
    """Begin or continue a generation in `folder`: the shards that are not there yet.

    SettingsError where the folder holds something else.
    """
    mark = folder / "parts" / "recipe.json"
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise SettingsError(f"{folder} holds other files; choose another folder for the dataset.")
    try:
        if mark.is_file():
            if orjson.loads(mark.read_bytes()) != recipe.to_json():
                raise SettingsError(
                    f"{folder} holds an unfinished dataset of other settings; choose another "
                    "folder, or remove it."
                )
        else:
            mark.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(mark, recipe.to_json())
    except OSError as error:
        raise OutputError(f"Cannot write the dataset {folder}: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{mark} is damaged; remove {folder} and generate again.") from error
    return [s for s in recipe.shards() if not _part(folder, s).is_file()]


def store_shard(folder: Path, shard: Shard, arrays: Arrays) -> None:
    """Store one shard whole or not at all. DataError where the rows are not what was asked for."""
    for name, array in arrays.items():
        if len(array) != shard.count:
            raise DataError(
                f"The generator made {len(array)} rows of {name!r} in {shard}, not {shard.count}."
            )
        if array.dtype.hasobject or not _plain(name):
            raise DataError(
                f"The generator's array {name!r} has dtype {array.dtype} or a bad name."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(f"The generator made a non-finite value: {name}[{row}] of {shard}.")
    path = _part(folder, shard)
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"Cannot write {path}: {error.strerror}. What is generated stays; the same command "
            "goes on from there."
        ) from error


def finish(folder: Path, recipe: Recipe, units: Mapping[str, str], **about: Any) -> Dataset:
    """Join the shards into one .npy per array, write the card, remove the parts."""
    entries: dict[str, dict[str, Any]] = {}
    try:
        for split in recipe.counts:
            shards = [s for s in recipe.shards() if s.split == split]
            entries[split] = _join(folder, split, shards, units)
        dataset = _write_card(folder, recipe, entries, about)
        shutil.rmtree(folder / "parts")
    except OSError as error:
        raise OutputError(
            f"Cannot write the dataset {folder}: {error.strerror}. The same command goes on."
        ) from error
    return dataset


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Wait until no other process generates into `folder`, then keep others out.

    The lock lies beside the folder and goes with its holder.
    """
    try:
        whole = folder.resolve()
        handle = whole.with_name(f".{whole.name}.lock").open("a")
    except OSError as error:
        raise OutputError(f"Cannot write beside {folder}: {error.strerror}.") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def generate(
    folder: Path,
    recipe: Recipe,
    make: Callable[[Iterable[Shard]], Iterable[tuple[Shard, Arrays]]],
    units: Mapping[str, str],
    progress: Callable[[int, int], None],
) -> Dataset:
    """Generate the missing shards with `make` (any order) and finish the dataset.

    progress(done, total) is called with rows. The bytes do not depend on order or workers.
    """
    todo = missing_shards(folder, recipe)
    total = sum(recipe.counts.values())
    done = total - sum(s.count for s in todo)
    for shard, arrays in make(todo):
        store_shard(folder, shard, arrays)
        done += shard.count
        progress(done, total)
    return finish(folder, recipe, units)


def _join(
    folder: Path, split: str, shards: list[Shard], units: Mapping[str, str]
) -> dict[str, Any]:
    (folder / split).mkdir(exist_ok=True)
    total = sum(s.count for s in shards)
    out: dict[str, np.memmap[Any, Any]] = {}
    start = 0
    for shard in shards:
        path = _part(folder, shard)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as part:
                if shard is not shards[0] and set(part.files) != set(out):
                    raise DataError(_uneven(shard, sorted(set(part.files) ^ set(out))))
                for name in part.files:
                    rows = part[name]
                    if name not in out:
                        out[name] = np.lib.format.open_memmap(
                            folder / split / f"{name}.npy", mode="w+", dtype=rows.dtype,
                            shape=(total, *rows.shape[1:]),
                        )  # fmt: skip
                    whole = out[name]
                    if (rows.dtype, rows.shape[1:]) != (whole.dtype, whole.shape[1:]):
                        raise DataError(_uneven(shard, [name]))
                    whole[start : start + shard.count] = rows
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            path.unlink(missing_ok=True)
            raise DataError(f"{path} was damaged and is removed; run the same command.") from error
        start += shard.count
    for array in out.values():
        array.flush()
    return {name: _describe(folder, split, name, units.get(name, "1")) for name in out}


def _uneven(shard: Shard, names: list[str]) -> str:
    return (
        f"The generator's arrays differ between shard 0 of {shard.split} and shard {shard.index}: "
        f"{', '.join(names)}. Every shard must give the same names, dtypes and row shapes."
    )


def _describe(folder: Path, split: str, name: str, unit: str = "1") -> dict[str, Any]:
    path = folder / split / f"{name}.npy"
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return {
        "shape": list(array.shape), "dtype": str(array.dtype), "unit": unit,
        "sha256": files.sha256(path),
    }  # fmt: skip


def _write_card(
    folder: Path, recipe: Recipe, splits: Mapping[str, Any], about: Mapping[str, Any]
) -> Dataset:
    recipe_json = recipe.to_json()
    card = {
        "version": VERSION, "recipe": recipe_json, "recipe_digest": recipe.digest,
        "world_digest": recipe.world_digest, "splits": splits, "about": dict(about),
        "digest": _content_digest(recipe_json, splits),
    }  # fmt: skip
    files.write_json(folder / "card.json", card)
    return open_dataset(folder)


def _content_digest(recipe: Mapping[str, Any], splits: Mapping[str, Any]) -> str:
    sums = {s: {a: e["sha256"] for a, e in arrays.items()} for s, arrays in splits.items()}
    return digest(json.loads(json.dumps({"recipe": recipe, "sums": sums})))


def _world_digest(task: str, world: Mapping[str, Any]) -> str:
    return digest({"task": task, "world": dict(world)})


def _part(folder: Path, shard: Shard) -> Path:
    return folder / "parts" / shard.split / f"{shard.index:06d}.npz"
