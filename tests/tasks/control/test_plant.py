"""The plants: dynamics, cost and derivatives, in NumPy and torch alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganglion.tasks.control.plant import (
    PLANTS,
    Cartpole,
    DoubleIntegrator,
    Pendulum,
    Plant,
    Quadrotor2d,
    VanDerPol,
)

INTEGRATOR = DoubleIntegrator(15, 5 / 15)
OSCILLATOR = VanDerPol(100, 0.05)
PENDULUM, CARTPOLE, QUADROTOR = Pendulum(120, 0.05), Cartpole(120, 0.05), Quadrotor2d(60, 0.05)
ALL = [
    INTEGRATOR, OSCILLATOR, VanDerPol(100, 0.05, gain=0.8, mu=1.2), PENDULUM, CARTPOLE, QUADROTOR,
    Cartpole(120, 0.05, gain=1.2, half_length=0.6), Quadrotor2d(60, 0.05, mass=0.6),
]  # fmt: skip


def draw(plant: Plant, count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    u = plant.centre + rng.uniform(-1, 1, (count, plant.m)) * plant.bound
    return plant.sample_starts(rng, count), u


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
    for i, unit in enumerate(np.eye(plant.m)):
        slope = (plant.step(x, u + h * unit) - plant.step(x, u - h * unit)) / (2 * h)
        assert b[:, :, i] == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("plant", ALL)
def test_slopes_of_the_cost_agree_with_central_differences(plant: Plant) -> None:
    e, h = draw(plant)[0], 1e-5
    found = (plant.squares(e + h) - plant.squares(e - h)) / (4 * h)
    assert plant.slopes(e) == pytest.approx(found, abs=1e-9)
    # half the Gauss-Newton curvature is the squared slope of the residual sqrt(d)
    residual = (np.sqrt(plant.squares(e + h)) - np.sqrt(plant.squares(e - h))) / (2 * h)
    assert plant.bends(e) == pytest.approx(residual**2, abs=1e-6)


@pytest.mark.parametrize("plant", ALL)
def test_torch_simulates_as_numpy_does(plant: Plant) -> None:
    x, _ = draw(plant, 8)
    u = np.random.default_rng(1).uniform(-1, 1, (8, plant.num_steps, plant.m)) * plant.bound
    u = plant.centre + u
    states = plant.rollout(x, u)
    twin = plant.rollout(torch.tensor(x), torch.tensor(u))
    assert twin[:, :20].numpy() == pytest.approx(states[:, :20], rel=1e-9)  # chaos comes later
    target = np.zeros((8, plant.n))
    cost = plant.cost(torch.tensor(states), torch.tensor(u), torch.tensor(target))
    assert cost.numpy() == pytest.approx(plant.cost(states, u, target), rel=1e-12)
    e = torch.tensor(states[:, -1])
    assert plant.error(e, e * 0).numpy() == pytest.approx(plant.error(states[:, -1], target))


def test_pendulum_falls_as_its_equation_says() -> None:
    # th = pi/6, u = 1: 9.81 * 0.5 + 1 = 5.905
    angle = np.array([np.pi / 6])
    rate, turn = PENDULUM.derivative((angle, 2.0 + 0 * angle), (1.0 + 0 * angle,))
    assert (rate[0], turn[0]) == pytest.approx((2.0, 5.905))


def test_cartpole_accelerates_as_florian_says() -> None:
    # th = 0, w = 0, F = 1.1: a = 1.1/1.1 = 1; th'' = -1/(.5 (4/3 - .1/1.1)) = -1/0.6212121
    # = -1.6097561; x'' = 1 - .05 * -1.6097561 / 1.1 = 1.0731707
    zero = np.zeros(1)
    _, _, across, turn = CARTPOLE.derivative((zero, zero, zero, zero), (zero + 1.1,))
    assert (across[0], turn[0]) == pytest.approx((1.0731707, -1.6097561))
    # th = pi/2, w = 2, F = 0: a = .05*4/1.1 = 0.1818182; th'' = 9.81/(.5*4/3) = 14.715
    _, _, across, turn = CARTPOLE.derivative((zero, zero + np.pi / 2, zero, zero + 2.0), (zero,))
    assert (across[0], turn[0]) == pytest.approx((0.1818182, 14.715))


def test_quadrotor_hovers_in_mid_range_and_turns_towards_its_weaker_rotor() -> None:
    x = np.zeros((1, 6))
    assert QUADROTOR.step(x, QUADROTOR.centre[None]) == pytest.approx(x)
    # phi = pi/6, T = (3, 2): lift 5/.5 = 10; x'' = -5, z'' = 10 cos - 9.81 = -1.1497460,
    # phi'' = .15/.005 * 1 = 30
    zero = np.zeros(1)
    state = (zero, zero, zero + np.pi / 6, zero, zero, zero)
    got = QUADROTOR.derivative(state, (zero + 3.0, zero + 2.0))
    assert [float(g[0]) for g in got[3:]] == pytest.approx([-5.0, -1.1497460, 30.0])


def test_costs_of_the_nonlinear_plants_by_hand() -> None:
    # pendulum: e_0 = (pi, 1), u = 2: 2 * 2 + .1 + .02 * 4 = 4.18; e_1 = (pi/2, 2):
    # 20 (2 + .1 * 4) = 48; together 52.18
    x, u = np.array([[[np.pi, 1.0], [np.pi / 2, 2.0]]]), np.array([[[2.0]]])
    assert PENDULUM.cost(x, u, np.zeros((1, 2))) == pytest.approx([52.18])
    # cartpole: e_0 = (2, pi/2, 1, 3), F = 5: .25*4 + 2 + .02 + .02*9 + .002*25 = 3.25;
    # e_1 = (0, 0, 1, 2): 20 (.1 + .4) = 10; together 13.25
    x = np.array([[[2.0, np.pi / 2, 1.0, 3.0], [0.0, 0.0, 1.0, 2.0]]])
    assert CARTPOLE.cost(x, np.array([[[5.0]]]), np.zeros((1, 4))) == pytest.approx([13.25])
    # quadrotor: e_0 = (1, 2, pi/2, 1, 0, 2), T - mg/2 = (1, -1): 5 + 1 + .1 + .04 + .04 = 6.18;
    # e_1 = (0, 0, pi/2, 2, 0, 2): 20 (1 + .5*4 + .05*4) = 64; together 70.18
    x = np.array([[[1.0, 2.0, np.pi / 2, 1.0, 0.0, 2.0], [0.0, 0.0, np.pi / 2, 2.0, 0.0, 2.0]]])
    u = (QUADROTOR.centre + np.array([1.0, -1.0]))[None, None]
    assert QUADROTOR.cost(x, u, np.zeros((1, 6))) == pytest.approx([70.18])


def test_angles_wrap_to_the_half_open_turn() -> None:
    x = np.array([[4.0, 0.0], [-np.pi, 0.0], [np.pi, 0.0], [7.0, 9.0]])
    got = PENDULUM.error(x, np.zeros((4, 2)))
    # 4 - 2 pi = -2.2831853, 7 - 2 pi = 0.7168147; rates do not wrap
    assert got[:, 0] == pytest.approx([-2.2831853, np.pi, np.pi, 0.7168147])
    assert got[3, 1] == 9.0


def test_arrival_is_the_worst_of_the_last_half_second() -> None:
    # 0.5 s are 10 steps, 11 states; a state before them does not count, one among them does
    x = np.zeros((2, 121, 2))
    x[0, 109], x[1, 110] = (1.0, 1.0), (0.05, -0.3)
    assert PENDULUM.arrival(x, np.zeros((2, 2))) == pytest.approx([0.0, 0.3])
    # |p| = hypot(.06, .08) = .1; the tilt rate is free
    x = np.zeros((1, 61, 6))
    x[0, -1] = (0.06, 0.08, 0.02, 0.0, 0.0, 5.0)
    assert QUADROTOR.arrival(x, np.zeros((1, 6))) == pytest.approx([0.1])
    # others are judged by the 2-norm at the end: hypot(3, 4) = 5
    x = np.array([[[9.0, 9.0], [3.0, 4.0]]])
    assert INTEGRATOR.arrival(x, np.zeros((1, 2))) == pytest.approx([5.0])


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
    assert plant.clip(np.full((1, plant.m), 1e9)) == pytest.approx(plant.high[None])


def test_bodies_stand_where_the_state_says() -> None:
    assert Pendulum(10, 0.05).body(np.array([0.0, 3.0]))[0].tolist() == [[0.0, 0.0], [0.0, 1.0]]
    pole = Cartpole(10, 0.05).body(np.array([0.5, np.pi / 2, 0.0, 0.0]))[1]  # lies to the right
    assert pole.ravel().tolist() == pytest.approx([0.5, 0.0, 1.5, 0.0], abs=1e-12)
    arms = Quadrotor2d(10, 0.05).body(np.array([1.0, 2.0, 0.0, 0.0, 0.0, 0.0]))[0]
    assert arms.ravel().tolist() == pytest.approx([0.85, 2.0, 1.15, 2.0])
