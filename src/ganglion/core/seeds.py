"""Counted random streams: (seed, purpose, step) always gives the same numbers."""

from __future__ import annotations

import zlib

import numpy as np


def key(seed: int, *names: str | int) -> int:
    """Return a 64-bit seed for stream `names` under `seed`, e.g. key(0, "dropout", 17)."""
    entropy = [seed, *(zlib.crc32(n.encode()) if isinstance(n, str) else n for n in names)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of stream `names` under `seed`, e.g. rng(0, "fresh", step)."""
    return np.random.Generator(np.random.PCG64(key(seed, *names)))
