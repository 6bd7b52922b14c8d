"""Collects what a policy does in a vectorised environment. Shapes: T steps, N environments."""

from __future__ import annotations

from dataclasses import dataclass

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
    log_std = actor.log_std
    spread = log_std.exp()
    observation, privileged = environment.observe()
    terms: dict[str, Tensor] = {}
    for t in range(horizon):
        seen, judged = actor.normaliser(observation), critic.normaliser(privileged)
        mean = actor.layers(seen)
        action = mean + spread * noise[t]
        step = environment.step(action, rng)
        ends = step.terminated | step.truncated
        beyond = torch.zeros_like(step.reward)
        if step.final.shape[0]:
            beyond[step.truncated] = critic(step.final)
        row = {
            "seen": seen, "judged": judged, "mean": mean, "action": action,
            "values": critic.layers(judged).squeeze(-1), "rewards": step.reward, "ended": ends,
            "beyond": beyond, "raw_seen": observation, "raw_judged": privileged,
        }  # fmt: skip
        if step.style is not None:
            row["style"] = step.style
        for name, value in row.items():
            held.setdefault(name, []).append(value)
        for name, value in {**step.terms, "ended": ends.float()}.items():
            terms[name] = terms.get(name, torch.zeros(())) + value.mean() / horizon
        observation, privileged = step.observation, step.privileged
    whole = {name: torch.stack(parts) for name, parts in held.items()}
    after = torch.cat([whole["values"][1:], critic(privileged)[None]])
    following = torch.where(whole["ended"], whole.pop("beyond"), after)
    log_prob = log_probability(whole["action"], whole["mean"], log_std)
    return Rollout(**{"style": None, **whole}, log_prob=log_prob, following=following, terms=terms)  # type: ignore[arg-type]
