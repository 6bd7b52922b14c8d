"""From settings to what everything else works on: robot, clips, reference, rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from ganglion.core import seeds
from ganglion.core.errors import SettingsError
from ganglion.tasks.motion import gait, importers, preprocess, robot, validation
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.config import (
    AugmentSettings,
    Config,
    GaitSettings,
    MjcfSettings,
    SweepSettings,
)
from ganglion.tasks.motion.importers import Said
from ganglion.tasks.motion.mdp import Rules
from ganglion.tasks.motion.physics import Rates
from ganglion.tasks.motion.reference import Reference
from ganglion.tasks.motion.robot import Robot


@dataclass(frozen=True, eq=False)
class World:
    """A robot, the motions it should perform, and the rules of the problem.

    seen is what the policy sees, judged what the critic does; imported are the motions as they were
    read or generated, before `preprocess`.
    """

    robot: Robot
    reference: Reference
    seen: Rules
    judged: Rules
    rates: Rates
    reports: tuple[validation.Report, ...]
    imported: tuple[Clip, ...] = ()

    @property
    def clips(self) -> tuple[Clip, ...]:
        return self.reference.clips


def make(cfg: Config) -> World:
    """Build the world of `cfg`; DataError names what is wrong with the robot or a motion."""
    return _make(cfg, cfg.world_text())  # the text has the digests of the files that are read


@lru_cache(maxsize=12)
def _make(cfg: Config, text: str) -> World:
    body = _robot(cfg)
    rates = Rates(cfg.physics.control_hz, cfg.physics.substeps)
    imported = tuple(_clips(cfg, body))
    learned = [_checked(c, body, rates.control_hz, cfg.faulty) for c in imported]
    reports = tuple(report for _, report in learned)
    clips = augmented([clip for clip, _ in learned], body, cfg.augment)
    for clip in clips[len(imported) :]:
        validation.check(clip, body).ensure(validation.FORM if cfg.faulty else None)
    longest = max(cfg.problem.episode_s, cfg.evaluation.seconds, 60.0) * rates.control_hz
    cycles = 3 + int(longest / min(c.frames for c in clips))
    reference = Reference(body, clips, cycles)
    problem = cfg.problem
    kind = (problem.action == "residual", problem.goal == "command", problem.action_scale)
    judged = Rules(body, reference.mean, True, *kind)
    seen = judged if problem.observation == "full" else Rules(body, reference.mean, False, *kind)
    return World(body, reference, seen, judged, rates, reports, imported)


def _checked(clip: Clip, body: Robot, hz: float, faulty: bool) -> tuple[Clip, validation.Report]:
    """Return the clip as it is learned, and what was found; DataError where it is unfit.

    Faulty motions may pass, but not those of which nothing can be made.
    """
    fitted = preprocess.fitted(clip, body)
    raw = validation.sound(fitted, body)
    raw.ensure(validation.FORM if faulty else None)
    ready = preprocess.prepared(fitted, body, hz)
    found = validation.check(ready, body)
    if not faulty:
        found.ensure()
    known = {f.code for f in raw.findings}
    later = [f for f in found.findings if f.code not in known]
    return ready, replace(found, findings=(*raw.findings, *later))


def _robot(cfg: Config) -> Robot:
    chosen = cfg.robot
    if isinstance(chosen, MjcfSettings):
        return robot.of_file(Path(chosen.file), chosen.planar, chosen.feet)
    return robot.builtin(chosen.kind, chosen.planar)


def _clips(cfg: Config, body: Robot) -> list[Clip]:
    hz, clip = cfg.physics.control_hz, cfg.clip
    if isinstance(clip, GaitSettings):
        return [gait.clip(body, gait.Gait(**clip.model_dump(exclude={"kind"})), hz)]
    if isinstance(clip, SweepSettings):
        return _sweep(clip, body, hz)
    said = Said(clip.fps, clip.joint_names, clip.loop)
    found = importers.read(Path(clip.path), body, said, clip.format)
    chosen = [c for c in found if clip.clip in c.name]
    if not chosen:
        names = ", ".join(c.name for c in found[:10])
        raise SettingsError(f"{clip.path} has no clip whose name holds {clip.clip!r}: {names}.")
    return chosen


def _sweep(clip: SweepSettings, body: Robot, hz: float) -> list[Clip]:
    """Generate walks over the grid; speeds out of the legs' reach are an error that says so."""
    grid = product(
        np.linspace(*clip.forward, clip.forward_steps),
        np.linspace(*clip.lateral, clip.lateral_steps),
        np.linspace(*clip.turn, clip.turn_steps),
    )
    shared = {k: getattr(clip, k) for k in ("period_s", "double_support", "foot_height", "crouch")}
    return [
        gait.clip(body, gait.Gait(float(f), float(s), float(t), **shared), hz) for f, s, t in grid
    ]


def augmented(clips: Sequence[Clip], body: Robot, how: AugmentSettings) -> list[Clip]:
    """Return the clips and the variants of each that the settings ask for."""
    found = list(clips)
    if how.mirror:
        found += [preprocess.mirrored(c, body) for c in clips]
    if how.time_scale:
        factors = (1.0 - how.time_scale, 1.0 + how.time_scale)
        found += [preprocess.time_scaled(c, f) for c in clips for f in factors]
    if how.noise:
        rngs = (seeds.rng(0, "augment", i) for i in range(len(clips)))
        found += [preprocess.noisy(c, r, how.noise) for c, r in zip(clips, rngs, strict=True)]
    return found
