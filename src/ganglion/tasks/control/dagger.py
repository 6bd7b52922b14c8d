"""Learn from optimal plans, and have new ones made where the policy goes wrong (DAgger).

A policy that only knows the states on optimal ways meets others as soon as it errs. So a few times
on the way it is let run; plans are made from where it came to, and join the others. Half of them
begin where it loses most, shortly after the start: there it decides wrongly which way to go.
Sources: see `DaggerLoss`. Shapes: B cases, n states.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Metrics, Ranks
from ganglion.tasks.control import references
from ganglion.tasks.control.closed_loop import Path, closed_loop_cost, run
from ganglion.tasks.control.config import Config
from ganglion.tasks.control.feedback import Feedback
from ganglion.tasks.control.losses import steps_left
from ganglion.tasks.control.objectives import DaggerLoss
from ganglion.tasks.control.plans import PlanImitation, Plans
from ganglion.tasks.control.plant import Floats
from ganglion.tasks.control.problem import ProblemSettings
from ganglion.train.batches import Fresh, to_device
from ganglion.train.policy import TorchPolicy
from ganglion.train.supervised import Supervised, SupervisedLearner

_UNTIL = 0.85  # of the steps: plans that come later are hardly learned from
_LOOKED_AT = 1_000  # known starts among which the worst are looked for
_EARLY = 0.1  # of the horizon: where a wrong way is taken
_LATEST = 0.7  # of the horizon
_FURTHEST = 6.0  # start boxes: a policy that ran away further is not followed


class DaggerLearner:
    """A supervised learner whose rows grow; a `Learner`."""

    def __init__(
        self, cfg: Config, module: nn.Module, seed: int, device: str, ranks: Ranks
    ) -> None:  # fmt: skip
        loss = cfg.loss
        if not isinstance(loss, DaggerLoss) or not isinstance(cfg.problem, ProblemSettings):
            raise TypeError("DAgger needs its own settings, and a plant that is controlled")
        plant = cfg.problem.plant()
        self._loss, self._plant, self._seed = loss, plant, seed
        self._scale, self._device = cfg.problem.start_scale * loss.spread, device
        self._plans = Plans(plant, loss)
        batches = Fresh(self._plans.draw, cfg.train, seed, device, ranks)
        regret = PlanImitation(plant, lambda: loss.regret_unit * self._plans.unit)
        parts = Supervised(module, regret, batches, references.signature(plant, 1))
        self._inner = SupervisedLearner(parts, cfg.train, cfg.optim, seed, device)
        total, count = cfg.train.total_steps(None), loss.rounds
        self._due = [int(_UNTIL * total * i / (count + 1)) for i in range(1, count + 1)]
        self._done = 0
        self.labelling_seconds = 0.0  # since this process began, for the diagnosis
        self._validation: tuple[Arrays, dict[str, Tensor]] | None = None

    @property
    def step(self) -> int:
        """Return the number of optimizer steps taken."""
        return self._inner.step

    @property
    def data_seconds(self) -> float:
        """Time spent on batches, for the diagnosis."""
        return self._inner.data_seconds

    def update(self) -> Metrics:
        """Make the plans that are due, then take the steps up to the next boundary."""
        began = time.perf_counter()
        self._make_plans()
        self.labelling_seconds += time.perf_counter() - began
        return {**self._inner.update(), "plans": float(self._plans.count)}

    # ------------------------------------------------------------ plans

    def _make_plans(self) -> None:
        if not self._plans.count:
            rng = seeds.rng(self._seed, "plans")
            self._plans.add(*self._starts(rng, self._loss.plans), self._plant.num_steps)
        while self._done < len(self._due) and self.step >= self._due[self._done]:
            self._follow(seeds.rng(self._seed, "plans", 1 + self._done))
            self._done += 1

    def _starts(self, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        plant = self._plant
        return plant.sample_starts(rng, count, self._scale), plant.sample_targets(rng, count)

    def _follow(self, rng: np.random.Generator) -> None:
        """Add the plans of one round: from the worst of the known starts, and from anywhere."""
        half, steps = self._loss.plans_per_round // 2, self._plant.num_steps
        known = self._plans.pool
        rows = rng.permutation(len(known.cost))[:_LOOKED_AT]
        starts, targets = known.start[rows], known.target[rows]
        path = self._run(starts, targets)
        states, controls = path.states.double().numpy(), path.controls.double().numpy()
        cost = np.asarray(self._plant.cost(states, controls, targets))
        worst = np.argsort(known.cost[rows] - np.nan_to_num(cost, nan=np.inf))[:half]
        early = int(rng.integers(0, max(1, round(_EARLY * steps))))
        self._add(path.states[worst, early], targets[worst], steps - early)
        starts, targets = self._starts(rng, self._loss.plans_per_round - half)
        late = int(_LATEST * steps * rng.random() ** 2)  # rather early: more is still to pay
        self._add(self._run(starts, targets).states[:, late], targets, steps - late)

    def _add(self, states: Tensor, target: Floats, left: int) -> None:
        e = self._plant.error(states.double().numpy(), target)
        most = _FURTHEST * np.asarray(self._plant.start_box)
        self._plans.add(target + np.nan_to_num(e).clip(-most, most), target, left)

    @torch.no_grad()
    def _run(self, starts: Floats, targets: Floats) -> Path:
        """Let the averaged policy run from `starts`, on the CPU."""
        x, goal = (torch.as_tensor(a, dtype=torch.float32, device=self._device)
                   for a in (starts, targets))  # fmt: skip
        left = torch.full((len(x), 1), self._plant.num_steps, device=self._device)
        return Path(*(a.cpu() for a in run(self._policy(), self._plant, x, goal, left)))

    def _policy(self) -> Feedback:
        module = self._inner.policy().module
        if not isinstance(module, Feedback):
            raise TypeError("DAgger trains state feedback")
        return module

    # ------------------------------------------------------------ looking

    @torch.no_grad()
    def loss(self, data: Arrays) -> Metrics:
        """Mean cost of the averaged policy in closed loop from the starts of `data`."""
        if self._validation is None or self._validation[0] is not data:
            used = {k: data[k] for k in ("state", "target", "time_left_s")}
            self._validation = (data, to_device(used, self._device))
        batch = self._validation[1]
        inputs = batch["state"], batch["target"], steps_left(self._plant, batch["time_left_s"])
        cost = float(closed_loop_cost(self._policy(), self._plant, inputs))
        return {"loss": cost, "cost": cost}

    def observe(self, value: float) -> None:
        """Take the validation value, for the schedule `plateau`."""
        self._inner.observe(value)

    def notes(self) -> Sequence[Mapping[str, Any]]:
        """Return and forget what a person should know."""
        return self._inner.notes()

    def policy(self) -> TorchPolicy:
        """Return the averaged policy."""
        return self._inner.policy()

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what the inner learner holds, the plans and how many rounds were made."""
        plans = {"rows": self._plans.state_dict(), "rounds": self._done}
        return {**self._inner.state_dict(), "plans": plans}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._inner.load_state_dict(state)
        self._plans.load_state_dict(state["plans"]["rows"])
        self._done = state["plans"]["rounds"]

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take the averaged policy of another learner's state, no more."""
        self._inner.warm_start(state)
