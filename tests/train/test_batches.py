from __future__ import annotations

import numpy as np
import pytest
import torch

from ganglion.core.contracts import Ranks
from ganglion.train.batches import Fresh, Resident, to_device
from tiny import rows, train_settings


def made(count: int, seed: int = 0, ranks: Ranks = Ranks(), **settings: int) -> Resident:  # noqa: B008
    cfg = train_settings(**settings)
    return Resident(rows(count), cfg, seed, "cpu", ranks)


def seen(batches: Resident, steps: range, parts: int = 1) -> list[int]:
    found = [batches.batch(s, m)["number"][:, 0] for s in steps for m in range(parts)]
    return [int(n) for n in torch.cat(found)]


@pytest.mark.parametrize(("count", "batch", "parts"), [(40, 8, 1), (41, 8, 1), (7, 8, 1),
                                                       (41, 4, 3), (9, 2, 4)])  # fmt: skip
def test_every_row_is_seen_once_an_epoch(count: int, batch: int, parts: int) -> None:
    batches = made(count, batch_size=batch, accumulate=parts)
    steps = train_settings(batch_size=batch, accumulate=parts).epoch_steps(count)
    for epoch in range(3):
        order = seen(batches, range(epoch * steps, (epoch + 1) * steps), parts)
        assert sorted(order) == list(range(count))


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    forwards, jumping = made(40), made(40)
    whole = seen(forwards, range(15))
    assert seen(jumping, range(12, 13)) == whole[96:104]
    assert seen(jumping, range(2, 3)) == whole[16:24]
    assert whole[:40] != whole[40:80]
    assert seen(made(40, seed=1), range(5)) != whole[:40]


def test_ranks_share_a_step_without_overlap() -> None:
    parts = [made(41, ranks=Ranks(r, 2), batch_size=4) for r in range(2)]
    alone = made(41, batch_size=8)
    for step in range(6):
        together = [n for p in parts for n in seen(p, range(step, step + 1))]
        assert sorted(together) == sorted(seen(alone, range(step, step + 1)))


@pytest.mark.parametrize("count", [40, 41, 43])
def test_shares_are_those_of_the_rows(count: int) -> None:
    batches = made(count, batch_size=4, accumulate=2)
    for step in range(6):
        sizes = [len(batches.batch(step, m)["x"]) for m in range(2)]
        assert [batches.share(step, m) for m in range(2)] == [s / sum(sizes) for s in sizes]


def test_fresh_rows_follow_from_seed_step_part_and_rank() -> None:
    def draw(generator: torch.Generator, count: int) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(count, generator=generator)}

    cfg = train_settings(accumulate=2)
    one, two = (Fresh(draw, cfg, 0, "cpu", Ranks()) for _ in range(2))
    other = Fresh(draw, cfg, 0, "cpu", Ranks(1, 2))
    first = one.batch(3, 1)["x"]
    one.batch(9, 0)
    assert torch.equal(first, two.batch(3, 1)["x"])
    assert not torch.equal(first, two.batch(3, 0)["x"])
    assert not torch.equal(first, two.batch(4, 1)["x"])
    assert not torch.equal(first, other.batch(3, 1)["x"])
    assert (len(first), one.share(3, 1)) == (8, 0.5)


def test_arrays_are_copied_and_doubles_become_floats() -> None:
    array = np.arange(6.0).reshape(2, 3)[:, ::-1]
    found = to_device({"x": array, "n": np.array([1, 2])}, "cpu")
    array[:] = 0
    assert found["x"].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert (found["x"].dtype, found["n"].dtype) == (torch.float32, torch.int64)
