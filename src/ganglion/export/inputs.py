"""Arrays against a signature: check what came, draw what a test needs, fill what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Array, Arrays, Signature, TensorSpec
from ganglion.core.errors import DataError, SettingsError, unknown

BATCH = "batch"  # the name of axis 0 of every batched array
LARGE = 1e3  # what `draw` calls large where no range is declared
_SHARES = (0.6, 0.08, 0.08, 0.08, 0.08, 0.08)  # plain, zeros, low, high, tiny, corners


def check(
    inputs: Mapping[str, Any], signature: Signature, *, ranges: bool = True
) -> dict[str, Array]:
    """Return the inputs in signature order, contiguous and of the declared dtypes.

    inputs are arrays, or what NumPy makes arrays of (nested lists, as they come from JSON). Names,
    dtypes (a cast may lose no value beyond float32's rounding), shapes, one size per batch and
    named axis, and finiteness are checked; declared ranges too, where `ranges`. The range of a
    "steps" input is always checked, as it bounds the run time; one number of steps may be given
    plainly, without its axis. Raises SettingsError.
    """
    _check_names(inputs, signature)
    sizes: dict[str, tuple[int, str]] = {}
    checked = {}
    for name, spec in signature.inputs.items():
        array = _cast(name, inputs[name], spec)
        if array.ndim == 0 and spec.role == "steps" and spec.shape == (1,) and not spec.batched:
            array = array[None]
        _check_shape(name, array, spec, sizes)
        _check_values(name, array, spec, ranges or spec.role == "steps")
        checked[name] = array
    return checked


def check_outputs(
    outputs: Arrays, signature: Signature, batch: int | None, *, finite: bool = True
) -> None:
    """Raise DataError unless every declared output is there, of its shape and (`finite`) finite.

    batch is the number of rows asked for, None where no input is batched.
    """
    for name, spec in signature.outputs.items():
        if name not in outputs:
            raise DataError(f"Output {name!r} is missing; there is {', '.join(outputs) or 'none'}.")
        array = outputs[name]
        wanted = _axes(spec) if batch is None or not spec.batched else (batch, *spec.shape)
        fits = array.ndim == len(wanted) and all(
            isinstance(axis, str) or axis == size
            for axis, size in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            raise DataError(f"Output {name!r} has shape {array.shape}; expected {_show(wanted)}.")
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"Output {name!r} is not finite at {_first(~np.isfinite(array))}.")


def batch_of(inputs: Arrays, signature: Signature) -> int | None:
    """Return the number of rows of checked inputs, None where no input is batched."""
    for name, spec in signature.inputs.items():
        if spec.batched:
            return int(inputs[name].shape[0])
    return None


def draw(
    signature: Signature,
    batch: int,
    rng: np.random.Generator,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """Draw valid inputs, edge cases among them: what the parity check feeds.

    Each row of each float input is plain (uniform in the declared range, else standard normal),
    zeros, all low, all high, tiny (1e-6) or a corner of the range; where no range is declared, low
    and high are -1e3 and 1e3 (-4 and 4 for normal noise). One row in ten repeats the one before.
    Integers without a range are 0 or 1; steps are 1 to high; one-hot rows have their 1 anywhere.
    `sizes` gives the named axes.
    """
    axes = {BATCH: batch, **dict(sizes or {})}
    repeated = np.flatnonzero(rng.random(batch) < 0.1)
    drawn = {}
    for name, spec in signature.inputs.items():
        for axis in spec.shape:
            if isinstance(axis, str) and axis not in axes:
                axes[axis] = int(rng.integers(4, 12))
        array = _draw_one(spec, _shape(spec, axes), rng)
        if spec.batched:
            for row in repeated[repeated > 0]:
                array[row] = array[row - 1]
        drawn[name] = array
    return drawn


def defaults(
    signature: Signature,
    batch: int = 1,
    rng: np.random.Generator | None = None,
    sizes: Mapping[str, int] | None = None,
    steps: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """Return the inputs that a caller may leave out: noise, state and steps.

    Noise is drawn from `rng`; without one it is the centre of its distribution (0 for normal, the
    middle for uniform). State is zero. Steps come from `steps` (a policy card's "steps"), else
    they are the declared high, else 1. Raises SettingsError where a named axis has no size.
    """
    axes = {BATCH: batch, **dict(sizes or {})}
    filled = {}
    for name, spec in signature.inputs.items():
        if spec.role == "data":
            continue
        missing = [axis for axis in spec.shape if isinstance(axis, str) and axis not in axes]
        if missing:
            raise SettingsError(f"Input {name!r} needs the size of its axis {missing[0]!r}.")
        shape = _shape(spec, axes)
        low, high = spec.low or 0.0, 1.0 if spec.high is None else spec.high
        if spec.role == "steps":
            value: Any = (steps or {}).get(name, 1 if spec.high is None else int(spec.high))
            array: Array = np.full(shape, value)
        elif spec.role == "normal" and rng is not None:
            array = rng.standard_normal(shape)
        elif spec.role == "uniform":
            array = (
                np.full(shape, (low + high) / 2) if rng is None else rng.uniform(low, high, shape)
            )
        else:
            array = np.zeros(shape)
        filled[name] = array.astype(spec.dtype)
    return filled


def _check_names(inputs: Mapping[str, Any], signature: Signature) -> None:
    if inputs.keys() == signature.inputs.keys():
        return
    for name in inputs:
        if name not in signature.inputs:
            raise SettingsError(unknown("input", name, signature.inputs))
    missing = next(name for name in signature.inputs if name not in inputs)
    raise SettingsError(
        f"Input {missing!r} is missing; this policy takes {', '.join(signature.inputs)}."
    )


def _cast(name: str, raw: Any, spec: TensorSpec) -> Array:
    try:
        array: Array = np.asarray(raw)
    except (ValueError, TypeError, OverflowError):
        raise SettingsError(f"Input {name!r} is not an array with rows of equal length.") from None
    target = np.dtype(spec.dtype)
    if array.dtype == target:
        return np.ascontiguousarray(array) if array.ndim else array
    if array.dtype.kind not in "biuf":
        kind = "text or mixed values" if array.dtype.kind in "OUS" else str(array.dtype)
        raise SettingsError(f"Input {name!r} holds {kind}; expected {spec.dtype}.")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.asarray(array.astype(target), order="C")
        if target.kind != "f" and not (cast == array).all():
            raise SettingsError(
                f"Input {name!r} holds {array.dtype} values that are no {spec.dtype} "
                f"at {_first(cast != array)}."
            )
    return cast


def _check_shape(
    name: str, array: Array, spec: TensorSpec, sizes: dict[str, tuple[int, str]]
) -> None:
    axes = _axes(spec)
    if array.ndim != len(axes):
        raise SettingsError(f"Input {name!r} has shape {array.shape}; expected {_show(axes)}.")
    for axis, size in zip(axes, array.shape, strict=True):
        if isinstance(axis, int):
            if size != axis:
                raise SettingsError(
                    f"Input {name!r} has shape {array.shape}; expected {_show(axes)}."
                )
            continue
        known, owner = sizes.setdefault(axis, (size, name))
        if size != known:
            raise SettingsError(
                f"Input {name!r} has {axis}={size}, but {owner!r} has {axis}={known}."
            )
        if size == 0:
            raise SettingsError(f"Input {name!r} is empty: its axis {axis!r} has size 0.")


def _check_values(name: str, array: Array, spec: TensorSpec, ranges: bool) -> None:
    """Check finiteness and range by the extremes, which a NaN or an infinity always reaches."""
    if array.size == 0:
        return
    if array.dtype.kind != "f" and not ranges:
        return
    least, most = array.min(), array.max()
    if array.dtype.kind == "f" and not (np.isfinite(least) and np.isfinite(most)):
        raise SettingsError(
            f"Input {name!r} is not finite in {spec.dtype} at {_first(~np.isfinite(array))}."
        )
    if not ranges or array.dtype.kind == "b":
        return
    low, high = _bounds(spec)
    # Bounds are compared after rounding to the input's dtype: float32(0.7) is less than 0.7.
    rounded = np.float32 if array.dtype.kind == "f" else np.float64
    if low is not None and least < rounded(low):
        raise SettingsError(
            f"Input {name!r} is {least} at {_first(array == least)}; "
            f"its low is {low:g}{_unit(spec)}."
        )
    if high is not None and most > rounded(high):
        raise SettingsError(
            f"Input {name!r} is {most} at {_first(array == most)}; "
            f"its high is {high:g}{_unit(spec)}."
        )
    if spec.one_hot:
        _check_one_hot(name, array, spec.batched)


def one_hot(array: Array, batched: bool) -> NDArray[np.bool_]:
    """Say of each row (of the whole where not `batched`) whether one entry is 1, the rest 0."""
    rows = array.reshape(len(array) if batched else 1, -1)
    found: NDArray[np.bool_] = ((rows == 0.0) | (rows == 1.0)).all(1) & (rows.sum(1) == 1.0)
    return found


def _check_one_hot(name: str, array: Array, batched: bool) -> None:
    fine = one_hot(array, batched)
    if not fine.all():
        row, rows = int(np.argmin(fine)), array.reshape(len(fine), -1)
        raise SettingsError(
            f"Input {name!r} has {int((rows[row] != 0.0).sum())} entries that are not 0 in row "
            f"{row}; exactly one entry is 1."
        )


def _unit(spec: TensorSpec) -> str:
    return "" if spec.unit == "1" else f" {spec.unit}"


def _bounds(spec: TensorSpec) -> tuple[float | None, float | None]:
    """Return the range that a value must keep; a number of steps is at least 1."""
    return (1.0 if spec.role == "steps" and spec.low is None else spec.low), spec.high


def _draw_one(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if spec.role == "steps" or spec.dtype != "float32":
        low, high = _bounds(spec)
        least = int(np.ceil(0 if low is None else low))
        most = max(least + (low is None), least) if high is None else int(np.floor(high))
        return np.asarray(rng.integers(least, most + 1, shape)).astype(spec.dtype)
    rows = shape[0] if spec.batched else 1
    flat = (rows, int(np.prod(shape[1:] if spec.batched else shape)))
    if spec.one_hot:
        return np.eye(flat[1], dtype=spec.dtype)[rng.integers(flat[1], size=rows)].reshape(shape)
    low, high = _bounds(spec)
    if spec.role == "uniform":
        low, high = 0.0 if low is None else low, 1.0 if high is None else high
    plain = rng.standard_normal(flat)
    if low is not None and high is not None:
        plain = rng.uniform(low, high, flat)
    elif low is not None:
        plain = low + np.abs(plain)
    elif high is not None:
        plain = high - np.abs(plain)
    far = 4.0 if spec.role == "normal" else LARGE
    least_f, most_f = -far if low is None else low, far if high is None else high
    corners = np.where(rng.random(flat) < 0.5, least_f, most_f)
    kinds = rng.choice(len(_SHARES), size=rows, p=_SHARES)
    values = plain
    edges: tuple[Any, ...] = (0.0, least_f, most_f, plain * 1e-6, corners)
    for kind, edge in enumerate(edges, start=1):
        values = np.where((kinds == kind)[:, None], edge, values)
    values = np.clip(values, low, high) if low is not None or high is not None else values
    return values.reshape(shape).astype(spec.dtype)


def _axes(spec: TensorSpec) -> tuple[int | str, ...]:
    return (BATCH, *spec.shape) if spec.batched else spec.shape


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in _axes(spec))


def _show(axes: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"


def _first(wrong: Any) -> str:
    """Return the index of the first true value as text."""
    where = np.argwhere(wrong)
    return f"index {tuple(int(i) for i in where[0])}" if where.size else "index ()"
