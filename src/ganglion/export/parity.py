"""Does the exported file answer as the policy does? Asked on a thousand inputs, edge cases too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Array, Arrays, Policy, Signature
from ganglion.core.errors import ExportError
from ganglion.export.inputs import draw

LIMIT = 1e-4
BATCHES = (1, 7, 64, 2, 33)
SIZES = (5, 8, 12)  # of named axes, where the caller says nothing


@dataclass(frozen=True)
class Parity:
    """The largest gap found. Of a float output: |found - expected| / max(1, largest |expected| of
    the same row), as rounding errors are relative to the largest terms of a row.

    Of an integer or bool output: the share of values that differ (an argmax may flip at a tie).
    """

    max_abs: float
    inputs: int  # rows asked
    per_output: Mapping[str, float]


def parity(
    expected: Policy,
    found: Policy,
    count: int = 1000,
    rng: np.random.Generator | None = None,
    *,
    sizes: Mapping[str, Sequence[int]] | None = None,
    cases: Arrays | None = None,
    limit: float = LIMIT,
    steps: Mapping[str, int] | None = None,
) -> Parity:
    """Ask both policies the same `count` rows in batches of 1, 7, 64, ... and compare.

    rng defaults to a fixed one. sizes are the sizes to try for each named axis; cases are real
    inputs, asked first as one batch and not counted. steps caps the drawn "steps" inputs, at what
    the policy was trained for: further recursion amplifies rounding without bound. Raises
    ExportError above `limit` (infinity: only measure), and wherever one answer is NaN or infinite
    and the other is not.
    """
    signature = expected.signature
    if signature != found.signature:
        raise ExportError("The exported file's signature is not the policy's.")
    worst = dict.fromkeys(signature.outputs, 0.0)
    differ = dict.fromkeys(signature.outputs, 0)
    total = dict.fromkeys(signature.outputs, 0)
    generator = np.random.default_rng(0) if rng is None else rng
    for inputs in _batches(signature, count, generator, sizes, cases, steps or {}):
        wanted, given = expected.act(inputs), found.act(inputs)
        for name, spec in signature.outputs.items():
            _same_form(name, wanted[name], given[name], inputs)
            if spec.dtype == "float32":
                gap = _gap(name, wanted[name], given[name])
                worst[name] = max(worst[name], gap)
            else:
                differ[name] += int((wanted[name] != given[name]).sum())
                total[name] += wanted[name].size
    gaps = {
        name: worst[name] if spec.dtype == "float32" else differ[name] / max(1, total[name])
        for name, spec in signature.outputs.items()
    }
    for name, value in gaps.items():
        if value > limit:
            raise ExportError(
                f"Output {name!r} of the exported file is off by {value:.3g} on {count} inputs; "
                f"the limit is {limit:g}."
            )
    return Parity(max(gaps.values(), default=0.0), count, gaps)


def _batches(
    signature: Signature,
    count: int,
    rng: np.random.Generator,
    sizes: Mapping[str, Sequence[int]] | None,
    cases: Arrays | None,
    steps: Mapping[str, int],
) -> Iterator[Arrays]:
    if cases is not None:
        yield cases
    named = {axis for spec in signature.inputs.values() for axis in spec.shape if type(axis) is str}
    done = turn = 0
    batched = any(spec.batched for spec in signature.inputs.values())
    while done < count:
        batch = min(BATCHES[turn % len(BATCHES)], count - done) if batched else 1
        tried = {axis: (sizes or {}).get(axis, SIZES) for axis in sorted(named)}
        # Offset per axis, so that height and width also differ.
        chosen = {a: int(s[(turn + i) % len(s)]) for i, (a, s) in enumerate(tried.items())}
        drawn = draw(signature, batch, rng, chosen)
        capped = {k: 1 + (drawn[k] - 1) % most for k, most in steps.items() if k in drawn}
        yield {**drawn, **capped}
        done, turn = done + batch, turn + 1


def _same_form(name: str, wanted: Array, given: Array, inputs: Arrays) -> None:
    if wanted.shape != given.shape:
        shapes = ", ".join(f"{key} {np.shape(value)}" for key, value in inputs.items())
        raise ExportError(
            f"Output {name!r} of the exported file has shape {given.shape}, the policy's has "
            f"{wanted.shape}, for inputs {shapes}."
        )


def _gap(name: str, wanted: Array, given: Array) -> float:
    """Return the largest relative gap; equal infinities and NaN at the same places are no gap."""
    regular = np.isfinite(wanted)
    same = np.isfinite(given) == regular
    same &= regular | (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    if not same.all():
        raise ExportError(
            f"Output {name!r} of the exported file is NaN or infinite where the policy's is not, "
            f"or the reverse, in {int((~same).sum())} values."
        )
    reference = np.where(regular, wanted, 0.0).astype(np.float64)
    gaps = np.abs(np.where(regular, given, 0.0) - reference)
    rows = reference.reshape(len(reference), -1) if reference.ndim and reference.size else reference
    scale = np.maximum(1.0, np.abs(rows).max(axis=-1, initial=0.0))
    return float((gaps.reshape(rows.shape) / np.expand_dims(scale, -1)).max(initial=0.0))
