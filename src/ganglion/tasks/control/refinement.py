"""The common frame of the recursive controllers: cycles that refine a plan and never harm it.

Shapes: B cases, N steps, n states, m controls, M = N * m, d latents; plans v (B, M) as in
`simulation`: in units of the bound, aligned with the end of the horizon.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from ganglion.tasks.control.simulation import Problem, Simulation, View

Latents = tuple[Tensor, ...]


class RefiningController(nn.Module):
    """K cycles of: propose a plan t within the bounds, move v a share alpha of the way to it.

    v stays within the bounds as a convex combination of plans that are; `Simulation.share` picks
    alpha so that the cost does not rise, at any number of cycles.
    """

    input_names: ClassVar[tuple[str, ...]] = ("state", "target", "time_left_s", "cycles")

    def __init__(self, simulation: Simulation, cycles: int) -> None:
        super().__init__()
        self.simulation, self.cycles = simulation, cycles

    @abstractmethod
    def begin(self, time_left: Tensor, problem: Problem) -> tuple[Latents, Tensor, Latents]:
        """First latents, first plan (B, M), and the context: what stays fixed over the cycles.

        time_left (B, 1) is a share of the horizon.
        """

    @abstractmethod
    def propose(
        self, w: Latents, v: Tensor, context: Latents, problem: Problem
    ) -> tuple[Latents, Tensor, View]:
        """Return the next latents, a plan within the bounds (B, M), and the look at v."""

    def forward(self, state: Tensor, target: Tensor, time_left_s: Tensor, cycles: Tensor) -> Tensor:
        """Return controls (B, N, m) after `cycles` refinements.

        state, target (B, n), time_left_s (B, 1) in s, cycles (1,) or () int64. The exported graph
        has one Loop; here a Python loop does the same without tracing.
        """
        problem, w, v, context = self._start(state, target, time_left_s)
        if not torch.compiler.is_exporting():
            plans = [v, *self._refine(w, v, context, problem, int(cycles))]
            return self.simulation.controls(plans[-1], problem.steps)

        limit = cycles.reshape(())

        def more(i: Tensor, *carried: Tensor) -> Tensor:
            return i < limit

        def body(i: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            w, v = self._cycle(carried[:-1], carried[-1], context, problem)
            return (i + 1, *w, v)

        first = (torch.zeros_like(limit), *(latent.clone() for latent in w), v.clone())
        last: Tensor = while_loop(more, body, first)[-1]
        return self.simulation.controls(last, problem.steps)

    def iterates(
        self, state: Tensor, target: Tensor, time_left_s: Tensor, cycles: int
    ) -> list[Tensor]:
        """Controls (B, N, m) after 0, 1, ..., `cycles` cycles; differentiable."""
        problem, w, v, context = self._start(state, target, time_left_s)
        plans = [v, *self._refine(w, v, context, problem, cycles)]
        return [self.simulation.controls(plan, problem.steps) for plan in plans]

    def costs(self, state: Tensor, target: Tensor, time_left_s: Tensor, cycles: int) -> Tensor:
        """Cost J over the time left after 0, ..., `cycles` cycles, (cycles + 1, B)."""
        problem, w, v, context = self._start(state, target, time_left_s)
        plans = [v, *self._refine(w, v, context, problem, cycles)]
        return self.simulation.costs(plans, problem)

    def _start(
        self, state: Tensor, target: Tensor, time_left_s: Tensor
    ) -> tuple[Problem, Latents, Tensor, Latents]:
        left = self.simulation.rounded(time_left_s)
        problem = self.simulation.problem(state, target, left.squeeze(-1).to(torch.int64))
        share = left * (1.0 / self.simulation.num_steps)
        return problem, *self.begin(share, problem)

    def _refine(
        self, w: Latents, v: Tensor, context: Latents, problem: Problem, cycles: int
    ) -> list[Tensor]:
        plans = []
        for _ in range(cycles):
            w, v = self._cycle(w, v, context, problem)
            plans.append(v)
        return plans

    def _cycle(
        self, w: Latents, v: Tensor, context: Latents, problem: Problem
    ) -> tuple[Latents, Tensor]:
        w, plan, view = self.propose(w, v, context, problem)
        delta = plan - v
        return w, v + self.simulation.share(v, delta, view, problem) * delta
