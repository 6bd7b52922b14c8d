"""How long one answer takes, on one thread of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Array
from ganglion.export.inputs import check, defaults, draw
from ganglion.export.onnx_policy import OnnxPolicy

_SECONDS, _LEAST = 1.5, 20  # of wall time for each series of runs; fewest runs of one


@dataclass(frozen=True)
class Latency:
    """Median and 99th percentile in microseconds: of the raw run, and of `act` with its checks."""

    p50_us: float
    p99_us: float
    act_p50_us: float
    act_p99_us: float
    batch: int = 1
    count: int = 0


def latency(
    policy: OnnxPolicy,
    count: int = 2000,
    warmup: int = 200,
    *,
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
    inputs: Mapping[str, Array] | None = None,
) -> Latency:
    """Time `count` runs of ONNX Runtime with prepared inputs, then `count` calls of `act`.

    Slow policies get fewer, as many as `_SECONDS` allow and `_LEAST` at least. Inputs are drawn
    where None is given, with the number of steps of the policy card, else the highest. sizes gives
    the named axes.
    """
    if inputs is None:
        inputs = typical(policy, batch, sizes)
    feeds = check(inputs, policy.signature, ranges=False)
    names = list(policy.signature.outputs)
    raw = _times_us(lambda: policy.session.run(names, feeds), count, warmup)
    act = _times_us(lambda: policy.act(inputs), count, warmup)
    p50, p99 = (float(v) for v in np.percentile(raw, [50, 99]))
    act_p50, act_p99 = (float(v) for v in np.percentile(act, [50, 99]))
    return Latency(p50, p99, act_p50, act_p99, batch, len(raw))


def typical(
    policy: OnnxPolicy, batch: int = 1, sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Draw inputs with the number of steps that the policy card names, else the highest."""
    inputs = draw(policy.signature, batch, np.random.default_rng(0), sizes)
    steps = policy.card.get("steps")
    chosen = defaults(
        policy.signature,
        batch,
        sizes=_sizes(policy, inputs),
        steps=steps if isinstance(steps, dict) else None,
    )
    roles = policy.signature.inputs
    return inputs | {name: array for name, array in chosen.items() if roles[name].role == "steps"}


def _sizes(policy: OnnxPolicy, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Read the sizes of the named axes off drawn inputs."""
    sizes = {}
    for name, spec in policy.signature.inputs.items():
        shape = inputs[name].shape[1:] if spec.batched else inputs[name].shape
        pairs = zip(spec.shape, shape, strict=True)
        sizes.update({axis: size for axis, size in pairs if isinstance(axis, str)})
    return sizes


def _times_us(run: Callable[[], object], count: int, warmup: int) -> Array:
    """Return the duration of each of `count` runs, or of fewer slow ones, in microseconds."""
    begun = time.perf_counter()
    for index in range(warmup):
        if index >= _LEAST and time.perf_counter() - begun > _SECONDS / 10:
            break
        run()
    times = np.empty(count, np.int64)
    begun = time.perf_counter()
    for index in range(count):
        start = time.perf_counter_ns()
        run()
        times[index] = time.perf_counter_ns() - start
        if index + 1 >= _LEAST and time.perf_counter() - begun > _SECONDS:
            return times[: index + 1] / 1000.0
    return times / 1000.0
