"""Maps to learn from, the slots they live in, and the learner over both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ganglion import testing
from ganglion.core.contracts import Ranks
from ganglion.core.errors import DataError, TrainingError
from ganglion.tasks.gridnav import maps, packing, paths
from ganglion.tasks.gridnav.config import Config
from ganglion.tasks.gridnav.learner import SlotLearner
from ganglion.tasks.gridnav.pool import Pool, Schedule
from ganglion.tasks.gridnav.task import GridNav
from ganglion.tasks.gridnav.training_maps import BLOCK, Crops, FreshMaps
from ganglion.train import checkpoint

from .drawn import drawn

torch.set_num_threads(1)


def learner(*layers: dict[str, Any], data: Any = None) -> SlotLearner:
    cfg = testing.small("gridnav", {"data": {"fresh": data is None}}, *layers)
    assert isinstance(cfg, Config)
    made = GridNav(cfg).learner(data, "cpu", cfg.seed, Ranks())
    assert isinstance(made, SlotLearner)
    return made


# ---------------------------------------------------------------- maps


def test_a_block_of_fresh_maps_follows_from_its_number() -> None:
    source = FreshMaps(seed=4)
    first, again, other = source.block(9, 0), source.block(9, 0), source.block(9, 1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    free, goal = first
    assert free.shape == (BLOCK, 9, 9)
    assert free[np.arange(BLOCK), goal[:, 0], goal[:, 1]].all()


def test_fresh_maps_of_the_judged_size_are_never_those_of_other_splits() -> None:
    free, _ = FreshMaps(seed=0, judged=(8, 8)).block(8, 0)
    assert packing.belongs(free, "train").all()
    loose, _ = FreshMaps(seed=0, judged=(8, 8)).block(9, 0)
    assert not packing.belongs(loose, "train").all()


def test_a_share_of_goals_lies_in_pockets() -> None:
    free = drawn("..#", "#.#", "#.#")  # its two ends have one free neighbour each
    assert np.argwhere(maps.pockets(free)[0]).tolist() == [[0, 0], [2, 1]]
    plain, some, all_ = (FreshMaps(2, None, share).block(9, 0) for share in (0.0, 0.25, 1.0))
    assert (plain[0] == some[0]).all()
    assert (plain[0] == all_[0]).all()
    pocket = maps.pockets(plain[0])
    rows = np.arange(BLOCK)
    inside = [pocket[rows, goal[:, 0], goal[:, 1]] for _, goal in (plain, some, all_)]
    assert (inside[2] == pocket.any((1, 2))).all()
    moved = (plain[1] != some[1]).any(1)
    assert inside[1][moved].all()
    assert 0.12 < moved.mean() < 0.28


def test_crops_are_windows_of_the_maps_under_some_symmetry() -> None:
    whole = maps.draw("hard", 2, 30, 30, np.random.default_rng(0), variants=("perfect",))
    free, goal = Crops(whole, seed=1).block(6, 0)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (6, 6), (1, 2)).reshape(-1, 6, 6)
    known = set(packing.digests(windows).tolist())  # equal for all symmetries
    assert set(packing.digests(free).tolist()) <= known
    assert free[np.arange(BLOCK), goal[:, 0], goal[:, 1]].all()
    assert (free.sum((1, 2)) >= 2).all()


def test_a_window_larger_than_the_maps_is_told() -> None:
    with pytest.raises(DataError, match="No window of 9 x 9 fits into maps of 8 x 8"):
        Crops(np.ones((1, 8, 8), bool), seed=0).block(9, 0)


# ---------------------------------------------------------------- slots


def pool(count: int = 600, speed: int = 1) -> Pool:
    latents = (torch.zeros(count, 4, 9, 9),)
    return Pool(9, count, FreshMaps(0), Schedule(speed, (2.0, 2.0), False), latents, seed=0)


def test_a_slot_keeps_its_map_for_twice_its_wave_and_four_cycles() -> None:
    slots = pool(speed=2)
    slots.renew()
    farthest = slots.distance.flatten(1).max(1).values
    assert torch.equal(slots.life, (farthest / 2 * 2).long() + 4)
    assert torch.equal(slots.parts.sum(1), (slots.distance >= 0).float())
    found = paths.distances(slots.free.numpy(), slots.goal.numpy())
    assert (slots.distance.numpy() == found).all()


def test_only_slots_that_have_lived_are_renewed() -> None:
    slots = pool()
    slots.renew()
    before, ended = slots.free.clone(), slots.life <= 20
    slots.latents = (torch.ones_like(slots.latents[0]),)
    slots.time += 20
    slots.renew()
    assert 0 < int(ended.sum()) < 600
    assert torch.equal(slots.free[~ended], before[~ended])
    assert slots.time[ended].eq(0).all()
    assert slots.time[~ended].eq(20).all()
    assert slots.latents[0].flatten(1).amax(1).tolist() == (~ended).float().tolist()


def test_slots_go_on_from_their_state_across_blocks() -> None:
    whole, part = pool(), pool()
    for slots in (whole, part):
        slots.renew()
        slots.time += 25
    again = pool()
    again.load_state_dict(part.state_dict())
    for slots in (whole, again):
        for _ in range(3):
            slots.renew()
            slots.time += 40
    assert whole.number == again.number > 1
    for name in ("free", "goal", "distance", "parts", "time", "life"):
        assert torch.equal(getattr(whole, name), getattr(again, name)), name


# ---------------------------------------------------------------- learning


def test_small_maps_come_first_then_both_by_turns_then_large_ones() -> None:
    made = learner({"train": {"steps": 100}})
    sides = [made._chosen(step).side for step in (0, 39, 40, 41, 48, 49, 50, 99)]
    assert sides == [9, 9, 9, 16, 9, 16, 16, 16]


def test_the_rate_warms_up_holds_and_falls() -> None:
    made = learner(
        {"train": {"steps": 1_000}, "pool": {"hold": 0.3},
         "optim": {"lr": 1.0, "warmup_steps": 100, "final_lr": 0.0}}
    )  # fmt: skip
    # linear to step 99, 1 until step 299, then a cosine over 700 steps: half of it at 650
    found = [made._rate(step) for step in (0, 49, 99, 299, 300, 650, 1_000)]
    assert found == pytest.approx([0.01, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_thirty_steps_teach_something() -> None:
    made = learner({"train": {"steps": 30, "block": 5, "batch_size": 8, "ema": 0.9},
                    "optim": {"lr": 8e-3, "warmup_steps": 5}})  # fmt: skip
    held = GridNav(testing.small("gridnav")).generate(20, "test", np.random.default_rng(0))  # type: ignore[arg-type]
    before = made.loss(held)["loss"]
    losses = [made.update()["loss"] for _ in range(6)]
    assert losses[-1] < 0.95 * losses[0]
    assert made.loss(held)["loss"] < before


@pytest.mark.parametrize(
    "model", ["trm", {"kind": "trm", "blind": 2, "inner": 3}, {"kind": "wave", "depth": 2}]
)
def test_a_training_with_other_nets_goes_on_bit_for_bit(model: Any) -> None:
    layer = {"model": model, "train": {"batch_size": 3, "steps": 6, "block": 3}}
    whole, part = learner(layer), learner(layer)
    whole.update()
    part.update()
    state, second = part.state_dict(), learner(layer)
    second.load_state_dict(state)
    whole.update()
    second.update()
    assert second.step == 6
    ours, theirs = (checkpoint.state_digest(m.state_dict()) for m in (whole, second))
    assert ours == theirs


def test_a_dataset_gives_crops_of_its_own_maps() -> None:
    task = GridNav(testing.small("gridnav", {"data": {"fresh": False}}))  # type: ignore[arg-type]
    data = task.generate(12, "train", np.random.default_rng(0))
    made = learner({"train": {"batch_size": 4}}, data=data)
    made.update()
    assert [p.side for p in made._pools] == [8, 8]  # no larger than the maps
    known = set(packing.digests(packing.unpack(data["free"], 8, 8)).tolist())
    assert set(packing.digests(made._pools[0].free.numpy()).tolist()) <= known


def test_a_step_that_is_not_finite_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner({"train": {"batch_size": 3, "steps": 6, "block": 2, "nonfinite_limit": 1}})
    unroll = made._unroll

    def broken(*given: Any) -> Any:
        loss, terms = unroll(*given)
        return loss * (float("nan") if made.step in (1, 3) else 1.0), terms

    monkeypatch.setattr(made, "_unroll", broken)
    made.update()
    note = made.notes()[0]
    assert note["event"] == "nonfinite"
    assert note["rate_scale"] == 0.5
    assert all(bool(torch.isfinite(p).all()) for p in made._module.parameters())
    with pytest.raises(TrainingError, match=r"1 steps from 2 on .* Try optim.lr=0.00"):
        made.update()


def test_weights_of_another_run_are_taken_alone() -> None:
    first, second = learner(), learner({"seed": 5})
    first.update()
    second.warm_start(first.state_dict())
    ours, theirs = (dict(m._ema.state_dict()) for m in (second, first))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert second.step == 0
