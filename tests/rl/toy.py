"""The smallest environment that can be learned: points on a line that should come to 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.rl.environment import Step
from ganglion.rl.networks import Critic, GaussianActor
from ganglion.rl.ppo import Parts, PpoLearner
from ganglion.rl.prior import MotionPrior
from ganglion.rl.settings import PpoSettings
from ganglion.train.settings import OptimSettings, TrainSettings
from ganglion.train.supervised import initialised

SIGNATURE = Signature({"x": TensorSpec((1,))}, {"move": TensorSpec((1,))})


class Line:
    """x' = x + action, reward -x'^2; ends beyond +-4, or by time after six steps."""

    def __init__(self, count: int = 32, styled: bool = False) -> None:
        self.count, self.observations, self.privileged, self.actions = count, 1, 1, 1
        self.x = torch.linspace(-2.0, 2.0, count)[:, None]
        self.age = torch.zeros(count, dtype=torch.int64)
        self._styled = styled

    def observe(self) -> tuple[Tensor, Tensor]:
        return self.x, self.x

    def step(self, action: Tensor, rng: np.random.Generator) -> Step:
        before = self.x
        self.x = self.x + action
        self.age += 1
        gone = self.x.squeeze(-1).abs() > 4.0
        late = ~gone & (self.age >= 6)
        reward = -self.x.squeeze(-1).square()
        final = self.x[late]
        style = torch.cat([before, self.x], -1) if self._styled else None
        anew = torch.as_tensor(rng.uniform(-2.0, 2.0, (self.count, 1)), dtype=torch.float32)
        self.x = torch.where((gone | late)[:, None], anew, self.x)
        self.age = torch.where(gone | late, 0, self.age)
        return Step(self.x, self.x, reward, gone, late, final, style, {"distance": -reward})

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x, "age": self.age}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x, self.age = state["x"].clone(), state["age"].clone()


def learner(
    steps: int = 30, prior: MotionPrior | None = None, styled: bool = False, **ppo: Any
) -> PpoLearner:
    actor = initialised(0, lambda: GaussianActor(1, 1, (16,), 0.5))
    critic = initialised(1, lambda: Critic(1, (16,)))
    assert isinstance(actor, GaussianActor)
    assert isinstance(critic, Critic)
    settings = PpoSettings(**{"horizon": 12, "minibatches": 2, "gamma": 0.9, **ppo})
    parts = Parts(lambda: Line(styled=styled), actor, critic, SIGNATURE, prior=prior)
    return PpoLearner(parts, (settings, TrainSettings(steps=steps), OptimSettings(lr=3e-3)), 0)
