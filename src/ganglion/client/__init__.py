"""Policies behind `ganglion serve`, used as if they were here; no torch.

policy(url).act(inputs)                  sync; .stream() for a control loop with carried state
await async_policy(url) ... .act(inputs) the same with asyncio
"""

from __future__ import annotations

from ganglion.client.asynchronous import AsyncRemotePolicy, async_policy
from ganglion.client.synchronous import RemotePolicy, policy

__all__ = ["AsyncRemotePolicy", "RemotePolicy", "async_policy", "policy"]
