"""Maps as packed bits, and the form that all eight symmetries of a map have in common.

A map is stored as ceil(H * W / 8) bytes, row by row, the first cell in the highest bit, 1 where
free. Its canonical form is the least of the packed forms of its symmetries that lie at least as
wide as high; so a map, its rotations and its mirror images have one digest, which decides the
split that they may appear in and finds duplicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ganglion.core.errors import DataError, SettingsError, unknown
from ganglion.tasks.gridnav import symmetry
from ganglion.tasks.gridnav.grids import Bools, Bytes, as_maps

Digests = NDArray[np.uint64]

# Which share of all maps (up to symmetry) may appear in a split, whatever seed draws them.
SHARES: Final[Mapping[str, float]] = {"train": 0.5, "validation": 0.25, "test": 0.25}


def pack(free: Bools) -> Bytes:
    """Return maps (B, H, W) as bytes (B, ceil(H * W / 8))."""
    maps = as_maps(free)
    return np.packbits(maps.reshape(len(maps), -1), axis=1)


def unpack(packed: Bytes, height: int, width: int) -> Bools:
    """Return the maps (B, height, width) of packed bytes; DataError where the size does not fit."""
    packed = np.asarray(packed)
    expected = -(-height * width // 8)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != expected:
        raise DataError(
            f"Packed maps are {packed.dtype}{packed.shape}; uint8 with {expected} bytes a row was "
            f"expected for {height} x {width} cells."
        )
    flat = np.unpackbits(packed, axis=1, count=height * width)
    return flat.reshape(-1, height, width).astype(bool)


def canonical(free: Bools) -> Bytes:
    """Return the canonical form of each map, (B, ceil(H * W / 8)), equal for all its symmetries."""
    maps = as_maps(free)
    height, width = maps.shape[1:]
    fitting = [k for k in range(8) if height == width or (k % 2 == 1) == (height > width)]
    least = pack(np.asarray(symmetry.turn(fitting[0], maps)))
    for k in fitting[1:]:
        other = pack(np.asarray(symmetry.turn(k, maps)))
        lesser = _less(other, least)
        least[lesser] = other[lesser]
    return least


def _less(first: Bytes, second: Bytes) -> Bools:
    """Say which rows of `first` come before those of `second`, (B,)."""
    rows, at = np.arange(len(first)), (first != second).argmax(1)
    return np.asarray(first[rows, at] < second[rows, at])


def digests(free: Bools) -> Digests:
    """Return a 64-bit digest of each map up to symmetry, (B,)."""
    maps = as_maps(free)
    sides = np.array(sorted(maps.shape[1:]), np.int64).tobytes()
    found = [
        int.from_bytes(hashlib.blake2b(sides + row.tobytes(), digest_size=8).digest(), "big")
        for row in canonical(maps)
    ]
    return np.array(found, np.uint64)


def belongs(free: Bools, split: str) -> Bools:
    """Say which maps may appear in `split`, (B,): each map may in exactly one.

    SettingsError for an unknown split.
    """
    if split not in SHARES:
        raise SettingsError(unknown("split", split, SHARES))
    place = digests(free).astype(np.float64) / 2.0**64
    ends = np.cumsum(list(SHARES.values()))
    which = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
    return np.asarray(which == list(SHARES).index(split))


def firsts(of: Digests) -> Bools:
    """Say which rows are the first with their digest, (B,): the others are duplicates."""
    found = np.zeros(len(of), bool)
    found[np.unique(of, return_index=True)[1]] = True
    return found
