"""The actor-critic learner: its two objectives by hand, what it promises, and that it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import driver
from ganglion import registry
from ganglion.core.contracts import Ranks
from ganglion.core.errors import SettingsError
from ganglion.tasks.control import grid
from ganglion.tasks.control.actor_critic import ActorCriticLearner
from ganglion.tasks.control.closed_loop import run
from ganglion.tasks.control.critics import TableCritic, hull
from ganglion.tasks.control.feedback import Bounded
from ganglion.tasks.control.plant import Pendulum
from ganglion.tasks.control.task import Control
from ganglion.train import checkpoint
from tiny import begin, fingerprint

PROBLEM = {"kind": "pendulum", "num_steps": 20, "horizon_s": 1.0}
LEARNED = {"kind": "actor_critic", "trajectories": 32, "window": 6, "critic_hidden": [16],
           "hardest": 16, "trials": 8, "renewal": 0.1, "leak": 0.3,
           "critic": "learned", "restarts": 0.3}  # fmt: skip
TABLE = {**LEARNED, "critic": "grid", "trials": 0, "window": 3}


def settings(loss: dict[str, Any], **train: Any) -> dict[str, Any]:
    return {
        "problem": PROBLEM, "loss": loss, "train": {"threads": 1, **train},
        "model": {"kind": "feedback", "hidden": [16, 16]},
    }  # fmt: skip


def learner(loss: dict[str, Any], seed: int = 0, **train: Any) -> ActorCriticLearner:
    cfg = registry.resolve("control", "quick", [settings(loss, **train)])
    made = Control(cfg).learner(None, "cpu", seed, Ranks())  # type: ignore[arg-type]
    assert isinstance(made, ActorCriticLearner)
    return made


def test_hull_of_two_valleys_by_hand() -> None:
    # Costs 1, 3, 0 at -1, 0, 1: the hump is cut off by the line from (-1, 1) to (1, 0), which at
    # u = -.5 is .75 with slope -.5. Costs 4, 1, 0 are convex: at .5 the right piece, .5, slope -1.
    costs = torch.tensor([[1.0, 3.0, 0.0], [4.0, 1.0, 0.0]])
    u = torch.tensor([[-0.5], [0.5]], requires_grad=True)
    value = hull(costs, torch.tensor([-1.0, 0.0, 1.0]), u)
    assert value.tolist() == pytest.approx([0.75, 0.5])
    value.sum().backward()
    assert u.grad is not None
    assert u.grad.flatten().tolist() == pytest.approx([-0.5, -1.0])


def test_hull_never_lies_above_the_costs_and_touches_their_least() -> None:
    rng = torch.Generator().manual_seed(0)
    costs, controls = torch.rand((50, 9), generator=rng), torch.linspace(-1.0, 1.0, 9)
    values = [hull(costs, controls, u.expand(50, 1)) for u in controls]
    assert (torch.stack(values, 1) <= costs + 1e-5).all()
    least = costs.argmin(1)
    assert torch.stack(values, 1)[range(50), least] == pytest.approx(costs.min(1).values, abs=1e-6)


def test_a_leak_lets_go_of_the_wrong_bound_only() -> None:
    z = torch.tensor([9.0, 9.0, -9.0, 0.0], requires_grad=True)
    share = Bounded.apply(z, 0.3)
    share.backward(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # descent: down, up, up, down
    assert share.tolist() == pytest.approx(torch.tanh(z).tolist())
    assert z.grad is not None
    assert z.grad.tolist() == pytest.approx([0.3, 0.0, -0.3, 1.0], abs=1e-6)


def test_table_critic_reads_the_grid_at_its_points_and_across_the_turn() -> None:
    plant = Pendulum(20, 0.05)
    values, angles, rates = grid.table(plant)
    critic = TableCritic(plant)
    e = torch.tensor([[angles[7], rates[150]], [angles[7] + 2 * np.pi, rates[150]]])
    found = critic(e.float(), torch.tensor([20, 20]))
    assert found.tolist() == pytest.approx([values[20, 7, 150]] * 2, rel=1e-3)


def test_the_table_may_charge_for_being_late() -> None:
    # One step left: V = s Q . d(x) + min_u ..., so s = 30 adds 29 times what the state costs.
    plant = Pendulum(20, 0.05)
    (plain, angles, rates), (late, _, _) = grid.table(plant), grid.table(plant, 30.0)
    x = np.array([[angles[200], rates[160]]])
    stage = float((plant.squares(x) @ plant.q)[0])
    assert late[1, 200, 160] - plain[1, 200, 160] == pytest.approx(29.0 * stage, rel=1e-4)
    # beyond the last 1.5 * 0.5 s a step costs what it costs
    far = (late[17] - late[16]).mean(), (plain[17] - plain[16]).mean()
    assert far[0] < 5.0 * far[1]


def test_starts_that_cost_most_beyond_the_optimum_are_found() -> None:
    made = learner({**TABLE, "mine_every": 50, "restarts": 0.5}, steps=4, block=4)
    made._mine(np.random.default_rng(1))
    live = made._living.now
    assert bool((live.score[:-1] >= live.score[1:]).all())
    fresh, target = made._living.candidates(np.random.default_rng(2), 200)
    steps = torch.full((len(fresh), 1), 20)
    path = run(made._ema, made._plant, fresh, target, steps)
    cost = made._plant.cost(path.states, path.controls, target)
    excess = (cost - made._closing(fresh, steps.squeeze(1))).detach()
    assert excess[:16].tolist() == pytest.approx(live.score.tolist())  # the hard ones come first
    assert float(live.score.min()) > float(excess[16:].quantile(0.9))


def test_costs_of_controls_follow_bellman() -> None:
    # left = 1: R u^2 + Q_f . d(next), by the plant itself; the table adds only interpolation.
    plant = Pendulum(20, 0.05)
    critic, x = TableCritic(plant), torch.tensor([[0.3, 0.5], [-1.0, 2.0]])
    costs = critic.controls_cost(x, torch.ones(2, dtype=torch.long))
    for k, u in enumerate(critic.controls):
        moved = plant.step(x, u.expand(2, 1))
        want = 0.02 * u**2 + plant.final_cost(moved)
        assert costs[:, k].tolist() == pytest.approx(want.tolist(), rel=2e-2)


@pytest.mark.parametrize("loss", [LEARNED, TABLE])
def test_a_state_that_is_loaded_goes_on_bit_for_bit(loss: dict[str, Any]) -> None:
    given = {"steps": 8, "block": 2}
    whole, first, second = (learner(loss, **given) for _ in range(3))
    while whole.step < 8:
        whole.update()
    while first.step < 4:
        first.update()
    second.load_state_dict(first.state_dict())
    while second.step < 8:
        second.update()
    digests = [checkpoint.state_digest(made.state_dict()) for made in (whole, second)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("loss", [LEARNED, TABLE])
def test_a_killed_run_ends_as_if_nothing_had_been(loss: dict[str, Any], tmp_path: Path) -> None:
    layer = settings(loss, steps=30, eval_every=15, checkpoint_every=10, ema=0.9)
    counts = {"data": {"validation": 4, "test": 4, "shard": 4}}
    calm = begin(tmp_path, layer, counts)
    assert driver.train(calm) == 0, driver.said(calm)
    run = begin(tmp_path, layer, counts)
    assert driver.train(run, failpoint="checkpoint.pointed:2") == -9
    assert driver.train(run) == 0, driver.said(run)
    assert fingerprint(run) == fingerprint(calm)


def test_learning_lowers_the_cost_of_short_swings() -> None:
    made = learner(TABLE, steps=120, block=20, ema=0.9)
    starts = made._plant.sample_starts(np.random.default_rng(5), 64)
    cases = {
        "state": starts.astype(np.float32), "target": np.zeros((64, 2), np.float32),
        "time_left_s": np.ones((64, 1), np.float32),
    }  # fmt: skip
    before = made.loss(cases)["cost"]
    while made.step < 120:
        made.update()
    assert made.loss(cases)["cost"] < 0.97 * before


def test_trials_move_the_policy_towards_what_was_cheaper() -> None:
    made = learner(LEARNED, steps=4, block=2)
    loss = made._try(np.random.default_rng(0))
    assert float(loss.detach()) > 0.0
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in made._actor.parameters())


def test_actor_critic_and_its_table_are_refused_where_they_do_not_fit() -> None:
    with pytest.raises(SettingsError, match="actor_critic trains state feedback"):
        registry.resolve("control", "quick", [{"problem": PROBLEM, "model": "mlp",
                                               "loss": "actor_critic"}])  # fmt: skip
    with pytest.raises(SettingsError, match="needs dynamic programming"):
        registry.resolve("control", "quick", [
            {"problem": "cartpole", "loss": {"kind": "actor_critic", "critic": "grid"}}
        ])  # fmt: skip
