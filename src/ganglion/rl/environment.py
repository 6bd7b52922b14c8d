"""What a vectorised environment is to a learner. Shapes: N environments, O observed, A actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What one step of all environments gave.

    observation (N, O) and privileged (N, P) are those to act on next, after environments that
    ended began anew; reward (N,); terminated (N,) ended for good, truncated (N,) ran out of time.
    `final` (K, P) is what was seen, privileged, at the end of the K truncated ones, in their order.
    style (N, S), where there is a motion prior, describes the transition that it judges.
    """

    observation: Tensor
    privileged: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final: Tensor
    style: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (N,), to log the mean of


class VectorEnvironment(Protocol):
    """N environments that step together; all tensors are float32 on one device.

    The critic may see more than the actor: `privileged` is what it sees, the observation itself
    where there is no difference.
    """

    count: int
    observations: int
    privileged: int
    actions: int

    def observe(self) -> tuple[Tensor, Tensor]:
        """Return the present observation (N, O) and what the critic sees (N, P)."""
        ...

    def step(self, action: Tensor, rng: np.random.Generator) -> Step:
        """Act (N, A); whatever is drawn comes from `rng`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides what comes next."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`, bit for bit."""
        ...
