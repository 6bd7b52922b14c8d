"""The plants: dynamics, cost and derivatives, in NumPy and torch alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganglion.tasks.control.plant import PLANTS, DoubleIntegrator, Plant, VanDerPol

INTEGRATOR = DoubleIntegrator(15, 5 / 15)
OSCILLATOR = VanDerPol(100, 0.05)
ALL = [INTEGRATOR, OSCILLATOR, VanDerPol(100, 0.05, gain=0.8, mu=1.2)]


def draw(plant: Plant, count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return plant.sample_starts(rng, count), rng.uniform(-1, 1, (count, plant.m)) * plant.bound


def test_double_integrator_moves_by_half_h_squared_u() -> None:
    # h = 0.5: p = 1 + 0.5*2 + 0.5*0.25*4 = 2.5;  v = 2 + 0.5*4 = 4
    got = DoubleIntegrator(10, 0.5).step(np.array([[1.0, 2.0]]), np.array([[4.0]]))
    assert got == pytest.approx(np.array([[2.5, 4.0]]))


def test_van_der_pol_accelerates_as_its_equation_says() -> None:
    # x = 0.5, x' = 2, u = 1: 1*(1 - 0.25)*2 - 0.5 + 1 = 2.0
    p, a = OSCILLATOR.derivative((0.5, 2.0), (1.0,))
    assert (p, a) == pytest.approx((2.0, 2.0))


def test_undamped_oscillator_follows_the_cosine() -> None:
    # mu = 0, u = 0: x'' = -x from (1, 0) gives (cos t, -sin t); RK4 errs by h^5/120 a step
    plant = VanDerPol(20, 0.05, mu=0.0)
    end = plant.rollout(np.array([[1.0, 0.0]]), np.zeros((1, 20, 1)))[0, -1]
    assert end == pytest.approx([np.cos(1.0), -np.sin(1.0)], abs=1e-7)


def test_cost_counts_error_control_and_end() -> None:
    # Q = (10, 5), R = .1, Q_f = (200, 100); e_0 = (1, -1), e_1 = (2, 0), u = 3:
    # 10*1 + 5*1 + 0.1*9 + 200*4 = 815.9
    states = np.array([[[2.0, 0.0], [3.0, 1.0]]])
    cost = INTEGRATOR.cost(states, np.array([[[3.0]]]), np.array([[1.0, 1.0]]))
    assert cost == pytest.approx([815.9])


def test_original_cost_has_unit_weights_and_no_end() -> None:
    # 1*1 + 1*1 + 0.1*9 + 0 = 2.9
    plant = DoubleIntegrator(15, 5 / 15, cost_kind="original")
    states = np.array([[[2.0, 0.0], [3.0, 1.0]]])
    assert plant.cost(states, np.array([[[3.0]]]), np.array([[1.0, 1.0]])) == pytest.approx([2.9])


@pytest.mark.parametrize("plant", ALL)
def test_jacobians_agree_with_central_differences(plant: Plant) -> None:
    x, u = draw(plant)
    a, b = plant.jacobians(x, u)
    h = 1e-5
    for i, unit in enumerate(np.eye(plant.n)):
        slope = (plant.step(x + h * unit, u) - plant.step(x - h * unit, u)) / (2 * h)
        assert a[:, :, i] == pytest.approx(slope, abs=1e-9)
    slope = (plant.step(x, u + h) - plant.step(x, u - h)) / (2 * h)
    assert b[:, :, 0] == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("plant", ALL)
def test_torch_simulates_as_numpy_does(plant: Plant) -> None:
    x, _ = draw(plant, 8)
    u = np.random.default_rng(1).uniform(-1, 1, (8, plant.num_steps, 1)) * plant.bound
    states = plant.rollout(x, u)
    twin = plant.rollout(torch.tensor(x), torch.tensor(u))
    assert twin.numpy() == pytest.approx(states, rel=1e-12)
    cost = plant.cost(twin, torch.tensor(u), torch.zeros(8, 2, dtype=torch.float64))
    assert cost.numpy() == pytest.approx(plant.cost(states, u, np.zeros((8, 2))), rel=1e-12)


def test_linear_matrices_are_the_step() -> None:
    plant = DoubleIntegrator(15, 5 / 15, gain=1.2)
    x, u = draw(plant)
    a, b = plant.matrices()
    assert x @ a.T + u @ b.T == pytest.approx(plant.step(x, u))


def test_flow_of_van_der_pol_is_symmetric_about_the_origin() -> None:
    x, u = draw(OSCILLATOR)
    assert OSCILLATOR.step(-x, -u) == pytest.approx(-OSCILLATOR.step(x, u))


def test_gain_scales_what_the_actuators_do() -> None:
    x, u = draw(OSCILLATOR)
    weak = VanDerPol(100, 0.05, gain=0.5)
    assert weak.step(x, u) == pytest.approx(OSCILLATOR.step(x, 0.5 * u))


def test_starts_fill_the_scaled_box_and_targets_follow_their_kind() -> None:
    rng = np.random.default_rng(0)
    starts = INTEGRATOR.sample_starts(rng, 2_000, 1.5)
    assert 2.9 < np.abs(starts).max() <= 3.0
    assert (INTEGRATOR.sample_targets(rng, 10)[:, 1] == 0).all()
    moving = DoubleIntegrator(15, 5 / 15, target_kind="moving")
    assert np.abs(moving.sample_targets(rng, 10)[:, 1]).min() > 0
    assert (OSCILLATOR.sample_targets(rng, 10) == 0).all()


@pytest.mark.parametrize("name", PLANTS)
def test_every_registered_plant_describes_itself(name: str) -> None:
    plant = PLANTS[name](10, 0.1)
    assert plant.n == len(plant.state_units) == len(plant.q) == len(plant.qf)
    assert plant.m == len(plant.control_units) == len(plant.r) == len(plant.bound)
    assert plant.clip(np.full((1, plant.m), 1e9)) == pytest.approx(plant.bound[None])
