"""Losses and fresh draws for the trained policies of the task; no global randomness.

Shapes: B cases, N steps, n states, m controls. A batch maps names to tensors: `state` and `target`
(B, n), `time_left_s` (B, 1) and, for imitation, the label's `controls` (B, N, m) and `states`
(B, N + 1, n) over the whole horizon. A loss is called with the module, a batch and a generator,
and returns a scalar and the metrics to log beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.tasks.control.closed_loop import closed_loop_cost
from ganglion.tasks.control.feedback import Feedback
from ganglion.tasks.control.plant import Floats, Plant
from ganglion.tasks.control.refinement import RefiningController

Batch = dict[str, Tensor]
Terms = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class FreshStarts:
    """Draws training cases from the problem's own distribution.

    full_share of the draws have the whole horizon left, the others 1..N steps with equal chances;
    scale multiplies the start box. The numbers come from the plant's NumPy samplers, seeded by
    one integer from the generator, which lives on the CPU.
    """

    plant: Plant
    full_share: float = 0.5
    scale: float = 1.0

    def __call__(self, generator: torch.Generator, count: int) -> Batch:
        """Draw `count` cases; the generator alone decides them."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        plant = self.plant
        steps = rng.integers(1, plant.num_steps + 1, (count, 1))
        steps[rng.random((count, 1)) < self.full_share] = plant.num_steps
        arrays = {
            "state": plant.sample_starts(rng, count, self.scale),
            "target": plant.sample_targets(rng, count),
            "time_left_s": steps * plant.dt,
        }
        return {k: torch.as_tensor(a, dtype=torch.float32) for k, a in arrays.items()}


@dataclass(frozen=True)
class DynamicsCost:
    """The problem's own cost over the time left, through the dynamics; needs no labels.

    `feedback`: the closed loop. `trc`: process supervision, the cost after every cycle k = 1..K
    weighted discount^(K - k), weights summing to one. Any other sequence policy: one open-loop
    call. A case with k < N steps left waits at its start for N - k steps; the waiting costs a
    constant, which no gradient sees (`trc` leaves it out).
    """

    plant: Plant
    discount: float = 0.7
    case_clip: float = 0.0

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Terms:
        if isinstance(module, RefiningController):
            inputs = batch["state"], batch["target"], batch["time_left_s"]
            means = module.costs(*inputs, module.cycles)[1:].mean(1)
            loss = (_cycle_weights(means, self.discount) * means).sum()
            return loss, {"cost": means[-1].detach()}
        if isinstance(module, Feedback):
            steps = steps_left(self.plant, batch["time_left_s"])
            inputs = batch["state"], batch["target"], steps
            loss = closed_loop_cost(module, self.plant, inputs, self.case_clip)
        else:
            loss = self._open_loop(module, batch)
        return loss, {"cost": loss.detach()}

    def _open_loop(self, module: nn.Module, batch: Batch) -> Tensor:
        plant, x, target = self.plant, batch["state"], batch["target"]
        u = module(x, target, batch["time_left_s"])
        wait = plant.num_steps - steps_left(plant, batch["time_left_s"])
        acts = torch.arange(plant.num_steps, device=x.device) >= wait  # (B, N)
        u = roll(u, -wait) * acts.unsqueeze(-1)
        states = [x]
        for t in range(plant.num_steps):
            moved = plant.step(states[-1], u[:, t])
            states.append(torch.where(acts[:, t : t + 1], moved, states[-1]))
        cost: Tensor = plant.cost(torch.stack(states, 1), u, target)
        return cost.mean()


@dataclass(frozen=True)
class Imitation:
    """Mean squared error to the label's controls and, where weighted, to its trajectory.

    Controls are compared in units of their bound, states in units of the start box. full_share of
    the cases start at the beginning of the label's trajectory, the others k = 1..N steps before
    its end. `trc` is supervised after every cycle with weights discount^(K - k); 0: the last only.
    `feedback` sees every state of the label's trajectory and has no trajectory of its own.
    """

    plant: Plant
    control_weight: float = 1.0
    trajectory_weight: float = 0.0
    discount: float = 0.0
    full_share: float = 1.0

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Terms:
        if isinstance(module, Feedback):
            return self._pairs(module, batch)
        state, wait = self._begin(batch, generator)
        left = (self.plant.num_steps - wait) * self.plant.dt
        if isinstance(module, RefiningController):
            plans = module.iterates(state, batch["target"], left, module.cycles)[1:]
            plans = plans[-1:] if self.discount == 0.0 else plans
        else:
            plans = [module(state, batch["target"], left)]
        return self._compare(plans, batch, state, wait)

    def _begin(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where and when each case begins: its state (B, n) and the steps it leaves out (B, 1)."""
        wait = self.plant.num_steps - steps_left(self.plant, batch["time_left_s"])
        if self.full_share >= 1.0:
            return batch["state"], wait
        drawn = torch.rand(wait.shape, generator=generator, device=wait.device)
        late = torch.rand(wait.shape, generator=generator, device=wait.device) >= self.full_share
        skipped = (drawn * self.plant.num_steps).long() * late
        rows = torch.arange(len(wait), device=wait.device)
        return batch["states"][rows, skipped.squeeze(-1)], skipped

    def _compare(self, plans: Sequence[Tensor], batch: Batch, state: Tensor, wait: Tensor) -> Terms:
        steps = self.plant.num_steps
        acts = (torch.arange(steps, device=wait.device) < steps - wait).unsqueeze(-1)  # (B, N, 1)
        share = acts.sum() * self.plant.m
        scale = _row(self.plant.bound, state)
        wanted = roll(batch["controls"], wait)
        errors = [(((u - wanted) / scale * acts) ** 2).sum() / share for u in plans]
        weights = _cycle_weights(torch.stack(errors), self.discount)
        loss = self.control_weight * (weights * torch.stack(errors)).sum()
        terms = {"control_mse": errors[-1].detach()}
        if self.trajectory_weight:
            off = [self._off_track(u * acts, wanted * acts, state, acts) for u in plans]
            loss = loss + self.trajectory_weight * (weights * torch.stack(off)).sum()
            terms["trajectory_mse"] = off[-1].detach()
        return loss, terms

    def _off_track(self, u: Tensor, wanted: Tensor, state: Tensor, acts: Tensor) -> Tensor:
        both = torch.cat([u, wanted]), torch.cat([state, state])
        ours, theirs = self.plant.rollout(both[1], both[0])[:, 1:].chunk(2)
        gap: Tensor = (
            self.plant.error(ours, theirs) / _row(np.asarray(self.plant.start_box), state) * acts
        )
        return (gap**2).sum() / (acts.sum() * self.plant.n)

    def _pairs(self, module: Feedback, batch: Batch) -> Terms:
        plant, states = self.plant, batch["states"][:, :-1]
        steps = torch.arange(plant.num_steps, 0, -1, device=states.device)
        left = (steps * plant.dt).to(states.dtype).expand(len(states), -1)
        target = batch["target"].unsqueeze(1).expand_as(states)
        u = module.control(states.flatten(0, 1), target.flatten(0, 1), left.reshape(-1, 1))
        gap = (u - batch["controls"].flatten(0, 1)) / _row(plant.bound, u)
        error = (gap**2).mean()
        return self.control_weight * error, {"control_mse": error.detach()}


def steps_left(plant: Plant, time_left_s: Tensor) -> Tensor:
    """Whole steps left, clamped to 1..N, in the shape of `time_left_s`."""
    return torch.round(time_left_s / plant.dt).clamp(1, plant.num_steps).long()


def roll(sequence: Tensor, by: Tensor) -> Tensor:
    """Roll each case of (B, N, .) to the left by its own number of entries, `by` (B, 1)."""
    index = torch.arange(sequence.shape[1], device=sequence.device) + by
    index = torch.remainder(index, sequence.shape[1]).unsqueeze(-1)
    return sequence.gather(1, index.expand_as(sequence))


def _cycle_weights(values: Tensor, discount: float) -> Tensor:
    """discount^(K - k) for k = 1..K, scaled to sum to one."""
    ages = torch.arange(len(values) - 1, -1, -1, device=values.device, dtype=values.dtype)
    weights: Tensor = discount**ages
    return weights / weights.sum()


def _row(values: Floats, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
