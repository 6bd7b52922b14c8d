"""Trajectories that live on from step to step, and where new ones begin.

Shapes: E trajectories, K hard starts, n states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganglion.tasks.control.objectives import ActorCriticLoss
from ganglion.tasks.control.plant import Plant

_AROUND = 0.005  # start boxes, the standard deviation around a start that was found to be hard


@dataclass
class Trajectories:
    """The living trajectories: state, target, start (E, n), steps left (E,); the hardest starts.

    whole (E,) says which began with the whole horizon left; only they count as hard.
    hard (K, n) are the starts of the worst ends so far, score (K,) the final costs of those.
    """

    state: Tensor
    target: Tensor
    start: Tensor
    left: Tensor
    whole: Tensor
    hard: Tensor
    hard_target: Tensor
    score: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return dict(vars(self))


class Living:
    """The trajectories of a learner, `now`: begun, moved by the learner, and begun anew."""

    def __init__(
        self, plant: Plant, scale: float, loss: ActorCriticLoss, rng: np.random.Generator,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._plant, self._scale, self._loss, self._device = plant, scale, loss, device
        self.now = self._begin(rng)

    def _begin(self, rng: np.random.Generator) -> Trajectories:
        plant = self._plant
        count, kept = self._loss.trajectories, self._loss.hardest
        state, target = self._fresh(rng, count)
        hard, hard_target = self._fresh(rng, kept)
        left = rng.integers(1, plant.num_steps + 1, count)
        none = torch.full((kept,), -1.0, device=self._device)
        steps = torch.as_tensor(left, device=self._device)
        whole = torch.zeros(count, dtype=torch.bool, device=self._device)
        return Trajectories(state, target, state, steps, whole, hard, hard_target, none)

    def _fresh(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        starts = self._plant.sample_starts(rng, count, self._scale)
        targets = self._plant.sample_targets(rng, count)
        found = (torch.as_tensor(a, dtype=torch.float32) for a in (starts, targets))
        start, target = (a.to(self._device) for a in found)
        return start, target

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Draw starts and targets (count, n), a share of them among the hardest so far."""
        start, target = self._fresh(rng, count)
        again = torch.as_tensor(rng.random((count, 1)) < self._loss.restarts, device=self._device)
        rows = torch.as_tensor(rng.integers(0, self._loss.hardest, count), device=self._device)
        live = self.now
        hard = live.hard[rows]
        if self._loss.mines:  # what was found stands for what lies around it
            width = _AROUND * self._scale * np.asarray(self._plant.start_box)
            off = rng.standard_normal(hard.shape) * width
            hard = hard + torch.as_tensor(off, dtype=torch.float32).to(self._device)
        return (
            torch.where(again, hard, start),
            torch.where(again, live.hard_target[rows], target),
        )

    def restart(self, rng: np.random.Generator) -> None:
        """Begin anew where no time is left, or a state ran away; remember the worst ends."""
        live, count = self.now, self._loss.trajectories
        ended = (live.left <= 0) | ~torch.isfinite(live.state).all(-1)
        if self._loss.renewal:
            ended |= torch.as_tensor(rng.random(count) < self._loss.renewal, device=self._device)
        if not self._loss.mines:
            self._remember(ended)
        start, target = self.draw(rng, count)
        again = ended.unsqueeze(-1)
        live.start = torch.where(again, start, live.start)
        live.state = torch.where(again, start, live.state)
        live.target = torch.where(again, target, live.target)
        live.left = torch.where(ended, self._plant.num_steps, live.left)
        live.whole = live.whole | ended

    def _remember(self, ended: Tensor) -> None:
        """Keep the starts with the largest final costs among the ends and those known."""
        live = self.now
        final = torch.nan_to_num(self._plant.final_cost(live.state - live.target), nan=1e30)
        score = torch.where(ended & live.whole & (live.left <= 0), final, -1.0)
        # Old scores fade, so that a start that has become easy makes room.
        scores = torch.cat([self._loss.fading * live.score, score])
        starts, targets = (torch.cat(pair) for pair in (
            (live.hard, live.start), (live.hard_target, live.target)))  # fmt: skip
        self.keep(scores, starts, targets)

    def candidates(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Return the hard starts and targets and `count` fresh ones."""
        start, target = self._fresh(rng, count)
        return torch.cat([self.now.hard, start]), torch.cat([self.now.hard_target, target])

    def keep(self, score: Tensor, start: Tensor, target: Tensor) -> None:
        """Remember those with the largest score (B,) as the hard ones."""
        live = self.now
        live.score, rows = score.topk(self._loss.hardest)
        live.hard, live.hard_target = start[rows], target[rows]
