"""Imitation of plans: what a plan teaches, by hand, what a round adds, and that a run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import driver
from ganglion import registry
from ganglion.core.contracts import Ranks
from ganglion.core.errors import SettingsError
from ganglion.tasks.control import ilqr, oracle
from ganglion.tasks.control.dagger import DaggerLearner
from ganglion.tasks.control.objectives import DaggerLoss
from ganglion.tasks.control.plans import PlanImitation, Plans
from ganglion.tasks.control.plant import Course, DoubleIntegrator
from ganglion.tasks.control.task import Control
from ganglion.train import checkpoint
from tiny import begin, fingerprint

PROBLEM = {"kind": "pendulum", "num_steps": 20, "horizon_s": 1.0}
LOSS = {"kind": "dagger", "plans": 12, "rounds": 2, "plans_per_round": 6}


def settings(plans: int = 12, **train: Any) -> dict[str, Any]:
    return {
        "problem": PROBLEM, "loss": {**LOSS, "plans": plans},
        "model": {"kind": "feedback", "hidden": [16, 16]},
        "train": {"threads": 1, "batch_size": 64, **train},
    }  # fmt: skip


def learner(**train: Any) -> DaggerLearner:
    cfg = registry.resolve("control", "quick", [settings(**train)])
    made = Control(cfg).learner(None, "cpu", 0, Ranks())  # type: ignore[arg-type]
    assert isinstance(made, DaggerLearner)
    return made


class Says(nn.Module):
    """A policy that always says the same."""

    def __init__(self, u: float) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.tensor([[u]]))

    def control(self, x: Tensor, target: Tensor, left: Tensor, leak: float) -> Tensor:
        return self.u.expand(len(x), 1)


def test_the_expansion_of_a_last_step_by_hand() -> None:
    # One step of dt = 1: x' = (p + v + u/2, v + u). With Q_f = 20 diag(10, 5), R = .1 and
    # B = (1/2, 1): H = 2 (.1 + 200/4 + 100) = 300.2, C = 2 (200/2, 200/2 + 100) = (200, 400), and
    # at u = 0 from (1, 0): g = C (1, 0)' = 200.
    plant = DoubleIntegrator(1, 1.0)
    x0 = np.array([[1.0, 0.0]])
    controls = np.zeros((1, 1, 1))
    found = ilqr.expansion(plant, Course(plant.rollout(x0, controls), controls), np.zeros((1, 2)))
    assert found.hessian.item() == pytest.approx(300.2)
    assert found.cross.ravel().tolist() == pytest.approx([200.0, 400.0])
    assert found.gradient.item() == pytest.approx(200.0)


def test_regret_and_distance_by_hand() -> None:
    # Q(u) = -2 u + u^2 is least at 1, by 1 less than at 0: with a unit of 1 that counts
    # 2 * 1 / (1 + 1) = 1; the distance is 1/4 of the bound, squared 1/16.
    row = {"state": torch.zeros(1, 2), "target": torch.zeros(1, 2), "time_left_s": torch.ones(1, 1),
           "control": torch.zeros(1, 1), "gradient": torch.tensor([[-2.0]]),
           "hessian": torch.tensor([[[2.0]]]), "best": torch.ones(1, 1)}  # fmt: skip
    loss = PlanImitation(DoubleIntegrator(15, 1 / 3), lambda: 1.0)
    total, terms = loss(Says(0.0), row, torch.Generator())
    assert float(total.detach()) == pytest.approx(1.0625)
    assert float(terms["regret"]) == pytest.approx(1.0)
    assert float(loss(Says(1.0), row, torch.Generator())[0].detach()) == pytest.approx(0.0)


def test_what_is_best_beside_a_plan_is_what_the_optimum_does_there() -> None:
    plant = DoubleIntegrator(15, 1 / 3, target_kind="moving")
    plans, rng = Plans(plant, DaggerLoss(disturbance=0.02)), np.random.default_rng(0)
    plans.add(plant.sample_starts(rng, 60), plant.sample_targets(rng, 60), 15)
    batch = plans.draw(torch.Generator().manual_seed(0), 300)
    whole = (batch["time_left_s"] > 4.9).squeeze(1)
    state, target = (batch[k][whole].double().numpy() for k in ("state", "target"))
    best = oracle.solve(plant, state, target).controls[:, 0]
    off = np.abs(batch["best"][whole].numpy() - best)
    kept = np.abs(batch["control"][whole].numpy() - best)
    assert len(off) > 20  # the weights prefer beginnings
    # float32, and sets of held controls that change on the way
    assert np.median(off) < 1e-4
    assert off.mean() < 0.1 * kept.mean()


def test_a_plan_is_drawn_from_where_much_is_left_to_pay() -> None:
    plant = DoubleIntegrator(15, 1 / 3)
    plans, rng = Plans(plant, DaggerLoss()), np.random.default_rng(0)
    plans.add(plant.sample_starts(rng, 40), plant.sample_targets(rng, 40), 15)
    left = plans.draw(torch.Generator().manual_seed(0), 4_000)["time_left_s"] * 3.0
    first, last = (int((left - k).abs().lt(0.1).sum()) for k in (15, 1))
    assert first / last == pytest.approx(1.1 / 0.1, rel=0.4)  # (floor + 1) / floor


def test_rounds_come_when_they_are_due_and_follow_the_policy() -> None:
    made, counts = learner(steps=30, block=5, eval_every=30), []
    while made.step < 30:
        counts.append(made.update()["plans"])
    assert counts == [12, 12, 18, 18, 24, 24]  # due at .85 * 30 / 3 = 8 and at 17


def test_a_policy_that_ran_away_is_followed_no_further_than_some_boxes() -> None:
    made = learner(steps=30, block=5)
    far = torch.tensor([[torch.nan, torch.inf], [0.1, -1e9]])
    made._add(far, np.zeros((2, 2)), 10)
    states = made._plans._rows["state"]
    assert bool(torch.isfinite(states).all())
    assert states[10, 1] == -6.0  # six times the box of the rate


def test_imitation_of_plans_lowers_the_cost_of_short_swings() -> None:
    made = learner(plans=100, steps=200, block=50, ema=0.9)
    starts = np.random.default_rng(5).uniform(-1.0, 1.0, (64, 2)) * (np.pi, 1.0)
    cases = {
        "state": starts.astype(np.float32), "target": np.zeros((64, 2), np.float32),
        "time_left_s": np.ones((64, 1), np.float32),
    }  # fmt: skip
    before = made.loss(cases)["cost"]
    while made.step < 200:
        made.update()
    assert made.loss(cases)["cost"] < 0.97 * before


def test_a_state_that_is_loaded_goes_on_bit_for_bit() -> None:
    given = {"steps": 12, "block": 2}
    whole, first, second = (learner(**given) for _ in range(3))
    while whole.step < 12:
        whole.update()
    while first.step < 6:  # one round made, one to come
        first.update()
    second.load_state_dict(first.state_dict())
    while second.step < 12:
        second.update()
    digests = [checkpoint.state_digest(made.state_dict()) for made in (whole, second)]
    assert digests[0] == digests[1]


def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    layer = settings(steps=30, eval_every=15, checkpoint_every=10, ema=0.9)
    counts = {"data": {"validation": 4, "test": 4, "shard": 4}}
    calm = begin(tmp_path, layer, counts)
    assert driver.train(calm) == 0, driver.said(calm)
    run = begin(tmp_path, layer, counts)
    assert driver.train(run, failpoint="checkpoint.pointed:2") == -9
    assert driver.train(run) == 0, driver.said(run)
    assert fingerprint(run) == fingerprint(calm)


def test_plans_teach_state_feedback_only() -> None:
    with pytest.raises(SettingsError, match="dagger trains state feedback"):
        registry.resolve("control", "quick", [{"problem": PROBLEM, "model": "mlp",
                                               "loss": "dagger"}])  # fmt: skip
