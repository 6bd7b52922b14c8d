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
from ganglion.tasks.motion import importers, motion_file, preprocess, rotations, validation
from ganglion.tasks.motion.clip import Clip
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
        changed(joint_names=np.array([BIPED.joints[1], *BIPED.joints[1:]])), "'left_hip_yaw'"),
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


def sentence(path: Path) -> str:
    """What reading, preparing and checking the file says."""
    with pytest.raises(GanglionError) as told:
        whole(path)
    return str(told.value)


def whole(path: Path) -> None:
    for clip in importers.read(path, BIPED, Said()):
        ready = clip if _unsound(clip) else preprocess.prepared(clip, BIPED, 50.0)
        validation.check(ready, BIPED).ensure()


def _unsound(clip: Clip) -> bool:
    """What cannot be prepared is checked as it is."""
    fitted = preprocess.fitted(clip, BIPED)
    codes = {f.code for f in validation.check(fitted, BIPED).errors}
    return bool(codes & {"finite", "quaternion", "fps", "frames", "shape"})


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_motion_file_gives_one_sentence(kind: str, tmp_path: Path) -> None:
    write, said = BROKEN[kind]
    path = tmp_path / "motion.npz"
    write(path)
    found = sentence(path)
    assert re.search(said, found), found
    assert "\n" not in found


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
