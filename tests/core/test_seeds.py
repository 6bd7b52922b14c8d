from __future__ import annotations

import numpy as np

from ganglion.core import seeds


def test_a_stream_follows_from_seed_and_names_alone() -> None:
    first = seeds.rng(3, "fresh", 17).random(5)
    np.random.default_rng(0).random(100)  # another stream in between changes nothing
    np.testing.assert_array_equal(first, seeds.rng(3, "fresh", 17).random(5))


def test_streams_of_other_seeds_purposes_and_steps_differ() -> None:
    names = [(s, p, k) for s in (0, 1) for p in ("order", "fresh") for k in range(50)]
    assert len({seeds.key(*n) for n in names}) == len(names)


def test_keys_are_the_same_on_every_machine() -> None:
    # SeedSequence and CRC-32 are fixed by specification: these may never change, or no run
    # of an earlier version could go on.
    assert seeds.key(0, "order", 0) == 12_461_857_154_190_130_237
    assert 0 <= seeds.key(2**70, "x", 2**40) < 2**64
