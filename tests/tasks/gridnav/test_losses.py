"""The wave-front mask by hand, and samples turned as the world turns them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganglion.tasks.gridnav import maps, paths, symmetry
from ganglion.tasks.gridnav.config import DensitySettings, MixerSettings
from ganglion.tasks.gridnav.losses import Labels, StateLoss, known_right, turned, wave_front
from ganglion.tasks.gridnav.model import build
from ganglion.tasks.gridnav.training_maps import labelled

from .drawn import drawn


def corridor() -> Labels:
    """Goal at the left end of seven cells, then a wall, then a cell without a way."""
    free = drawn(".......#.")
    distance, parts = labelled(free, np.array([[0, 0]]), single=False)
    return Labels(*(torch.from_numpy(a) for a in (parts, distance, free)))


def test_the_mask_follows_the_wave() -> None:
    labels = corridor()
    logits = torch.zeros(1, 6, 1, 9)
    sure = 50.0
    # at reach 4 and lag 1: distances 0..3 are known, 4 and 5 left alone, 6 and the last UNKNOWN
    logits[0, 4, 0, 0] = sure  # STAY
    logits[0, 2, 0, 1:4] = sure  # LEFT
    logits[0, 3, 0, 4:6] = sure  # wrong, but not asked
    logits[0, 5, 0, 6] = logits[0, 5, 0, 8] = sure
    at = torch.tensor([4])
    assert wave_front(logits, labels, at, 1).item() == pytest.approx(0.0, abs=1e-6)
    assert known_right(logits, labels, at, 1).item() == 1.0
    # two cells farther 0..5 and the last are asked, two of these seven at a loss of 50
    assert wave_front(logits, labels, at + 2, 1).item() == pytest.approx((50 + 50) / 7, rel=1e-4)
    assert known_right(logits, labels, at + 2, 1).item() == pytest.approx(4 / 6)


def test_what_is_next_to_the_goal_weighs_more() -> None:
    labels, logits = corridor(), torch.zeros(1, 6, 1, 9)
    logits[0, 4, 0, 0] = logits[0, 2, 0, 1:7] = logits[0, 5, 0, 8] = 50.0
    logits[0, :, 0, 1] = torch.tensor([50.0, 0, 0, 0, 0, 0])  # at distance 1, wrong by 50
    at = torch.tensor([9])
    assert wave_front(logits, labels, at, 2).item() == pytest.approx(50 / 8)
    # weights 1 + 4 / (1 + d) for d 0..6, and 1 for the cell without a way; at d = 1 it is 3
    weights = [1 + 4 / (1 + d) for d in range(7)] + [1]
    found = wave_front(logits, labels, at, 2, near=4.0)
    assert found.item() == pytest.approx(3 * 50 / sum(weights))


def test_before_the_wave_begins_all_is_unknown() -> None:
    labels, logits = corridor(), torch.zeros(1, 6, 1, 9)
    # uniform answers: every asked cell costs log 6
    found = wave_front(logits, labels, torch.tensor([-5]), 2)
    assert found.item() == pytest.approx(math.log(6))


def test_equally_good_moves_are_asked_in_equal_parts() -> None:
    free = drawn("..", "..")
    distance, parts = labelled(free, np.array([[1, 1]]), single=False)
    assert parts[0, :, 0, 0].tolist() == [0.0, 0.5, 0.0, 0.5, 0.0]
    first = labelled(free, np.array([[1, 1]]), single=True)[1]
    assert first[0, :, 0, 0].sum() == 1.0
    assert first[0, :, 0, 0].max() == 1.0
    assert distance[0].tolist() == [[2, 1], [1, 0]]


def test_targets_that_do_not_sum_to_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "optimal_moves", lambda d: np.where(d > 1, 0, 16).astype(np.uint8))
    with pytest.raises(ValueError, match="do not sum to 1"):
        labelled(drawn("..."), np.array([[0, 0]]), single=False)


def test_every_sample_turns_as_the_world_does() -> None:
    cases = maps.draw_cases("density", 64, 8, 8, np.random.default_rng(0))
    moves = paths.optimal_moves(cases.distance)
    rows = np.arange(64)
    here = moves[rows, cases.start[:, 0], cases.start[:, 1]]
    best = (here[:, None] >> np.arange(5) & 1).astype(np.float32)
    label = best.argmax(1)
    turns = rows % symmetry.COUNT
    given = (cases.free.astype(np.float32), cases.start, cases.goal, best, label)
    free, start, goal, best2, label2 = (
        t.numpy() for t in turned(torch.from_numpy(turns), *map(torch.from_numpy, given))
    )
    for i in range(64):
        k = int(turns[i])
        map_, goal_, sets = symmetry.transform(
            k, cases.free[i : i + 1], cases.goal[i : i + 1], moves[i : i + 1]
        )
        assert (free[i] == map_[0]).all()
        assert (goal[i] == goal_[0]).all()
        assert (start[i] == symmetry.cells(k, cases.start[i], 8, 8)).all()
        turned_here = sets[0, start[i, 0], start[i, 1]]
        assert best2[i].tolist() == [float(turned_here >> m & 1) for m in range(5)]
        assert label2[i] == symmetry.MOVES[k, label[i]]


def test_the_state_loss_is_the_cross_entropy_of_the_label_or_of_the_set() -> None:
    torch.manual_seed(0)
    module = build(MixerSettings(dim=16, depth=1), DensitySettings(height=4, width=4)).eval()
    batch = {
        "open": torch.ones(1, 4, 4), "start": torch.tensor([[0, 0]]),
        "goal": torch.tensor([[2, 2]]), "best": torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]),
        "label": torch.tensor([1]),
    }  # fmt: skip
    log = module.logits(batch["open"], batch["start"], batch["goal"]).log_softmax(1)[0]
    draw = torch.Generator()
    single, terms = StateLoss(augment=False, single=True)(module, batch, draw)
    several, _ = StateLoss(augment=False, single=False)(module, batch, draw)
    assert single.item() == pytest.approx(-log[1].item())
    assert several.item() == pytest.approx(-(log[1] + log[3]).item() / 2)
    assert terms["optimal"].item() == float(log.argmax().item() in (1, 3))
