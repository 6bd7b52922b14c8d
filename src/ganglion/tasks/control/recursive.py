"""`trc`, forms `single` and `two_level`: encode, simulate, reason, refine.

The idea of the original (Tiny Recursive Control): the net sees the trajectory of its own controls
and corrects them. Added here: it sees the cost's gradient, and no cycle can harm.
Shapes: B cases, N steps, n states, M = N * m controls, d latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganglion.nets.mlp import Mlp
from ganglion.nets.recursive import RecursiveReasoner
from ganglion.tasks.control.feedback import varying_targets
from ganglion.tasks.control.plant import Plant
from ganglion.tasks.control.refinement import RefiningController
from ganglion.tasks.control.simulation import Problem, View, simulation_of


class RecursiveController(RefiningController):
    """An encoder of [x0, target, time left] and a reasoner with weights shared over all cycles.

    A cycle: o = [errors, v, p] (p the preconditioned gradient), z <- reason(z, W o + c) with c the
    encoded problem, plan = clip(v - p + head(z)).
    """

    scale: Tensor

    def __init__(
        self,
        plant: Plant,
        latent_dim: int,
        levels: int = 1,
        cycles: int = 5,
        inner_cycles: int = 3,
        damping: float = 10.0,
    ) -> None:
        super().__init__(simulation_of(plant, damping), cycles)
        size = plant.num_steps * plant.m
        self.latent_dim = latent_dim
        box = torch.tensor(plant.start_box, dtype=torch.float32)
        self.register_buffer("scale", 1.0 / box, persistent=False)
        self.columns = varying_targets(plant)
        self.encode = Mlp((plant.n + len(self.columns) + 1, latent_dim, latent_dim))
        self.first = nn.Linear(latent_dim, size)
        self.observe = nn.Linear(plant.num_steps * plant.n + 2 * size, latent_dim, bias=False)
        self.reasoner = RecursiveReasoner(latent_dim, levels, inner_cycles)
        self.head = nn.Linear(latent_dim, size)
        for layer in (self.first, self.head):
            nn.init.normal_(layer.weight, std=0.01 / latent_dim**0.5)
            nn.init.zeros_(layer.bias)

    @staticmethod
    def parameter_count(plant: Plant, latent_dim: int) -> int:
        """Trained numbers of a controller of that width, whatever its levels."""
        d, size = latent_dim, plant.num_steps * plant.m
        encode = (plant.n + len(varying_targets(plant)) + 1) * d + d + d * d + d
        heads = 2 * (d * size + size)
        observe = (plant.num_steps * plant.n + 2 * size) * d
        return encode + heads + observe + 4 * d * d + 3 * d

    def begin(self, time_left: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        state, target, mask = problem[:3]
        goal = (target * self.scale)[:, self.columns]
        encoded = self.encode(torch.cat([state * self.scale, goal, time_left], -1))
        plan = self.first(encoded).clamp(-1.0, 1.0) * mask
        return self.reasoner.initial(encoded), plan

    def propose(
        self, w: Tensor, v: Tensor, context: Tensor, problem: Problem
    ) -> tuple[Tensor, Tensor, View]:
        view = self.simulation.look(v.detach(), problem)
        assert view.errors is not None
        seen = self.observe(torch.cat([view.errors, v, view.p.clamp(-3.0, 3.0)], -1))
        w = self.reasoner(w, seen + context[:, : self.latent_dim])
        plan = v - view.p + self.head(self.reasoner.read(w))
        return w, plan.clamp(-1.0, 1.0) * problem.mask, view
