"""Foreign motion files, written in their systems' own layouts, become the motion they came from."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import BIPED, walk

from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.motion import importers, preprocess, rotations, validation
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.importers import Said


def read(path: Path, **said: object) -> Clip:
    """The file's first clip, fit for the robot at 50 Hz and found sound."""
    clip = importers.read(path, BIPED, Said(**said))[0]  # type: ignore[arg-type]
    found = preprocess.prepared(clip, BIPED, 50.0)
    assert validation.check(found, BIPED).errors == []
    return found


def same(found: Clip, wanted: Clip, frames: int) -> None:
    """Both go the same way with the same joints; heights to what grounding changes."""
    ours, theirs = found.at(np.arange(frames)), wanted.at(np.arange(frames))
    start = theirs[0][0] * [1.0, 1.0, 0.0]
    assert ours[0] == pytest.approx(theirs[0] - start, abs=4e-3)
    assert rotations.angle_between(ours[1], theirs[1]) == pytest.approx(np.zeros(frames), abs=2e-3)
    assert ours[2] == pytest.approx(theirs[2], abs=2e-3)


@pytest.mark.parametrize("toes", ["world", "root"])
def test_awd_json_in_both_toe_frames(toes: str, tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    layouts.awd(path, walk(turn=0.2), 5 * 32 + 1, toes)
    clip = importers.read(path, BIPED, Said())[0]
    assert clip.frames == 160  # all of them; the last repeats the first
    assert clip.loop == "wrap"
    assert f"toes are given in the {toes}'s frame" in clip.notes
    assert clip.contacts is not None
    same(read(path), walk(turn=0.2), 400)


def test_awd_joints_in_another_order_are_told_apart_by_name_and_by_the_toes(tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    raw = layouts.awd(path, walk(), 33)
    legs = raw["Joints"]
    path.write_text(json.dumps({**raw, "Joints": [*legs[5:], *legs[:5]]}))
    notes = importers.read(path, BIPED, Said())[0].notes
    assert any("the toes are" in n and "on minibiped" in n for n in notes)


@pytest.mark.parametrize("packed", [False, True])
def test_open_duck_polynomials_of_27_frames(packed: bool, tmp_path: Path) -> None:
    turning = walk(forward=0.1, turn=0.3, period_s=0.54)
    clips = {"0.15_0.0_0.0": walk(period_s=0.54), "0.1_0.0_0.3": turning}
    path = tmp_path / ("ref.poly" if packed else "polynomial_coefficients.pkl")
    layouts.openduck(path, clips, packed)
    found = importers.read(path, BIPED, Said())
    assert [c.frames for c in found] == [27, 27]
    assert found[1].command == (0.1, 0.0, 0.3)
    # the polynomial of degree 15 itself is off by up to .047 rad where the foot lands
    assert found[0].joint_pos == pytest.approx(clips["0.15_0.0_0.0"].joint_pos, abs=0.05)
    assert found[0].offset[0] == pytest.approx(0.15 * 0.54, rel=0.02)
    assert found[1].offset[2] == pytest.approx(0.3 * 0.54)
    ready = preprocess.prepared(found[0], BIPED, 50.0)
    assert validation.check(ready, BIPED).errors == []


def test_open_duck_phase_is_j_over_26(tmp_path: Path) -> None:
    # dim_0 = 0.26 t: the joint at frame 13 is 0.26 * 13 / 26 = 0.13
    path = tmp_path / "p.pkl"
    table = layouts.openduck(path, {"0.1_0.0_0.0": walk(period_s=0.54)})
    table["0.1_0.0_0.0"]["coefficients"]["dim_0"] = [np.float64(0.0), np.float64(0.26)]
    path.write_bytes(pickle.dumps(table))
    found = importers.read(path, BIPED, Said())[0]
    assert found.joint_pos[13, 0] == pytest.approx(0.13)
    assert found.joint_pos[26, 0] == pytest.approx(0.26)


def test_mjlab_archives_are_resampled_from_their_own_rate(tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    thirty = preprocess.resampled(replace(walk(), loop="clamp"), 30.0)
    layouts.mjlab(path, thirty, thirty.frames)
    clip = importers.read(path, BIPED, Said())[0]
    assert clip.fps == 30.0
    found = read(path)
    assert found.fps == 50.0
    assert found.duration_s == pytest.approx(thirty.duration_s, abs=0.02)
    layouts.mjlab(path, walk(), 96, joint_names=np.array(BIPED.joints[::-1]),
                  joint_pos=walk().at(np.arange(96))[2][:, ::-1])  # fmt: skip
    same(read(path), walk(), 96)


def test_unitree_csv_with_and_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    layouts.unitree(path, walk(), 96)
    assert importers.read(path, BIPED, Said())[0].fps == 30.0
    same(read(path, fps=50.0), walk(), 96)
    names = ["x", "y", "z", "qx", "qy", "qz", "qw", *BIPED.joints]
    path.write_text(",".join(names) + "\n" + path.read_text())
    same(read(path, fps=50.0), walk(), 96)


def test_mujoco_coordinates_with_a_rate_or_a_time_step(tmp_path: Path) -> None:
    path = tmp_path / "walk.npz"
    layouts.qpos(path, walk(), 96)
    same(read(path), walk(), 96)
    layouts.qpos(path, walk(), 97, frequency=np.array(0), dt=np.array(0.02))
    assert importers.read(path, BIPED, Said(fps=50.0))[0].fps == 50.0
    np.savez(path, qpos=np.zeros((9, 17)))
    with pytest.raises(SettingsError, match=r"does not state its rate; say it with clip.fps="):
        importers.read(path, BIPED, Said())


def test_plain_angles_get_a_root_from_the_standing_foot(tmp_path: Path) -> None:
    path = tmp_path / "walk.npy"
    np.save(path, walk().at(np.arange(97))[2])
    found = read(path, fps=50.0)
    forward, lateral, turn = found.speed()
    # the sole is laid flat where the gait's is tilted by its hip's roll, so steps come out shorter
    assert forward == pytest.approx(0.15, rel=0.3)
    assert (lateral, turn) == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.0, abs=1e-6))
    assert found.root_pos[:, 2] == pytest.approx(walk().at(np.arange(97))[0][:, 2], abs=6e-3)
    low = BIPED.lowest(*BIPED.foot_frames(found.root_pos, found.root_quat, found.joint_pos))
    assert low.min(-1) == pytest.approx(np.zeros(97), abs=4e-3)


def test_plain_angles_of_a_standing_robot_stand(tmp_path: Path) -> None:
    path = tmp_path / "stand.npy"
    np.save(path, np.tile(BIPED.home, (20, 1)))
    clip = importers.read(path, BIPED, Said(fps=50.0))[0]
    # hip .06 + leg .18 + ankle .035 above the ground, the sole's middle .012 ahead
    assert clip.root_pos == pytest.approx(np.tile([-0.012, -0.05, 0.275], (20, 1)), abs=1e-6)
    assert clip.root_quat == pytest.approx(np.tile([1.0, 0, 0, 0], (20, 1)), abs=1e-9)


def test_plain_angles_need_a_rate_and_take_names(tmp_path: Path) -> None:
    path = tmp_path / "walk.npy"
    np.save(path, walk().joint_pos[:, ::-1])
    with pytest.raises(SettingsError, match=r"say it with clip\.fps="):
        importers.read(path, BIPED, Said())
    named = importers.read(path, BIPED, Said(fps=50.0, joints=BIPED.joints[::-1]))[0]
    assert preprocess.fitted(named, BIPED).joint_pos == pytest.approx(walk().joint_pos)


def test_a_random_array_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "random.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1000, 10)))
    clip = preprocess.prepared(importers.read(path, BIPED, Said(fps=50.0))[0], BIPED, 50.0)
    with pytest.raises(DataError, match=r"frame \d+, joint '\w+': .* rad is beyond its range"):
        validation.check(clip, BIPED).ensure()


def test_the_user_s_word_on_looping_wins(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    layouts.unitree(path, walk(), 33)
    assert importers.read(path, BIPED, Said(fps=50.0))[0].loop == "clamp"
    cycle = importers.read(path, BIPED, Said(fps=50.0, loop="wrap"))[0]
    assert (cycle.loop, cycle.frames) == ("wrap", 32)
    assert cycle.offset == pytest.approx((0.096, 0.0, 0.0), abs=1e-5)
    layouts.awd(tmp_path / "w.json", walk(), 33)
    assert importers.read(tmp_path / "w.json", BIPED, Said(loop="clamp"))[0].loop == "clamp"


def test_formats_are_told_apart_or_asked_for(tmp_path: Path) -> None:
    (tmp_path / "walk.bvh").write_text("HIERARCHY")
    with pytest.raises(SettingsError, match=r"say which with clip\.format"):
        importers.read(tmp_path / "walk.bvh", BIPED, Said())
    with pytest.raises(SettingsError, match="Did you mean 'mjlab'"):
        importers.read(tmp_path / "walk.bvh", BIPED, Said(), "mjlabs")
    with pytest.raises(SettingsError, match="There is no motion file"):
        importers.read(tmp_path / "none.json", BIPED, Said())
