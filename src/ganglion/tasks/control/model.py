"""Build the deployed function of a policy from its settings."""

from __future__ import annotations

from typing import Any

from torch import nn

from ganglion.tasks.control.feedback import Feedback, SequenceMlp
from ganglion.tasks.control.plant import Plant
from ganglion.tasks.control.preconditioned import PreconditionedController
from ganglion.tasks.control.recursive import RecursiveController

BUDGETS = {"tiny": 10_000, "small": 105_000, "medium": 530_000, "large": 2_600_000}
DEFAULT_CYCLES = {"preconditioned": 8, "single": 5, "two_level": 5}


def build(settings: Any, plant: Plant) -> nn.Module:
    """Build `settings` (a `ModelSettings` of config.py) for `plant`; initial weights come from
    torch's default generator.

    Every module maps (state (B, n), target (B, n), time_left_s (B, 1)[, cycles (1,)]) to controls
    (B, N or 1, m); its `input_names` says which inputs it takes.
    """
    if settings.kind == "feedback":
        return Feedback(plant, settings.hidden)
    if settings.kind == "mlp":
        return SequenceMlp(plant, settings.hidden)
    cycles = settings.outer_cycles or DEFAULT_CYCLES[settings.form]
    kind = PreconditionedController if settings.form == "preconditioned" else RecursiveController
    width = settings.latent_dim or widest(kind, plant, BUDGETS[settings.size])
    if settings.form == "preconditioned":
        return PreconditionedController(plant, width, cycles, settings.damping)
    levels = 2 if settings.form == "two_level" else 1
    return RecursiveController(
        plant, width, levels, cycles, settings.inner_cycles, settings.damping
    )


def widest(
    kind: type[PreconditionedController] | type[RecursiveController], plant: Plant, budget: int
) -> int:
    """Return the largest latent width whose parameter count stays within the budget.

    Never below `kind.smallest(plant)`, so a long horizon may exceed a small budget.
    """
    width = kind.smallest(plant)
    while kind.parameter_count(plant, width + 1) <= budget:
        width += 1
    return width
