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
from ganglion.tasks.control.refinement import Latents, RefiningController
from ganglion.tasks.control.simulation import Problem, View, simulation_of


class RecursiveController(RefiningController):
    """An encoder of [x0, target, time left] and a reasoner with weights shared over all cycles.

    A cycle: o = [errors, v, p] (p the preconditioned gradient), z <- reason(z, W o + c) with c the
    encoded problem, plan = clip(v - p + head(z)).
    """

    entry: Tensor

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
        self.register_buffer("entry", _entry(plant), persistent=False)
        self.encode = Mlp((len(self.entry), latent_dim, latent_dim))
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

    def begin(self, time_left: Tensor, problem: Problem) -> tuple[Latents, Tensor, Latents]:
        given = torch.cat([problem.state, problem.target, time_left], -1)
        encoded = self.encode(given @ self.entry.T)
        plan = self.first(encoded).clamp(-1.0, 1.0) * problem.mask
        rows = [self.observe.in_features - 2 * problem.mask.shape[-1], *problem.mask.shape[-1:] * 2]
        errors, plans, steps = self.observe.weight.T.split(rows)
        fixed, errors = self.simulation.sight(errors, problem)
        if self.simulation.linear and torch.compiler.is_exporting():
            seen = torch.cat([errors + plans, steps])  # here nothing asks which of them it was
        else:
            seen = torch.cat([errors, plans, steps])
        return self.reasoner.initial(encoded), plan, (encoded + fixed, seen)

    def propose(
        self, w: Latents, v: Tensor, context: Latents, problem: Problem
    ) -> tuple[Latents, Tensor, View]:
        view = self.simulation.look(v.detach(), problem)
        assert view.errors is not None
        parts = [view.errors, v, view.p.clamp(-3.0, 3.0)]
        if self.simulation.linear and torch.compiler.is_exporting():
            del parts[0]
        w = self.reasoner(w, torch.addmm(context[0], torch.cat(parts, -1), context[1]))
        plan = v - view.p + self.head(w[0])
        return w, plan.clamp(-1.0, 1.0) * problem.mask, view


def _entry(plant: Plant) -> Tensor:
    """Matrix from [state, target, time left] to the encoder's inputs, in units of the start box."""
    kept = [*range(plant.n), *(plant.n + c for c in varying_targets(plant)), 2 * plant.n]
    box = torch.tensor(plant.start_box, dtype=torch.float32)
    return torch.diag(torch.cat([1.0 / box, 1.0 / box, torch.ones(1)]))[kept]
