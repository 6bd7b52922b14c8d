"""Scoring: any policy by its signature, in open and closed loop, against the optimum.

Shapes: B cases, N steps of the task, n states, m controls. Simulation is in float64; policies get
what their signature declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Array, Arrays, Metric, Policy, TensorSpec
from ganglion.core.errors import DataError
from ganglion.tasks.control import multistart, oracle
from ganglion.tasks.control.config import EvaluationSettings
from ganglion.tasks.control.plant import Course, Floats, Plant

Flags = NDArray[np.bool_]

ARRIVED = 0.1  # success: the plant's `arrival` below this
EXCESS = 1e-6  # violation: a commanded control beyond its bound by more than this

GAP = Metric(
    "gap", "1", "lower", per="optimal_cost", percent=True,
    help="sum of J over all cases / sum of the exact optimum J* of the same cases - 1; one "
    "open-loop call of a sequence policy, the closed loop of a feedback policy",
)  # fmt: skip
METRICS = (
    GAP,
    Metric("success", "1", "higher", percent=True, share=True,
           help="share of cases that arrive: error below 0.1 (all through the last 0.5 s for the "
           "pendulum, cartpole and quadrotor)"),
    Metric("success_where_possible", "1", "higher", percent=True, share=True,
           help="the same over the cases in which the exact optimum itself succeeds"),
    Metric("oracle_success", "1", "higher", percent=True, share=True,
           help="share in which the exact optimum succeeds"),
    Metric("violations", "1", "lower", percent=True, share=True,
           help="share of commanded controls beyond their bound by more than 1e-6"),
    Metric("final_error", "mixed", "lower", help="2-norm of the final state error"),
    Metric("error_against_random", "1", "lower", per="random_error", percent=True,
           help="mean final error / that of random controls from the same starts"),
    Metric("energy", "u^2 s", "lower", help="integral of the squared controls"),
    Metric("case_gap", "1", "lower", percent=True, help="J / J* - 1 of each case"),
    Metric("closed_gap", "1", "lower", per="optimal_cost", percent=True,
           help="gap when the first control is applied and the policy asked again at each step"),
    Metric("closed_success", "1", "higher", percent=True, share=True,
           help="success in closed loop"),
    Metric("closed_final_error", "mixed", "lower", help="final error in closed loop"),
)  # fmt: skip


def metrics_of(plant: Plant) -> Sequence[Metric]:
    """Return the columns for `plant`: METRICS and its own partial arrivals."""
    own = plant.partial_arrivals.items()
    return (
        *METRICS,
        *(Metric(k, "1", "higher", percent=True, share=True, help=h) for k, (_, h) in own),
    )


@dataclass(frozen=True)
class Run:
    """What happened: states (B, N + 1, n), applied and commanded controls (B, N, m), cost (B,).

    final_error (B,) is the norm of the last error, arrival (B,) what decides success.
    """

    states: Floats
    controls: Floats
    commanded: Floats
    cost: Floats
    final_error: Floats
    arrival: Floats


@dataclass(frozen=True)
class Trial:
    """One set of cases on one plant: the same disturbances for every policy.

    plant is the plant as it is; noise (N, B, n) is added to the state after each step.
    """

    plant: Plant
    state: Floats
    target: Floats
    noise: Floats
    cycles: int | None = None
    loops: bool = True  # whether sequence policies run in closed loop too

    def open_loop(self, commanded: Floats) -> Run:
        """Apply a whole sequence (B, N, m), clipped by the actuators."""
        return self._simulate(lambda t, _: commanded[:, t])

    def closed_loop(self, policy: Policy, rng: np.random.Generator) -> Run:
        """Ask the policy at each step, apply its first control; time left shrinks."""
        carried: dict[str, Array] = {}

        def choose(t: int, state: Floats) -> Floats:
            left = (self.plant.num_steps - t) * self.plant.dt
            outputs = self.call(policy, rng, state, left, carried)
            carried.update({i: outputs[o] for o, i in policy.signature.carried.items()})
            return np.asarray(outputs["controls"][:, 0], np.float64)

        return self._simulate(choose)

    def call(
        self, policy: Policy, rng: np.random.Generator, state: Floats, left: float,
        carried: Mapping[str, Array],
    ) -> Arrays:  # fmt: skip
        """Ask the policy once for all cases, filling each input by its role."""
        given = {"state": state, "target": self.target, **carried}
        inputs = {}
        for name, spec in policy.signature.inputs.items():
            if name == "time_left_s":
                most = _most_time(policy, self.plant)
                given[name] = np.full((len(state), 1), min(left, most))
            elif name not in given:
                given[name] = _fill(name, spec, len(state), self.cycles, rng)
            inputs[name] = np.ascontiguousarray(given[name], spec.dtype)
        return policy.act(inputs)

    def _simulate(self, choose: Callable[[int, Floats], Floats]) -> Run:
        plant, state = self.plant, self.state
        states, commanded = [state], []
        for t in range(plant.num_steps):
            commanded.append(np.asarray(choose(t, state), np.float64))
            state = plant.step(state, plant.clip(commanded[-1])) + self.noise[t]
            states.append(state)
        return self.record(np.stack(states, 1), np.stack(commanded, 1))

    def record(self, path: Floats, asked: Floats) -> Run:
        """Judge states (B, N + 1, n) that came from the commands (B, N, m)."""
        plant, applied = self.plant, self.plant.clip(asked)
        error = np.linalg.norm(plant.error(path[:, -1], self.target), axis=1)
        cost, arrival = plant.cost(path, applied, self.target), plant.arrival(path, self.target)
        return Run(path, applied, asked, cost, error, arrival)


def trial(
    plant: Plant, cases: Arrays, settings: EvaluationSettings, cycles: int | None,
    rng: np.random.Generator,
) -> Trial:  # fmt: skip
    """Set up the cases; the noise is drawn first, so that every policy meets the same."""
    state = np.asarray(cases["state"], np.float64)
    noise = rng.standard_normal((plant.num_steps, *state.shape)) * settings.process_noise
    target = np.asarray(cases["target"], np.float64)
    return Trial(plant, state, target, noise, cycles, settings.closed_loop)


def actual_plant(model: Plant, settings: EvaluationSettings) -> Plant:
    """Return the plant as it is: `model` with the actuator gain and the parameter mismatch."""
    if model.uncertain is not None:
        value = getattr(model, model.uncertain) * settings.mismatch
        model = replace(model, **{model.uncertain: value})
    return replace(model, gain=settings.actuator_gain)


def plan_length(policy: Policy) -> int:
    """Return how many controls a call gives: 1 for feedback, N for a sequence."""
    first = policy.signature.outputs["controls"].shape[0]
    return first if isinstance(first, int) else 1


def score(policy: Policy, trial: Trial, best: Floats, possible: Flags,
          rng: np.random.Generator) -> dict[str, Array]:  # fmt: skip
    """Return a column per metric, a row per case.

    best (B,) is J* of this plant, possible (B,) whether that optimum succeeds. A sequence policy
    of the task's own length is scored by one open-loop call, others by their closed loop. Where
    J* is only the best known, the policy's own way, polished, may lower it.
    """
    plant = trial.plant
    shape = (len(best), plant.num_steps, plant.m)
    anything = trial.open_loop(plant.centre + rng.uniform(-1.0, 1.0, shape) * plant.bound)
    whole = None
    consistent = bool(getattr(policy, "consistent", False))
    own = getattr(policy, "trajectory", None)
    if own is not None and not trial.noise.any():
        # Float32 controls, replayed for seconds, fall off an unstable plant.
        found = own(trial.state, trial.target)
        whole = trial.record(found.states, found.controls)
    elif plan_length(policy) == plant.num_steps > 1:
        outputs = trial.call(policy, rng, trial.state, plant.horizon_s, {})
        whole = trial.open_loop(np.asarray(outputs["controls"], np.float64))
    closed: Run | None
    if whole is not None and consistent and not trial.noise.any():
        closed = whole
    elif whole is None or consistent or trial.loops:
        closed = trial.closed_loop(policy, rng)
    else:
        closed = None
    # An optimum of an unstable plant must not be replayed under noise: it is its closed loop.
    run = whole if whole is not None and not (consistent and closed is not None) else closed
    if run is None:
        raise DataError("This policy gives neither a whole plan nor single controls.")
    if plant.method != "exact" and not trial.noise.any():
        shown = Course(run.states, run.controls)
        best, arrival = multistart.challenged(plant, trial.target, best, shown)
        possible = np.where(np.isnan(arrival), possible, arrival < ARRIVED)
    success = (run.arrival < ARRIVED).astype(np.float64)
    return {
        "gap": _excess(run.cost, best),
        "optimal_cost": best,
        "cost": run.cost,
        "success": success,
        "success_where_possible": np.where(possible, success, np.nan),
        "oracle_success": possible.astype(np.float64),
        "violations": (plant.excess(run.commanded) > EXCESS).mean((1, 2)),
        "final_error": run.final_error,
        "error_against_random": run.final_error,
        "random_error": anything.final_error,
        "energy": (run.controls**2).sum((1, 2)) * plant.dt,
        "case_gap": _excess(run.cost, best) / best,
        **_closed_columns(closed, best),
        **{
            name: (plant.arrival(run.states, trial.target, groups) < ARRIVED).astype(np.float64)
            for name, (groups, _) in plant.partial_arrivals.items()
        },
    }


def _excess(cost: Floats, best: Floats) -> Floats:
    """Return J - J*, 0 where the two agree to rounding (1e-9 relative)."""
    excess = cost - best
    return np.where(np.abs(excess) <= 1e-9 * best, 0.0, excess)


def _closed_columns(closed: Run | None, best: Floats) -> dict[str, Array]:
    names = ("closed_gap", "closed_cost", "closed_success", "closed_final_error")
    if closed is None:
        return {name: np.full(len(best), np.nan) for name in names}
    success = (closed.arrival < ARRIVED).astype(np.float64)
    columns = (_excess(closed.cost, best), closed.cost, success, closed.final_error)
    return dict(zip(names, columns, strict=True))


def anytime(policy: Policy, trial: Trial, best: Floats, most: int) -> dict[str, Array]:
    """Return what k = 1..most cycles of one open-loop call achieve; {} without an input `steps`.

    cycles (C,), gap (C,), rising (C,): the share of cases whose cost is above that of one cycle
    less by more than 1e-6 relative. The policy's declared range of cycles is respected.
    """
    steps = [s for s in policy.signature.inputs.values() if s.role == "steps"]
    if not steps or plan_length(policy) != trial.plant.num_steps:
        return {}
    low, high = int(steps[0].low or 1), int(min(steps[0].high or most, most))
    cycles = np.arange(max(1, low), high + 1)
    rng, costs = np.random.default_rng(0), []
    for k in cycles:
        counted = replace(trial, cycles=int(k))
        outputs = counted.call(policy, rng, trial.state, trial.plant.horizon_s, {})
        costs.append(counted.open_loop(np.asarray(outputs["controls"], np.float64)).cost)
    cost = np.array(costs).reshape(len(cycles), len(best))
    rises = cost[1:] > cost[:-1] * (1.0 + 1e-6)
    rising = np.concatenate([np.zeros(1), rises.mean(1)])
    return {"cycles": cycles, "gap": cost.sum(1) / best.sum() - 1.0, "rising": rising}


def optimum(plant: Plant, cases: Arrays) -> tuple[Floats, Flags]:
    """Return J* (B,) of each case on `plant` and whether the optimum succeeds (B,); remembered."""
    state, target = (np.asarray(cases[k], np.float64) for k in ("state", "target"))
    found = oracle.remembered(plant, state, target)
    return found.cost, plant.arrival(found.states, target) < ARRIVED


def _most_time(policy: Policy, plant: Plant) -> float:
    """Return the longest time left that a policy may be told, s."""
    high = policy.signature.inputs["time_left_s"].high
    steps = plan_length(policy)
    by_plan = steps * plant.dt if steps > 1 else np.inf
    return float(min(by_plan, np.inf if high is None else high))


def _fill(
    name: str, spec: TensorSpec, cases: int, cycles: int | None, rng: np.random.Generator
) -> Array:
    if any(isinstance(axis, str) for axis in spec.shape):
        raise DataError(f"Input {name!r} of the policy has an axis of unknown size {spec.shape}.")
    shape = (cases, *spec.shape) if spec.batched else spec.shape
    if spec.role == "uniform":
        return rng.random(shape)  # type: ignore[arg-type]
    if spec.role == "normal":
        return rng.standard_normal(shape)  # type: ignore[arg-type]
    if spec.role == "state":
        return np.zeros(shape)  # type: ignore[arg-type]
    if spec.role == "steps":
        steps = cycles if cycles is not None else spec.high
        if steps is None:
            raise DataError(f"How many steps {name!r} shall be is unknown; set evaluation.cycles.")
        low, high = spec.low or 1, spec.high if spec.high is not None else np.inf
        return np.full(shape, min(max(steps, low), high))  # type: ignore[arg-type]
    raise DataError(
        f"The policy wants an input {name!r} that this task does not have; it has state, target, "
        "time_left_s."
    )
