from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ganglion.core import seeds
from ganglion.core.contracts import Ranks
from ganglion.train.batches import Resident
from ganglion.train.supervised import initialised
from tiny import digest, learner, net, rows, run_out, squared


def linear() -> nn.Module:
    return nn.Linear(3, 1)


def plain_squared(module: nn.Module, batch: Any, draw: Any) -> tuple[Tensor, dict[str, Tensor]]:
    return ((module(batch["x"]) - batch["y"]) ** 2).mean(), {}


# ---------------------------------------------------------------- against a plain loop


def test_every_step_equals_a_plain_hand_written_loop() -> None:
    made = learner(ema=0.9, optim={"weight_decay": 0.1, "clip_norm": 0.5, "warmup_steps": 3})
    batches = Resident(rows(), made._cfg, 0, "cpu", Ranks())
    module = initialised(0, net)
    average = copy.deepcopy(module)
    matrices = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    draw = torch.Generator()
    for step in range(20):
        torch.manual_seed(seeds.key(0, "step", step) >> 1)
        draw.manual_seed(seeds.key(0, "draw", step) >> 1)
        optimizer.zero_grad()
        loss, _ = squared(module, batches.batch(step, 0), draw)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        share = (step - 3) / 17
        wave = (1 + np.cos(np.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1) / 3 if step < 3 else 0.01 * wave
        optimizer.step()
        decay = min(0.9, (1 + step) / (10 + step))
        with torch.no_grad():
            for mine, theirs in zip(average.parameters(), module.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)
            for mine, theirs in zip(average.buffers(), module.buffers(), strict=True):
                mine.copy_(theirs)
    run_out(made)
    for name, value in module.state_dict().items():
        assert torch.equal(made.state_dict()["module"][name], value), name
    for name, value in average.state_dict().items():
        assert torch.equal(made.state_dict()["ema"][name], value), name


def test_the_average_of_two_steps_by_hand() -> None:
    # decay 1/10 at the first step, then 2/11: w = 0.9 w1 + 0.1 w0; 9/11 w2 + 2/11 w
    made = learner(plain_squared, build=linear, ema=0.99, block=1)
    weights = [made._module.weight.detach().clone()]
    for _ in range(2):
        made.update()
        weights.append(made._module.weight.detach().clone())
    by_hand = 9 / 11 * weights[2] + 2 / 11 * (0.9 * weights[1] + 0.1 * weights[0])
    torch.testing.assert_close(made.state_dict()["ema"]["weight"], by_hand)


def test_clipping_limits_the_norm_and_the_log_shows_it_unclipped() -> None:
    made = learner(plain_squared, build=linear, block=1, optim={"clip_norm": 0.001})
    metrics = made.update()
    held = [p.grad for p in made._module.parameters()]
    assert metrics["grad_norm"] > 0.1
    assert float(nn.utils.get_total_norm(held)) == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("count", [40, 41, 9])
def test_accumulation_equals_a_larger_batch(count: int) -> None:
    # 41 and 9 rows leave a last step that is short for some part, or empty
    data = rows(count)
    whole = run_out(learner(plain_squared, data, linear, batch_size=8, steps=12))
    parts = run_out(learner(plain_squared, data, linear, batch_size=2, accumulate=4, steps=12))
    for name, value in whole.state_dict()["module"].items():
        torch.testing.assert_close(parts.state_dict()["module"][name], value)
    assert parts.seen == []  # type: ignore[attr-defined]


def test_bf16_runs_and_keeps_single_precision_weights() -> None:
    made = learner(precision="bf16")
    run_out(made)
    assert {t.dtype for t in made.state_dict()["module"].values()} == {torch.float32, torch.int64}
    assert digest(made) != digest(run_out(learner()))


def test_metrics_are_means_over_the_block() -> None:
    one, five = learner(block=1), learner(block=5)
    singles = [one.update() for _ in range(5)]
    block = five.update()
    for name in ("loss", "noise", "grad_norm"):
        assert block[name] == pytest.approx(np.mean([s[name] for s in singles]), rel=1e-5)
    assert block["lr"] == singles[-1]["lr"]
    assert digest(one) == digest(five)


# ---------------------------------------------------------------- counted randomness


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def test_the_streams_of_others_change_nothing() -> None:
    one = run_out(learner(build=dropout))
    two = learner(build=dropout)
    while two.step < 20:
        torch.manual_seed(two.step + 77)
        torch.rand(two.step)
        two.update()
    assert digest(one) == digest(two)


def test_a_learner_goes_on_from_its_state_bit_for_bit() -> None:
    whole = run_out(learner(ema=0.9, build=dropout))
    first = learner(ema=0.9, build=dropout)
    first.update()
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(999)
    second = learner(ema=0.9, build=dropout)
    second.load_state_dict(state)
    assert digest(run_out(second)) == digest(whole)


def test_a_warm_start_takes_the_averages_and_nothing_else() -> None:
    old = run_out(learner(ema=0.9))
    new = learner(ema=0.9)
    new.warm_start(old.state_dict())
    assert new.step == 0
    assert not new.state_dict()["optimizer"]
    for name, value in old.state_dict()["ema"].items():
        assert torch.equal(new.state_dict()["module"][name], value)


# ---------------------------------------------------------------- looking


def test_validation_is_the_mean_over_rows_without_touching_the_state() -> None:
    made = run_out(learner(ema=0.9))
    before = digest(made)
    data = rows(5000, seed=9)  # more than one batch of validation
    module = made._ema.eval()  # type: ignore[union-attr]
    with torch.no_grad():
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
        by_hand = float(((module(x) - y) ** 2).mean())
    assert made.loss(data)["loss"] == pytest.approx(by_hand, rel=1e-5)
    assert digest(made) == before


def test_validation_data_are_known_by_themselves_not_by_their_address() -> None:
    made = learner()
    found = [made.loss({k: v * scale for k, v in rows().items()})["loss"] for scale in (1.0, 9.0)]
    assert found[0] != found[1]


def test_the_policy_acts_with_the_averaged_weights() -> None:
    made = run_out(learner(ema=0.9))
    x = rows()["x"]
    with torch.no_grad():
        by_hand = made._ema.eval()(torch.from_numpy(x)).numpy()  # type: ignore[union-attr]
    np.testing.assert_array_equal(made.policy().act({"x": x})["y"], by_hand)


# ---------------------------------------------------------------- no look at the device per step


class Looks(TorchDispatchMode):
    """Counts reads of single values from a tensor to Python, which wait for the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("block", [5, 20])
def test_a_block_looks_at_the_device_at_its_end_alone(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(block=block, steps=40, ema=0.9)
    made.update()
    listed: list[Tensor] = []
    original = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        listed.append(tensor)
        return original(tensor)

    monkeypatch.setattr(Tensor, "tolist", tolist)
    with Looks() as looks:
        made.update()
    assert [len(t) for t in listed] == [block]  # the flags of the block, in one copy
    assert looks.count == 3  # the means of loss, noise and grad_norm
