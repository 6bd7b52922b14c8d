"""The original's .npz: round trip, and every way in which a file can be wrong."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ganglion import registry
from ganglion.core.errors import DataError, OutputError
from ganglion.tasks.control import formats
from ganglion.tasks.control.task import Control

LAYERS = [{"problem": {"target": "moving"}, "labels": "imported"}]


@pytest.fixture(scope="module")
def task() -> Control:
    return Control(registry.resolve("control", "standard", LAYERS))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    layers = [{"problem": {"target": "moving"}}]
    made = Control(registry.resolve("control", "standard", layers))  # type: ignore[arg-type]
    return dict(made.generate(12, "train", np.random.default_rng(0)))


def original(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: arrays[name].copy() for key, name in formats.KEYS.items()}


def test_a_file_comes_back_as_it_was_written(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "lqr_dataset.npz"
    task.formats["npz"](arrays, path)
    with np.load(path, allow_pickle=False) as written:
        assert set(written.files) == {"initial_states", "target_states", "state_trajectories",
                                      "control_sequences", "costs"}  # fmt: skip
    back = task.importers["npz"](path)
    task.check(back)
    assert set(back) == set(arrays)
    for name in ("state", "target", "controls", "time_left_s"):
        assert (back[name] == arrays[name]).all()
    assert back["cost"] == pytest.approx(arrays["cost"])
    assert back["states"] == pytest.approx(arrays["states"], abs=1e-5)


@pytest.mark.parametrize(
    ("key", "index", "value", "message"),
    [
        ("costs", (3,), np.nan, r"bad.npz: costs\[3\] is nan, not a finite number"),
        ("target_states", (1, 1), np.inf, r"bad.npz: target_states\[1, 1\] is inf"),
        ("control_sequences", (2, 4, 0), -9.0, r"control_sequences\[2, 4, 0\] is -9, beyond"),
        ("state_trajectories", (5, 0, 1), 7.0, r"state_trajectories\[5, 0, 1\] is 7, but initial"),
    ],
)
def test_a_bad_value_is_named_by_file_key_and_index(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path,
    key: str, index: tuple[int, ...], value: float, message: str,
) -> None:  # fmt: skip
    data = original(arrays)
    data[key][index] = value
    np.savez(tmp_path / "bad.npz", **data)
    with pytest.raises(DataError, match=message):
        task.importers["npz"](tmp_path / "bad.npz")


def test_wrong_members_are_listed(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    data = original(arrays)
    del data["costs"]
    np.savez(tmp_path / "bad.npz", **data)
    with pytest.raises(DataError, match="a file of the original holds exactly control_sequences, "):
        task.importers["npz"](tmp_path / "bad.npz")


def test_another_horizon_is_refused_with_advice(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    data = original(arrays)
    data["control_sequences"] = data["control_sequences"][:, :9]
    np.savez(tmp_path / "bad.npz", **data)
    expected = r"shape \(12, 9, 1\); \(12, 15, 1\) was expected. Set problem"
    with pytest.raises(DataError, match=expected):
        task.importers["npz"](tmp_path / "bad.npz")


def test_pickles_are_never_read(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    data = {**original(arrays), "costs": np.array([print] * 12, dtype=object)}
    np.savez(tmp_path / "bad.npz", **data)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="costs holds object; float32 or float64 was expected"):
        task.importers["npz"](tmp_path / "bad.npz")
    path = tmp_path / "raw.npz"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(DataError, match=r"is no intact \.npz file"):
        task.importers["npz"](path)


def test_a_header_that_promises_more_than_it_holds_is_refused(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, **original(arrays))
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as sink:
        for name in source.namelist():
            content = source.read(name)
            sink.writestr(name, content[:-8] if name == "costs.npy" else content)
    with pytest.raises(DataError, match=r"costs announces \(12,\) float64, .* bytes, but holds"):
        task.importers["npz"](bad)


def test_truncated_and_missing_files_are_data_errors(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **original(arrays))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"bad.npz is no intact .npz file"):
        task.importers["npz"](path)
    with pytest.raises(DataError, match=r"Cannot read .*none\.npz: No such file"):
        task.importers["npz"](tmp_path / "none.npz")


def test_a_file_that_cannot_be_written_is_an_output_error(
    task: Control, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        task.formats["npz"](arrays, tmp_path / "missing" / "out.npz")
