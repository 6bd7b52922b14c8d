"""Pendulum, cartpole and quadrotor: their optimum, their data, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import casadi
import numpy as np
import pytest

from ganglion import registry
from ganglion.core.errors import SettingsError
from ganglion.tasks.control import boxqp, grid, oracle
from ganglion.tasks.control.plant import Cartpole, Pendulum, Plant, Quadrotor2d
from ganglion.tasks.control.task import Control

SHORT = {
    "pendulum": {"kind": "pendulum", "num_steps": 60, "horizon_s": 3.0},
    "cartpole": {"kind": "cartpole", "num_steps": 30, "horizon_s": 1.5},
    "quadrotor2d": {"kind": "quadrotor2d", "num_steps": 20, "horizon_s": 1.0},
}


def make(problem: dict[str, Any], *layers: dict[str, Any]) -> Control:
    layer = {"problem": problem}
    return Control(registry.resolve("control", "quick", [layer, *layers]))  # type: ignore[arg-type]


def pendulum(x: Any, u: Any) -> list[Any]:
    return [x[1], 9.81 * casadi.sin(x[0]) + u[0]]


def cartpole(x: Any, u: Any) -> list[Any]:
    # The coupled equations of motion, solved here by hand: l = .5, inertia m l^2 / 3 about the end
    sin, cos = casadi.sin(x[1]), casadi.cos(x[1])
    # (M + m) x'' + m l (th'' cos - w^2 sin) = F;  4/3 m l^2 th'' + m l x'' cos = m g l sin
    a, b, c = 1.1, 0.05 * cos, 4 / 3 * 0.1 * 0.25
    f, g = u[0] + 0.05 * x[3] ** 2 * sin, 0.1 * 9.81 * 0.5 * sin
    det = a * c - b * b
    return [x[2], x[3], (f * c - b * g) / det, (a * g - b * f) / det]


def quadrotor(x: Any, u: Any) -> list[Any]:
    lift = (u[0] + u[1]) / 0.5
    return [x[3], x[4], x[5], -lift * casadi.sin(x[2]), lift * casadi.cos(x[2]) - 9.81,
            0.15 * (u[0] - u[1]) / 0.005]  # fmt: skip


COSTS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "pendulum": (
        lambda x, u: 2 * (1 - casadi.cos(x[0])) + 0.1 * x[1] ** 2 + 0.02 * u[0] ** 2,
        lambda x: 20 * (2 * (1 - casadi.cos(x[0])) + 0.1 * x[1] ** 2),
    ),
    "cartpole": (
        lambda x, u: 2 * (1 - casadi.cos(x[1])) + 0.25 * x[0] ** 2 + 0.02 * x[2] ** 2
        + 0.02 * x[3] ** 2 + 0.002 * u[0] ** 2,
        lambda x: 20 * (2 * (1 - casadi.cos(x[1])) + 0.25 * x[0] ** 2 + 0.1 * x[2] ** 2
                        + 0.1 * x[3] ** 2),
    ),
    "quadrotor2d": (
        lambda x, u: x[0] ** 2 + x[1] ** 2 + 1 - casadi.cos(x[2])
        + 0.1 * (x[3] ** 2 + x[4] ** 2) + 0.01 * x[5] ** 2
        + 0.02 * ((u[0] - 2.4525) ** 2 + (u[1] - 2.4525) ** 2),
        lambda x: 20 * (x[0] ** 2 + x[1] ** 2 + 1 - casadi.cos(x[2])
                        + 0.5 * (x[3] ** 2 + x[4] ** 2) + 0.05 * x[5] ** 2),
    ),
}  # fmt: skip


def interior_point(plant: Plant, f: Any, x0: np.ndarray) -> tuple[float, np.ndarray]:
    """Multiple shooting in CasADi with IPOPT, dynamics and cost written apart from the plant."""
    stage, final = COSTS[plant.name]
    x, u = casadi.SX.sym("x", plant.n), casadi.SX.sym("u", plant.m)
    h = plant.dt

    def rate(at: Any) -> Any:
        return casadi.vertcat(*f(at, u))

    k1 = rate(x)
    k2 = rate(x + h / 2 * k1)
    k3 = rate(x + h / 2 * k2)
    k4 = rate(x + h * k3)
    step = casadi.Function("step", [x, u], [x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)])
    pay = casadi.Function("pay", [x, u], [stage(x, u)])
    steps = plant.num_steps
    states = casadi.MX.sym("states", plant.n, steps)
    controls = casadi.MX.sym("controls", plant.m, steps)
    at, cost, gaps = casadi.DM(x0), 0, []
    for t in range(steps):
        cost += pay(at, controls[:, t])
        gaps.append(step(at, controls[:, t]) - states[:, t])
        at = states[:, t]
    cost += casadi.Function("end", [x], [final(x)])(at)
    both = casadi.vertcat(casadi.vec(controls), casadi.vec(states))
    quiet = {"ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes", "ipopt.tol": 1e-12,
             "ipopt.bound_relax_factor": 0.0}  # fmt: skip
    problem = {"x": both, "f": cost, "g": casadi.vertcat(*gaps)}
    solver = casadi.nlpsol("s", "ipopt", problem, quiet)
    free = np.full(plant.n * steps, np.inf)
    low = np.concatenate([np.tile(plant.low, steps), -free])
    high = np.concatenate([np.tile(plant.high, steps), free])
    guess = np.concatenate([np.tile(plant.centre, steps), np.tile(x0, steps)])
    found = solver(x0=guess, lbx=low, ubx=high, lbg=0, ubg=0)
    return float(found["f"]), np.array(found["x"])[: plant.m * steps].reshape(steps, plant.m)


@pytest.mark.parametrize(
    ("plant", "f", "start"),
    [
        (Pendulum(60, 0.05), pendulum, (0.2, -0.1)),  # no swing: one optimum
        (Pendulum(60, 0.05), pendulum, (0.25, 0.1)),  # at the bound, close to falling
        (Cartpole(60, 0.05), cartpole, (0.5, 0.4, -0.2, 0.5)),
        (Quadrotor2d(40, 0.05), quadrotor, (1.5, -1.0, 0.9, 0.5, -0.5, 0.8)),
        (Quadrotor2d(40, 0.05), quadrotor, (-1.0, 2.0, -0.4, 0.0, 1.0, -1.0)),
    ],
)
def test_optimum_agrees_with_an_interior_point_solver_where_it_is_unique(
    plant: Plant, f: Any, start: tuple[float, ...]
) -> None:
    x0 = np.array(start)
    best = oracle.solve(plant, x0[None], np.zeros((1, plant.n)))
    cost, u = interior_point(plant, f, x0)
    assert best.cost[0] == pytest.approx(cost, rel=1e-8)
    assert best.controls[0] == pytest.approx(u, abs=1e-4)


def test_pendulum_is_planned_by_the_grid_and_polished() -> None:
    plant = Pendulum(60, 0.05)
    x0 = plant.sample_starts(np.random.default_rng(1), 30)
    target = np.zeros((30, 2))
    planned = grid.plan(plant, x0, target)
    rough = plant.cost(*planned, target)
    best = oracle.solve(plant, x0, target)
    assert (best.cost <= rough * (1 + 1e-12)).all()
    assert 0.0 < rough.sum() / best.cost.sum() - 1 < 0.01
    # the same table serves the mirrored problem: the plant is symmetric about the origin
    mirrored = oracle.solve(plant, -x0, target)
    assert mirrored.cost.sum() == pytest.approx(best.cost.sum(), rel=2e-3)


def test_value_of_one_step_by_hand() -> None:
    # One step left at rest at the top: u = 0 stays, 0. At the grid's own point (0, w_k) the table
    # holds the best of 31 controls: never below the true minimum over all controls.
    plant = Pendulum(1, 0.05)
    x = np.zeros((1, 2))
    assert grid.plan(plant, x, x).controls[0, 0, 0] == pytest.approx(0.0, abs=1e-12)
    # falling over to the right (w = 1) it pushes back with all it has:
    # d(cost)/du > 0 at -3: .02 * 2 * -3 + 40 * (.1 * w_1 + ...) * .05 > 0
    assert grid.plan(plant, np.array([[0.3, 2.0]]), x).controls[0, 0, 0] == -3.0


def test_grid_is_refused_for_other_plants() -> None:
    with pytest.raises(ValueError, match="quadrotor2d is not one angle and its rate"):
        grid.plan(Quadrotor2d(10, 0.05), np.zeros((1, 6)), np.zeros((1, 6)))


def test_pairs_of_controls_are_solved_exactly_in_their_boxes() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((500, 2, 2))
    h = root @ root.swapaxes(1, 2) + 0.1 * np.eye(2)
    g, width = 3 * rng.standard_normal((500, 2)), rng.random((2, 500, 2))
    u, free = boxqp.stage(h, g, -width[0], width[1])
    gradient = (h @ u[..., None])[..., 0] + g
    assert np.abs(gradient[free]).max() < 1e-9
    assert (gradient[u == -width[0]] > 0).all()
    assert (gradient[u == width[1]] < 0).all()


@pytest.mark.parametrize("plant", [Quadrotor2d(20, 0.05), Cartpole(30, 0.05)])
def test_nothing_near_the_best_known_is_cheaper(plant: Plant) -> None:
    x0 = plant.sample_starts(np.random.default_rng(3), 10)
    target = np.zeros_like(x0)
    best = oracle.solve(plant, x0, target)
    assert (plant.excess(best.controls) <= 1e-12).all()
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1):
        near = plant.clip(best.controls + size * rng.standard_normal(best.controls.shape))
        cost = plant.cost(plant.rollout(x0, near), near, target)
        assert (cost >= best.cost * (1 - 1e-9)).all()


@pytest.mark.parametrize("name", SHORT)
def test_data_pass_their_own_check_and_references_are_scored(name: str) -> None:
    task = make(SHORT[name])
    cases = task.generate(6, "test", np.random.default_rng(0))
    task.check(cases)
    assert task.settings.data.test == 200
    columns = [m.name for m in task.metrics]
    assert ("upright" in columns) == (name == "cartpole")
    for reference, policy in task.references().items():
        rows = task.evaluate(policy, cases, np.random.default_rng(0))
        assert all(len(rows[c]) == 6 for c in columns)
        assert (rows["violations"] == 0).all()
        if reference == "oracle":
            assert (rows["gap"] == 0).all()
            assert (rows["success"] == rows["oracle_success"]).all()


@pytest.mark.parametrize("name", SHORT)
def test_the_oracle_goes_on_under_noise(name: str) -> None:
    task = make(SHORT[name], {"evaluation": {"process_noise": 0.02}})
    cases = task.generate(2, "test", np.random.default_rng(0))
    rows = task.evaluate(task.references()["oracle"], cases, np.random.default_rng(0))
    idle = task.evaluate(task.references()["zero"], cases, np.random.default_rng(0))
    assert rows["cost"].sum() < idle["cost"].sum()


def test_scenarios_change_the_uncertain_parameter() -> None:
    for name, parameter in (("pendulum", "stiffness"), ("cartpole", "half_length"),
                            ("quadrotor2d", "mass")):  # fmt: skip
        task = make(SHORT[name])
        assert f"{parameter}_1.2" in task.scenarios
        other = make(SHORT[name], {"evaluation": {"mismatch": 1.2}})
        assert getattr(other.truth, parameter) == 1.2 * getattr(task.truth, parameter)
        assert (other.truth.high == task.truth.high).all()  # the actuators stay what they are


def test_actor_critic_is_refused_for_plans() -> None:
    with pytest.raises(SettingsError, match="actor_critic trains state feedback"):
        make(SHORT["pendulum"], {"model": "mlp", "loss": "actor_critic"})
