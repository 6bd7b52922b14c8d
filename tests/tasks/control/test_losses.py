from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganglion.tasks.control import oracle
from ganglion.tasks.control.feedback import Feedback, SequenceMlp
from ganglion.tasks.control.losses import Batch, DynamicsCost, FreshStarts, Imitation, roll
from ganglion.tasks.control.plant import DoubleIntegrator, Plant, VanDerPol
from ganglion.tasks.control.preconditioned import PreconditionedController

REST = DoubleIntegrator(15, 1 / 3)
MOVING = DoubleIntegrator(15, 1 / 3, target_kind="moving")
OSCILLATOR = VanDerPol(20, 0.05)


def draw(plant: Plant, count: int, full_share: float = 0.5, seed: int = 0) -> Batch:
    return FreshStarts(plant, full_share)(torch.Generator().manual_seed(seed), count)


def labelled(plant: Plant, count: int) -> Batch:
    batch = draw(plant, count, 1.0)
    best = oracle.solve(plant, batch["state"].double().numpy(), batch["target"].double().numpy())
    batch["controls"] = torch.tensor(best.controls, dtype=torch.float32)
    batch["states"] = torch.tensor(best.states, dtype=torch.float32)
    return batch


class Replay(nn.Module):
    """Gives the controls it was built with."""

    def __init__(self, controls: Tensor) -> None:
        super().__init__()
        self.controls = nn.Parameter(controls)

    def forward(self, state: Tensor, target: Tensor, time_left_s: Tensor) -> Tensor:
        return self.controls


def test_draws_follow_from_the_generator_alone() -> None:
    first, again, other = draw(MOVING, 9), draw(MOVING, 9), draw(MOVING, 9, seed=1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["state"], other["state"])
    generator = torch.Generator().manual_seed(0)
    sampler = FreshStarts(MOVING)
    assert not torch.equal(sampler(generator, 9)["state"], sampler(generator, 9)["state"])


def test_draws_leave_the_default_generator_alone() -> None:
    before = torch.get_rng_state()
    draw(MOVING, 9)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_draws_cover_the_box_and_the_times(share: float) -> None:
    batch = FreshStarts(REST, share, scale=1.5)(torch.Generator().manual_seed(0), 4000)
    assert 2.9 < batch["state"].abs().max() <= 3.0
    assert (batch["target"][:, 1] == 0).all()
    steps = torch.round(batch["time_left_s"] * 3)
    assert steps.min() == (1 if share < 1 else 15)
    # of the draws that are not forced to be whole, one in 15 is whole by chance
    assert (steps == 15).float().mean() == pytest.approx(share + (1 - share) / 15, abs=0.03)


@pytest.mark.parametrize("plant", [REST, MOVING, OSCILLATOR], ids=["rest", "moving", "vanderpol"])
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_closed_loop_gradient_is_that_of_plain_backpropagation(plant: Plant, share: float) -> None:
    torch.manual_seed(0)
    module = Feedback(plant, (8,)).double()
    batch = {name: column.double() for name, column in draw(plant, 6, share).items()}
    loss, _ = DynamicsCost(plant)(module, batch, torch.Generator())
    plain = _plain_cost(module, plant, batch)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    ours = torch.autograd.grad(loss, list(module.parameters()))
    theirs = torch.autograd.grad(plain, list(module.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def _plain_cost(module: Feedback, plant: Plant, batch: Batch) -> Tensor:
    wait = plant.num_steps - torch.round(batch["time_left_s"] / plant.dt)
    states, controls = [batch["state"]], []
    for t in range(plant.num_steps):
        left = torch.full_like(wait, (plant.num_steps - t) * plant.dt)
        u = module.control(states[-1], batch["target"], left) * (wait <= t)
        controls.append(u)
        states.append(torch.where(wait <= t, plant.step(states[-1], u), states[-1]))
    cost: Tensor = plant.cost(torch.stack(states, 1), torch.stack(controls, 1), batch["target"])
    return cost.mean()


def test_validation_without_gradients_gives_the_same_value() -> None:
    module, batch = Feedback(REST, (8,)), draw(REST, 6)
    with_gradient = DynamicsCost(REST)(module, batch, torch.Generator())[0].detach()
    with torch.no_grad():
        assert torch.equal(DynamicsCost(REST)(module, batch, torch.Generator())[0], with_gradient)


def test_open_loop_cost_of_one_step_left_by_hand() -> None:
    # x0 = (1, 0), target 0, h = 1/3, u = -3 with one of 15 steps left: x1 = (1 - 3/18, -1).
    # stage 10 * 1 + 0.1 * 9 = 10.9; end 200 * (5/6)^2 + 100 * 1 = 238.888...; waiting 14 * 10
    batch = {
        "state": torch.tensor([[1.0, 0.0]]), "target": torch.zeros(1, 2),
        "time_left_s": torch.tensor([[1 / 3]]),
    }  # fmt: skip
    module = Replay(torch.full((1, 15, 1), -3.0))
    loss, _ = DynamicsCost(REST)(module, batch, torch.Generator())
    assert float(loss.detach()) == pytest.approx(10.9 + 238.8889 + 140.0, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, module.controls)
    assert gradient[0, 0] != 0
    assert (gradient[0, 1:] == 0).all()


def test_process_cost_weighs_later_cycles_more() -> None:
    # K = 2 and discount 0.5: weights 1/3 and 2/3
    module = PreconditionedController(MOVING, latent_dim=15, cycles=2)
    batch = draw(MOVING, 5)
    means = module.costs(batch["state"], batch["target"], batch["time_left_s"], 2).mean(1)
    loss, terms = DynamicsCost(MOVING, discount=0.5)(module, batch, torch.Generator())
    torch.testing.assert_close(loss, means[1] / 3 + means[2] * 2 / 3)
    torch.testing.assert_close(terms["cost"], means[2].detach())


def test_imitating_the_labels_costs_nothing() -> None:
    batch = labelled(MOVING, 6)
    loss, terms = Imitation(MOVING, trajectory_weight=1.0)(
        Replay(batch["controls"]), batch, torch.Generator()
    )
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-10)
    assert set(terms) == {"control_mse", "trajectory_mse"}


def test_imitation_error_is_in_units_of_the_bound() -> None:
    # every control off by 1 of a bound of 4: (1 / 4)^2 = 0.0625, weighted twice
    batch = labelled(REST, 6)
    loss, _ = Imitation(REST, control_weight=2.0)(
        Replay(batch["controls"] + 1.0), batch, torch.Generator()
    )
    assert float(loss.detach()) == pytest.approx(0.125, rel=1e-5)


def test_late_starts_compare_with_the_rest_of_the_label() -> None:
    class Remembers(nn.Module):
        """Answers with the label's controls from the state it is shown."""

        def forward(self, state: Tensor, target: Tensor, time_left_s: Tensor) -> Tensor:
            wait = 15 - torch.round(time_left_s * 3).long()
            rows = torch.arange(len(state))
            torch.testing.assert_close(state, batch["states"][rows, wait.squeeze(-1)])
            return roll(batch["controls"], wait)

    batch = labelled(REST, 20)
    loss = Imitation(REST, trajectory_weight=1.0, full_share=0.0)
    value, _ = loss(Remembers(), batch, torch.Generator().manual_seed(0))
    assert float(value) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize(
    "module",
    [Feedback(MOVING, (8,)), SequenceMlp(MOVING, (8,)), PreconditionedController(MOVING, 20, 2)],
    ids=["feedback", "mlp", "trc"],
)
@pytest.mark.parametrize(
    "loss",
    [DynamicsCost(MOVING), Imitation(MOVING, trajectory_weight=0.5, discount=0.5, full_share=0.5)],
    ids=["cost", "imitation"],
)
def test_few_steps_lower_every_loss(module: nn.Module, loss: DynamicsCost | Imitation) -> None:
    batch = labelled(MOVING, 64)
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        value, _ = loss(module, batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert np.isfinite(values).all()
    assert values[-1] < 0.9 * values[0]


def test_roll_moves_each_case_by_its_own_amount() -> None:
    sequence = torch.arange(4.0).view(1, 4, 1).repeat(2, 1, 1)
    got = roll(sequence, torch.tensor([[1], [-1]]))
    assert got.squeeze(-1).tolist() == [[1, 2, 3, 0], [3, 0, 1, 2]]
