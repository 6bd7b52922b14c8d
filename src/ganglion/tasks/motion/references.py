"""The oracle and the baselines as policies: scored by the same code as a trained net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Arrays, Policy, Signature, TensorSpec
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.mdp import Rules
from ganglion.tasks.motion.reference import Reference

REACH = 100.0  # declared range of what is observed, far beyond what a standing robot shows
_HARMONICS = 8


def signature(rules: Rules) -> Signature:
    """Return what every policy of this problem takes and gives."""
    layout, body = rules.layout, rules.robot
    labels = tuple(
        f"{name}[{i}]" if size > 1 else name for name, size, _ in layout.parts for i in range(size)
    )
    names = tuple(body.joints[a] for a in body.actuated)
    observed = TensorSpec((layout.size,), low=-REACH, high=REACH, labels=labels)
    low, high = body.targets.min(), body.targets.max()
    bounds = {"low": float(low), "high": float(high)} if np.isfinite([low, high]).all() else {}
    target = TensorSpec((len(names),), unit="rad", labels=names, **bounds)  # type: ignore[arg-type]
    return Signature({"observation": observed}, {"target": target})


def references(rules: Rules, reference: Reference) -> Mapping[str, Policy]:
    """Return oracle and standing, and where there is a reference to follow open_loop, cloning."""
    found: dict[str, Policy] = {
        "oracle": Playback(rules, reference), "standing": Standing(rules),
    }  # fmt: skip
    if not rules.commanded:
        found |= {"open_loop": OpenLoop(rules), "cloning": Cloning(rules, reference)}
    return found


@dataclass(frozen=True)
class OpenLoop:
    """The reference's next joint angles as targets, whatever happens."""

    rules: Rules

    @property
    def signature(self) -> Signature:
        return signature(self.rules)

    def act(self, inputs: Arrays) -> Arrays:
        seen = np.asarray(inputs["observation"], np.float64)
        wanted = seen[:, self.rules.layout.slice("next_reference")]
        return {"target": _bounded(self.rules, wanted)}


@dataclass(frozen=True)
class Standing:
    """The home pose, always."""

    rules: Rules

    @property
    def signature(self) -> Signature:
        return signature(self.rules)

    def act(self, inputs: Arrays) -> Arrays:
        body = self.rules.robot
        home = np.tile(body.home[body.actuated], (len(inputs["observation"]), 1))
        return {"target": _bounded(self.rules, home)}


class Playback(Standing):
    """The reference itself. `kinematic`: it is put through the motion, physics does not move it.

    Nothing in physics can track better, so it is the oracle; asked to act it gives the open loop.
    """

    kinematic = True

    def __init__(self, rules: Rules, reference: Reference) -> None:
        super().__init__(rules)

    def act(self, inputs: Arrays) -> Arrays:
        return super().act(inputs) if self.rules.commanded else OpenLoop(self.rules).act(inputs)


class Cloning:
    """Behaviour cloning by least squares: eight harmonics of the phase to joint targets.

    It knows the motion and nothing of the robot, as every clone of a clip does.
    """

    def __init__(self, rules: Rules, reference: Reference) -> None:
        self.rules = rules
        lengths = reference.lengths
        clip = np.repeat(np.arange(len(lengths)), lengths)
        frame = np.concatenate([np.arange(n) for n in lengths])
        _, after, phase = reference.at(clip, frame)
        turn = 2.0 * np.pi * phase
        features = _harmonics(np.sin(turn), np.cos(turn))
        wanted = after[:, rules.robot.actuated]
        self.weights: Floats = np.linalg.lstsq(features, wanted, rcond=None)[0]

    @property
    def signature(self) -> Signature:
        return signature(self.rules)

    def act(self, inputs: Arrays) -> Arrays:
        at = self.rules.layout.slice("phase")
        phase = np.asarray(inputs["observation"], np.float64)[:, at]
        wanted = _harmonics(phase[:, 0], phase[:, 1]) @ self.weights
        return {"target": _bounded(self.rules, wanted)}


@dataclass(frozen=True)
class Jittered:
    """Another policy whose targets are off by rounding: what does physics make of that?"""

    policy: Policy
    rng: np.random.Generator
    size: float = 1e-6  # rad

    @property
    def signature(self) -> Signature:
        return self.policy.signature

    def act(self, inputs: Arrays) -> Arrays:
        target = np.asarray(self.policy.act(inputs)["target"])
        off = self.rng.uniform(-self.size, self.size, target.shape)
        return {"target": (target + off).astype(np.float32)}


def _harmonics(sine: Floats, cosine: Floats) -> Floats:
    """Return 1, sin k x, cos k x for k to eight (N, 17) of sin x and cos x."""
    turn = np.arctan2(sine, cosine)[:, None] * np.arange(1, _HARMONICS + 1)
    return np.concatenate([np.ones((len(turn), 1)), np.sin(turn), np.cos(turn)], -1)


def _bounded(rules: Rules, wanted: Floats) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    low, high = rules.robot.targets[:, 0], rules.robot.targets[:, 1]
    return np.clip(wanted, low, high).astype(np.float32)
