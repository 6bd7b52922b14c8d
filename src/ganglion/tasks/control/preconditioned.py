"""`trc`, form `preconditioned`: a learned linear recursion with the cost's own curvature.

For linear plants with quadratic cost. Shapes: B cases, N steps, M = N * m controls, d latents;
plans v (B, M) as in `simulation`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganglion.tasks.control.plant import Plant
from ganglion.tasks.control.refinement import Latents, RefiningController
from ganglion.tasks.control.simulation import LinearSimulation, Problem, View


class PreconditionedController(RefiningController):
    """Refine v by learned directions and an exact line search; the cost never rises.

    One cycle, with g = dJ/dv and p = (H + damping I)^-1 g:
        w <- [w, clip w, p, v] W;  delta = clip(first M of w) - v;  v <- v + alpha delta.
    Bounds and descent are those of `RefiningController`. The first M rows of W start as ADMM
    (Boyd et al., 2011, section 5.2) written with the gradient; no biases, shared over cycles.
    """

    def __init__(
        self, plant: Plant, latent_dim: int = 60, cycles: int = 8, damping: float = 10.0
    ) -> None:
        if plant.matrices() is None:
            raise ValueError(
                f"{plant.name} is not linear, so model.form=preconditioned has no constant "
                "curvature to use; take model.form=single or two_level."
            )
        size = plant.num_steps * plant.m
        if latent_dim < size:
            raise ValueError(
                f"model.latent_dim is {latent_dim}; it holds a plan of {size} numbers and has to "
                "be at least that wide."
            )
        super().__init__(LinearSimulation(plant, damping), cycles)
        self.size = size
        self.encode = nn.Linear(size, latent_dim, bias=False)
        self.update = nn.Linear(2 * latent_dim + 2 * size, latent_dim, bias=False)
        self._start_as_admm(latent_dim, damping)

    @staticmethod
    def parameter_count(plant: Plant, latent_dim: int) -> int:
        """Trained numbers of a controller of that width."""
        size = plant.num_steps * plant.m
        return latent_dim * (2 * latent_dim + 3 * size)

    def begin(self, time_left: Tensor, problem: Problem) -> tuple[Latents, Tensor, Latents]:
        """First latents w, clip w (B, d) and plan, from the damped unconstrained optimum."""
        w: Tensor = self.encode(problem.newton)
        clipped = w.clamp(-1.0, 1.0)
        return (w, clipped), clipped[:, : self.size] * problem.mask, ()

    def propose(
        self, w: Latents, v: Tensor, context: Latents, problem: Problem
    ) -> tuple[Latents, Tensor, View]:
        view = self.simulation.look(v, problem)
        new = self.update(torch.cat([*w, view.p, v], -1))
        clipped = new.clamp(-1.0, 1.0)
        return (new, clipped), clipped[:, : self.size] * problem.mask, view

    def _start_as_admm(self, d: int, damping: float) -> None:
        # With w = plan + dual, z = clip w, P = (H + damping I)^-1 a step of ADMM is
        #   w' = w - damping P w + (2 damping P - I) z + (I - damping P) v - p,
        # because P g(z) = p + P H (z - v) and P H = I - damping P.
        m, eye = self.size, torch.eye(self.size)
        shrink = damping * self.simulation.factor @ self.simulation.factor.T
        with torch.no_grad():
            self.update.weight.mul_(0.5)
            first = self.update.weight[:m]
            first.mul_(0.02)  # not 0: the latents beyond the plan would get no gradient
            first[:, :m] += eye - shrink
            first[:, d : d + m] += 2 * shrink - eye
            first[:, 2 * d : 2 * d + m] -= eye
            first[:, 2 * d + m :] += eye - shrink
            self.encode.weight[:m] = -eye
