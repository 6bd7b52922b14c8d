"""The two plain policies: state feedback pi(e, t), and the sequence baseline `mlp`.

Shapes: B cases, N steps, n states, m controls. Normalising and bounding happen inside the modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.nets.mlp import Mlp
from ganglion.tasks.control.plant import Plant


class Feedback(nn.Module):
    """pi(e, t) = c + bound * tanh(MLP([e / scale, time left / horizon])): one control, no plan.

    c is the middle of the range, 0 for most. Of an angle the net sees sine and cosine.

    The target itself is a further input only where it is no equilibrium of the plant (a moving
    target), because elsewhere the error decides alone.
    """

    input_names: ClassVar[tuple[str, ...]] = ("state", "target", "time_left_s")
    scale: Tensor
    bound: Tensor
    centre: Tensor

    def __init__(self, plant: Plant, hidden: Sequence[int] = (48, 48)) -> None:
        super().__init__()
        self.columns = [] if targets_rest(plant) else varying_targets(plant)
        self.features = Features(plant)
        width = self.features.width + len(self.columns) + 1
        self.net = Mlp((width, *hidden, plant.m), output_gain=0.1)
        _register_scales(self, plant)
        self.shortest_s, self.horizon_s = plant.dt, plant.horizon_s

    def forward(self, state: Tensor, target: Tensor, time_left_s: Tensor) -> Tensor:
        """state, target (B, n), time_left_s (B, 1) in s -> controls (B, 1, m)."""
        return self.control(state, target, time_left_s).unsqueeze(1)

    def control(
        self, state: Tensor, target: Tensor, time_left_s: Tensor, leak: float = 0.0
    ) -> Tensor:
        """Return the control (B, m) of one instant; inputs as for `forward`.

        leak is for training: see `Bounded`.
        """
        left = time_left_s.clamp(self.shortest_s, self.horizon_s) * (1.0 / self.horizon_s)
        parts = [self.features(state - target, self.scale), left]
        if self.columns:
            parts.insert(1, (target * self.scale)[:, self.columns])
        wish = self.net(torch.cat(parts, -1))
        share = _bounded(wish, leak) if leak else torch.tanh(wish)
        out: Tensor = self.centre + share * self.bound
        return out


class Bounded(torch.autograd.Function):
    """tanh(z), whose gradient is at least `leak` where descent moves z back towards 0.

    A policy that holds the wrong bound is otherwise deaf to how much better the other one is.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, leak: float) -> Tensor:
        share = torch.tanh(z)
        ctx.save_for_backward(share)
        ctx.leak = leak
        return share

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (share,), grad = ctx.saved_tensors, grads[0]
        slope = 1.0 - share * share
        back = grad * share > 0.0
        return grad * torch.where(back, slope.clamp(min=ctx.leak), slope), None


def _bounded(wish: Tensor, leak: float) -> Tensor:
    share: Tensor = Bounded.apply(wish, leak)  # type: ignore[no-untyped-call]
    return share


class Features:
    """What a net sees of an error e (..., n): scaled components, sine and cosine of angles.

    No module: it holds no numbers of its own, so that plants without angles keep their weights.
    """

    def __init__(self, plant: Plant) -> None:
        self.angles = list(plant.angles)
        self.plain = [i for i in range(plant.n) if i not in plant.angles]
        self.width = plant.n + len(self.angles)

    def __call__(self, e: Tensor, scale: Tensor) -> Tensor:
        if not self.angles:
            return e * scale
        angle = e[..., self.angles]
        return torch.cat([(e * scale)[..., self.plain], angle.sin(), angle.cos()], -1)


class SequenceMlp(nn.Module):
    """The sequence baseline: [x0, target, time left] -> all N controls at once.

    With k < N steps left the first k controls are the plan; the rest is not used by anyone.
    """

    input_names: ClassVar[tuple[str, ...]] = ("state", "target", "time_left_s")
    scale: Tensor
    bound: Tensor
    centre: Tensor

    def __init__(self, plant: Plant, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.num_steps, self.m = plant.num_steps, plant.m
        self.columns = varying_targets(plant)
        width = plant.n + len(self.columns) + 1
        self.net = Mlp((width, *hidden, plant.num_steps * plant.m), output_gain=0.1)
        _register_scales(self, plant)
        self.shortest_s, self.horizon_s = plant.dt, plant.horizon_s

    def forward(self, state: Tensor, target: Tensor, time_left_s: Tensor) -> Tensor:
        """state, target (B, n), time_left_s (B, 1) in s -> controls (B, N, m)."""
        left = time_left_s.clamp(self.shortest_s, self.horizon_s) * (1.0 / self.horizon_s)
        goal = (target * self.scale)[:, self.columns]
        out: Tensor = self.net(torch.cat([state * self.scale, goal, left], -1))
        plan = torch.tanh(out.unflatten(-1, (self.num_steps, self.m)))
        return self.centre + plan * self.bound


def _register_scales(module: nn.Module, plant: Plant) -> None:
    """Buffers `scale` (n,), one over the start box, `bound` (m,) and `centre` (m,)."""
    box = torch.as_tensor(np.asarray(plant.start_box), dtype=torch.float32)
    module.register_buffer("scale", 1.0 / box)
    module.register_buffer("bound", torch.as_tensor(plant.bound, dtype=torch.float32))
    centre = torch.as_tensor(plant.centre, dtype=torch.float32)
    module.register_buffer("centre", centre, persistent=False)


def targets_rest(plant: Plant) -> bool:
    """Whether every target is an equilibrium of the plant with its controls in mid-range."""
    targets = plant.sample_targets(np.random.default_rng(0), 16)
    moved = plant.step(targets, np.broadcast_to(plant.centre, (16, plant.m)))
    return bool(np.abs(moved - targets).max() < 1e-9)


def varying_targets(plant: Plant) -> list[int]:
    """Components of the target that differ between cases: a net can learn nothing from others."""
    targets = plant.sample_targets(np.random.default_rng(0), 16)
    return [int(i) for i in np.flatnonzero(np.ptp(targets, axis=0))]
