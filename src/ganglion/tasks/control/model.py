"""Build the deployed function of a policy from its settings."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ganglion.tasks.control.config import FeedbackSettings, MlpSettings, TrcSettings
from ganglion.tasks.control.feedback import Feedback, SequenceMlp
from ganglion.tasks.control.plant import Plant
from ganglion.tasks.control.preconditioned import PreconditionedController
from ganglion.tasks.control.recursive import RecursiveController

BUDGETS = {"tiny": 10_000, "small": 105_000, "medium": 530_000, "large": 2_600_000}


def build(settings: TrcSettings | FeedbackSettings | MlpSettings, plant: Plant) -> nn.Module:
    """Build a policy for `plant`; its initial weights come from torch's default generator.

    Every module maps state (B, n), target (B, n), time_left_s (B, 1) and, for `trc`, cycles (1,)
    to controls (B, N, m), or (B, 1, m) for `feedback`; `input_names` says which inputs it takes.
    """
    if isinstance(settings, FeedbackSettings):
        return Feedback(plant, settings.hidden)
    if isinstance(settings, MlpSettings):
        return SequenceMlp(plant, settings.hidden)
    if settings.form == "preconditioned":
        narrowest, count = plant.num_steps * plant.m, PreconditionedController.parameter_count
        width = settings.latent_dim or _widest(count, plant, BUDGETS[settings.size], narrowest)
        return PreconditionedController(plant, width, settings.cycles, settings.damping)
    count = RecursiveController.parameter_count
    width = settings.latent_dim or _widest(count, plant, BUDGETS[settings.size], 8)
    levels = 2 if settings.form == "two_level" else 1
    return RecursiveController(
        plant, width, levels, settings.cycles, settings.inner_cycles, settings.damping
    )


def _widest(count: Callable[[Plant, int], int], plant: Plant, budget: int, narrowest: int) -> int:
    """Return the largest latent width whose parameter count stays within the budget.

    Never below `narrowest` (a latent that holds the plan), so a long horizon may exceed a small
    budget.
    """
    width = narrowest
    while count(plant, width + 1) <= budget:
        width += 1
    return width
