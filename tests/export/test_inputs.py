from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.core.errors import DataError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export.inputs import check, check_outputs, defaults, draw

from .toys import FIELD, FLAT, MEMORY

MIXED = Signature(
    inputs={
        "speed": TensorSpec((2,), unit="m/s", low=0.1, high=0.7),
        "token": TensorSpec(("length",), "int64", low=0, high=4),
        "mask": TensorSpec(("length",), "bool"),
        "pixel": TensorSpec((3,), "uint8"),
    },
    outputs={"y": TensorSpec((2,))},
)
GOOD: dict[str, Any] = {
    "speed": [[0.1, 0.7]],
    "token": [[0, 4, 2]],
    "mask": [[True, False, True]],
    "pixel": [[0, 255, 3]],
}


def test_lists_become_arrays_of_the_declared_types_in_order() -> None:
    arrays = check(dict(reversed(GOOD.items())), MIXED)
    assert list(arrays) == ["speed", "token", "mask", "pixel"]
    assert [str(a.dtype) for a in arrays.values()] == ["float32", "int64", "bool", "uint8"]


def test_a_good_array_is_not_copied() -> None:
    obs = np.zeros((3, 6), np.float32)
    assert check({"obs": obs}, FLAT)["obs"] is obs
    assert check({"obs": obs[:, ::-1]}, FLAT)["obs"].flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("speed", [[0.1, float("nan")]], r"'speed' is not finite in float32 at index \(0, 1\)"),
        ("speed", [[float("inf"), 0.1]], "'speed' is not finite"),
        ("speed", [[-float("inf"), 0.1]], "'speed' is not finite"),
        ("speed", [[1e300, 0.1]], "'speed' is not finite in float32"),
        ("speed", [[0.8, 0.1]], r"'speed' is 0\.8\d* at index \(0, 0\); its high is 0\.7 m/s"),
        ("speed", [[0.2, 0.05]], r"'speed' is 0\.05\d* at index \(0, 1\); its low is 0\.1 m/s"),
        ("speed", [["fast", "slow"]], "'speed' holds text or mixed values; expected float32"),
        ("speed", [[None, 0.1]], "'speed' holds text or mixed values"),
        ("speed", [[0.1 + 0j, 0.1]], "'speed' holds complex128"),
        ("speed", [[0.1], [0.1, 0.2]], "'speed' is not an array with rows of equal length"),
        ("speed", [[10**400, 0.1]], "'speed' holds text or mixed values"),
        ("speed", [0.1, 0.2], r"'speed' has shape \(2,\); expected \(batch, 2\)"),
        ("speed", [[0.1, 0.2, 0.3]], r"'speed' has shape \(1, 3\); expected \(batch, 2\)"),
        ("speed", 0.1, r"'speed' has shape \(\); expected"),
        ("speed", np.zeros((0, 2)), "'speed' is empty: its axis 'batch' has size 0"),
        ("token", [[0, 1, 5]], "'token' is 5 at .*; its high is 4"),
        ("token", [[0, 1, -1]], "'token' is -1 at .*; its low is 0"),
        (
            "token",
            [[0, 1, 1.5]],
            r"'token' holds float64 values that are no int64 at index \(0, 2\)",
        ),
        ("token", [[0, 1, float("nan")]], "'token' holds float64 values that are no int64"),
        ("token", [[0, 1, 2**70]], "'token' holds"),
        ("token", [[0, 1]], "'mask' has length=3, but 'token' has length=2"),
        ("token", [[0, 1, 2]] * 2, "'token' has batch=2, but 'speed' has batch=1"),
        ("token", {"a": 1}, "'token' holds text or mixed values"),
        ("mask", [[0, 1, 2]], "'mask' holds int64 values that are no bool"),
        ("pixel", [[0, 256, 3]], "'pixel' holds int64 values that are no uint8"),
        ("pixel", [[0, -1, 3]], "'pixel' holds int64 values that are no uint8"),
    ],
)
def test_a_hostile_input_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check({**GOOD, name: value}, MIXED)


def test_an_unknown_input_comes_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match=r"Unknown input 'tokn'\. Did you mean 'token'"):
        check({**GOOD, "tokn": 1}, MIXED)
    with pytest.raises(SettingsError, match="'speed' is missing; this policy takes speed, token"):
        check({k: v for k, v in GOOD.items() if k != "speed"}, MIXED)


def test_ranges_can_be_left_out_but_never_those_of_steps() -> None:
    far = {**GOOD, "speed": [[5.0, 5.0]]}
    assert check(far, MIXED, ranges=False)["speed"].max() == 5.0
    grid = np.zeros((1, 2, 3, 3), np.float32)
    for steps in (0, 10, -1):
        with pytest.raises(SettingsError, match="'cycles' is "):
            check({"grid": grid, "cycles": steps}, FIELD, ranges=False)


def test_an_unbatched_input_is_a_scalar() -> None:
    grid = np.zeros((1, 2, 3, 3), np.float32)
    assert check({"grid": grid, "cycles": 4}, FIELD)["cycles"].shape == ()
    with pytest.raises(SettingsError, match=r"'cycles' has shape \(1,\); expected \(\)"):
        check({"grid": grid, "cycles": [4]}, FIELD)


@pytest.mark.parametrize("signature", [FLAT, FIELD, MEMORY, MIXED])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_what_is_drawn_passes_the_check(signature: Signature, batch: int) -> None:
    for step in range(20):
        check(draw(signature, batch, rng(0, "draw", step)), signature)


def test_drawn_rows_hold_every_edge_case() -> None:
    bare = Signature({"x": TensorSpec((4,))}, {})
    x = draw(bare, 2000, rng(0, "edge"))["x"]
    low, high = (x == -1e3).all(1), (x == 1e3).all(1)
    tiny = ((np.abs(x) < 1e-5) & (x != 0)).all(1)
    corners = (np.abs(x) == 1e3).all(1) & ~low & ~high
    repeated = np.r_[False, (x[1:] == x[:-1]).all(1)]
    for edge in ((x == 0).all(1), low, high, tiny, corners, repeated):
        assert 0.03 < edge.mean() < 0.2
    cycles = {int(draw(FIELD, 1, rng(0, i))["cycles"]) for i in range(100)}
    assert cycles == set(range(1, 10))


def test_the_same_stream_draws_the_same_inputs() -> None:
    first, second = (draw(FIELD, 5, rng(3, "same")) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_what_a_caller_may_leave_out_is_filled() -> None:
    filled = defaults(MEMORY, batch=2)
    assert set(filled) == {"noise", "hidden"}
    assert not filled["noise"].any()
    drawn = defaults(MEMORY, batch=2, rng=rng(0, "noise"))
    assert drawn["noise"].std() > 0
    assert not drawn["hidden"].any()
    assert defaults(FIELD)["cycles"] == 9
    assert defaults(FIELD, steps={"cycles": 3})["cycles"] == 3
    uniform = Signature({"u": TensorSpec((2, "n"), role="uniform", low=1.0, high=3.0)}, {})
    assert defaults(uniform, sizes={"n": 4})["u"].tolist() == [[[2.0] * 4] * 2]
    with pytest.raises(SettingsError, match="'u' needs the size of its axis 'n'"):
        defaults(uniform)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "'action' is missing"),
        ({"action": np.zeros((1, 3))}, r"shape \(1, 3\); expected \(2, 3\)"),
        ({"action": np.zeros((2, 4))}, r"shape \(2, 4\); expected \(2, 3\)"),
        ({"action": np.full((2, 3), np.nan)}, r"'action' is not finite at index \(0, 0\)"),
    ],
)
def test_outputs_are_checked_too(outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_outputs(outputs, FLAT, 2)


ONE_HOT = Signature({"goal": TensorSpec(("h", "w"), low=0.0, high=1.0, one_hot=True)}, {})


def test_one_hot_inputs_are_drawn_with_their_one_anywhere() -> None:
    drawn = draw(ONE_HOT, 200, rng(0, "one hot"), {"h": 3, "w": 4})["goal"]
    assert drawn.shape == (200, 3, 4)
    assert (drawn.sum((1, 2)) == 1.0).all()
    assert len(np.unique(drawn.reshape(200, -1).argmax(1))) == 12


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[[0, 1], [0, 0]], [[0, 1], [1, 0]]], "has 2 entries that are not 0 in row 1; exactly"),
        ([[[0, 0], [0, 0]]], "has 0 entries that are not 0 in row 0"),
        ([[[0, 0.5], [0, 0]]], "has 1 entries that are not 0 in row 0; exactly one entry is 1"),
    ],
)
def test_what_is_not_one_hot_is_refused_where_ranges_count(rows: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check({"goal": rows}, ONE_HOT)
    assert check({"goal": rows}, ONE_HOT, ranges=False)["goal"].shape == np.shape(rows)
