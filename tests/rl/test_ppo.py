"""PPO on a toy: it learns, it repeats itself to the bit, and its numbers are those by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy import Line, learner

from ganglion.core.errors import TrainingError
from ganglion.rl.rollout import collect
from ganglion.train import checkpoint
from ganglion.train.settings import OptimSettings


def test_it_learns_to_go_to_zero() -> None:
    made = learner(60)
    first = made.update()["distance"]
    for _ in range(59):
        last = made.update()
    assert last["distance"] < 0.35 * first  # what is left is the noise of acting
    move = made.policy().act({"x": np.array([[-1.5], [0.0], [1.5]], np.float32)})["move"]
    assert move[:, 0] == pytest.approx([1.5, 0.0, -1.5], abs=0.3)


def test_a_rollout_holds_what_happened() -> None:
    made = learner()
    networks = (made._parts.actor, made._parts.critic)
    line = Line(count=4)
    rollout = collect(line, networks, 12, torch.zeros(12, 4, 1), np.random.default_rng(0))
    mean = networks[0](torch.tensor([[-2.0]])).detach()
    # without noise the action is the mean; -2 + mean, squared, is paid
    assert rollout.action[0, 0].detach().numpy() == pytest.approx(mean[0].numpy())
    moved = -2.0 + float(mean)
    assert float(rollout.rewards[0, 0]) == pytest.approx(-(moved**2))
    assert float(rollout.raw_seen[1, 0]) == pytest.approx(moved)
    # time runs out after six steps; the value there is that of the place, not of the new start
    assert rollout.ended[5].all()
    assert not rollout.ended[4].any()
    place = rollout.raw_seen[5, 0] + rollout.action[5, 0]
    assert float(rollout.following[5, 0]) == pytest.approx(float(networks[1](place[None]).detach()))
    assert float(rollout.following[4, 0]) == pytest.approx(float(rollout.values[5, 0]))


def test_the_surrogate_is_clipped_by_hand() -> None:
    made = learner(entropy=0.0, value_weight=0.0)
    actor = made._parts.actor
    seen = torch.zeros(2, 1)
    mean = actor.layers(seen).detach()
    action = mean + 0.1
    now = torch.distributions.Normal(mean, 0.5).log_prob(action).sum(-1)
    # ratios e^.5 = 1.65 and e^-.5 = .61, gains 2 and -1: min(1.65, 1.2) * 2 = 2.4 and
    # min(.61 * -1, .8 * -1) = -.8; the loss is -(2.4 - .8) / 2 = -.8
    part = {
        "seen": seen, "judged": seen, "mean": mean, "action": action,
        "log_prob": now - torch.tensor([0.5, -0.5]), "gain": torch.tensor([2.0, -1.0]),
        "returns": torch.zeros(2), "log_std": actor.log_std.detach(),
    }  # fmt: skip
    loss, terms, acted = made._loss(part)
    assert float(terms["surrogate"].detach()) == pytest.approx(-0.8)
    assert float(loss.detach()) == pytest.approx(-0.8)
    assert made._divergence(part, acted.detach()) == pytest.approx(0.0)


def test_the_rate_falls_after_a_large_step_and_rises_after_a_small_one() -> None:
    made = learner(kl=0.01)
    for kl, rate in ((0.03, 2e-3), (0.03, 2e-3 / 1.5), (0.015, 2e-3 / 1.5), (0.001, 2e-3)):
        made._adapt(kl)
        assert made._lr == pytest.approx(rate)
    for _ in range(40):
        made._adapt(1.0)
    assert made._lr == 1e-5


def test_without_a_divergence_the_rate_is_the_schedule() -> None:
    made = learner(4, kl=0.0)
    made._optim = OptimSettings(lr=3e-3, warmup_steps=2, schedule="cosine")
    # two steps up, then the cosine's beginning and middle
    rates = [made.update()["lr"] for _ in range(4)]
    assert rates == pytest.approx([1.5e-3, 3e-3, 3e-3, 1.5e-3])


def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Any) -> None:
    whole = learner()
    for _ in range(5):
        whole.update()
    part = learner()
    for _ in range(2):
        part.update()
    path = checkpoint.save(tmp_path, part.step, part.state_dict(), {})
    torch.manual_seed(12345)
    again = learner()
    again.load_state_dict(checkpoint.load(path).state)
    for _ in range(3):
        again.update()
    digests = [checkpoint.state_digest(x.state_dict()) for x in (again, whole)]
    assert digests[0] == digests[1]
    assert again.step == 5


def test_a_state_that_was_loaded_is_saved_again_before_any_step() -> None:
    made = learner()
    made.update()
    again = learner()
    again.load_state_dict(made.state_dict())
    ours, theirs = (checkpoint.state_digest(x.state_dict()) for x in (again, made))
    assert ours == theirs


def test_a_gradient_that_is_not_finite_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = learner()
    made.update()
    before = made._parts.actor.layers[0].weight.detach().clone()
    good = Line.step

    def poisoned(self: Line, action: Any, rng: Any) -> Any:
        found = good(self, action, rng)
        return type(found)(**{**vars(found), "reward": found.reward + float("nan")})

    monkeypatch.setattr(Line, "step", poisoned)
    made._train = made._train.model_copy(update={"nonfinite_limit": 100})
    made.update()
    assert torch.equal(made._parts.actor.layers[0].weight, before)
    assert "10 of 10 minibatches of step 1" in str(made.notes()[0]["message"])
    made._train = made._train.model_copy(update={"nonfinite_limit": 5})
    with pytest.raises(TrainingError, match=r"Try optim\.lr=0\.0015"):
        made.update()
