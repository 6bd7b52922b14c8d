"""Collects what a policy does in a vectorised environment. Shapes: T steps, N environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganglion.rl.environment import VectorEnvironment
from ganglion.rl.networks import Critic, GaussianActor, log_probability


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, normalised as at their beginning.

    seen (T, N, O) and judged (T, N, P) are normalised; mean, action (T, N, A); log_prob, values,
    rewards, following (T, N) as `advantages` wants them; ended (T, N); raw_* what the normalisers
    have yet to take in; style (T, N, S) or None.
    """

    seen: Tensor
    judged: Tensor
    mean: Tensor
    action: Tensor
    log_prob: Tensor
    values: Tensor
    rewards: Tensor
    following: Tensor
    ended: Tensor
    raw_seen: Tensor
    raw_judged: Tensor
    style: Tensor | None
    terms: dict[str, Tensor]


@torch.no_grad()
def collect(
    environment: VectorEnvironment,
    networks: tuple[GaussianActor, Critic],
    horizon: int,
    noise: Tensor,
    rng: np.random.Generator,
) -> Rollout:
    """Act for `horizon` steps; noise (T, N, A) is standard normal, rng the environment's draws."""
    actor, critic = networks
    held: dict[str, list[Tensor]] = {}
    finals: list[Tensor] = []
    spread = actor.log_std.exp()
    observation, privileged = environment.observe()
    sums: dict[str, Tensor] = {}
    for t in range(horizon):
        seen = actor.normaliser(observation)
        mean = actor.layers(seen)
        action = mean + spread * noise[t]
        step = environment.step(action, rng)
        row = {
            "seen": seen, "mean": mean, "action": action, "rewards": step.reward,
            "ended": step.terminated | step.truncated, "truncated": step.truncated,
            "raw_seen": observation, "raw_judged": privileged,
        }  # fmt: skip
        if step.style is not None:
            row["style"] = step.style
        for name, value in row.items():
            held.setdefault(name, []).append(value)
        finals.append(step.final)
        for name, value in step.terms.items():
            sums[name] = sums[name] + value if name in sums else value
        observation, privileged = step.observation, step.privileged
    whole = {name: torch.stack(parts) for name, parts in held.items()}
    # the critic is not needed to act: all of it at once is cheaper
    judged = critic.normaliser(torch.cat([whole["raw_judged"], privileged[None]]))
    values = critic.layers(judged).squeeze(-1)
    following = torch.where(whole["ended"], 0.0, values[1:])
    following[whole.pop("truncated")] = critic(torch.cat(finals))
    terms = {name: value.mean() / horizon for name, value in sums.items()}
    terms["ended"] = whole["ended"].float().mean()
    log_prob = log_probability(whole["action"], whole["mean"], actor.log_std)
    parts: dict[str, Any] = {"style": None, **whole, "judged": judged[:-1], "values": values[:-1]}
    return Rollout(**parts, log_prob=log_prob, following=following, terms=terms)
