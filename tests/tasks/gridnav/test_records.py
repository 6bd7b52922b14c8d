"""Packed maps, canonical forms, and the check that derives everything anew."""

from __future__ import annotations

import numpy as np
import pytest

from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.gridnav import checks, maps, packing, records, symmetry, tokens

from .drawn import drawn


@pytest.fixture
def cases() -> maps.Cases:
    return maps.draw_cases("density", 40, 8, 8, np.random.default_rng(0))


@pytest.fixture
def arrays(cases: maps.Cases) -> dict[str, np.ndarray]:
    return records.make(cases.free, cases.goal, cases.start, cases.distance)


def test_a_map_on_paper_is_packed_row_by_row() -> None:
    # . # . / # . .  ->  1 0 1 0 1 1 and two bits of nothing: 10101100 = 172
    assert packing.pack(drawn(".#.", "#..")).tolist() == [[172]]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (9, 5), (1, 3), (30, 30)])
def test_maps_come_back_as_they_were_packed(height: int, width: int) -> None:
    free = np.random.default_rng(0).random((20, height, width)) < 0.6
    packed = packing.pack(free)
    assert packed.shape == (20, (height * width + 7) // 8)
    assert (packing.unpack(packed, height, width) == free).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (9, 5)])
def test_all_symmetries_of_a_map_share_their_canonical_form(height: int, width: int) -> None:
    free = np.random.default_rng(0).random((50, height, width)) < 0.6
    form, digest = packing.canonical(free), packing.digests(free)
    for k in range(8):
        turned = np.asarray(symmetry.turn(k, free))
        assert (packing.canonical(turned) == form).all()
        assert (packing.digests(turned) == digest).all()
    assert len(np.unique(digest)) == 50


def test_maps_of_other_sizes_have_other_digests() -> None:
    assert packing.digests(np.ones((1, 2, 8), bool)) != packing.digests(np.ones((1, 4, 4), bool))


def test_every_map_belongs_to_one_split_with_all_its_symmetries() -> None:
    free = np.random.default_rng(0).random((4_000, 6, 6)) < 0.7
    members = {split: packing.belongs(free, split) for split in packing.SHARES}
    assert (sum(m.astype(int) for m in members.values()) == 1).all()
    for split, share in packing.SHARES.items():
        assert members[split].mean() == pytest.approx(share, abs=0.03)
        turned = np.asarray(symmetry.turn(3, free))
        assert (packing.belongs(turned, split) == members[split]).all()
    with pytest.raises(SettingsError, match=r"Unknown split 'tests'. Did you mean 'test'"):
        packing.belongs(free, "tests")


def test_the_first_of_each_digest_is_kept() -> None:
    found = packing.firsts(np.array([5, 7, 5, 5, 2, 7], np.uint64))
    assert found.tolist() == [True, True, False, False, True, False]


def test_a_record_holds_what_it_was_made_of(
    cases: maps.Cases, arrays: dict[str, np.ndarray]
) -> None:
    found = records.read(arrays)
    assert (found.free == cases.free).all()
    assert (found.goal == cases.goal).all()
    assert (found.start == cases.start).all()
    assert set(arrays) == set(records.UNITS)
    checks.check(arrays)


def test_a_robot_at_its_goal_stays(cases: maps.Cases) -> None:
    arrays = records.make(cases.free, cases.goal, cases.goal)
    assert (arrays["label"] == 4).all()
    checks.check(arrays)


def test_tokens_on_paper() -> None:
    # 2 x 2: free free / wall free, robot at (0, 1), goal at (1, 1), each number + 3
    free = drawn("..", "#.")
    found = tokens.encode(free, np.array([[0, 1]]), np.array([[1, 1]]))
    assert found.tolist() == [[1, 1, 2, 1, 3, 4, 4, 4]]
    back = tokens.decode(found)
    assert (back[0] == free).all()
    assert [b.tolist() for b in back[1:]] == [[[0, 1]], [[1, 1]]]


@pytest.mark.parametrize(
    ("index", "value", "said"),
    [
        ((3, 5), 0, r"tokens\[3, 5\] is 0; 1 \(free\) or 2 \(wall\) was expected"),
        ((2, 67), 11, r"tokens\[2, 67\] is 11; a row or column \+ 3, 3 to 10 was expected"),
        ((1, 64), 2, r"tokens\[1, 64\] is 2; a row or column"),
    ],
)
def test_a_token_out_of_place_is_named(
    cases: maps.Cases, index: tuple[int, int], value: int, said: str
) -> None:
    states = tokens.encode(cases.free, cases.start, cases.goal)
    states[index] = value
    with pytest.raises(DataError, match=said):
        tokens.decode(states)


def test_a_robot_in_a_wall_is_named(cases: maps.Cases) -> None:
    states = tokens.encode(cases.free, cases.start, cases.goal)
    row, column = cases.start[4]
    states[4, row * 8 + column] = 2
    with pytest.raises(DataError, match=rf"tokens\[4\]: the robot at \({row}, {column}\) is a wa"):
        tokens.decode(states)


@pytest.mark.parametrize("shape", [(5, 67), (5, 4), (68,), (0,)])
def test_tokens_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="68 of them for maps of 8 x 8"):
        tokens.decode(np.ones(shape, np.int64))


# ---------------------------------------------------------------- what the check finds


def broken(arrays: dict[str, np.ndarray], name: str, index: object, value: object) -> object:
    changed = {k: v.copy() for k, v in arrays.items()}
    changed[name][index] = value
    return changed


@pytest.mark.parametrize(
    ("name", "index", "value", "said"),
    [
        ("moves", (7, 2, 3), 31, r"moves\[7, 2, 3\] is UP or DOWN or LEFT or RIGHT or STAY, but"),
        ("goal", (3,), (8, 0), r"goal: Cell \(8, 0\) of map 3 lies outside its 8 x 8 cells"),
        ("label", 5, 9, r"label\[5\] is 9; a move, 0 to 4, was expected"),
        ("label", 5, 4, "Row 5: its label STAY is not optimal at its start"),
        ("free", 2, 0, "Row 2: its goal .* is a wall"),
    ],
)
def test_a_fault_is_named_by_row_and_cell(
    arrays: dict[str, np.ndarray], name: str, index: object, value: object, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        checks.check(broken(arrays, name, index, value))


def test_a_label_that_is_optimal_but_not_the_first_is_found() -> None:
    # On an open map A* goes UP from (1, 1) to (0, 0) or LEFT; whichever, the other is optimal too.
    free = drawn("...", "...")
    arrays = records.make(free, np.array([[0, 0]]), np.array([[1, 1]]))
    other = 2 if arrays["label"][0] == 0 else 0
    swapped = broken(arrays, "label", 0, other)
    with pytest.raises(DataError, match=r"Row 0: its label is .*, but A. goes .* first"):
        checks.check(swapped)
    checks.check(swapped, first=False)  # as imported data may be


def test_a_start_without_a_way_is_found() -> None:
    arrays = records.make(drawn(".#.", ".#."), np.array([[0, 0]]), np.array([[1, 0]]))
    with pytest.raises(DataError, match=r"no way leads from its start \(1, 2\) to its goal"):
        checks.check(broken(arrays, "start", 0, (1, 2)))
    with pytest.raises(DataError, match=r"Row 0: no way leads from the start \(1, 2\)"):
        records.make(drawn(".#.", ".#."), np.array([[0, 0]]), np.array([[1, 2]]))


@pytest.mark.parametrize("row", [1, 1_023, 1_024, 2_499])
def test_a_fault_is_found_in_any_of_many_rows(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_AT_ONCE", 1 << 14)  # 1,024 maps of 4 x 4
    found = maps.draw_cases("density", 2_500, 4, 4, np.random.default_rng(0))
    arrays = records.make(found.free, found.goal, found.start, found.distance)
    checks.check(arrays)
    arrays["moves"][row] = 0
    with pytest.raises(DataError, match=rf"moves\[{row}, .* is no move, but optimal there is"):
        checks.check(arrays)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("moves"), "The data has no array 'moves'"),
        (lambda a: a.update(moves=a["moves"][0]), r"moves are uint8\(8, 8\); uint8 \(rows, height"),
        (lambda a: a.update(free=a["free"][:, :7]), "uint8 with 8 bytes a row was expected"),
        (lambda a: a.update(label=a["label"][:3]), "have 40, 40 and 3 rows"),
        (lambda a: a.update(start=a["start"][:3]), r"start: Cells have shape \(3, 2\)"),
    ],
)
def test_arrays_of_another_form_are_refused(
    arrays: dict[str, np.ndarray], change: object, said: str
) -> None:
    change(arrays)
    with pytest.raises(DataError, match=said):
        checks.check(arrays)
