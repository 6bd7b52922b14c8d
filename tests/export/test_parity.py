from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ganglion.core.contracts import Array, Arrays, Signature, TensorSpec
from ganglion.core.errors import ExportError
from ganglion.export.efficiency import efficiency
from ganglion.export.inspection import inspect
from ganglion.export.latency import latency
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.export.parity import parity

from .toys import FIELD, FLAT

PAIR = Signature({"x": TensorSpec((2,), low=-1, high=1)}, {"y": TensorSpec((2,))})


class Says:
    """A policy that is a function of x; remembers the batch sizes that it was asked."""

    def __init__(self, function: Callable[[Array], Array], signature: Signature = PAIR) -> None:
        self.function, self.signature = function, signature
        self.batches: list[int] = []

    def act(self, inputs: Arrays) -> Arrays:
        self.batches.append(len(inputs["x"]))
        return {"y": self.function(inputs["x"])}


def _poison(value: float) -> Callable[[Array], Array]:
    return lambda x: np.where(x == 1, value, x).astype(np.float32)


def test_the_gap_is_absolute_for_small_and_relative_for_large_values() -> None:
    # |y| <= 1: 0.5e-4 absolute
    close = parity(Says(lambda x: x), Says(lambda x: x + np.float32(5e-5)))
    assert close.max_abs == pytest.approx(5e-5, rel=2e-3)
    # y = 1000: off by 0.05, that is 0.05 / 1000 = 5e-5
    far = parity(Says(lambda x: 0 * x + 1000), Says(lambda x: 0 * x + np.float32(1000.05)))
    assert far.max_abs == pytest.approx(5e-5, rel=2e-3)


def test_a_gap_above_the_limit_names_output_gap_and_limit() -> None:
    with pytest.raises(
        ExportError, match=r"'y' .* is off by 0\.0002 on 1000 inputs; .* is 0\.0001"
    ):
        parity(Says(lambda x: x), Says(lambda x: x + np.float32(2e-4)))


def test_one_wrong_row_in_a_thousand_is_found() -> None:
    def once(x: Array) -> Array:
        wrong = x.copy()
        if len(x) == 64:
            wrong[17] += 1.0
        return wrong

    with pytest.raises(ExportError, match="is off by 1 on"):
        parity(Says(lambda x: x), Says(once))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_on_one_side_is_a_failure_even_when_only_measuring(value: float) -> None:
    for one, other in ((_poison(value), _poison(1)), (_poison(1), _poison(value))):
        with pytest.raises(ExportError, match="is NaN or infinite where the policy's is not"):
            parity(Says(one), Says(other), limit=float("inf"))
    with pytest.raises(ExportError, match="NaN or infinite"):
        parity(Says(_poison(np.inf)), Says(_poison(-np.inf)))


def test_nan_on_both_sides_is_the_same_answer() -> None:
    assert parity(Says(_poison(np.nan)), Says(_poison(np.nan))).max_abs == 0.0


def test_batches_are_mixed_and_the_count_is_kept() -> None:
    policy = Says(lambda x: x)
    assert parity(policy, policy, 500).inputs == 500
    assert {1, 7, 64} <= set(policy.batches)
    assert sum(policy.batches) == 2 * 500  # asked as both sides


def test_real_cases_are_asked_first() -> None:
    policy = Says(lambda x: x)
    parity(policy, policy, 10, cases={"x": np.zeros((13, 2), np.float32)})
    assert policy.batches[0] == 13


def test_integers_count_the_share_that_differs() -> None:
    signature = Signature(PAIR.inputs, {"y": TensorSpec((2,), "int64")})
    zeros = Says(lambda x: np.zeros(x.shape, np.int64), signature)
    half = Says(lambda x: np.zeros(x.shape, np.int64) + np.array([0, 1]), signature)
    assert parity(zeros, half, limit=1.0).max_abs == 0.5
    with pytest.raises(ExportError, match=r"off by 0\.5"):
        parity(zeros, half)


def test_another_shape_or_signature_is_refused() -> None:
    with pytest.raises(ExportError, match=r"has shape \(1, 1\), the policy's has \(1, 2\)"):
        parity(Says(lambda x: x), Says(lambda x: x[:, :1]))
    with pytest.raises(ExportError, match="signature is not the policy's"):
        parity(Says(lambda x: x), Says(lambda x: x, FLAT))


def test_latency_orders_its_percentiles(files: Path) -> None:
    measured = latency(OnnxPolicy(files / "flat.onnx"), count=300, warmup=20)
    assert 0 < measured.p50_us <= measured.p99_us
    assert measured.p50_us < measured.act_p50_us  # the checks cost something
    assert measured.count == 300


def test_a_slow_policy_is_asked_less_often(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganglion.export.latency._SECONDS", 0.0)
    measured = latency(OnnxPolicy(files / "flat.onnx"), count=300, warmup=300)
    assert measured.count == 20
    assert 0 < measured.p50_us <= measured.p99_us


def test_latency_uses_the_steps_of_the_card(files: Path) -> None:
    policy = OnnxPolicy(files / "field.onnx")
    from ganglion.export.latency import typical

    inputs = typical(policy, sizes={"height": 4, "width": 5})
    assert inputs["cycles"] == 3
    assert inputs["grid"].shape == (1, 2, 4, 5)
    assert policy.signature == FIELD


def test_efficiency_is_measured_in_a_fresh_process(files: Path) -> None:
    ballast = np.ones(2**26)  # 512 MiB here must not count there
    measured = efficiency(files / "flat.onnx")
    held = inspect(files / "flat.onnx")
    assert ballast.nbytes > measured.peak_bytes > 20 * 2**20
    assert measured.peak_bytes < 150 * 2**20  # torch alone takes more
    assert (measured.parameters, measured.file_bytes) == (held.parameters, held.file_bytes)
    assert measured.latency.p50_us > 0


def test_efficiency_of_a_bad_file_is_a_data_error(tmp_path: Path) -> None:
    from ganglion.core.errors import DataError

    with pytest.raises(DataError, match=r"none\.onnx cannot be read"):
        efficiency(tmp_path / "none.onnx")
