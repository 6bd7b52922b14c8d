"""Checkpoints: a folder each, safetensors and JSON with digests, there whole or not at all.

checkpoints/step_00001000/state.safetensors   every tensor and array of the state
                          state.json          the state's tree and scalars
                          manifest.json       SHA-256 of both, versions, its own digest
checkpoints/latest                            advisory; truth is what verifies on disk
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ganglion.core import files
from ganglion.core.errors import CheckpointError
from ganglion.core.failpoints import passing

VERSION = 1
LARGEST = 4 << 30  # bytes of one file; small policies are far below
_NAME = re.compile(r"step_(\d{8,})")
_FILES = {"state.safetensors", "state.json"}


@dataclass(frozen=True)
class Loaded:
    """A verified checkpoint."""

    path: Path
    step: int
    state: dict[str, Any]
    about: dict[str, Any]


# ---------------------------------------------------------------- writing


def save(folder: Path, step: int, state: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Write `state` as FOLDER/step_XXXXXXXX, durably and atomically; OSError where it cannot.

    A failed or killed write leaves older checkpoints as they are. about is JSON for people and
    for checks (versions, digests, validation value).
    """
    target = folder / f"step_{step:08d}"
    part = folder / f"{target.name}.tmp-{uuid.uuid4().hex[:8]}"
    contents = _serialise(state)
    contents["manifest.json"] = _manifest(step, contents, about)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    try:
        part.mkdir(mode=0o700)
        for name, data in contents.items():
            _write_synced(part / name, data)
        files.sync_folder(part)
        passing("checkpoint.written")
        if target.exists():  # the same step again, after a roll-back or a damaged file
            shutil.rmtree(target)
        os.rename(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    passing("checkpoint.renamed")
    files.sync_folder(folder)
    with contextlib.suppress(OSError):  # advisory: truth is what verifies
        files.replace_text(folder / "latest", target.name + "\n")
    passing("checkpoint.pointed")
    return target


def prune(folder: Path, step: int, best: int | None, keep_every: int | None) -> None:
    """Remove all but the best, the last two, and the first after every `keep_every` steps.

    step is the one just saved. Later ones did not verify when the run went on from before them;
    counted among the last two, they would push out the good ones.
    """
    every = listed(folder)
    steps = [s for s in every if s <= step]
    keep = {*steps[-2:], best}
    if keep_every:
        first: dict[int, int] = {}
        for kept in steps:
            first.setdefault(kept // keep_every, kept)
        keep |= set(first.values())
    for gone in set(every) - keep:
        shutil.rmtree(folder / f"step_{gone:08d}", ignore_errors=True)
        passing("checkpoint.pruned")


def _serialise(state: Mapping[str, Any]) -> dict[str, bytes]:
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(state, "", tensors)
    # cloned: safetensors refuses tensors that share storage
    data = save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    return {"state.safetensors": data, "state.json": json.dumps(tree, sort_keys=True).encode()}


def _flatten(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray):
        while where in tensors:  # {"a/b": x, "a": {"b": y}}
            where += "'"
        if isinstance(value, torch.Tensor):
            tensors[where] = value
            return {"$tensor": where}
        tensors[where] = torch.from_numpy(np.array(value))
        return {"$array": where}
    if isinstance(value, Mapping):
        items = [[k, _flatten(v, f"{where}/{k}", tensors)] for k, v in value.items()]
        if all(isinstance(k, str) and not k.startswith("$") for k, _ in items):
            return dict(items)
        return {"$items": items}
    if isinstance(value, tuple | list):
        parts = [_flatten(v, f"{where}/{i}", tensors) for i, v in enumerate(value)]
        return {"$tuple": parts} if isinstance(value, tuple) else parts
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"A state may not hold {type(value).__name__} (at {where or 'its root'}).")


def _manifest(step: int, contents: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    sums = {n: {"sha256": _sha(d), "bytes": len(d)} for n, d in contents.items()}
    manifest = {"version": VERSION, "step": step, "files": sums, "about": files.finite(dict(about))}
    return _canonical({**manifest, "digest": _sha(_canonical(manifest))})


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        os.chmod(path, 0o600)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove_leftovers(folder: Path) -> None:
    for left in folder.glob("step_*.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)


# ---------------------------------------------------------------- reading


def listed(folder: Path) -> list[int]:
    """Return the steps of all checkpoints in `folder`, whole or not, ascending."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(p.name) for p in folder.iterdir() if p.is_dir())
    return sorted(int(m.group(1)) for m in found if m)


def load(path: Path) -> Loaded:
    """Read and verify one checkpoint folder; CheckpointError in one sentence where it is bad."""
    manifest = _read_manifest(path)
    names = {p.name for p in path.iterdir()} - {"manifest.json"}
    if names != _FILES:
        wrong = ", ".join(sorted(names ^ _FILES))
        raise CheckpointError(f"{path} has missing or extra files: {wrong}.")
    data = {}
    for name in _FILES:
        entry = manifest["files"][name]
        if (path / name).stat().st_size != entry["bytes"] or entry["bytes"] > LARGEST:
            raise CheckpointError(f"{path / name} is truncated or has grown.")
        data[name] = (path / name).read_bytes()
        if _sha(data[name]) != entry["sha256"]:
            raise CheckpointError(f"{path / name} is damaged: its SHA-256 differs.")
    try:
        tensors = load_tensors(data["state.safetensors"])
        state = _unflatten(json.loads(data["state.json"]), tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    return Loaded(path, manifest["step"], state, manifest["about"])


def load_newest(folder: Path) -> tuple[Loaded | None, list[str]]:
    """Return the newest checkpoint that verifies, and one sentence for each newer one that is bad.

    A checkpoint of a newer version of the product is an error, not a reason to fall back.
    """
    bad: list[str] = []
    for step in reversed(listed(folder)):
        try:
            return load(folder / f"step_{step:08d}"), bad
        except NewerCheckpointError:
            raise
        except (CheckpointError, OSError) as error:
            bad.append(str(error))
    return None, bad


class NewerCheckpointError(CheckpointError):
    """A checkpoint was written by a newer version of the product."""


def peek(path: Path) -> dict[str, Any]:
    """Return a checkpoint's `about` without reading its tensors."""
    about: dict[str, Any] = _read_manifest(path)["about"]
    return about


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    try:
        data = file.read_bytes()
        manifest: dict[str, Any] = json.loads(data)
        version = manifest["version"]
        if isinstance(version, int) and version > VERSION:
            raise NewerCheckpointError(
                f"{path} has checkpoint format {version}; this version of ganglion reads up to "
                f"{VERSION}. Update ganglion to read it."
            )
        rest = {k: v for k, v in manifest.items() if k != "digest"}
        fine = data == _canonical(manifest) and manifest["digest"] == _sha(_canonical(rest))
        named = _NAME.fullmatch(path.name)
        fine = fine and (named is None or int(named.group(1)) == manifest["step"])
        fine = fine and {*manifest["files"]} == _FILES and isinstance(manifest["about"], dict)
        fine = fine and all({"sha256", "bytes"} <= {*e} for e in manifest["files"].values())
    except FileNotFoundError:
        raise CheckpointError(f"{path} has no manifest.json: it was never finished.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}.") from error
    if not fine:
        raise CheckpointError(f"{file} is damaged: its digest differs.")
    return manifest


def _unflatten(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return [_unflatten(v, tensors) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        return tensors[tree["$tensor"]]
    if "$array" in tree:
        return tensors[tree["$array"]].numpy()
    if "$tuple" in tree:
        return tuple(_unflatten(v, tensors) for v in tree["$tuple"])
    if "$items" in tree:
        return {k: _unflatten(v, tensors) for k, v in tree["$items"]}
    return {k: _unflatten(v, tensors) for k, v in tree.items()}


# ---------------------------------------------------------------- digests


def state_digest(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 over every tensor, array and scalar of a state, names included."""
    total = hashlib.sha256()
    for name, data in _leaves(state, ""):
        total.update(name.encode() + b"\0" + data + b"\0")
    return total.hexdigest()


def _leaves(value: Any, where: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, Mapping):
        for k in sorted(value, key=str):
            yield from _leaves(value[k], f"{where}/{k}")
    elif isinstance(value, tuple | list):
        for i, v in enumerate(value):
            yield from _leaves(v, f"{where}/{i}")
    elif isinstance(value, torch.Tensor | np.ndarray):
        held = torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        tensor = held.detach().cpu().contiguous()
        yield where, f"{tensor.dtype}{tuple(tensor.shape)}".encode()
        yield where, tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield where, json.dumps(value).encode()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
