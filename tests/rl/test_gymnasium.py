"""PPO on an environment of Gymnasium: the inverted pendulum stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.rl.environment import Step
from ganglion.rl.networks import Critic, GaussianActor
from ganglion.rl.ppo import Parts, PpoLearner
from ganglion.rl.settings import PpoSettings
from ganglion.train.settings import OptimSettings, TrainSettings
from ganglion.train.supervised import initialised

gymnasium = pytest.importorskip("gymnasium")
COUNT = 16


class Pendulums:
    """InvertedPendulum-v5, begun anew in the step in which an episode ends."""

    def __init__(self) -> None:
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        self._worlds = gymnasium.make_vec(
            "InvertedPendulum-v5", COUNT, vectorization_mode="sync", max_episode_steps=500,
            vector_kwargs={"autoreset_mode": mode},
        )  # fmt: skip
        self.count, self.observations, self.privileged, self.actions = COUNT, 4, 4, 1
        self._seen = tensor(self._worlds.reset(seed=0)[0])

    def observe(self) -> tuple[Tensor, Tensor]:
        return self._seen, self._seen

    def step(self, action: Tensor, rng: np.random.Generator) -> Step:
        seen, reward, gone, late, info = self._worlds.step(action.clamp(-3, 3).numpy())
        self._seen = tensor(seen)
        over = torch.from_numpy(late & ~gone)
        last = info.get("final_obs", [])
        final = torch.stack([tensor(last[i]) for i in np.flatnonzero(over.numpy())] or [])\
            if over.any() else torch.zeros(0, 4)  # fmt: skip
        terms = {"alive": torch.from_numpy(~gone).float()}
        ends = torch.from_numpy(np.array(gone))
        return Step(self._seen, self._seen, tensor(reward), ends, over, final, terms=terms)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values, np.float32))


@pytest.mark.filterwarnings("ignore")  # of Gymnasium about its own environments
def test_the_pendulum_learns_to_stand() -> None:
    actor = initialised(0, lambda: GaussianActor(4, 1, (32, 32), 0.5))
    critic = initialised(1, lambda: Critic(4, (32, 32)))
    signature = Signature({"seen": TensorSpec((4,))}, {"force": TensorSpec((1,))})
    assert isinstance(actor, GaussianActor)
    assert isinstance(critic, Critic)
    ppo = PpoSettings(horizon=32, gamma=0.98)
    made = PpoLearner(
        Parts(Pendulums, actor, critic, signature),
        (ppo, TrainSettings(steps=40), OptimSettings(lr=3e-3)), 0,
    )  # fmt: skip
    first = made.update()["alive"]
    for _ in range(39):
        last = made.update()["alive"]
    assert first < 0.95  # falls after some ten steps
    assert last > 0.995  # once in 200 steps, exploring
