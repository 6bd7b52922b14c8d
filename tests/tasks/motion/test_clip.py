"""Clips: going on after the end, velocities, the file, and what preprocessing does to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import BIPED, walk

from ganglion.core.errors import DataError, OutputError
from ganglion.tasks.motion import motion_file, preprocess, robot, rotations
from ganglion.tasks.motion.clip import Clip, closing

FPS = 50.0


def circle(frames: int, speed: float = 0.2, turn: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A body on a circle that begins at (1, 2), heading 0.3 rad."""
    yaw = 0.3 + turn * np.arange(frames) / FPS
    radius = speed / turn
    x = 1.0 + radius * (np.sin(yaw) - np.sin(0.3))
    y = 2.0 - radius * (np.cos(yaw) - np.cos(0.3))
    return np.stack([x, y, np.full(frames, 0.3)], -1), rotations.about_z(yaw)


def arc() -> Clip:
    """A third of a second on that circle, as one cycle of 16 frames."""
    place, quat = circle(17)
    ends = closing((place[0], quat[0]), (place[16], quat[16]))
    wave = np.sin(2.0 * np.pi * np.arange(16) / 16)[:, None]
    return Clip("arc", FPS, ("j",), place[:16], quat[:16], wave, "wrap", ends)


def test_a_wrapping_clip_goes_on_along_its_circle_for_ever() -> None:
    place, quat = circle(200)
    found, turned, joints = arc().at(np.arange(200))
    assert found == pytest.approx(place)
    assert rotations.angle_between(turned, quat) == pytest.approx(np.zeros(200), abs=1e-7)
    assert joints[16:32] == pytest.approx(joints[:16])


def test_a_wrapping_clip_came_from_somewhere_too() -> None:
    before, _, _ = arc().at(np.arange(-40, 0))
    yaw = 0.3 + 0.5 * np.arange(-40, 0) / FPS
    assert before[:, 0] == pytest.approx(1.0 + 0.4 * (np.sin(yaw) - np.sin(0.3)))


def test_a_clamped_clip_stays_at_its_ends() -> None:
    clip = replace(arc(), loop="clamp")
    place, _, _ = clip.at(np.array([-5, 0, 15, 99]))
    assert (place[0] == place[1]).all()
    assert (place[2] == place[3]).all()


def test_velocities_across_the_seam_are_those_of_the_circle() -> None:
    linear, angular, joint = arc().velocities()
    # a chord of two steps of h = .5 * .02 rad is shorter than its arc by sin(h) / h = 1 - 1.7e-5
    assert np.linalg.norm(linear, axis=-1) == pytest.approx(np.full(16, 0.2), rel=2e-5)
    assert angular == pytest.approx(np.tile([0.0, 0.0, 0.5], (16, 1)))
    # sin' by central differences: cos(0) sin(2 pi / 16) / dt at frame 0
    assert joint[0, 0] == pytest.approx(np.sin(2 * np.pi / 16) * FPS)


def test_the_speed_of_an_arc_is_along_the_arc() -> None:
    assert arc().speed() == pytest.approx((0.2, 0.0, 0.5))
    assert walk(forward=0.1, lateral=0.05, turn=0.6).speed() == pytest.approx((0.1, 0.05, 0.6))
    # measured from the cycle's ends, where a swaying root is off its path by some millimetres
    measured = replace(walk(lateral=0.05, turn=0.6), command=None).speed()
    assert measured == pytest.approx((0.15, 0.05, 0.6), abs=6e-3)


# ---------------------------------------------------------------- the file


def test_a_motion_file_comes_back_with_every_clip(tmp_path: Path) -> None:
    clips = [walk(), walk(turn=0.3), replace(walk(), loop="clamp", offset=(0.0, 0.0, 0.0))]
    path = tmp_path / "motion.npz"
    motion_file.write(path, clips)
    back = motion_file.read(path)
    assert [c.digest for c in back] == [c.digest for c in clips]
    assert [c.loop for c in back] == ["wrap", "wrap", "clamp"]
    assert back[1].command == (0.15, 0.0, 0.3)
    assert back[0].licence == "Apache-2.0"
    assert (back[0].contacts == clips[0].contacts).all()  # type: ignore[union-attr]


def test_a_file_with_a_changed_number_is_told_by_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    motion_file.write(path, [walk()])
    with np.load(path, allow_pickle=False) as held:
        arrays = dict(held)
    arrays["joint_pos"][3, 2] += 1e-9
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="is not what its digest says"):
        motion_file.read(path)
    about = json.loads(str(arrays["meta"]))
    about["clips"][0]["loop"] = "mirror"
    np.savez(path, **{**arrays, "meta": np.array(json.dumps(about))})
    with pytest.raises(DataError, match="has loop 'mirror'; wrap and clamp"):
        motion_file.read(path)


def test_clips_of_different_joints_make_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all of the same joints"):
        motion_file.write(tmp_path / "m.npz", [walk(), arc()])
    (tmp_path / "no").write_text("a file")
    with pytest.raises(OutputError, match="Cannot write"):
        motion_file.write(tmp_path / "no" / "m.npz", [walk()])


# ---------------------------------------------------------------- preprocessing


def test_resampling_to_half_the_rate_keeps_every_second_frame() -> None:
    clip, half = walk(), preprocess.resampled(walk(), 25.0)
    assert half.frames == 16
    assert half.joint_pos == pytest.approx(clip.joint_pos[::2])
    assert half.root_pos == pytest.approx(clip.root_pos[::2])
    assert half.offset == clip.offset


def test_resampling_puts_the_mean_between_two_frames() -> None:
    twice = preprocess.resampled(walk(), 100.0)
    between = 0.5 * (walk().joint_pos[4] + walk().joint_pos[5])
    assert twice.joint_pos[9] == pytest.approx(between)
    clamped = preprocess.resampled(replace(walk(), loop="clamp"), 100.0)
    assert clamped.frames == 63  # 31 steps of two, and the last frame
    assert clamped.joint_pos[-1] == pytest.approx(walk().joint_pos[-1])


@pytest.mark.parametrize(
    ("name", "other"),
    [("left_hip", "right_hip"), ("FL_hip_joint", "FR_hip_joint"), ("rl_knee", "rr_knee"),
     ("hip_l", "hip_r"), ("L_Hip", "R_Hip"), ("hipLeft2", "hipRight2"), ("LF_HAA", "RF_HAA")],
)  # fmt: skip
def test_partners_are_found_by_name(name: str, other: str) -> None:
    names = (name, "neck", other, "roll")
    assert preprocess._partners(names).tolist() == [2, 1, 0, 3]


def test_a_joint_off_the_middle_without_a_partner_has_no_mirror_image(tmp_path: Path) -> None:
    text = (robot.BUILTIN / "miniquad.xml").read_text()
    text = text.replace("front_left_", "odd_")
    (tmp_path / "odd.xml").write_text(text)
    made = robot.of_file(tmp_path / "odd.xml")
    with pytest.raises(DataError, match=r"joint '(odd|front_right)_\w+' lies off the middle"):
        preprocess.mirror_map(made)


def test_a_faster_clip_has_fewer_frames_and_a_higher_speed() -> None:
    fast = preprocess.time_scaled(walk(), 1.1)
    assert fast.frames == 29  # 32 / 1.1
    assert fast.speed() == pytest.approx((0.15 * 32 / 29, 0.0, 0.0))


def test_a_clip_is_put_onto_the_ground_and_to_the_origin() -> None:
    moved = rotations.turn(np.full(32, 0.7), walk().root_pos)
    off = replace(
        walk(), root_pos=moved + np.array([3.0, -1.0, 0.4]),
        root_quat=rotations.multiply(rotations.about_z(np.full(32, 0.7)), walk().root_quat),
    )  # fmt: skip
    found = preprocess.prepared(off, BIPED, FPS)
    assert found.root_pos[0, :2] == pytest.approx([0.0, 0.0])
    assert rotations.heading(found.root_quat[0]) == pytest.approx(0.0)
    # a gait's tilted soles reach 2 mm below their middle, which is where the ground is then
    assert found.root_pos[:, 2] == pytest.approx(walk().root_pos[:, 2], abs=3e-3)
    assert any("onto the ground" in note for note in found.notes)


def test_the_mirror_image_of_a_gait_is_the_opposite_gait_half_a_period_later() -> None:
    mirrored = preprocess.mirrored(walk(lateral=0.03, turn=0.4), BIPED)
    opposite = walk(lateral=-0.03, turn=-0.4)
    assert mirrored.joint_pos == pytest.approx(opposite.at(np.arange(16, 48))[2])
    assert mirrored.speed() == pytest.approx(opposite.speed())
    assert mirrored.offset[2] == pytest.approx(opposite.offset[2])
    twice = preprocess.mirrored(mirrored, BIPED)
    assert twice.joint_pos == pytest.approx(walk(lateral=0.03, turn=0.4).joint_pos)


def test_a_cycle_that_repeats_its_first_frame_closes_on_it() -> None:
    place, quat, joints = walk().at(np.arange(33))
    whole = replace(walk(), root_pos=place, root_quat=quat, joint_pos=joints, loop="clamp",
                    offset=(0.0, 0.0, 0.0), contacts=None)  # fmt: skip
    found = preprocess.looped(whole)
    assert found.frames == 32
    assert found.offset == pytest.approx(walk().offset)
    open_end = preprocess.looped(replace(walk(), loop="clamp"))
    assert open_end.offset == pytest.approx(walk().offset, abs=2e-4)


def test_noise_is_as_large_as_asked_and_closes() -> None:
    rng = np.random.default_rng(0)
    added = preprocess.noisy(walk(), rng, 0.02).joint_pos - walk().joint_pos
    assert added.std() == pytest.approx(0.02, rel=0.3)
    assert np.abs(added[-1] - added[0]).max() < 3.0 * np.abs(np.diff(added, axis=0)).max()


def test_joints_are_put_in_order_and_missing_ones_named() -> None:
    shuffled = walk().ordered(BIPED.joints[::-1])
    assert preprocess.fitted(shuffled, BIPED).joint_pos == pytest.approx(walk().joint_pos)
    extra = replace(
        walk(), joints=(*BIPED.joints, "antenna"),
        joint_pos=np.concatenate([walk().joint_pos, np.zeros((32, 1))], 1),
    )  # fmt: skip
    fitted = preprocess.fitted(extra, BIPED)
    assert "left out, as minibiped has no such joints: antenna" in fitted.notes
    short = replace(walk(), joints=BIPED.joints[1:], joint_pos=walk().joint_pos[:, 1:])
    with pytest.raises(DataError, match="no joint 'left_hip_yaw' of minibiped"):
        preprocess.fitted(short, BIPED)
