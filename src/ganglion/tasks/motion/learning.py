"""The learners of motion: PPO in physics, or cloning; put together from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Learner, Ranks
from ganglion.rl.environment import VectorEnvironment
from ganglion.rl.networks import Critic, GaussianActor
from ganglion.rl.ppo import Parts, PpoLearner
from ganglion.rl.prior import MotionPrior
from ganglion.tasks.motion import references, style
from ganglion.tasks.motion.config import Config, PpoLoss
from ganglion.tasks.motion.environment import Practice, TrackingEnvironment
from ganglion.tasks.motion.model import Clone, Tracker
from ganglion.tasks.motion.physics import Physics, RolloutPhysics
from ganglion.tasks.motion.physics import World as Surroundings
from ganglion.tasks.motion.world import World
from ganglion.train.batches import Batch, Fresh
from ganglion.train.supervised import Supervised, SupervisedLearner, initialised

if TYPE_CHECKING:
    from ganglion.tasks.motion.task import Motion


def make(task: Motion, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
    """Build the learner of `task`; training always draws its own starts."""
    cfg = task.settings
    if isinstance(cfg.loss, PpoLoss):
        return _ppo(task.world, cfg, cfg.loss, device, seed)
    frames = Frames(task.world, cfg.loss.state_noise)
    return _cloning(task.world, cfg, frames, (device, seed, ranks))


def _ppo(world: World, cfg: Config, loss: PpoLoss, device: str, seed: int) -> PpoLearner:
    seen, judged = world.seen, world.judged
    hidden, actions = cfg.model.hidden, len(world.robot.actuated)
    actor = initialised(
        seed, lambda: GaussianActor(seen.layout.size, actions, hidden, cfg.model.initial_std)
    )
    critic = initialised(seed + 1, lambda: Critic(judged.layout.size, hidden))
    assert isinstance(actor, GaussianActor)
    assert isinstance(critic, Critic)
    prior = None
    if loss.style.on:
        true = torch.as_tensor(style.transitions(world.reference), dtype=torch.float32)
        torch.manual_seed(seeds.key(seed, "prior") >> 1)
        prior = MotionPrior(loss.style, true)
    parts = Parts(
        lambda: environment(world, cfg, seed, device), actor, critic, references.signature(seen),
        lambda trained: Tracker(trained, seen), prior,
    )  # fmt: skip
    return PpoLearner(parts, (loss, cfg.train, cfg.optim), seed, device)


def environment(world: World, cfg: Config, seed: int, device: str) -> VectorEnvironment:
    """Return the robots that practise, as the settings disturb them."""
    problem = cfg.problem
    rng = seeds.rng(seed, "robots")
    practice = Practice(
        max(1, round(problem.episode_s * world.rates.control_hz)), problem.start_noise,
        problem.sensor_noise, problem.latency, problem.push,
        max(1, round(4.0 * world.rates.control_hz)),
        problem.start_offset if world.seen.privileged and not world.seen.commanded else 0.0,
    )  # fmt: skip
    physics = _physics(world, cfg, rng, device)
    return TrackingEnvironment(physics, world.reference, world.judged, practice, world.seen, rng)


def _physics(world: World, cfg: Config, rng: np.random.Generator, device: str) -> Physics:
    count, vary = cfg.environments, cfg.problem.randomise
    if cfg.physics.backend == "warp":
        from ganglion.tasks.motion.warp_physics import WarpPhysics

        return WarpPhysics(world.robot, count, world.rates, device)
    worlds = [Surroundings()]
    if vary:
        drawn = rng.uniform(1.0 - vary, 1.0 + vary, (count, 2))
        worlds = [Surroundings(float(f), float(m)) for f, m in drawn]
    return RolloutPhysics(
        world.robot, count, world.rates, threads=cfg.physics.threads, worlds=worlds
    )


# ---------------------------------------------------------------- cloning


class Frames:
    """Draws observations in which the phase is right and everything else is noise."""

    def __init__(self, world: World, noise: float) -> None:
        reference, layout = world.reference, world.seen.layout
        clip = np.repeat(np.arange(len(reference.clips)), reference.lengths)
        frame = np.concatenate([np.arange(n) for n in reference.lengths])
        _, after, phase = reference.at(clip, frame)
        self._wanted = torch.as_tensor(after[:, world.robot.actuated], dtype=torch.float32)
        turn = 2.0 * torch.pi * torch.as_tensor(phase, dtype=torch.float32)
        self._phase = torch.stack([torch.sin(turn), torch.cos(turn)], -1)
        self._at, self._size, self._noise = layout.slice("phase"), layout.size, noise

    def __call__(self, draw: torch.Generator, count: int) -> Batch:
        """Return observations (count, O) and the joint targets (count, A) that belong to them."""
        rows = torch.randint(len(self._phase), (count,), generator=draw)
        seen = self._noise * torch.randn(count, self._size, generator=draw)
        seen[:, self._at] = self._phase[rows]
        return {"observation": seen, "target": self._wanted[rows]}


def _squared(
    module: nn.Module, batch: Batch, draw: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    error = module(batch["observation"]) - batch["target"]
    return error.square().mean(), {"rmse": error.detach().square().mean().sqrt()}


class CloningLearner(SupervisedLearner):
    """Supervised, on frames of the clip; its validation loss is over frames too."""

    def __init__(
        self, frames: Frames, parts: Supervised, cfg: Config, seed: int, device: str
    ) -> None:
        super().__init__(parts, cfg.train, cfg.optim, seed, device)
        drawn = frames(torch.Generator().manual_seed(seeds.key(seed, "held out") >> 1), 1_024)
        self._held_out = {k: v.numpy() for k, v in drawn.items()}

    def loss(self, data: Arrays) -> dict[str, float]:
        """Mean squared error over frames; `data` are starts of episodes and hold no labels."""
        return dict(super().loss(self._held_out))


def _cloning(
    world: World, cfg: Config, frames: Frames, where: tuple[str, int, Ranks]
) -> SupervisedLearner:
    device, seed, ranks = where
    module = initialised(seed, lambda: Clone(world.seen, cfg.model.hidden))
    batches = Fresh(frames, cfg.train, seed, device, ranks)
    parts = Supervised(module, _squared, batches, references.signature(world.seen))
    return CloningLearner(frames, parts, cfg, seed, device)
