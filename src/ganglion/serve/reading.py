"""From what a request holds to the arrays of a run: names, types, shapes, ranges, left-out inputs.

What is checked for a caller is what `export.inputs.check` checks. The common case, short rows of
numbers, takes a quicker way to the same result: shapes are checked for each request, values once
for all requests of a run, and only where those are not in order for each request by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ganglion.core.contracts import Array, Signature, TensorSpec
from ganglion.core.errors import SettingsError, unknown
from ganglion.core.seeds import rng
from ganglion.export import inputs
from ganglion.serve.models import Model
from ganglion.serve.problems import unfit
from ganglion.serve.settings import OutOfRange

SEEDS = 2**53  # seeds are below this, so that every JSON reader keeps them
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(slots=True)
class Ask:
    """One request's inputs, all of them, batch first. Asks with equal keys may share a run.

    seed is what noise was drawn from, None where none was. trusted names inputs that the policy
    itself made (carried state), whose declared range is not checked. clipped is filled in where
    the server clips.
    """

    arrays: dict[str, Array]
    rows: int
    key: Hashable
    seed: int | None = None
    trusted: frozenset[str] = frozenset()
    clipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Column:
    """One input as the quick way sees it."""

    name: str
    batched: bool
    dtype: Any
    low: float
    high: float
    one_hot: bool


@dataclass(frozen=True)
class _Plan:
    """What follows from a signature alone."""

    quick: dict[str, tuple[int, ...]] = field(default_factory=dict)  # float rows of fixed shape
    alone: dict[str, Signature] = field(default_factory=dict)  # each input by itself
    optional: tuple[str, ...] = ()
    noisy: bool = False
    columns: tuple[_Column, ...] = ()
    axes: tuple[str, ...] = ()  # batched inputs with an axis that is sized at run time
    single: tuple[str, ...] = ()  # inputs without a batch axis
    joinable: bool = True


class Reader:
    """Reads requests for one model. Every refusal is a Problem with status 422."""

    def __init__(self, model: Model, out_of_range: OutOfRange = "refuse") -> None:
        self.signature = model.signature
        self._specs = model.signature.inputs
        self._steps = model.steps
        self._clip = out_of_range == "warn"
        self._plan = _plan(model.signature)
        self.draws = self._plan.noisy  # whether a request may need a seed

    # ------------------------------------------------------------ reading

    def row(
        self,
        given: Mapping[str, Any],
        seed: int,
        booleans: bool = True,
        state: Mapping[str, Array] | None = None,
    ) -> Ask:
        """Read one row: name -> value without a batch axis. booleans: there may be some.

        state is what the policy gave last, batch first, for inputs that are left out.
        """
        arrays = {}
        quick = self._plan.quick
        for name, value in given.items():
            if not booleans and (shape := quick.get(name)) is not None:
                try:
                    array = np.asarray(value)
                except ValueError:
                    raise unfit(f"Input {name!r} has rows of different lengths.") from None
                if array.shape == shape and array.dtype.kind in "fiu":
                    arrays[name] = array[None]
                    continue
            arrays[name] = self._checked_row(name, value, booleans)
        fed = {k: v for k, v in state.items() if k not in arrays} if state else {}
        ask = self._complete(arrays | fed if fed else arrays, 1, seed, batched=False)
        ask.trusted = frozenset(fed)
        return ask

    def batch(self, given: Mapping[str, Any], seed: int, booleans: bool = True) -> Ask:
        """Read a batch: name -> nested lists, rows first. booleans: there may be some."""
        for name, value in given.items():
            _check_kind(name, value, self._spec(name), booleans)
        return self.arrays(given, seed)

    def arrays(self, given: Mapping[str, Any], seed: int) -> Ask:
        """Read arrays of any dtype that fits, rows first; what they hold is checked."""
        arrays = {name: self._checked(name, array) for name, array in given.items()}
        rows = next((len(a) for n, a in arrays.items() if self._specs[n].batched), 1)
        return self._complete(arrays, rows, seed, batched=True)

    def _spec(self, name: str) -> TensorSpec:
        spec = self._specs.get(name)
        if spec is None:
            raise unfit(unknown("input", name, self._specs))
        return spec

    def _checked_row(self, name: str, value: Any, booleans: bool) -> Array:
        spec = self._spec(name)
        _check_kind(name, value, spec, booleans)
        try:
            array = np.asarray(value)
        except ValueError:
            raise unfit(f"Input {name!r} has rows of different lengths.") from None
        if array.dtype.kind in "biuf" and not _fits(array.shape, spec.shape):
            wanted = ", ".join(map(str, spec.shape)) + ("," if len(spec.shape) == 1 else "")
            raise unfit(f"Input {name!r} has shape {array.shape}; expected ({wanted}).")
        return self._checked(name, array[None] if spec.batched else array)

    def _checked(self, name: str, value: Any) -> Array:
        """Check one input by itself, its range excepted."""
        self._spec(name)
        try:
            return inputs.check({name: value}, self._plan.alone[name], ranges=False)[name]
        except SettingsError as problem:
            raise unfit(str(problem)) from None

    def only_row(self, outputs: Mapping[str, Array]) -> dict[str, Any]:
        """Return the outputs of one row without their batch axis, ready for JSON."""
        specs = self.signature.outputs
        return {
            name: array if not specs[name].batched
            # a lone number is made Python's: orjson does not know all of NumPy's
            else array[0] if array.ndim > 1 else array[0].item()
            for name, array in outputs.items()
        }  # fmt: skip

    # ------------------------------------------------------------ completing

    def _complete(self, arrays: dict[str, Array], rows: int, seed: int, batched: bool) -> Ask:
        plan, drawn = self._plan, None
        if len(arrays) < len(self._specs):
            drawn = self._fill(arrays, rows, seed)
        if plan.axes or plan.single or batched or not plan.joinable:
            self._check_sizes(arrays)
        if not plan.joinable:
            return Ask(arrays, rows, object(), drawn)
        if not plan.axes and not plan.single:
            return Ask(arrays, rows, (), drawn)
        shapes = tuple(arrays[name].shape[1:] for name in plan.axes)
        held = tuple(arrays[name].tobytes() for name in plan.single)
        return Ask(arrays, rows, (shapes, held), drawn)

    def _fill(self, arrays: dict[str, Array], rows: int, seed: int) -> int | None:
        """Fill in what was left out, in place; return the seed where noise was drawn."""
        missing = [name for name in self._specs if name not in arrays]
        for name in missing:
            if name not in self._plan.optional:
                needed = [n for n in self._specs if n not in self._plan.optional]
                raise unfit(f"Input {name!r} is missing; this policy needs {', '.join(needed)}.")
        sizes = {
            axis: size
            for name, array in arrays.items()
            for axis, size in zip(
                self._specs[name].shape,
                array.shape[1:] if self._specs[name].batched else array.shape,
                strict=True,
            )
            if isinstance(axis, str)
        }
        drawn = None
        for name in missing:
            random = None
            if self._specs[name].role in ("normal", "uniform"):
                random, drawn = rng(seed, "noise", name), seed
            try:
                filled = inputs.defaults(self._plan.alone[name], rows, random, sizes, self._steps)
            except (SettingsError, KeyError):
                raise unfit(f"Input {name!r} is missing, and its size is not known.") from None
            arrays[name] = filled[name]
        return drawn

    def _check_sizes(self, arrays: Mapping[str, Array]) -> None:
        """One size per batch and run-time axis, over all inputs; single inputs' values, too."""
        sizes: dict[str, tuple[int, str]] = {}
        for name, spec in self._specs.items():
            axes = (inputs.BATCH, *spec.shape) if spec.batched else spec.shape
            for axis, size in zip(axes, arrays[name].shape, strict=True):
                if isinstance(axis, str):
                    known, owner = sizes.setdefault(axis, (size, name))
                    if size != known:
                        raise unfit(
                            f"Input {name!r} has {axis}={size}, but {owner!r} has {axis}={known}."
                        )

    # ------------------------------------------------------------ joining

    def join(self, asks: Sequence[Ask]) -> dict[str, Array] | None:
        """Return the arrays of one run of all `asks`, or None where a value is not in order."""
        first = asks[0].arrays
        feeds: dict[str, Array] = {}
        for column in self._plan.columns:
            name = column.name
            if len(asks) == 1 or not column.batched:
                array = first[name]
            else:
                array = np.concatenate([ask.arrays[name] for ask in asks])
            if array.size:
                # A NaN is least and most, and is in no range; nor is what overflows float32.
                least, most = _extremes(array)
                if not (column.low <= least and most <= column.high):
                    return None
                if column.one_hot and not inputs.one_hot(array, column.batched).all():
                    return None
            feeds[name] = array if array.dtype == column.dtype else array.astype(column.dtype)
        return feeds

    def settle(self, ask: Ask) -> None:
        """Check one ask's values by themselves, in place; clip where the server does."""
        try:
            arrays = inputs.check(ask.arrays, self.signature, ranges=False)
        except SettingsError as problem:
            raise unfit(str(problem)) from None
        clipped = []
        for name, array in arrays.items():
            if name in ask.trusted:
                continue
            try:
                inputs.check({name: array}, self._plan.alone[name])
            except SettingsError as problem:
                spec = self._specs[name]
                if not self._clip or spec.one_hot:
                    raise unfit(str(problem)) from None
                arrays[name] = np.clip(array, spec.low, spec.high).astype(spec.dtype)
                clipped.append(name)
        ask.arrays, ask.clipped = arrays, tuple(clipped)

    def joined(self, asks: Sequence[Ask]) -> dict[str, Array]:
        """Return the arrays of one run of asks that were settled."""
        feeds = {}
        for column in self._plan.columns:
            found = [ask.arrays[column.name] for ask in asks]
            feeds[column.name] = np.concatenate(found) if column.batched else found[0]
        return feeds


def seed_of(raw: Any) -> int:
    """Return a seed that a caller gave, as a number or a text; a Problem where it is none."""
    if isinstance(raw, str) and raw.isascii() and raw.isdecimal() and len(raw) <= 16:
        raw = int(raw)
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)  # JSON knows one kind of numbers
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < SEEDS:
        raise unfit(f"A seed is a whole number from 0 to {SEEDS - 1}, not {raw!r:.40}.")
    return raw


def _plan(signature: Signature) -> _Plan:
    specs = signature.inputs
    open_axes = {n for n, s in specs.items() if any(isinstance(a, str) for a in s.shape)}
    return _Plan(
        quick={
            n: tuple(a for a in s.shape if isinstance(a, int))
            for n, s in specs.items()
            if s.batched and s.dtype == "float32" and n not in open_axes
        },
        alone={n: Signature({n: s}, {}) for n, s in specs.items()},
        optional=tuple(n for n, s in specs.items() if s.role != "data"),
        noisy=any(s.role in ("normal", "uniform") for s in specs.values()),
        columns=tuple(_column(n, s) for n, s in specs.items()),
        axes=tuple(n for n in specs if n in open_axes and specs[n].batched),
        single=tuple(n for n, s in specs.items() if not s.batched),
        joinable=any(s.batched for s in specs.values())
        and all(s.batched for s in signature.outputs.values()),
    )


def _column(name: str, spec: TensorSpec) -> _Column:
    """Bounds are those of the dtype where none are declared, and rounded as the values are."""
    dtype: Any = np.dtype(spec.dtype)
    if dtype.kind == "f":
        least, most = -_LARGEST, _LARGEST
    elif dtype.kind == "b":
        least, most = 0.0, 1.0
    else:
        least, most = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    low = 1.0 if spec.role == "steps" and spec.low is None else spec.low
    low = least if low is None else max(least, float(np.float32(low)))
    high = most if spec.high is None else min(most, float(np.float32(spec.high)))
    return _Column(name, spec.batched, dtype, low, high, spec.one_hot)


def _extremes(array: Array) -> tuple[float, float]:
    if array.size > 24:
        return float(array.min()), float(array.max())
    values = array.ravel().tolist()  # a few numbers are compared sooner than NumPy is called
    least, most = min(values), max(values)
    return (least, most) if sum(values) == sum(values) else (float("nan"), float("nan"))


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(wanted, shape, strict=True)
    )


def _check_kind(name: str, value: Any, spec: TensorSpec, booleans: bool) -> None:
    """JSON's true is no number, and 1 is no boolean, whatever NumPy makes of them."""
    if isinstance(value, dict | str) or value is None:
        kind = "null" if value is None else "text" if isinstance(value, str) else "an object"
        raise unfit(f"Input {name!r} is {kind}; expected an array of {spec.dtype}.")
    wanted = spec.dtype == "bool"
    stack = [value] if booleans or wanted else []
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, bool) != wanted:
            held = "true or false" if isinstance(item, bool) else f"{item!r:.40}"
            raise unfit(f"Input {name!r} holds {held}; expected {spec.dtype}.")
