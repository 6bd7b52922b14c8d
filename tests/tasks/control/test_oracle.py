"""The oracles against hand computation, SciPy and CasADi."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import casadi
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from ganglion.tasks.control import boxqp, ilqr, oracle
from ganglion.tasks.control.plant import Course, DoubleIntegrator, Plant, VanDerPol
from ganglion.tasks.control.riccati import (
    clipped_rollout,
    finite_gains,
    minimum_energy,
    steady_gain,
    steady_tracking_gain,
    tracking_gains,
)

MOVING = DoubleIntegrator(15, 5 / 15, target_kind="moving")
OSCILLATOR = VanDerPol(100, 0.05)
ONE = np.eye(1)


def cases(plant: Plant, count: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return plant.sample_starts(rng, count, scale), plant.sample_targets(rng, count)


def test_one_riccati_step_by_hand() -> None:
    # a = b = q = r = 1, P_1 = 1: K = 1*1/(1 + 1) = 0.5;  P_0 = 1 + 1*(1 - 0.5) = 1.5
    gains, values = finite_gains(ONE, ONE, ONE, ONE, ONE, 1)
    assert gains[0, 0, 0] == pytest.approx(0.5)
    assert values[0, 0, 0] == pytest.approx(1.5)


def test_steady_gain_of_the_scalar_is_the_golden_ratio() -> None:
    # p = 1 + p - p^2/(1 + p)  =>  p^2 = p + 1  =>  p = 1.618;  k = p/(1 + p) = 1/p = 0.618
    assert steady_gain(ONE, ONE, ONE, ONE)[0, 0] == pytest.approx(2 / (1 + np.sqrt(5)))


def test_finite_gains_tend_to_the_steady_gain() -> None:
    a, b = MOVING.matrices()
    q, r = np.diag(MOVING.q), np.diag(MOVING.r)
    gains, _ = finite_gains(a, b, q, r, q, 200)
    assert gains[0] == pytest.approx(steady_gain(a, b, q, r), rel=1e-9)


def test_minimum_energy_by_hand() -> None:
    # h = 1, N = 2, rest to (1, 0): 1.5 u0 + 0.5 u1 = 1, u0 + u1 = 0  =>  u = (1, -1)
    a, b = DoubleIntegrator(2, 1.0).matrices()
    u = minimum_energy(a, b, np.zeros((1, 2)), np.array([[1.0, 0.0]]), 2)
    assert u[0, :, 0] == pytest.approx([1.0, -1.0])


def test_minimum_energy_is_the_pseudo_inverse() -> None:
    x0, target = cases(MOVING, 20)
    a, b = MOVING.matrices()
    u = minimum_energy(a, b, x0, target, 15)
    reach = np.concatenate([np.linalg.matrix_power(a, 14 - t) @ b for t in range(15)], 1)
    drift = x0 @ np.linalg.matrix_power(a, 15).T
    assert u[..., 0] == pytest.approx((target - drift) @ np.linalg.pinv(reach).T, abs=1e-9)
    assert MOVING.rollout(x0, u)[:, -1] == pytest.approx(target, abs=1e-9)


def test_one_step_optimum_by_hand() -> None:
    # h = 1, N = 1, e_0 = (1, 0), u in +-4: e_1 = (1 + u/2, u), cost .1u^2 + 200(1+u/2)^2 + 100u^2
    # .2u + 200(1 + u/2) + 200u = 0  =>  u = -200/300.2 = -0.666223
    plant = DoubleIntegrator(1, 1.0)
    got = oracle.solve(plant, np.array([[1.0, 0.0]]), np.zeros((1, 2))).controls
    assert got[0, 0, 0] == pytest.approx(-200 / 300.2)


def test_optimum_without_active_bounds_is_the_finite_horizon_lqr() -> None:
    plant = DoubleIntegrator(15, 5 / 15, target_kind="moving", limit=1e4)
    x0, target = cases(plant, 50)
    states, controls = clipped_rollout(plant, tracking_gains(plant, 15), x0, target)
    best = oracle.solve(plant, x0, target)
    assert best.controls == pytest.approx(controls, abs=1e-9)
    assert best.states == pytest.approx(states, abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_box_constrained_optimum_agrees_with_scipy(scale: float) -> None:
    x0, target = cases(MOVING, 25, scale)
    best = oracle.solve(MOVING, x0, target)
    assert (np.abs(best.controls) > 4 - 1e-9).any(), "no bound is active: nothing is tested"
    problem = oracle.condensed(MOVING)
    factor = np.linalg.cholesky(problem.h).T
    for i, g in enumerate(problem.linear_term(x0, target)):
        right = -np.linalg.solve(factor.T, g)
        found = lsq_linear(factor, right, (-4, 4), method="bvls", tol=1e-14).x
        assert best.controls[i, :, 0] == pytest.approx(found, abs=1e-6)


def test_quadratic_programs_in_boxes_satisfy_their_optimality_conditions() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    h, g = root @ root.T + 0.1 * np.eye(12), 5 * rng.standard_normal((500, 12))
    low, high = -rng.random(12), rng.random(12)
    u = boxqp.solve(h, g, low, high)
    gradient = u @ h + g
    inside = (u > low) & (u < high)
    assert np.abs(gradient[inside]).max() < 1e-8
    assert (gradient[u == low] >= 0).all()
    assert (gradient[u == high] <= 0).all()


def test_small_programs_with_two_controls_agree_with_the_shared_solver() -> None:
    rng = np.random.default_rng(0)
    h, g = np.array([[2.0, 0.9], [0.9, 1.0]]), 2 * rng.standard_normal((200, 2))
    bound = np.ones(2)
    many = np.broadcast_to(h, (200, 2, 2))
    u, free = boxqp.stage(many, g, np.full_like(g, -1.0), np.ones_like(g))
    assert u == pytest.approx(boxqp.solve(h, g, -bound, bound), abs=1e-8)
    assert (np.abs(u[~free]) == 1.0).all()


def test_ddp_of_a_linear_plant_agrees_with_the_quadratic_program() -> None:
    x0, target = cases(MOVING, 100, 1.5)
    best = oracle.solve(MOVING, x0, target)
    idle = np.zeros((100, 15, 1))
    controls = ilqr.solve(MOVING, Course(MOVING.rollout(x0, idle), idle), target).controls
    assert controls == pytest.approx(best.controls, abs=1e-6)


def test_van_der_pol_optimum_agrees_with_an_interior_point_solver() -> None:
    x0, target = cases(OSCILLATOR, 8)
    best = oracle.solve(OSCILLATOR, x0, target)
    assert (np.abs(best.controls) > 2 - 1e-9).any(), "no bound is active: nothing is tested"
    solver = interior_point(OSCILLATOR)
    for i in range(len(x0)):
        cost, u = solver(x0[i])
        assert best.cost[i] == pytest.approx(cost, rel=1e-9)
        assert best.controls[i, :, 0] == pytest.approx(u, abs=1e-6)


def interior_point(plant: VanDerPol) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Single shooting in CasADi with IPOPT, from zero controls, written apart from the plant."""
    x, u = casadi.SX.sym("x", 2), casadi.SX.sym("u")

    def f(s: Any) -> Any:
        return casadi.vertcat(s[1], plant.mu * (1 - s[0] ** 2) * s[1] - s[0] + u)

    h = plant.dt
    k1 = f(x)
    k2 = f(x + h / 2 * k1)
    k3 = f(x + h / 2 * k2)
    k4 = f(x + h * k3)
    step = casadi.Function("step", [x, u], [x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)])
    start, all_u = casadi.MX.sym("start", 2), casadi.MX.sym("u", plant.num_steps)
    state, cost = start, 0
    for t in range(plant.num_steps):
        cost += 10 * state[0] ** 2 + 5 * state[1] ** 2 + 0.1 * all_u[t] ** 2
        state = step(state, all_u[t])
    cost += 200 * state[0] ** 2 + 100 * state[1] ** 2
    quiet = {"ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes", "ipopt.tol": 1e-12,
             "ipopt.bound_relax_factor": 0.0}  # fmt: skip
    solver = casadi.nlpsol("s", "ipopt", {"x": all_u, "f": cost, "p": start}, quiet)

    def solve(x0: np.ndarray) -> tuple[float, np.ndarray]:
        found = solver(x0=0, p=x0, lbx=-2, ubx=2)
        return float(found["f"]), np.array(found["x"])[:, 0]

    return solve


@pytest.mark.parametrize("plant", [MOVING, OSCILLATOR, VanDerPol(100, 0.05, gain=0.8)])
def test_nothing_near_the_optimum_is_cheaper(plant: Plant) -> None:
    x0, target = cases(plant, 100, 1.5)
    best = oracle.solve(plant, x0, target)
    assert (np.abs(best.controls) <= plant.bound + 1e-12).all()
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 1.0):
        near = plant.clip(best.controls + size * rng.standard_normal(best.controls.shape))
        cost = plant.cost(plant.rollout(x0, near), near, target)
        assert (cost >= best.cost * (1 - 1e-12)).all()


def test_wider_bounds_never_cost_more() -> None:
    x0, target = cases(MOVING, 200)
    costs = [
        oracle.solve(DoubleIntegrator(15, 5 / 15, limit=b), x0, target).cost for b in (2, 4, 8)
    ]
    assert (np.diff(costs, axis=0) <= 1e-9).all()


def test_admm_comes_closer_with_more_iterations() -> None:
    x0, target = cases(MOVING, 500)
    best = oracle.solve(MOVING, x0, target).cost.sum()
    gaps = []
    for k in (5, 10, 20, 100):
        u = oracle.admm(MOVING, x0, target, k)
        gaps.append(MOVING.cost(MOVING.rollout(x0, u), u, target).sum() / best - 1)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] < 0.1
    assert gaps[-1] < 1e-9


def test_thousands_of_problems_are_solved_in_moments() -> None:
    # Goals 0.1 s, 1 s and (for 1,000) 3.5 s; the limits allow for a busy machine.
    for plant, count, limit_s in ((MOVING, 1_000, 1), (MOVING, 10_000, 4), (OSCILLATOR, 500, 8)):
        x0, target = cases(plant, count)
        start = time.perf_counter()
        oracle.solve(plant, x0, target)
        assert time.perf_counter() - start < limit_s


def test_clipped_lqr_labels_are_those_of_a_loop_over_samples_and_far_faster() -> None:
    x0, target = cases(MOVING, 10_000)
    gain = steady_tracking_gain(MOVING)
    start = time.perf_counter()
    slow = loop_over_samples(x0[:300], target[:300], gain[0])
    slow_s = (time.perf_counter() - start) * 10_000 / 300
    fast_s = np.inf
    for _ in range(5):
        start = time.perf_counter()
        states, controls = clipped_rollout(MOVING, gain, x0, target)
        fast_s = min(fast_s, time.perf_counter() - start)
    assert controls[:300] == pytest.approx(slow[1], abs=1e-9)
    assert states[:300] == pytest.approx(slow[0], abs=1e-9)
    assert slow_s / fast_s > 100  # 200 and more on a quiet machine: benchmarks measure it


def loop_over_samples(
    x0: np.ndarray, target: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, b = MOVING.matrices()
    every_x, every_u = [], []
    for start, goal in zip(x0, target, strict=True):
        x, states, controls = start, [start], []
        for _ in range(15):
            u = np.clip(-gain @ (x - goal), -4.0, 4.0)
            x = a @ x + b @ u
            states.append(x)
            controls.append(u)
        every_x.append(np.array(states))
        every_u.append(np.array(controls))
    return np.array(every_x), np.array(every_u)
