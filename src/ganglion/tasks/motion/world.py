"""From settings to what everything else works on: robot, clips, reference, rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from ganglion.core import seeds
from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.motion import gait, importers, preprocess, robot, validation
from ganglion.tasks.motion.clip import Clip
from ganglion.tasks.motion.config import (
    AugmentSettings,
    Config,
    FileSettings,
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
    clips = [preprocess.prepared(c, body, rates.control_hz) for c in imported]
    reports = tuple(validation.check(c, body) for c in clips)
    if not cfg.faulty:
        for report in reports:
            report.ensure()
    clips = augmented(clips, body, cfg.augment)
    longest = max(cfg.problem.episode_s, cfg.evaluation.seconds, 60.0) * rates.control_hz
    cycles = 3 + int(longest / min(c.frames for c in clips))
    reference = Reference(body, clips, cycles)
    problem = cfg.problem
    kind = (problem.action == "residual", problem.goal == "command", problem.action_scale)
    judged = Rules(body, reference.mean, True, *kind)
    seen = judged if problem.observation == "full" else Rules(body, reference.mean, False, *kind)
    return World(body, reference, seen, judged, rates, reports, imported)


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
    return chosen if not cfg.faulty else [_tamed(c, clip) for c in chosen]


def _tamed(clip: Clip, settings: FileSettings) -> Clip:
    """Refuse what no net can be fitted to, even where faults are only noted."""
    if not all(np.isfinite(a).all() for a in (clip.root_pos, clip.root_quat, clip.joint_pos)):
        raise DataError(
            f"Motion {clip.name!r} of {settings.path} holds numbers that are not finite."
        )
    return clip


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
