"""Claims of others beside what was measured."""

from __future__ import annotations

import pytest

from ganglion.core.contracts import Claim
from ganglion.report.claims import Trained, rows

POLICIES = [
    {"name": "mine", "metrics": {"gap": {"value": 0.012, "percent": True}},
     "efficiency": {"latency_us": {"p50": 50.0}}},
    {"name": "mine.onnx", "metrics": {"gap": {"value": 3.0, "percent": True}}},
    {"name": "oracle", "metrics": {"gap": {"value": 0.0, "percent": True}}},
]  # fmt: skip
LINES = [
    {"kind": "train", "step": 5, "loss": 4.0}, {"kind": "validation", "step": 10, "loss": 3.0},
    {"kind": "train", "step": 10, "loss": 2.0}, {"kind": "train", "step": 20, "loss": 1.0},
]  # fmt: skip
TRAINED = Trained("mine", "mine.onnx", LINES, epoch_steps=10)


def test_each_claim_stands_beside_optimum_chance_and_ours() -> None:
    claim = Claim("gap", "< 30 %", "gap")
    assert rows([claim], POLICIES, TRAINED) == [["gap", "< 30 %", "–", "0 %", "1.2 %"]]


def test_a_claim_about_the_untrained_net_is_answered_by_it() -> None:
    claim = Claim("gap, untrained", "~300 %", "gap", of="untrained")
    assert rows([claim], POLICIES, TRAINED)[0][-1] == "300 %"


def test_latency_is_the_median_of_the_file() -> None:
    assert rows([Claim("time", "< 10 ms", "latency")], POLICIES, TRAINED)[0][2:] == [
        "–",
        "–",
        "50 µs",
    ]


@pytest.mark.parametrize(("epoch", "said"), [(1, "2/3"), (2, "1/–"), (3, "–/–")])
def test_losses_are_those_at_the_end_of_the_epoch(epoch: int, said: str) -> None:
    claim = Claim("loss", "5.2", "loss", epoch=epoch)
    assert rows([claim], POLICIES, TRAINED)[0][-1] == said


def test_without_epochs_no_loss_is_compared() -> None:
    trained = Trained("mine", None, LINES, epoch_steps=None)
    assert rows([Claim("loss", "5.2", "loss", epoch=1)], POLICIES, trained)[0][-1] == "–"
