"""Dynamic programming for the cartpole, and the sorting of starts that its plans are for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ganglion.tasks.control import cart_grid, ilqr, multistart, oracle
from ganglion.tasks.control.evaluation import ARRIVED
from ganglion.tasks.control.plant import Cartpole, Course, Quadrotor2d

PLANT = Cartpole(120, 0.05)


def starts(count: int, seed: int = 2) -> np.ndarray:
    return PLANT.sample_starts(np.random.default_rng(seed), count)


def test_cubic_weights_by_hand() -> None:
    # Half-way, Lagrange: -1/16, 9/16, 9/16, -1/16; at a point, that point alone.
    assert cart_grid._cubic(np.array(0.5)) == pytest.approx([-0.0625, 0.5625, 0.5625, -0.0625])
    assert cart_grid._cubic(np.array(0.0)) == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_stencil_shares_a_shift_between_its_neighbours() -> None:
    # A quarter of a cell ahead is 3/4 here and 1/4 there.
    weights = cart_grid._stencil(np.array([0.25, -0.5]))
    assert weights.tolist() == [[0.0, 0.5], [0.75, 0.5], [0.25, 0.0]]


def test_one_sweep_is_one_step_of_bellman() -> None:
    grid = cart_grid._grid(replace(PLANT, num_steps=1))
    e = np.random.default_rng(0).uniform(-1.0, 1.0, (200, 4)) * [1.0, 3.0, 2.0, 6.0]
    costs = []
    for u in np.linspace(-10.0, 10.0, 5):
        force = np.full((200, 1), u)
        end = PLANT.final_cost(PLANT.step(e, force))
        costs.append(PLANT.stage_cost(e, force) + end)
    exact = np.min(costs, 0)
    assert grid.cost(grid.tables[0], e) == pytest.approx(exact, rel=0.03, abs=0.3)


def test_plans_obey_the_plant_and_stand_the_pole_up() -> None:
    x0 = starts(40)
    target = np.zeros_like(x0)
    for course in PLANT.guesses(x0, target):
        assert (PLANT.excess(course.controls) <= 0.0).all()
        before, acted = course.states[:, :-1].reshape(-1, 4), course.controls.reshape(-1, 1)
        assert (PLANT.step(before, acted) == course.states[:, 1:].reshape(-1, 4)).all()
        assert np.cos(course.states[:, 30:, 1]).max(1).min() > 0.95


def test_the_best_known_arrives_and_hardly_depends_on_the_side() -> None:
    x0 = starts(30)
    target = np.zeros_like(x0)
    best = oracle.solve(PLANT, x0, target)
    assert (PLANT.arrival(best.states, target) < ARRIVED).all()
    mirrored = oracle.solve(PLANT, -x0, target)
    assert mirrored.cost.sum() == pytest.approx(best.cost.sum(), rel=5e-3)


def test_a_longer_horizon_is_solved_as_well() -> None:
    # Standing costs next to nothing, and rounding in the expansion must not grow over 12 s.
    x0, longer = starts(10), replace(PLANT, num_steps=240)
    short, long = (oracle.solve(p, x0, np.zeros_like(x0)).cost for p in (PLANT, longer))
    assert long.sum() == pytest.approx(short.sum(), rel=2e-3)


def test_each_case_keeps_its_better_guess() -> None:
    plant = Quadrotor2d(20, 0.05)
    x0 = plant.sample_starts(np.random.default_rng(1), 6)
    target = np.zeros_like(x0)
    good = multistart.polished(plant, oracle._gentle(plant, x0, target, 10.0), target)
    idle = np.broadcast_to(plant.centre, (6, 20, 2))
    poor = Course(plant.rollout(x0, idle), np.array(idle))
    chosen = multistart.best(plant, target, [poor, good])
    assert (plant.cost(*chosen, target) <= plant.cost(*good, target) * (1 + 1e-9)).all()


def test_a_policy_that_knows_better_lowers_the_best_known() -> None:
    plant = Quadrotor2d(20, 0.05)
    x0 = plant.sample_starts(np.random.default_rng(1), 4)
    target = np.zeros_like(x0)
    true = oracle.solve(plant, x0, target)
    shaken = plant.clip(true.controls + 0.05 * np.sin(np.arange(20))[:, None])
    shown = Course(plant.rollout(x0, shaken), shaken)
    assert (plant.cost(*shown, target) > true.cost).all()
    said = true.cost * [1.1, 1.001, 1.0, 0.9]  # what was thought best
    found, arrival = multistart.challenged(plant, target, said, shown)
    assert found[:2] == pytest.approx(true.cost[:2], rel=1e-5)
    assert found[2:] == pytest.approx(said[2:], rel=1e-6)
    assert np.isfinite(arrival[:2]).all()
    assert np.isnan(arrival[3])


def test_feedback_along_the_way_makes_up_for_a_push() -> None:
    x0 = starts(5)
    target = np.zeros_like(x0)
    best = oracle.solve(PLANT, x0, target)
    gains = ilqr.feedback(PLANT, Course(best.states, best.controls), target)
    pushed, followed = x0 + 0.02, []
    x = pushed
    for t in range(PLANT.num_steps):
        shift = np.einsum("bij,bj->bi", gains[:, t], x - best.states[:, t])
        u = PLANT.clip(best.controls[:, t] + shift)
        followed.append(u)
        x = PLANT.step(x, u)
    held, replayed = np.stack(followed, 1), best.controls
    with_it, without = (PLANT.cost(PLANT.rollout(pushed, u), u, target) for u in (held, replayed))
    assert (with_it < 0.4 * without).all()
    assert with_it == pytest.approx(oracle.solve(PLANT, pushed, target).cost, rel=0.05)
