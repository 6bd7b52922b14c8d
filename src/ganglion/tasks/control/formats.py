"""The original's `.npz` of labelled trajectories: read with suspicion, written plainly.

Keys: initial_states (B, n), target_states (B, n), state_trajectories (B, N + 1, n),
control_sequences (B, N, m), costs (B,), all floats.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError, OutputError
from ganglion.tasks.control import checks
from ganglion.tasks.control.plant import Floats, Plant

KEYS = {
    "initial_states": "state",
    "target_states": "target",
    "state_trajectories": "states",
    "control_sequences": "controls",
    "costs": "cost",
}
_MOST_BYTES = 1 << 30


def write_npz(arrays: Arrays, path: Path) -> None:
    """Write the task's arrays under the original's keys; OutputError where that fails.

    costs are those of the exact optimum (J*), which for optimal labels is the labels' own cost.
    """
    renamed = {key: np.asarray(arrays[name]) for key, name in KEYS.items()}
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **renamed)  # type: ignore[arg-type]
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from error


def read_npz(path: Path, plant: Plant) -> dict[str, Floats]:
    """Read one file of the original for `plant`; float64 arrays under the task's names.

    Names, sizes and headers are checked before any array is read, and no pickle is. The states
    returned follow from the file's controls under this plant: the original simulated with another
    time step than it labelled, so its own trajectories are only checked to begin at the starts.
    DataError names file, key and index of the first fault.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _read(path, archive, plant)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is no intact .npz file: {error}.") from error
    try:
        for key in KEYS:
            checks.finite(key, found[key])
        checks.bounded(plant, "control_sequences", found["control_sequences"])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    _check_starts(path, found)
    state, controls = found["initial_states"], found["control_sequences"]
    return {
        "state": state,
        "target": found["target_states"],
        "states": plant.rollout(state, controls),
        "controls": controls,
        "cost": found["costs"],
    }


def _read(path: Path, archive: zipfile.ZipFile, plant: Plant) -> dict[str, Floats]:
    members = {m.filename: m for m in archive.infolist()}
    wanted = {f"{key}.npy" for key in KEYS}
    if set(members) != wanted or len(archive.infolist()) != len(wanted):
        raise DataError(
            f"{path} holds {_listed(members)}; a file of the original holds exactly "
            f"{_listed(KEYS)}."
        )
    total = sum(m.file_size for m in members.values())
    if total > _MOST_BYTES:
        raise DataError(f"{path} would unpack to {total:,} bytes; the limit is {_MOST_BYTES:,}.")
    rows: int | None = None
    found = {}
    for key, shape in _shapes(plant).items():
        with archive.open(f"{key}.npy") as file:
            header = _header(path, key, file, members[f"{key}.npy"].file_size)
        rows = header[0] if rows is None and header else rows
        if header != (rows, *shape):
            raise DataError(
                f"{path}: {key} has shape {header}; {(rows, *shape)} was expected. Set "
                "problem, problem.num_steps and problem.horizon_s to what the file was made with."
            )
    for key in KEYS:
        with archive.open(f"{key}.npy") as file:
            found[key] = _array(path, key, file)
    return found


def _shapes(plant: Plant) -> dict[str, tuple[int, ...]]:
    n, m, steps = plant.n, plant.m, plant.num_steps
    return {
        "initial_states": (n,), "target_states": (n,), "state_trajectories": (steps + 1, n),
        "control_sequences": (steps, m), "costs": (),
    }  # fmt: skip


def _header(path: Path, key: str, file: IO[bytes], size: int) -> tuple[int, ...]:
    """Return the shape that a member announces, once its size has been found to fit it."""
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except ValueError as error:
        raise DataError(f"{path}: {key} has a damaged header ({error}).") from error
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise DataError(f"{path}: {key} holds {dtype}; float32 or float64 was expected.")
    if not shape or 0 in shape:
        raise DataError(f"{path}: {key} has shape {shape}; at least one row was expected.")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if expected != size:
        raise DataError(
            f"{path}: {key} announces {shape} {dtype}, {expected:,} bytes, but holds {size:,}."
        )
    return tuple(int(i) for i in shape)


def _array(path: Path, key: str, file: IO[bytes]) -> Floats:
    try:
        found: Array = npy.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path}: {key} is damaged ({error}).") from error
    return found.astype(np.float64)


def _check_starts(path: Path, found: dict[str, Floats]) -> None:
    first, starts = found["state_trajectories"][:, 0], found["initial_states"]
    off = np.argwhere(np.abs(first - starts) > 1e-4 * (1.0 + np.abs(starts)))
    if off.size:
        row, column = (int(i) for i in off[0])
        raise DataError(
            f"{path}: state_trajectories[{row}, 0, {column}] is {first[row, column]:g}, but "
            f"initial_states[{row}, {column}] is {starts[row, column]:g}."
        )


def _listed(names: object) -> str:
    texts = sorted(str(n).removesuffix(".npy") for n in names)  # type: ignore[attr-defined]
    return ", ".join(texts[:10]) + (", ..." if len(texts) > 10 else "") or "nothing"
