"""The checker: IPOPT on the lander by multiple shooting, one case at a time (extra `oracle`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ganglion.core.errors import ServiceError
from ganglion.tasks.control.rocket.world import Floats, Rocket


@dataclass(frozen=True)
class Found:
    """One case: controls (N, 3), final time in s, fuel in kg, whether IPOPT says it is optimal."""

    controls: Floats
    final_time_s: float
    fuel_kg: float
    solved: bool


def solve(rocket: Rocket, state: Floats, guess_s: float = 60.0) -> Found:
    """Solve one case, state (7,). ServiceError where CasADi is not installed.

    Source of the transcription: Bock and Plitt, A multiple shooting algorithm for direct solution
    of optimal control problems, IFAC 1984. |a| has no slope at 0, so the mass falls by a slack
    s >= |a|, which burning fuel for nothing keeps tight (Acikmese and Ploen 2007, lemma 2).
    """
    solver, bounds, index = _transcription(rocket)
    steps = rocket.num_steps
    share = np.linspace(0.0, 1.0, steps + 1)[:, None]
    states = np.concatenate([(1 - share) * state[:6], state[6] * (1 - 0.1 * share)], 1)
    hover = np.tile([0.0, 0.0, rocket.gravity], (steps, 1))
    size = np.full(steps, 1.1 * rocket.gravity)
    guess = np.concatenate([states.ravel(), hover.ravel(), size, [guess_s]]) / index
    found = solver(x0=guess, p=state, **bounds)
    flat = np.asarray(found["x"]).ravel() * index
    inner = flat[7 * (steps + 1) : -steps - 1]
    controls, t = inner.reshape(steps, 3), float(flat[-1])
    fuel = rocket.fuel(state[None], controls[None], np.array([[t]]))
    return Found(controls, t, float(fuel[0]), bool(solver.stats()["success"]))


@lru_cache(maxsize=4)
def _transcription(rocket: Rocket) -> tuple[Any, dict[str, Any], Floats]:
    try:
        import casadi as ca
    except ImportError as error:
        raise ServiceError(
            "Checking against IPOPT needs CasADi; install it with pip install 'ganglion[oracle]'."
        ) from error
    steps = rocket.num_steps
    unit = np.concatenate([
        np.tile([1e3, 1e3, 1e3, 1e2, 1e2, 1e2, 1e3], steps + 1), np.full(4 * steps, 10.0), [100.0],
    ])  # fmt: skip
    raw, start = ca.MX.sym("w", len(unit)), ca.MX.sym("start", 7)
    w = raw * unit
    x = ca.reshape(w[: 7 * (steps + 1)], 7, steps + 1)
    a = ca.reshape(w[7 * (steps + 1) : -steps - 1], 3, steps)
    size = w[-steps - 1 : -1].T
    h = w[-1] / steps
    net = a - ca.repmat(ca.DM([0.0, 0.0, rocket.gravity]), 1, steps)
    mass = x[6, :-1]
    after = ca.vertcat(
        x[:3, :-1] + h * x[3:6, :-1] + 0.5 * h**2 * net,
        x[3:6, :-1] + h * net,
        mass * ca.exp(-h * size / rocket.exhaust),
    )
    row = ca.DM([1e3, 1e3, 1e3, 1e2, 1e2, 1e2, 1e3])
    gaps = ca.vec((x[:, 1:] - after) / ca.repmat(row, 1, steps))
    g = ca.vertcat(
        (x[:, 0] - start) / row, gaps, x[:6, -1] / row[:6],
        ca.vec(size * mass / rocket.thrust), ca.vec((ca.sum1(a**2) - size**2) / 100.0),
    )  # fmt: skip
    equal = 7 + 7 * steps + 6
    low = np.concatenate([np.zeros(equal), np.full(2 * steps, -np.inf)])
    high = np.concatenate([np.zeros(equal), np.ones(steps), np.zeros(steps)])
    lowest, highest = np.full(len(unit), -np.inf), np.full(len(unit), np.inf)
    lowest[2 : 7 * (steps + 1) : 7] = 0.0  # above the ground
    lowest[2] = -np.inf  # the start is given
    lowest[-steps - 1 : -1] = 0.0
    lowest[-1], highest[-1] = 0.05, 3.0  # 5 s to 300 s
    program: Any = {"x": raw, "p": start, "f": h * ca.sum2(size) / 100.0, "g": g}
    options: dict[str, Any] = {
        "print_time": False,
        # 1e-8, IPOPT's default, leaves it 3e-6 above the optimum
        "ipopt": {
            "print_level": 0,
            "sb": "yes",
            "max_iter": 400,
            "tol": 1e-9,
            "bound_relax_factor": 1e-11,
        },
    }
    solver = ca.nlpsol("landing", "ipopt", program, options)
    return solver, {"lbg": low, "ubg": high, "lbx": lowest, "ubx": highest}, unit
