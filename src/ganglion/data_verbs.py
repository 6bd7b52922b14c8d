"""`data check|show|import|export` for every task: datasets, and the foreign files tasks know.

A task may offer `importers` (format -> function from a path to arrays), `formats` (format ->
function that writes arrays to a path), `check(arrays)` (raises DataError or returns sentences),
`import_settings` (dotted settings that imported data imply), `groups(arrays)` (a number for each
row; rows of one number belong into one split) and `draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ganglion import registry, scoring
from ganglion.core import dataset, files, seeds
from ganglion.core.contracts import Array, Arrays, Task
from ganglion.core.dataset import Dataset, Recipe
from ganglion.core.errors import DataError, OutputError, SettingsError, unknown
from ganglion.core.settings import dotted
from ganglion.train.settings import TaskSettings

Layers = Sequence[Mapping[str, Any]]
PIECE = 1 << 16  # rows looked at together


# ---------------------------------------------------------------- check


def check(path: Path, task: str | None, format: str | None, layers: Layers) -> dict[str, Any]:
    """Validate a dataset folder or a foreign file; {"ok", "path", "task", "splits", "faults",
    "checked"}.

    A dataset: card, digests, finiteness by file, key and index, the task's own check. A foreign
    file: whatever its importer checks. SettingsError where there is nothing at `path`.
    """
    if not path.exists():
        raise SettingsError(f"There is no file or folder {path}.")
    if path.is_dir():
        found = dataset.open_dataset(path)
        faults = [*_faults(found), *_own_faults(found, layers)]
        splits = {s: found.rows(s) for s in found.card["splits"]} if not faults else {}
        checked = ["card", "digests", "finite values", f"the checks of {found.task}"]
        name = found.task
    else:
        made, _, arrays, faults = _read_foreign(path, task, format, layers)
        faults += list(_nonfinite(str(path), arrays)) or _task_faults(made, arrays, str(path))
        splits = {"file": len(next(iter(arrays.values())))} if arrays else {}
        checked = ["format", "finite values", f"the checks of {task}"]
        name = str(task)
    return {"ok": not faults, "path": str(path), "task": name, "splits": splits,
            "faults": faults, "checked": checked}  # fmt: skip


def _faults(found: Dataset) -> Iterator[str]:
    """Yield one sentence for each file that is missing, damaged, changed or not finite."""
    for split, arrays in found.card["splits"].items():
        for name, entry in arrays.items():
            file = found.folder / split / f"{name}.npy"
            one = Dataset(found.folder, {**found.card, "splits": {split: {name: entry}}})
            try:
                one.verify()
                yield from _nonfinite(str(file), one.split(split))
            except DataError as error:
                yield str(error)


def _nonfinite(where: str, arrays: Arrays) -> Iterator[str]:
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        for begin in range(0, len(array), PIECE):
            bad = np.argwhere(~np.isfinite(array[begin : begin + PIECE]))
            if bad.size:
                index = [begin + int(bad[0][0]), *[int(i) for i in bad[0][1:]]]
                value = array[tuple(index)]
                yield f"{where}: {name}{index} is {value}; every value must be finite."
                break


def _own_faults(found: Dataset, layers: Layers) -> list[str]:
    cfg = settings_of(found, layers)
    made = registry.make(found.task, cfg)
    faults, groups = [], {}
    for split in found.card["splits"]:
        try:
            arrays = found.split(split)
        except DataError:
            continue  # said already
        own = _task_faults(made, arrays, f"{found.folder}/{split}")
        faults += own
        if hasattr(made, "groups") and not own:
            groups[split] = made.groups(arrays)
    return [*faults, *_shared(found.folder, groups)]


def _shared(folder: Path, groups: Mapping[str, Array]) -> Iterator[str]:
    """Yield one sentence for each pair of splits that share what should be in one."""
    for one, other in combinations(groups, 2):
        both = np.isin(groups[other], groups[one])
        if both.any():
            yield (
                f"{folder}: {int(both.sum()):,} of {len(both):,} rows of {other} are in {one} too, "
                "but for what the task takes as equal; import the data again."
            )


def _task_faults(made: Task, arrays: Arrays, where: str) -> list[str]:
    own: Callable[[Arrays], Sequence[str] | None] | None = getattr(made, "check", None)
    if own is None or not arrays:
        return []
    try:
        return [f"{where}: {text}" for text in own(arrays) or ()]
    except DataError as error:
        return [f"{where}: {error}"]


def settings_of(found: Dataset, layers: Layers = ()) -> TaskSettings:
    """Return settings under which a dataset's world is the one it was made in.

    By convention a world is a part of the settings, so it is tried as a layer. DataError where
    it does not fit and `layers` do not say better.
    """
    world = found.card["recipe"]["world"]
    fields = registry.settings(found.task).model_fields
    named = {k: v for k, v in world.items() if k in fields}
    try:
        cfg = registry.resolve(found.task, None, [named, *layers])
    except SettingsError as error:
        raise DataError(f"{found.folder} does not fit this version's settings: {error}") from error
    scoring.check_fits(found, found.task, cfg)
    return cfg


# ---------------------------------------------------------------- show


def show(
    path: Path,
    task: str | None,
    format: str | None,
    layers: Layers,
    *,
    rows: int = 3,
    out: Path | None = None,
) -> dict[str, Any]:
    """Return a dataset's card, its first rows, and pictures written to `out`."""
    if not path.exists():
        raise SettingsError(f"There is no dataset or file {path}.")
    if path.is_dir():
        found = dataset.open_dataset(path)
        splits = {s: {n: dict(e) for n, e in a.items()} for s, a in found.card["splits"].items()}
        split = next(iter(splits))
        arrays: Arrays = found.split(split)
        cfg = settings_of(found, layers) if out is not None else None
        about = {"task": found.task, "digest": found.digest, "recipe": found.card["recipe"],
                 "bytes": sum(p.stat().st_size for p in path.rglob("*.npy"))}  # fmt: skip
    else:
        made, cfg, arrays, faults = _read_foreign(path, task, format, layers)
        if faults:
            raise DataError(faults[0])
        units = getattr(made, "units", {})
        splits = {"file": {n: {"shape": list(a.shape), "dtype": str(a.dtype),
                               "unit": units.get(n, "1")} for n, a in arrays.items()}}  # fmt: skip
        split = "file"
        about = {"task": task, "digest": files.sha256(path), "recipe": None,
                 "bytes": path.stat().st_size}  # fmt: skip
    first = {f"{split}/{n}": [_short(a[i]) for i in range(min(rows, len(a)))]
             for n, a in arrays.items()}  # fmt: skip
    pictures = _pictures(str(about["task"]), cfg, arrays, out) if out and cfg else []
    return {**about, "splits": splits, "rows": first, "pictures": [str(p) for p in pictures]}


def _short(row: Array) -> Any:
    flat = np.asarray(row)
    return flat.tolist() if flat.size <= 16 else f"{flat.ravel()[:8].tolist()}... {flat.shape}"


def _pictures(task: str, cfg: TaskSettings, arrays: Arrays, out: Path) -> list[Path]:
    made = registry.make(task, cfg)
    draw = getattr(made, "draw", None)
    if draw is None:
        raise SettingsError(f"The task {task} draws no pictures; leave --out out.")
    from ganglion.report.figures import png

    cases = {name: np.array(array[:200]) for name, array in arrays.items()}
    oracle = made.references()["oracle"]
    written = []
    files.ensure_writable(out)
    for name, figure in draw(oracle, cases, seeds.rng(0, "draw")).items():
        written.append(out / f"{name}.png")
        files.write_bytes(written[-1], figure if isinstance(figure, bytes) else png(figure))
    return written


# ---------------------------------------------------------------- import and export


def import_file(
    path: Path,
    task: str,
    format: str | None,
    layers: Layers,
    *,
    out: Path | None,
    home: Path,
    shares: Mapping[str, float],
    seed: int = 0,
) -> Dataset:
    """Make a dataset of a foreign file; its rows are shuffled by `seed` into splits by `shares`.

    The recipe's world is that of the settings. DataError where the file is damaged or does not
    fit them, OutputError where the dataset cannot be written.
    """
    if not path.exists():
        raise SettingsError(f"There is no file {path}.")
    made, cfg, arrays, faults = _read_foreign(path, task, format, layers)
    faults += list(_nonfinite(str(path), arrays)) or _task_faults(made, arrays, str(path))
    if faults:
        raise DataError(faults[0])
    digest = files.sha256(path)
    target = out or home / "datasets" / task / f"import_{digest[:16]}"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError(f"{target} exists already; choose another --out.")
    groups = made.groups(arrays) if hasattr(made, "groups") else None
    splits = _split(arrays, shares, seed, groups)
    counts = {name: len(next(iter(part.values()))) for name, part in splits.items()}
    recipe = Recipe(task, cfg.world(), counts, seed, max(counts.values()))
    files.ensure_writable(target)
    source = {"file": path.name, "sha256": digest, "shares": dict(shares)}
    return dataset.write_arrays(target, splits, recipe, imported=source)


def _split(
    arrays: Arrays, shares: Mapping[str, float], seed: int, groups: Array | None = None
) -> dict[str, dict[str, Array]]:
    """Return the rows by split; those of one group go together, into the split of its first."""
    rows = len(next(iter(arrays.values())))
    order = seeds.rng(seed, "import").permutation(rows) if len(shares) > 1 else np.arange(rows)
    ends = np.round(np.cumsum(list(shares.values())) * rows).astype(int).tolist()
    if groups is not None and len(shares) > 1:
        order, ends = _together(order, ends, groups)
    splits = {}
    for name, begin, end in zip(shares, [0, *ends[:-1]], ends, strict=True):
        if begin == end:
            kinds = "" if groups is None else f" of {len(np.unique(groups))} different ones"
            raise SettingsError(
                f"{rows} rows{kinds} leave none for the split {name!r}; change --fractions or give "
                "--split."
            )
        splits[name] = {key: array[np.sort(order[begin:end])] for key, array in arrays.items()}
    return splits


def _together(order: Array, ends: list[int], groups: Array) -> tuple[Array, list[int]]:
    """Return an order in which rows of one group follow each other, and ends between groups."""
    names, first = np.unique(groups[order], return_index=True)
    place = np.empty(len(names), np.int64)
    place[np.argsort(first)] = np.arange(len(names))  # groups as their first rows come
    rank = place[np.searchsorted(names, groups[order])]
    order, rank = order[np.argsort(rank, kind="stable")], np.sort(rank, kind="stable")
    borders = np.append(np.flatnonzero(np.diff(rank)) + 1, len(order))
    return order, [int(borders[np.abs(borders - end).argmin()]) if end < len(order) else end
                   for end in ends]  # fmt: skip


def export_file(path: Path, format: str | None, out: Path, split: str, layers: Layers) -> Path:
    """Write one split of a dataset in a foreign format of its task; returns the file."""
    found = dataset.open_dataset(path)
    made = registry.make(found.task, settings_of(found, layers))
    writers: Mapping[str, Callable[[Arrays, Path], None]] = getattr(made, "formats", {})
    name = format or out.suffix.lstrip(".")
    if name not in writers:
        raise SettingsError(unknown(f"export format of {found.task}", name, writers))
    arrays = found.split(split)
    if out.exists():
        raise SettingsError(f"{out} exists already; choose another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writers[name](arrays, out)
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {error.strerror}.") from error
    return out


def _read_foreign(
    path: Path, task: str | None, format: str | None, layers: Layers
) -> tuple[Task, TaskSettings, Arrays, list[str]]:
    """Read a foreign file by one of the task's importers: task, settings, arrays, faults."""
    if not path.is_file():
        raise SettingsError(f"{path} is no file that can be read as a whole.")
    if task is None:
        raise SettingsError(f"{path} is no dataset folder; say whose format it is with --task T.")
    cfg = registry.resolve(task, None, layers)
    made = registry.make(task, cfg)
    implied = getattr(made, "import_settings", None)
    if implied:
        cfg = registry.resolve(task, None, [dotted(implied), *layers])
        made = registry.make(task, cfg)
    importers: Mapping[str, Callable[[Path], Arrays]] = getattr(made, "importers", {})
    name = format or path.suffix.lstrip(".")
    if name not in importers:
        raise SettingsError(unknown(f"import format of {task}", name, importers))
    try:
        return made, cfg, importers[name](path), []
    except DataError as error:
        return made, cfg, {}, [str(error)]
