from __future__ import annotations

import math

import pytest
from torch import nn

from ganglion.train import optim
from ganglion.train.settings import OptimSettings


def rates(total: int, **settings: object) -> list[float]:
    cfg = OptimSettings(lr=2.0, **settings)  # type: ignore[arg-type]
    return [optim.rate(cfg, step, total) for step in range(total)]


def test_cosine_falls_from_the_peak_to_the_final_share() -> None:
    # 0.1 + 0.9 (1 + cos(pi t)) / 2 at t = 0, 1/4, 1/2, 3/4, times the peak 2
    by_hand = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * t)) / 2) for t in (0, 0.25, 0.5, 0.75)]
    assert rates(4, final_lr=0.1) == pytest.approx(by_hand)
    assert by_hand[0] == 2.0
    assert by_hand[2] == pytest.approx(1.1)
    assert optim.rate(OptimSettings(lr=2.0, final_lr=0.1), 9, 4) == pytest.approx(0.2)


def test_warm_up_rises_to_the_peak_and_the_wave_begins_there() -> None:
    # (1, 2, 3, 4) / 4 of the peak, then cosine over the 4 steps left
    found = rates(8, warmup_steps=4)
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert found[6] == pytest.approx(1.0)


def test_step_drops_after_each_share_of_the_run() -> None:
    # drops at 3/10, 6/10 and 9/10 of the run
    found = rates(10, schedule="step", step_share=0.3, step_gamma=0.1)
    assert found == pytest.approx([2] * 3 + [0.2] * 3 + [0.02] * 3 + [0.002])


def test_none_stays() -> None:
    assert rates(3, schedule="none") == [2.0] * 3


def test_the_scale_of_plateau_and_guard_multiplies() -> None:
    cfg = OptimSettings(lr=2.0, warmup_steps=2)
    assert optim.rate(cfg, 0, 10, 0.5) == pytest.approx(0.5)
    assert optim.rate(cfg, 2, 10, 0.25) == pytest.approx(0.5)


def test_plateau_drops_after_the_patience_and_counts_anew() -> None:
    plateau = optim.Plateau(OptimSettings(plateau_patience=2, plateau_factor=0.5))
    scales = []
    for value in (3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0):
        plateau.observe(value)
        scales.append(plateau.scale)
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_nan_stalls_a_plateau_but_is_never_its_best() -> None:
    plateau = optim.Plateau(OptimSettings(plateau_patience=9))
    plateau.observe(math.nan)
    plateau.observe(5.0)
    assert (plateau.best, plateau.stalled) == (5.0, 0)
    plateau.observe(math.nan)
    assert (plateau.best, plateau.stalled) == (5.0, 1)


def test_only_matrices_decay() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    net[2].weight.requires_grad_(False)
    made = optim.build(net, OptimSettings(weight_decay=0.1))
    decays = {id(p): g["weight_decay"] for g in made.param_groups for p in g["params"]}
    assert decays == {
        id(net[0].weight): 0.1, id(net[0].bias): 0.0, id(net[1].weight): 0.0, id(net[1].bias): 0.0,
    }  # fmt: skip
