"""Generalised advantage estimation. Source: Schulman et al., arXiv 1506.02438, equation 16."""

from __future__ import annotations

import torch
from torch import Tensor


def advantages(
    rewards: Tensor, values: Tensor, following: Tensor, ended: Tensor, gamma: float, lam: float
) -> Tensor:
    """Return A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma v'_t - v_t, (T, N).

    rewards and values (T, N); following (T, N) is v'_t, the value of what came after step t, zero
    where that was the end; ended (T, N) says where the sum breaks off: at every end, also one by
    time, whose `following` is the value of the state in which time ran out.
    """
    deltas = rewards + gamma * following - values
    found = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[0])
    going = gamma * lam * (~ended).to(rewards.dtype)
    for t in range(len(rewards) - 1, -1, -1):
        running = deltas[t] + going[t] * running
        found[t] = running
    return found
