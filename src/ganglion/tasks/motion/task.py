"""The task motion: what is learned from what, and how a policy is judged. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganglion.core import files, metrics, seeds
from ganglion.core.contracts import Arrays, Learner, Metric, Policy, Ranks
from ganglion.core.errors import ExportError
from ganglion.tasks.motion import evaluation, motion_file, references
from ganglion.tasks.motion.config import Config
from ganglion.tasks.motion.world import World, make

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IN_USE = 16  # episodes in which exported and trained policy are compared
_NAMED = 20  # motions that a policy card names
_DISTURBED: Mapping[str, Mapping[str, Any]] = {
    "nominal": {},
    "timestep_2ms": {"evaluation.substeps": 10},
    "friction_0.7": {"evaluation.friction": 0.7},
    "friction_1.3": {"evaluation.friction": 1.3},
    "mass_0.9": {"evaluation.mass": 0.9},
    "mass_1.1": {"evaluation.mass": 1.1},
    "push_0.3": {"evaluation.push": 0.3},
    "sensor_noise": {"evaluation.sensor_noise": 1.0},
}


_KINEMATIC = (
    "Kinematic only: this policy copies the clip's joint angles and has never been in physics."
)
_MOST_REMARKS = 12


class Motion:
    """Joint targets for one robot that make it perform its reference motions."""

    captions: ClassVar[Mapping[str, str]] = {
        "strip": "Policy (colour) beside the reference (grey), from above left, over one episode.",
        "joints": "Joint angles of one episode: policy and reference.",
    }

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        commanded = settings.problem.goal == "command"
        self.metrics = evaluation.COMMAND if commanded else evaluation.TRACKING
        self.goal: Metric = self.metrics[0]
        self.scenarios: Mapping[str, Mapping[str, Any]] = _DISTURBED
        self.exporters: Mapping[str, Callable[..., dict[str, Any]]] = {
            name: partial(self._export, name) for name in ("plain", "mjlab", "openduck")
        }

    @property
    def settings(self) -> Config:
        return self._settings

    @cached_property
    def world(self) -> World:
        """Robot, clips and rules, built when they are first needed."""
        return make(self._settings)

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each array of the data."""
        return {"joints": "rad", "tilt": "rad", "speeds": "m/s, rad/s", "frame": "1", "clip": "1"}

    @property
    def about(self) -> dict[str, Any]:
        """What whoever runs the policy must know; part of the exported file."""
        world, rules = self.world, self.world.seen
        robot = world.robot
        found: dict[str, Any] = {
            "control_hz": world.rates.control_hz, "action": self._settings.problem.action,
            "action_scale": rules.scale, "observation": rules.layout.to_json(),
            "joints": [robot.joints[a] for a in robot.actuated],
            "targets": robot.targets.tolist(), "home": robot.home.tolist(),
            "mean": rules.mean.tolist(), "robot": robot.digest,
            "motions": [c.summary() for c in world.clips[:_NAMED]],
        }  # fmt: skip
        return dict(files.finite(found))  # a joint without limits has infinite ones

    @property
    def remarks(self) -> list[str]:
        """What readers of any figure must know: how it was learned, and what the motion has."""
        found = [_KINEMATIC] if self._settings.loss.kind == "cloning" else []
        for report in self.world.reports:
            found += [f.text for f in report.findings]
        learned = self.world.clips[: len(self.world.imported)]
        found += [f"Motion {c.name!r}: {note}." for c in learned for note in c.notes]
        more = len(found) - _MOST_REMARKS
        rest = [f"{more} more in inputs/stages.json."] if more > 0 else []
        return [*found[:_MOST_REMARKS], *rest]

    def kept(self) -> dict[str, bytes]:
        """Return the motions as they are learned, and what the stages before training gave."""
        world = self.world
        stages = {
            "import": [c.summary() for c in world.imported],
            "preprocess": [{**c.summary(), "notes": list(c.notes)} for c in world.clips],
            "validate": [r.to_json() for r in world.reports],
        }
        return {
            "motion.npz": motion_file.packed(world.clips),
            "stages.json": json.dumps(stages, indent=1).encode(),
        }

    def generate(self, count: int, split: str, rng: np.random.Generator) -> Arrays:
        """Draw `count` starts of episodes."""
        return evaluation.case_arrays(self.world, count, self._settings.problem.start_noise, rng)

    def learner(self, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
        from ganglion.tasks.motion.learning import make  # torch begins here

        return make(self, data, device, seed, ranks)

    def references(self) -> Mapping[str, Policy]:
        """Return oracle (the reference itself), standing, and open_loop and cloning."""
        return references.references(self.world.seen, self.world.reference)

    def evaluate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Arrays:
        """Run an episode from every start; see `evaluation` for the columns."""
        return evaluation.score(policy, self.world, cases, self._settings.evaluation, rng)

    def same_in_use(
        self, trained: Policy, exported: Policy, cases: Arrays, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Run both through the same episodes; ExportError where their figures differ.

        Allowed: a hundredth in shares of episodes, two hundredths of anything else. A robot that
        stumbles amplifies rounding, so beyond that it counts how far the figures of the trained
        policy move where its targets change by as little as the export may. Returns each metric
        as [trained, exported].
        """
        few = {k: np.asarray(v)[:_IN_USE] for k, v in cases.items()}
        seed = int(rng.integers(1 << 62))

        def figures(policy: Policy) -> dict[str, float]:
            rows = self.evaluate(policy, few, seeds.rng(seed, "in use"))
            return {m.name: metrics.mean(rows, m) for m in self.metrics}

        ours, theirs = figures(trained), figures(exported)
        limits = {
            m.name: 0.01 if m.percent else 0.02 * abs(ours[m.name]) + 1e-6 for m in self.metrics
        }
        over = [name for name in limits if abs(theirs[name] - ours[name]) > limits[name]]
        if over:
            jittered = [
                references.Jittered(trained, seeds.rng(seed, "jitter", i)) for i in range(3)
            ]
            others = [ours, *(figures(policy) for policy in jittered)]
            for name in over:
                spread = np.ptp([f[name] for f in others])
                if abs(theirs[name] - ours[name]) > limits[name] + 2.0 * spread:
                    raise ExportError(
                        f"In physics the exported file has {name} {theirs[name]:.4g}, the trained "
                        f"policy {ours[name]:.4g}; they may differ by "
                        f"{limits[name] + 2.0 * spread:.2g}."
                    )
        return {name: [ours[name], theirs[name]] for name in limits}

    def decode(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        return outputs

    def _export(
        self, profile: str, policy: Policy, path: Path, card: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write a trained policy for the runtime of another system."""
        from ganglion.tasks.motion import profiles

        return profiles.EXPORTERS[profile](policy.module, self.world, path, card)  # type: ignore[attr-defined]

    def draw(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> dict[str, Figure]:
        """Return pictures by name."""
        from ganglion.tasks.motion import view

        return view.draw(self, policy, cases, rng)

    def animate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> bytes:
        """Return a GIF of policy and reference moving side by side."""
        from ganglion.tasks.motion import view

        return view.animate(self, policy, cases, rng)


TASK = Motion
