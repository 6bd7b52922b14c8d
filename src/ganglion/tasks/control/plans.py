"""Optimal plans as a teacher: each state on their way says which control is best, and around it.

The expansion of the cost to go along a plan (`ilqr.expansion`) answers for states beside the plan
and for controls that are not the best, so one plan teaches a tube. Shapes: R rows, B plans, N
steps, n states, m controls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.tasks.control import boxqp, ilqr, oracle
from ganglion.tasks.control.losses import Batch, Terms
from ganglion.tasks.control.objectives import DaggerLoss
from ganglion.tasks.control.plant import Course, Floats, Plant

_ITERATIONS = 25  # of the local solver, for each plan


@dataclass
class Pool:
    """Where whole plans began: starts and targets (B, n), and what they cost (B,)."""

    start: Floats
    target: Floats
    cost: Floats


class Plans:
    """The rows that have been labelled so far, drawn where there is still much to pay."""

    def __init__(self, plant: Plant, loss: DaggerLoss) -> None:
        self._plant, self._loss = plant, loss
        n, m = plant.n, plant.m
        shapes = {"state": (n,), "target": (n,), "time_left_s": (1,), "control": (m,),
                  "gradient": (m,), "hessian": (m, m), "cross": (m, n)}  # fmt: skip
        self._rows = {k: torch.zeros((0, *shape)) for k, shape in shapes.items()}
        self._weight = self._ends = np.zeros(0)
        self._spread = torch.zeros(n)  # of the states on the first plans
        self.pool = Pool(np.zeros((0, n)), np.zeros((0, n)), np.zeros(0))
        self.count = 0

    @property
    def unit(self) -> float:
        """What a whole plan costs on average."""
        return float(self.pool.cost.mean())

    def add(self, x0: Floats, target: Floats, left: int) -> None:
        """Solve B cases with `left` steps left and keep every state on the way."""
        plant = replace(self._plant, num_steps=left)
        course = oracle.plan(plant, x0, target, _ITERATIONS)
        around = ilqr.expansion(plant, course, target)
        states, controls = course.states[:, :-1], course.controls
        time = np.broadcast_to(plant.dt * np.arange(left, 0, -1)[:, None], (len(x0), left, 1))
        goals = np.broadcast_to(target[:, None], states.shape)
        found = {"state": states, "target": goals, "time_left_s": time, "control": controls,
                 "gradient": around.gradient, "hessian": around.hessian,
                 "cross": around.cross}  # fmt: skip
        for name, array in found.items():
            rows = np.ascontiguousarray(array.reshape(-1, *array.shape[2:]), np.float32)
            self._rows[name] = torch.cat([self._rows[name], torch.from_numpy(rows)])
        cost = _cost_to_go(plant, course, target)
        # the square root: late in a plan little is left to pay, yet it has to end well
        weight = self._loss.least_weight + np.sqrt(cost / cost[:, :1].clip(1e-9)).clip(0.0, 1.0)
        self._weight = np.concatenate([self._weight, weight.ravel()])
        self._ends = np.cumsum(self._weight)
        if not self.count:
            errors = plant.error(states, target[:, None])
            self._spread = torch.as_tensor(errors.std((0, 1)), dtype=torch.float32)
        if left == self._plant.num_steps:
            kept = self.pool
            self.pool = Pool(
                np.concatenate([kept.start, x0]),
                np.concatenate([kept.target, target]),
                np.concatenate([kept.cost, cost[:, 0]]),
            )
        self.count += len(x0)

    def draw(self, generator: torch.Generator, count: int) -> Batch:
        """Draw rows, disturb their states and say what is then best, `best` (R, m)."""
        at = torch.rand(count, generator=generator, dtype=torch.float64).numpy() * self._ends[-1]
        rows = torch.from_numpy(np.searchsorted(self._ends, at).clip(0, len(self._ends) - 1))
        batch = {name: column[rows] for name, column in self._rows.items()}
        noise = torch.randn((count, self._plant.n), generator=generator)
        off = self._loss.disturbance * self._spread * noise
        slope = batch["gradient"] + (batch.pop("cross") @ off.unsqueeze(-1)).squeeze(-1)
        batch |= {"state": batch["state"] + off, "gradient": slope}
        return batch | {"best": self._best(batch)}

    def _best(self, batch: Batch) -> Tensor:
        u, h, g = (batch[k].double().numpy() for k in ("control", "hessian", "gradient"))
        move, _ = boxqp.stage(h, g, self._plant.low - u, self._plant.high - u)
        return torch.as_tensor(u + move, dtype=torch.float32)

    def state_dict(self) -> dict[str, Any]:
        """Return rows, weights and pool."""
        more = {"weight": self._weight, "spread": self._spread, "count": self.count}
        return {"rows": dict(self._rows), "pool": dict(vars(self.pool)), **more}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._rows = {k: torch.as_tensor(v) for k, v in state["rows"].items()}
        self._weight = np.asarray(state["weight"])
        self._ends = np.cumsum(self._weight)
        self._spread = torch.as_tensor(state["spread"])
        self.pool = Pool(**{k: np.asarray(v) for k, v in state["pool"].items()})
        self.count = int(state["count"])


def _cost_to_go(plant: Plant, course: Course, target: Floats) -> Floats:
    """Return what is left to pay at every step of the course, (B, N)."""
    e = plant.error(course.states, target[:, None])
    stage = np.asarray(plant.stage_cost(e[:, :-1], course.controls))
    stage[:, -1] += np.asarray(plant.final_cost(e[:, -1]))
    return np.asarray(stage[:, ::-1].cumsum(1)[:, ::-1])


@dataclass(frozen=True)
class PlanImitation:
    """What a control costs more than the best one, and how far it is from it.

    The regret r = Q(u) - Q(best) of the expansion is quadratic, and true only close by: it counts
    as 2 r / (1 + r) in units of unit(). The squared distance, in units of the bound, holds where
    the regret is flat.
    """

    plant: Plant
    unit: Callable[[], float]

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Terms:
        u = module.control(batch["state"], batch["target"], batch["time_left_s"], _LEAK)  # type: ignore[operator]
        start, best, h = batch["control"], batch["best"], batch["hessian"]
        # Q(u) - Q(best) = (u - best)'(g + H (u + best - 2 start) / 2)
        bend = (h @ (u + best - 2.0 * start).unsqueeze(-1)).squeeze(-1)
        regret = ((u - best) * (batch["gradient"] + 0.5 * bend)).sum(-1).clamp(min=0.0)
        share = regret / self.unit()
        bound = torch.as_tensor(self.plant.bound, dtype=u.dtype, device=u.device)
        off = ((u - best) / bound).square().mean()
        loss = (2.0 * share / (1.0 + share)).mean() + off
        return loss, {"regret": regret.mean().detach(), "control_mse": off.detach()}


_LEAK = 0.3  # a policy that holds the wrong bound has to hear of it
