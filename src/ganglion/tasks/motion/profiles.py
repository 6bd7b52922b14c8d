"""Exports for the runtimes of other systems: `plain`, `mjlab`, `openduck`.

Each is the deployed policy inside a frame that has the names, the shapes and the action convention
that the runtime expects. Every file is run by ONNX Runtime and compared with torch before it is put
in place.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from ganglion.core import files
from ganglion.core.errors import ExportError, SettingsError
from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.importers.angles import quaternion_of
from ganglion.tasks.motion.kinematics import matrix_of
from ganglion.tasks.motion.references import Cloning
from ganglion.tasks.motion.world import World

TOLERANCE = 1e-5
_PARITY = 200  # observations on which file and module are compared
_DUCK = (  # the observation of Open Duck Mini's runtime, in order
    ("gyro", 3), ("accelerometer", 3), ("command", 7), ("joint_from_home", 14),
    ("joint_velocity", 14), ("last", 14), ("last_2", 14), ("last_3", 14), ("targets", 14),
    ("contacts", 2), ("phase", 2),
)  # fmt: skip


class Mjlab(nn.Module):
    """obs, time_step -> actions and the reference's state, as mjlab's motion tracking exports it.

    actions are (target - default) / scale, so that the runtime's default + scale * action is the
    target. time_step (1, 1) is clamped to the table.
    """

    default: Tensor

    def __init__(self, policy: nn.Module, world: World) -> None:
        super().__init__()
        self.policy = policy
        self.last = float(world.clips[0].frames - 1)
        self.scale = world.seen.scale
        for name, values in _tables(world).items():
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, obs: Tensor, time_step: Tensor) -> tuple[Tensor, ...]:
        """Map obs (1, O) and time_step (1, 1) to the seven outputs."""
        t = time_step.squeeze(-1).clamp(0.0, self.last).long()
        actions = (self.policy(obs) - self.default) / self.scale
        return (actions, *(getattr(self, n)[t] for n in _STATES))


_STATES = (
    "joint_pos", "joint_vel", "body_pos_w", "body_quat_w", "body_lin_vel_w", "body_ang_vel_w",
)  # fmt: skip


def _tables(world: World) -> dict[str, Any]:
    """Return the reference's state frame by frame, of every body, and the default pose.

    Velocities as `Clip.velocities` has them; joints are those with an actuator.
    """
    clip, robot = world.clips[0], world.robot
    place, turned = robot.kinematics(clip.root_pos, matrix_of(clip.root_quat), clip.joint_pos)
    around = clip.at(np.arange(-1, clip.frames + 1))
    before, after = (
        robot.kinematics(around[0][s], matrix_of(around[1][s]), around[2][s])
        for s in (slice(0, -2), slice(2, None))
    )
    span = clip.spans[:, :, None]
    quats = [_quaternions(turned) for _, turned in (before, after)]
    turns = rotations.multiply(quats[1], rotations.conjugate(quats[0]))
    return {
        "default": robot.home[robot.actuated], "joint_pos": clip.joint_pos[:, robot.actuated],
        "joint_vel": clip.velocities()[2][:, robot.actuated], "body_pos_w": place,
        "body_quat_w": _quaternions(turned), "body_lin_vel_w": (after[0] - before[0]) / span,
        "body_ang_vel_w": rotations.logarithm(turns) / span,
    }  # fmt: skip


def _quaternions(turned: Any) -> Any:
    flat = turned.reshape(-1, 3, 3)
    return np.array([quaternion_of(m) for m in flat]).reshape(*turned.shape[:-2], 4)


class OpenDuck(nn.Module):
    """obs (1, 101) -> continuous_actions (1, 14) of a policy that sees what its sensors say.

    The reference is a sum of harmonics of the phase that the runtime gives. The runtime adds
    scale * action to the home pose; actions leave through tanh, so each is within +-1, and a
    target further from home is cut to that.
    """

    weights: Tensor
    home: Tensor
    mean: Tensor
    back: Tensor

    def __init__(self, policy: nn.Module, world: World) -> None:
        super().__init__()
        self.policy, self.scale, rules = policy, world.seen.scale, world.seen
        if rules.privileged or rules.commanded:
            raise SettingsError(
                "format=openduck is for policies of problem.observation=proprio; the runtime knows "
                "no position, heading or velocity."
            )
        if len(rules.robot.actuated) != 14 or len(rules.robot.joints) != 14:
            raise SettingsError(
                f"format=openduck is for robots of 14 joints; {rules.robot.name} has "
                f"{len(rules.robot.joints)}."
            )
        if not rules.residual:
            raise SettingsError("format=openduck is for problem.action=residual.")
        weights = Cloning(rules, world.reference).weights
        frames = world.clips[0].frames
        for name, values in (
            ("weights", weights), ("home", rules.robot.home), ("mean", rules.mean),
            ("back", _shift(-2.0 * np.pi / frames)),
        ):  # fmt: skip
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, obs: Tensor) -> Tensor:
        """Map obs (1, 101) to actions (1, 14)."""
        part = dict(zip((n for n, _ in _DUCK), obs.split([s for _, s in _DUCK], -1), strict=True))
        cosine, sine = part["phase"][:, :1], part["phase"][:, 1:]
        after = _sums(sine, cosine) @ self.weights
        turned = torch.cat([sine, cosine], -1) @ self.back
        now = _sums(turned[:, :1], turned[:, 1:]) @ self.weights
        joints = part["joint_from_home"] + self.home
        up = part["accelerometer"]
        up = up / (up.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        last = (part["last"] * self.scale + self.home - now) / self.scale
        seen = torch.cat(
            [sine, cosine, up, part["gyro"], joints - now, joints - self.mean,
             part["joint_velocity"], last, after], -1,
        )  # fmt: skip
        wanted = (self.policy(seen) - self.home) / self.scale
        bounded = wanted.clamp(-0.999, 0.999)
        # tanh of atanh: the runtime's convention, and nothing changed within its range
        return torch.tanh(0.5 * torch.log((1.0 + bounded) / (1.0 - bounded)))


def _shift(angle: float) -> Any:
    """Return the matrix that turns (sin x, cos x) into (sin(x + a), cos(x + a))."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _sums(sine: Tensor, cosine: Tensor) -> Tensor:
    """Return 1, sin k x, cos k x for k to eight by recurrence (N, 17): old runtimes lack atan2."""
    sines, cosines = [sine], [cosine]
    for _ in range(7):
        s, c = sines[-1], cosines[-1]
        sines.append(s * cosine + c * sine)
        cosines.append(c * cosine - s * sine)
    return torch.cat([torch.ones_like(sine), *sines, *cosines], -1)


# ---------------------------------------------------------------- writing


def plain(policy: nn.Module, world: World, path: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write `input` (B, O) -> `output` (B, A), dynamic batch, opset 20."""
    size = world.seen.layout.size
    model = _traced(policy, (torch.zeros(3, size),), ["input"], ["output"], 20, batched=True)
    rng = np.random.default_rng(0)
    feeds = [{"input": rng.standard_normal((n, size)).astype(np.float32)} for n in (1, 7, 192)]
    return _finish(model, policy, feeds, path, {"ganglion.card": card})


def mjlab(policy: nn.Module, world: World, path: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write obs, time_step -> seven outputs, opset 18, with the metadata that runtimes read."""
    if len(world.clips) != 1:
        raise SettingsError("format=mjlab is for one motion; this policy has several.")
    size, module = world.seen.layout.size, Mjlab(policy, world)
    example = (torch.zeros(1, size), torch.zeros(1, 1))
    model = _traced(module, example, ["obs", "time_step"], ["actions", *_STATES], 18)
    rng = np.random.default_rng(0)
    feeds = [
        {"obs": rng.standard_normal((1, size)).astype(np.float32),
         "time_step": np.array([[rng.integers(0, 2 * world.clips[0].frames)]], np.float32)}
        for _ in range(_PARITY)
    ]  # fmt: skip
    robot, a = world.robot, world.robot.actuated
    listed: dict[str, Any] = {
        "joint_names": [robot.joints[i] for i in a],
        "joint_stiffness": robot.stiffness, "joint_damping": robot.damping,
        "default_joint_pos": robot.home[a], "action_scale": np.full(len(a), world.seen.scale),
        "observation_names": [n for n, _, _ in world.seen.layout.parts],
        "command_names": ["motion"],
        "body_names": robot.body_names,
    }  # fmt: skip
    metadata = {k: ",".join(_text(v) for v in values) for k, values in listed.items()}
    metadata["anchor_body_name"] = robot.body_names[0]
    return _finish(model, module, feeds, path, {**metadata, "ganglion.card": card})


def openduck(
    policy: nn.Module, world: World, path: Path, card: Mapping[str, Any]
) -> dict[str, Any]:
    """Write obs [1, 101] -> continuous_actions [1, 14], opset 11."""
    module = OpenDuck(policy, world).eval()
    model = _traced(module, (torch.zeros(1, 101),), ["obs"], ["continuous_actions"], 11)
    rng = np.random.default_rng(0)
    feeds = [{"obs": rng.standard_normal((1, 101)).astype(np.float32)} for _ in range(_PARITY)]
    return _finish(model, module, feeds, path, {"ganglion.card": card})


EXPORTERS = {"plain": plain, "mjlab": mjlab, "openduck": openduck}


def _text(value: Any) -> str:
    """Return a name as it is, a number with nine significant digits."""
    return value if isinstance(value, str) else f"{float(value):.9g}"


def _traced(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str],
    opset: int, batched: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """Return the graph of `module`; by the older tracer, which still writes old opsets."""
    buffer = io.BytesIO()
    axes = {n: {0: "batch"} for n in (*inputs, *outputs)} if batched else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), example, buffer,  # type: ignore[arg-type]
            input_names=list(inputs), output_names=list(outputs),
            opset_version=opset, dynamo=False, dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def _finish(
    model: onnx.ModelProto, module: nn.Module, feeds: Sequence[Mapping[str, Any]], path: Path,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Add the metadata, compare with torch, write; ExportError above 1e-5."""
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        model.metadata_props.add(key=key, value=text)
    data = model.SerializeToString(deterministic=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for feed in feeds:
        found = session.run(None, dict(feed))
        with torch.no_grad():
            wanted = module(*(torch.from_numpy(v) for v in feed.values()))
        for a, b in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            worst = max(worst, float(np.abs(a - b.numpy()).max()))
    if not worst <= TOLERANCE:
        raise ExportError(f"The exported file is off by {worst:.3g}; the limit is {TOLERANCE:g}.")
    files.write_out(path, data)
    rows = sum(len(next(iter(f.values()))) for f in feeds)
    return {
        "path": str(path), "bytes": len(data), "parity": {"max_abs": worst, "inputs": rows},
        "parameters": sum(p.numel() for p in module.parameters()),
    }  # fmt: skip
