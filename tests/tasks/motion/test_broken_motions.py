"""Every way in which a motion file can be wrong gives one sentence that says where."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from layouts import BIPED, walk

from ganglion.core.errors import DataError, GanglionError
from ganglion.tasks.motion import importers, motion_file, preprocess, rotations, validation, world
from ganglion.tasks.motion.config import Config
from ganglion.tasks.motion.importers import Said


def arrays(count: int = 96) -> dict[str, Any]:
    """A motion file's arrays without a digest, as another program may write them."""
    place, quat, joints = walk().at(np.arange(count))
    return {
        "root_pos": place, "root_quat": quat, "joint_pos": joints, "fps": np.array(50.0),
        "joint_names": np.array(BIPED.joints),
    }  # fmt: skip


def changed(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        held = {**arrays(), **changes}
        np.savez(path, **{k: v for k, v in held.items() if v is not None})

    return write


def at(name: str, index: Any, value: float) -> Callable[[Path], None]:
    held = arrays()[name].copy()
    held[index] = value
    return changed(**{name: held})


def shifted(name: str, by: Any) -> Callable[[Path], None]:
    return changed(**{name: arrays()[name] + by})


def wrapping(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        motion_file.write(path, [replace(walk(), **changes)])

    return write


def truncated(path: Path) -> None:
    changed()(path)
    path.write_bytes(path.read_bytes()[:4000])


def pickled(path: Path) -> None:
    np.savez(path, **{**arrays(), "joint_pos": np.array([{}], object)})


def lying_header(path: Path) -> None:
    """A member that announces a terabyte."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999, 128), }"
    padded = header + b" " * (117 - len(header)) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded
    changed(joint_pos=None)(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("joint_pos.npy", body)


def tilted() -> np.ndarray:
    lying = rotations.about_y(np.full(96, np.pi / 2))
    return rotations.multiply(lying, arrays()["root_quat"])


def bowed() -> np.ndarray:
    """Leaning forward and back over 0.9 rad, slowly."""
    lean = 0.45 * (1.0 - np.cos(np.arange(96) / 95.0 * 2.0 * np.pi))
    return rotations.multiply(rotations.about_y(lean), arrays()["root_quat"])


def jump() -> np.ndarray:
    place = arrays()["root_pos"].copy()
    place[40:, 0] += 0.5
    return place


def spun() -> np.ndarray:
    quat = arrays()["root_quat"].copy()
    quat[40:] = rotations.multiply(rotations.about_z(np.full(56, 1.0)), quat[40:])
    return quat


def slid() -> np.ndarray:
    place = arrays()["root_pos"].copy()
    place[:, 0] += np.arange(96) / 50.0 * 0.6
    return place


def unclosed() -> np.ndarray:
    joints = walk().joint_pos.copy()
    joints[:, 3] += np.linspace(0.0, 0.7, 32)
    return joints


def sunk() -> np.ndarray:
    place = arrays()["root_pos"].copy()
    place[50, 2] -= 0.08
    return place


RANDOM = np.random.default_rng(0).uniform(-0.5, 0.5, (96, 10)) + BIPED.home
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no archive": (lambda p: p.write_text("hello") and None, "is no intact .npz"),
    "truncated": (truncated, "is no intact .npz"),
    "an array missing": (changed(joint_pos=None), "lacks 'joint_pos'; it holds"),
    "a pickle inside": (pickled, "joint_pos holds object; numbers were expected"),
    "a header that lies": (lying_header, "announces .* bytes; at most"),
    "root of two numbers": (changed(root_pos=np.zeros((96, 2))), r"root_pos has shape \(96, 2\)"),
    "too few columns": (changed(joint_pos=np.zeros((96, 9))), r"joint_pos has shape \(96, 9\)"),
    "lengths differ": (changed(root_quat=np.zeros((95, 4))), r"root_quat has shape \(95, 4\)"),
    "a joint twice": (
        changed(joint_names=np.array([BIPED.joints[1], *BIPED.joints[1:]])),
        "joint 'left_hip_roll' stands twice"),
    "leaning over": (changed(root_quat=bowed()), r"frame \d+: the root leans until up is 0\.[56]"),
    "negative rate": (changed(fps=np.array(-30.0)), "fps is -30; 4 to 1000"),
    "contacts of another length": (changed(contacts=np.array(True)), "contacts has shape"),
    "meta that is empty": (changed(meta=np.array([], "U1")), "meta cannot be read"),
    "no frame": (
        changed(**{k: arrays()[k][:0] for k in ("root_pos", "root_quat", "joint_pos")}),
        "it has 0 frames|offsets must rise"),
    "an unknown joint": (
        changed(joint_names=np.array(["hip", *BIPED.joints[1:]])),
        "no joint 'left_hip_yaw' of minibiped; it has hip"),
    "no rate": (changed(fps=np.array(0.0)), "fps is 0; 4 to 1000"),
    "a rate that is no number": (changed(fps=np.array(np.nan)), "fps is nan"),
    "an impossible rate": (changed(fps=np.array(90_000.0)), "fps is 90000"),
    "three frames": (
        changed(**{k: arrays()[k][:3] for k in ("root_pos", "root_quat", "joint_pos")}),
        "it has 3 frames; 4 or more"),
    "a root that is NaN": (at("root_pos", (7, 2), np.nan), r"frame 7: root_pos\[2\] is nan"),
    "an infinite angle": (
        at("joint_pos", (9, 3), np.inf), "frame 9, joint 'left_knee': the angle is inf"),
    "a long quaternion": (at("root_quat", (5, 0), 1.5), r"frame 5: the root's quat.* length 1\.5"),
    "no quaternion": (at("root_quat", (5, 0), 0.0), r"frame 5: the root's quat.* length 0\.0"),
    "quaternions xyzw": (
        changed(root_quat=arrays()["root_quat"][:, [1, 2, 3, 0]]),
        r"slides over the ground.*are quaternions"),
    "lying down": (changed(root_quat=tilted()), r"frame 0: the root lies on its side"),
    "beyond a limit": (
        at("joint_pos", (12, 3), -0.4), r"frame 12, joint 'left_knee': -0\.400 rad is beyond"),
    "degrees": (shifted("joint_pos", np.rad2deg(arrays()["joint_pos"])), "look like degrees"),
    "a joint that jumps": (
        at("joint_pos", (20, 5), 0.75), r"frame 2[01], joint 'right_hip_yaw': it moves at 3\d rad"),
    "a root that jumps": (changed(root_pos=jump()), r"frame 40: the root moves at 25\.\d m/s"),
    "a root that spins": (changed(root_quat=spun()), r"frame 40: the root turns at 50\.0 rad/s"),
    "below the ground": (changed(root_pos=sunk()), r"frame 50: '\w+_foot' is [78]\d mm below"),
    "skating": (changed(root_pos=slid()), r"'\w+_foot' slides over the ground at 0\.\d+ m/s"),
    "a seam in a joint": (
        wrapping(joint_pos=unclosed()), r"frame 31, joint 'left_knee': the step to frame 0"),
    "a seam in the height": (
        wrapping(root_pos=walk().root_pos + np.linspace(0, 0.1, 32)[:, None] * [0, 0, 1]),
        r"below the ground|the root's height jumps"),
    "offsets that fall": (changed(offsets=np.array([0, 50, 40, 96])), "offsets must rise from 0"),
    "offsets beyond the end": (changed(offsets=np.array([0, 100])), "offsets must rise from 0"),
    "broken meta": (changed(meta=np.array("{")), "meta cannot be read"),
    "noise": (changed(joint_pos=RANDOM), r"joint '\w+': "),
}  # fmt: skip


def sentence(path: Path, **clip: Any) -> str:
    """What the product says when it is to learn the motion."""
    with pytest.raises(GanglionError) as told:
        world.make(Config.model_validate({"clip": {"kind": "file", "path": str(path), **clip}}))
    return str(told.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_motion_file_gives_one_sentence(kind: str, tmp_path: Path) -> None:
    write, said = BROKEN[kind]
    path = tmp_path / "motion.npz"
    write(path)
    found = sentence(path)
    assert re.search(said, found), found
    assert "\n" not in found


def resampled_from(fps: float, change: Callable[[dict[str, Any]], Any], path: Path) -> None:
    """A qpos file at a rate of its own, 1.3 s of the walk, with something changed in it."""
    clip = preprocess.resampled(walk(), fps)
    place, quat, joints = clip.at(np.arange(round(1.3 * fps)))
    held = {"qpos": np.concatenate([place, quat, joints], 1), "fps": np.array(fps)}
    change(held)
    np.savez(path, **held)


@pytest.mark.parametrize(
    ("fps", "change", "said"),
    [
        (30.0, lambda h: h["qpos"].__setitem__((17, 10), np.nan),
         r"frame 17, joint 'left_knee': the angle is nan"),
        (120.0, lambda h: h["qpos"].__setitem__((57, 1), np.inf), r"frame 57: root_pos.1. is inf"),
        (120.0, lambda h: h["qpos"].__setitem__((57, slice(3, 7)), 0.0), "frame 57: .* length 0"),
        (120.0, lambda h: h["qpos"].__setitem__((slice(None), slice(3, 7)), h["qpos"][:, 3:7] * 2),
         "frame 0: .* length 2"),
        (120.0, lambda h: h["qpos"].__setitem__((40, 10), h["qpos"][40, 10] + 0.5),
         r"frame 4[01], joint 'left_knee': it moves at [56]\d rad/s"),
        (30.0, lambda h: h.update(fps=np.array(0.0)), "fps is 0; 4 to 1000"),
        (30.0, lambda h: h.update(fps=np.array(1e-4)), "fps is 0.0001; 4 to 1000"),
        (30.0, lambda h: h.update(fps=np.array(-30.0)), "fps is -30; 4 to 1000"),
        (30.0, lambda h: h.update(qpos=h["qpos"][:0]), "it has 0 frames; 4 or more"),
        (30.0, lambda h: h.update(joint_names=np.array("hip")), "of the root and 1 joint"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_faults_are_told_in_the_frames_of_the_file(
    fps: float, change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "motion.npz"
    resampled_from(fps, change, path)
    found = sentence(path)
    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 10), }", "announces the shape"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (", "damaged header"),
        ("{'descr': '<f8'; 'shape': 3}", "damaged header"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: str, said: str, tmp_path: Path) -> None:
    text = header.encode().ljust(117) + b"\n"
    path = tmp_path / "gait.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(800))
    assert re.search(said, sentence(path, fps=50.0))


def test_a_damaged_stream_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    motion_file.write(path, [walk()])
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("joint_pos.npy").header_offset + 60
    data = bytearray(path.read_bytes())
    data[begin : begin + 40] = b"\xff" * 40
    path.write_bytes(data)
    assert "is no intact .npz" in sentence(path)


@pytest.mark.parametrize("name", ["fps", "joint_names"])
def test_what_a_format_says_itself_is_not_said_again(name: str, tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    motion_file.write(path, [walk()])
    value: Any = 30.0 if name == "fps" else ("a", "b")
    assert f"leave clip.{name} out" in sentence(path, **{name: value})


def test_there_are_at_least_25_kinds() -> None:
    assert len(BROKEN) >= 25


def awd(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        raw = layouts.awd(path, walk(), 65)
        change(raw)
        path.write_text(json.dumps(raw))

    return write


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (awd(lambda r: r.pop("Frames")), "has no list 'Frames'"),
        (awd(lambda r: r.pop("Joints")), "has no list 'Joints'"),
        (awd(lambda r: r["Frames"][9].pop()), r"frame 9: it has \d+ numbers; \d+ were expected"),
        (awd(lambda r: r["Frames"][9].__setitem__(0, "x")), "something else than numbers"),
        (awd(lambda r: r.update(FPS=60)), "FPS 60 and FrameDuration 0.02 s do not agree"),
        (awd(lambda r: (r.pop("FPS"), r.pop("FrameDuration"))), "neither FPS nor FrameDuration"),
        (awd(lambda r: r["Frame_size"][0].update(root_quat=3)), "root_quat has 3 numbers, 4 were"),
        (awd(lambda r: r["Frame_offset"][0].pop("joints_pos")), "Frame_offset lacks joints_pos"),
        (awd(lambda r: r.update(FPS=10**400)), "neither FPS nor FrameDuration"),
        (awd(lambda r: r["Frames"][3].__setitem__(0, 10**400)), "something else than numbers"),
        (awd(lambda r: r["Frame_offset"][0].update(root_quat="3")), "root_quat is no whole number"),
        (awd(lambda r: r["Frame_offset"][0].update(root_quat=[3])), "root_quat is no whole number"),
        (awd(lambda r: r["Joints"].append("tail")), r"joints_pos has 10 numbers, 11 were"),
        (lambda p: p.write_text("{") and None, "is no JSON"),
        (lambda p: p.write_text("[" * 200_000) and None, "is no JSON"),
    ],
)  # fmt: skip
def test_a_broken_awd_file_gives_one_sentence(
    change: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "walk.json"
    change(path)
    with pytest.raises(DataError, match=said):
        importers.read(path, BIPED, Said())


def test_an_angular_velocity_that_does_not_follow_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    raw = layouts.awd(path, walk(turn=0.5), 65)
    begin = raw["Frame_offset"][0]["world_angular_vel"]
    for frame in raw["Frames"]:
        frame[begin + 2] = -5.0
    path.write_text(json.dumps(raw))
    clip = preprocess.normal(importers.read(path, BIPED, Said())[0])
    found = validation.check(clip, BIPED)
    assert found.errors == []
    assert any("the file states" in f.text for f in found.findings)


class Malice:
    def __reduce__(self) -> Any:
        return (print, ("owned",))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pickle.dumps({"0.1_0.0_0.0": Malice()}), r"the pickle names builtins\.print"),
        (pickle.dumps([1, 2]), "no mapping of commands"),
        (b"\x80\x04junk", "no intact pickle|could not be read|pickle"),
        (pickle.dumps({"nan_0_0": {}}), "three finite numbers"),
        (pickle.dumps({"fast": {}}), "'fast': a command is dx_dy_dtheta"),
        (pickle.dumps({"0.1_0.0_0.0": {"period": 0.54}}), "coefficients, period or fps"),
        (pickle.dumps({"1_0_0": {"period": 9e9, "fps": 50, "coefficients": {"dim_0": [0.0]}}}),
         "is no cycle of frames"),
        (pickle.dumps({"1_0_0": {"period": 0.54, "fps": 50, "coefficients": {"dim_0": [0.0]}}}),
         "1 dimensions; 2 J"),
    ],
)  # fmt: skip
def test_a_broken_or_hostile_polynomial_file_gives_one_sentence(
    data: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        importers.read(path, BIPED, Said())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("0,0,.3,0,0,0,1\n0,0,.3,0,0,0,1\n", "frames of a motion were expected"),
        ("\n".join(["0," * 16 + "0"] * 5 + ["0,0"]), "line 6: 2 columns, the first line has 17"),
        ("\n".join(["0," * 16 + "0"] * 4 + ["0," * 16 + "x"]), "line 5, column 17: 'x' is no num"),
        ("\n".join(["0," * 15 + "0"] * 5), "16 columns; 7 of the root and 10 joints"),
    ],
)
def test_a_broken_csv_gives_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        importers.read(path, BIPED, Said())


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((50, 9)), r"has shape \(50, 9\); \(T, 10\) was expected"),
        (np.zeros(50), r"has shape \(50,\)"),
        (np.zeros((3, 10)), "has 3 frames"),
        (np.full((9, 10), np.nan), "frame 0, joint 'left_hip_yaw': no finite number"),
        (np.array(["a"]), "numbers were expected"),
    ],
)
def test_a_broken_array_gives_one_sentence(array: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "walk.npy"
    np.save(path, array)
    with pytest.raises(DataError, match=said):
        importers.read(path, BIPED, Said(fps=50.0))
