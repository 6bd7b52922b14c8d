"""Writes motions in the layouts of other systems, as those systems write them."""

from __future__ import annotations

import gzip
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ganglion.tasks.motion import gait, robot, rotations
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.robot import Robot

BIPED = robot.builtin("minibiped")


def walk(**changes: Any) -> Clip:
    return gait.clip(BIPED, gait.Gait(**changes))


def frames(clip: Clip, count: int) -> tuple[Any, Any, Any]:
    """The first `count` frames of the motion as it goes on."""
    return clip.at(np.arange(count))


def awd(path: Path, clip: Clip, count: int, toes: str = "world", **changes: Any) -> dict[str, Any]:
    """Adversarial waddle dynamics: quaternions (x, y, z, w), toes in the world or the root."""
    place, quat, joints = frames(clip, count)
    feet = BIPED.sole_centres(*BIPED.foot_frames(place, quat, joints)) + np.array([0.0, 0.0, 0.002])
    if toes == "root":
        feet = rotations.rotate_back(quat[:, None], feet - place[:, None])
    dt = clip.dt
    linear = np.gradient(place, dt, axis=0)
    angular = clip.velocities()[1][np.arange(count) % clip.frames]
    joint_vel = np.gradient(joints, dt, axis=0)
    toe_vel = np.gradient(feet, dt, axis=0)
    contacts = clip.contacts[np.arange(count) % clip.frames]
    parts = {
        "root_pos": place, "root_quat": quat[:, [1, 2, 3, 0]], "joints_pos": joints,
        "left_toe_pos": feet[:, 0], "right_toe_pos": feet[:, 1], "world_linear_vel": linear,
        "world_angular_vel": angular, "joints_vel": joint_vel, "left_toe_vel": toe_vel[:, 0],
        "right_toe_vel": toe_vel[:, 1], "foot_contacts": contacts.astype(float),
    }  # fmt: skip
    offsets, at = {}, 0
    for name, part in parts.items():
        offsets[name] = at
        at += part.shape[1]
    raw = {
        "LoopMode": "Wrap", "FPS": clip.fps, "FrameDuration": round(dt, 4),
        "EnableCycleOffsetPosition": True, "EnableCycleOffsetRotation": False,
        "Joints": list(clip.joints), "Vel_x": [], "Frame_offset": [offsets],
        "Frame_size": [{n: p.shape[1] for n, p in parts.items()}],
        "Frames": np.concatenate(list(parts.values()), 1).tolist(), **changes,
    }  # fmt: skip
    path.write_text(json.dumps(raw))
    return raw


def openduck(path: Path, clips: Mapping[str, Clip], packed: bool = False) -> dict[str, Any]:
    """Polynomials of degree 15, coefficients ascending, as a pickle of NumPy scalars."""
    table = {}
    for name, clip in clips.items():
        linear, angular, joint_vel = clip.velocities()
        contacts = clip.contacts.astype(float)  # type: ignore[union-attr]
        values = np.concatenate([clip.joint_pos, joint_vel, contacts, linear, angular], 1)
        phase = np.linspace(0.0, 1.0, clip.frames).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.RankWarning)  # as the original does
            fits = [np.polynomial.polynomial.polyfit(phase, v, 15) for v in values.T]
        table[name] = {
            "coefficients": {f"dim_{i}": list(f) for i, f in enumerate(fits)},
            "period": clip.duration_s, "fps": clip.fps, "frame_offsets": {"joints_pos": 7},
            "joints": list(clip.joints), "startend_double_support_ratio": 1.5,
        }  # fmt: skip
    data = pickle.dumps(table)
    path.write_bytes(gzip.compress(data) if packed else data)
    return table


def mjlab(path: Path, clip: Clip, count: int, **changes: Any) -> None:
    """mjlab and BeyondMimic: poses of every body in the world; body 0 is the root."""
    place, quat, joints = frames(clip, count)
    bodies = np.stack([place, place + np.array([0.0, 0.0, 0.1])], 1)
    angular = clip.velocities()[1][np.arange(count) % clip.frames]
    arrays = {
        "fps": np.array([clip.fps]), "joint_pos": joints.astype(np.float32),
        "joint_vel": np.gradient(joints, clip.dt, axis=0).astype(np.float32),
        "body_pos_w": bodies.astype(np.float32),
        "body_quat_w": np.stack([quat, quat], 1).astype(np.float32),
        "body_lin_vel_w": np.gradient(bodies, clip.dt, axis=0).astype(np.float32),
        "body_ang_vel_w": np.stack([angular, angular], 1).astype(np.float32), **changes,
    }  # fmt: skip
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def unitree(path: Path, clip: Clip, count: int) -> None:
    """Retargeted CSV: root xyz, quaternion (x, y, z, w), joints; no header, 30 frames a second."""
    place, quat, joints = frames(clip, count)
    np.savetxt(path, np.concatenate([place, quat[:, [1, 2, 3, 0]], joints], 1), "%.6f", ",")


def qpos(path: Path, clip: Clip, count: int, **changes: Any) -> None:
    place, quat, joints = frames(clip, count)
    table = np.concatenate([place, quat, joints], 1)
    np.savez(path, **{"qpos": table, "frequency": np.array(clip.fps), **changes})


def quadruped() -> Robot:
    return robot.builtin("miniquad")
