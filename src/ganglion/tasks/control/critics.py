"""What is left to pay: a learned cost to go, the optimal one of a grid, and choosing by it.

Shapes: R rows, U controls that are compared, n states.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.nets.mlp import Mlp
from ganglion.tasks.control import grid
from ganglion.tasks.control.feedback import Features
from ganglion.tasks.control.plant import Plant

_TRIED = 13  # controls that are compared where the optimal cost to go is known


class Critic(nn.Module):
    """V(x, time left) = typical cost * MLP(features); without time left it is the final cost."""

    scale: Tensor

    def __init__(self, plant: Plant, hidden: tuple[int, ...], typical: float) -> None:
        super().__init__()
        self.plant, self.typical, self.features = plant, typical, Features(plant)
        self.net = Mlp((self.features.width + 1, *hidden, 1), output_gain=0.1)
        box = torch.as_tensor(np.asarray(plant.start_box), dtype=torch.float32)
        self.register_buffer("scale", 1.0 / box, persistent=False)

    def forward(self, e: Tensor, left: Tensor) -> Tensor:
        """Errors e (..., n), whole steps left (...,) -> cost to go (...,)."""
        share = left.to(e.dtype) / self.plant.num_steps
        seen = torch.cat([self.features(e, self.scale), share.unsqueeze(-1)], -1)
        value: Tensor = self.typical * self.net(seen).squeeze(-1)
        return torch.where(left > 0, value, self.plant.final_cost(e))


class TableCritic(nn.Module):
    """The optimal cost to go from dynamic programming, bilinear between the points of its grid."""

    def __init__(self, plant: Plant, settling: float = 1.0) -> None:
        super().__init__()
        values, angles, rates = grid.table(plant, settling)
        self.plant, self.shape = plant, values.shape
        self.low = float(angles[0]), float(rates[0])
        self.step = float(angles[1] - angles[0]), float(rates[1] - rates[0])
        self.values = torch.as_tensor(values.reshape(-1))  # no buffer: it follows from the plant
        self.controls = torch.linspace(float(plant.low[0]), float(plant.high[0]), _TRIED)

    def forward(self, e: Tensor, left: Tensor) -> Tensor:
        """Errors e (..., 2), whole steps left (...,) -> cost to go (...,)."""
        if self.values.device != e.device:
            self.values = self.values.to(e.device)
        turned = self.plant.error(e, torch.zeros_like(e))
        a = ((turned[..., 0] - self.low[0]) / self.step[0]).clamp(0.0, self.shape[1] - 1.001)
        b = ((turned[..., 1] - self.low[1]) / self.step[1]).clamp(0.0, self.shape[2] - 1.001)
        i, j = a.detach().floor(), b.detach().floor()
        fa, fb = a - i, b - j
        at = (left * self.shape[1] + i.long()) * self.shape[2] + j.long()
        width = self.shape[2]
        low, high = self.values[at], self.values[at + width]
        low = low + fb * (self.values[at + 1] - low)
        high = high + fb * (self.values[at + width + 1] - high)
        value: Tensor = low + fa * (high - low)
        return value

    @torch.no_grad()
    def controls_cost(self, e: Tensor, left: Tensor) -> Tensor:
        """Cost R (u - c)^2 + V(next, left - 1) of every control tried: e (R, 2) -> (R, U).

        The cost of the state itself is left out: no control changes it.
        """
        self.controls = self.controls.to(e.device)
        tried = self.controls.repeat(len(e)).unsqueeze(1)
        moved = self.plant.step(e.repeat_interleave(_TRIED, 0), tried)
        after = (left - 1).clamp(min=0).repeat_interleave(_TRIED)
        total: Tensor = self(moved, after) + self.plant.control_cost(tried)
        return total.view(-1, _TRIED)


def hull(costs: Tensor, controls: Tensor, u: Tensor) -> Tensor:
    """Lower convex hull of costs (R, U) over controls (U,) at u (R, 1), with its slope: (R,).

    The cost over controls often has a valley at either bound. Descent on it ends in the nearer one;
    on its hull, the least mean cost of a random control of mean u (Rockafellar, Convex Analysis,
    1970, corollary 17.1.5), it ends in the lower one.
    """
    first, second = torch.triu_indices(len(controls), len(controls), 1, device=u.device)
    low, high = controls[first], controls[second]
    with torch.no_grad():
        slope = (costs[:, second] - costs[:, first]) / (high - low)
        line = costs[:, first] + slope * (u - low)
        around = (low <= u + 1e-6) & (u - 1e-6 <= high)
        value, best = torch.where(around, line, torch.inf).min(1)
        slope = slope.gather(1, best.unsqueeze(1)).squeeze(1)
    here = u.squeeze(1)
    return value + slope * (here - here.detach())


def typical_cost(plant: Plant, scale: float) -> float:
    """Return the mean cost of doing nothing from 256 starts: the critic's unit."""
    rng = np.random.default_rng(0)
    starts, targets = plant.sample_starts(rng, 256, scale), plant.sample_targets(rng, 256)
    idle = np.broadcast_to(plant.centre, (256, plant.num_steps, plant.m))
    return float(np.mean(plant.cost(plant.rollout(starts, idle), idle, targets)))
