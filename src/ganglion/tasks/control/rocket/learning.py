"""The learner of the landing plan: fresh starts, fuel and what the constraints are missed by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.core.contracts import Arrays, Ranks
from ganglion.tasks.control.rocket.policy import Plan
from ganglion.tasks.control.rocket.references import signature
from ganglion.tasks.control.rocket.settings import FuelLoss
from ganglion.tasks.control.rocket.world import Rocket, magnitude
from ganglion.train.batches import Batches, Fresh, Resident
from ganglion.train.supervised import Supervised, SupervisedLearner, initialised

if TYPE_CHECKING:
    from ganglion.tasks.control.rocket.task import RocketLanding

Batch = dict[str, Tensor]

_UNIT_M_S = 200.0  # the loss is about 1
_FAR_M_S, _DEEP_M = 200.0, 100.0  # beyond, charges grow slowly: hopeless starts must not rule
_STEEP = 3.0
_POOL = 8  # draws from which hard starts are chosen, in batches


def make(
    task: RocketLanding, data: Arrays | None, device: str, seed: int, ranks: Ranks
) -> SupervisedLearner:
    """Build the learner of `task`; `data` None draws fresh starts at each step."""
    cfg, rocket, model = task.settings, task.rocket, task.model
    module = initialised(seed, lambda: Plan(rocket, model.hidden, model.newton, model.sharpness))
    batches: Batches
    if data is None:
        batches = Fresh(FreshStarts(rocket, task.loss.hard_share), cfg.train, seed, device, ranks)
    else:
        batches = Resident(data, cfg.train, seed, device, ranks)
    parts = Supervised(module, Fuel(rocket, task.loss), batches, signature(rocket))
    return SupervisedLearner(parts, cfg.train, cfg.optim, seed, device)


@dataclass(frozen=True)
class FreshStarts:
    """Draws training starts from the problem's own box, seeded by one integer of the generator.

    hard is the share of them that are the hardest of eight times as many: so low, fast and heavy
    that little height is left for braking. They are rare, and all that ever fails to land.
    """

    rocket: Rocket
    hard: float = 0.0

    def __call__(self, generator: torch.Generator, count: int) -> Batch:
        """Draw `count` starts on the generator's device."""
        key = torch.randint(2**62, (1,), generator=generator, device=generator.device)
        rng, chosen = np.random.default_rng(int(key)), round(self.hard * count)
        many = self.rocket.sample_starts(rng, _POOL * count if chosen else count)
        hardest = np.argsort(self.rocket.spare_height(many))[:chosen]
        starts = np.concatenate([many[hardest], many[: count - chosen]])
        return {"state": torch.as_tensor(starts, dtype=torch.float32).to(generator.device)}


@dataclass(frozen=True)
class Fuel:
    """Mean speed spent (h sum |a|, in 200 m/s), plus charges for what is not yet a landing.

    Fuel is m_0 (1 - exp(-speed / c)), so less speed is less fuel. Charged are, at the prices of
    the settings: the speed the projection had to add, nodes under the clearance, the net's distance
    from where Newton took it, and primer vectors longer than 3.
    """

    rocket: Rocket
    prices: FuelLoss

    def __call__(
        self, module: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(module, Plan)
        state, prices = batch["state"], self.prices
        t, guess, profile = module.propose(state)
        controls, landed, missing, y = module.plan(state, t, guess, profile)
        spent = (t / self.rocket.num_steps * magnitude(controls)).sum(1)
        height = self.rocket.fly(state, controls, t).position[:, 1:-1, 2]
        deep = torch.relu(prices.clearance_m - height).sum(1)
        away = nn.functional.huber_loss(guess, y.detach(), reduction="none").sum((1, 2))
        steep = torch.relu(module.steepness(y, profile) - _STEEP)
        charges = (
            prices.miss_weight * missing / (1.0 + missing / _FAR_M_S)
            + prices.ground_weight * _DEEP_M * torch.log1p(deep / _DEEP_M)
            + prices.guess_weight * away
            + prices.steepness_weight * steep
        )
        terms = {"speed": spent.mean().detach(), "landed": landed.float().mean().detach()}
        return (spent + charges).mean() / _UNIT_M_S, terms
