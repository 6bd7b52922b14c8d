"""The learners of gridnav: net, maps and losses put together from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ganglion.core.contracts import Array, Arrays, Learner, Ranks
from ganglion.core.errors import SettingsError
from ganglion.tasks.gridnav import model, records
from ganglion.tasks.gridnav.config import MixerSettings, RecurrentSettings
from ganglion.tasks.gridnav.learner import Recipe, SlotLearner
from ganglion.tasks.gridnav.losses import StateLoss
from ganglion.tasks.gridnav.model import Reasoner
from ganglion.tasks.gridnav.training_maps import Crops, FreshMaps, Source
from ganglion.train.batches import Batch, Batches, Fresh, Resident
from ganglion.train.supervised import Supervised, SupervisedLearner, initialised

if TYPE_CHECKING:
    from ganglion.tasks.gridnav.task import GridNav


def make(task: GridNav, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
    """Build the learner of `task`; `data` None draws fresh maps."""
    if isinstance(task.settings.model, MixerSettings):
        return _states(task, data, device, seed, ranks)
    return _slots(task, data, device, seed, ranks)


def _slots(task: GridNav, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> SlotLearner:
    cfg = task.settings
    net = cfg.model
    assert isinstance(net, RecurrentSettings)
    if ranks.world > 1:
        raise SettingsError("model=wave and model=trm train in one process.")
    module = initialised(seed, lambda: model.build(net, cfg.problem))
    assert isinstance(module, Reasoner)
    height, width = cfg.problem.height, cfg.problem.width
    pool = cfg.pool
    if net.mixing == "mlp" or net.positions == "learned":
        pool = pool.model_copy(update={"sides": (height, height)})
    source: Source = FreshMaps(seed, (height, width), pool.pockets)
    if data is not None:
        most = min(height, width)
        pool = pool.model_copy(update={"sides": tuple(min(s, most) for s in pool.sides)})
        source = Crops(records.read(data).free, seed)
    recipe = Recipe(
        source, pool, model.signature_of(net, cfg.problem), net.inner, net.blind, cfg.steps or 1
    )
    return SlotLearner(module, recipe, cfg.train, cfg.optim, seed, device)


def _states(
    task: GridNav, data: Arrays | None, device: str, seed: int, ranks: Ranks
) -> SupervisedLearner:
    cfg, net = task.settings, task.settings.model
    assert isinstance(net, MixerSettings)
    module = initialised(seed, lambda: model.build(net, cfg.problem))
    batches: Batches
    if data is None:
        batches = Fresh(FreshStates(task), cfg.train, seed, device, ranks)
    else:
        batches = Resident(state_columns(data), cfg.train, seed, device, ranks)
    loss = StateLoss(net.augment, net.targets == "first")
    parts = Supervised(module, loss, batches, model.signature_of(net, cfg.problem))
    return _StateLearner(parts, cfg.train, cfg.optim, seed, device)


class _StateLearner(SupervisedLearner):
    """Unpacks what validation is given, as its training rows were."""

    def loss(self, data: Arrays) -> dict[str, float]:
        if self._validation is None or self._validation[0] is not data:
            self._columns = state_columns(data)
        return dict(super().loss(self._columns))


def state_columns(data: Arrays) -> dict[str, Array]:
    """Return rows as `StateLoss` wants them: open, start, goal, best (B, 5) and label."""
    found = records.read(data)
    rows = np.arange(len(found.free))
    here = found.moves[rows, found.start[:, 0], found.start[:, 1]]
    best = (here[:, None] >> np.arange(5, dtype=np.uint8) & 1).astype(np.float32)
    return {
        "open": found.free.astype(np.float32), "start": found.start, "goal": found.goal,
        "best": best, "label": found.label,
    }  # fmt: skip


class FreshStates:
    """Draws new states of the task's own maps, from one integer of the generator."""

    def __init__(self, task: GridNav) -> None:
        self._task = task

    def __call__(self, generator: torch.Generator, count: int) -> Batch:
        key = int(torch.randint(2**62, (1,), generator=generator))
        drawn = self._task.generate(count, "train", np.random.default_rng(key))
        return {k: torch.as_tensor(v) for k, v in state_columns(drawn).items()}
