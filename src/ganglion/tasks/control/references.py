"""The oracle and the baselines as policies: scored by the same code as a trained net."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Arrays, Policy, Signature, TensorSpec
from ganglion.tasks.control import ilqr, oracle
from ganglion.tasks.control.plant import Course, Floats, Plant
from ganglion.tasks.control.riccati import steady_tracking_gain, tracking_gains

ADMM_ITERATIONS = (5, 10, 20)
REACH = 10.0  # declared range of states and targets, in start boxes
_STRAYED = 0.5  # start boxes off a plan: there its feedback, a linear one, no longer holds
_CARRIED = ("plan", "course", "gains")


def references(model: Plant, truth: Plant) -> Mapping[str, Policy]:
    """Return every reference by name.

    The oracle knows the plant as it is (`truth`); the others plan with the plant as modelled.
    """
    found: dict[str, Policy] = {
        "oracle": Oracle(truth),
        "lqr": ClippedLqr(model),
        "lqr_steady": ClippedLqr(model, steady=True),
        "zero": Zero(model),
        "random": Random(model),
    }
    if model.matrices() is not None:
        found |= {f"admm_{k}": Admm(model, k) for k in ADMM_ITERATIONS}
    return found


def signature(plant: Plant, steps: int, more: Mapping[str, TensorSpec] | None = None) -> Signature:
    """Return what policies of `plant` take and give; `steps` controls come out (1: feedback)."""
    unit = ", ".join(plant.state_units)
    reach = REACH * max(plant.start_box)  # far beyond any start; a sensor that says more is wrong
    state = TensorSpec((plant.n,), unit=unit, labels=plant.state_labels, low=-reach, high=reach)
    horizon = plant.horizon_s
    return Signature(
        {
            "state": state,
            "target": state,
            "time_left_s": TensorSpec((1,), unit="s", low=0.0, high=horizon),
            **(more or {}),
        },
        {"controls": controls_spec(plant, steps)},
    )


def controls_spec(plant: Plant, steps: int) -> TensorSpec:
    """Return the specification of the output `controls` (B, steps, m)."""
    low, high = float(plant.low.min()), float(plant.high.max())
    unit = ", ".join(plant.control_units)
    return TensorSpec((steps, plant.m), unit=unit, low=low, high=high)


def steps_left(plant: Plant, inputs: Arrays) -> NDArray[np.int64]:
    """Return the whole number of steps left, (B,), 1..num_steps."""
    left = np.asarray(inputs["time_left_s"], np.float64)[:, 0] / plant.dt
    return np.clip(np.rint(left), 1, plant.num_steps).astype(np.int64)


@dataclass(frozen=True)
class Oracle:
    """The exact optimum of the time left, solved at every call.

    Of a nonlinear plant it carries its plan from call to call. Where the optimum is certain, the
    plan is the guess that the next call begins with. Elsewhere the plan itself goes on, with the
    feedback that is optimal around it, until a case is too far off it and gets a new one.
    Without noise its closed loop is its plan (principle of optimality), which `consistent` says,
    so that nobody solves the same problem N times.
    """

    plant: Plant
    consistent: bool = True

    @property
    def signature(self) -> Signature:
        steps, plant = self.plant.num_steps, self.plant
        base = signature(plant, steps)
        if plant.matrices() is not None:
            return base
        carried = {"plan": replace(controls_spec(plant, steps), role="state")}
        if plant.method != "exact":
            carried["course"] = TensorSpec((steps, plant.n), role="state")
            carried["gains"] = TensorSpec((steps, plant.m * plant.n), role="state")
        return Signature(
            {**base.inputs, **carried}, {**base.outputs, **carried}, {k: k for k in carried}
        )

    def trajectory(self, state: Floats, target: Floats) -> oracle.Solution:
        """Return the optimum itself over the whole horizon, in float64, state by state."""
        return oracle.remembered(self.plant, state, target)

    def act(self, inputs: Arrays) -> Arrays:
        """Solve every case for its own time left; controls past the end are 0."""
        if self.plant.matrices() is not None:
            return {"controls": _by_horizon(self.plant, inputs, _solved)}
        if self.plant.method != "exact":
            return self._follow(inputs)
        plan = np.asarray(inputs["plan"], np.float64)

        def solve(plant: Plant, rows: NDArray[np.intp], x: Floats, target: Floats) -> Floats:
            guess = plan[rows, : plant.num_steps]
            if not guess.any():
                return _solved(plant, rows, x, target)
            # A control that is off by 1e-4 of its bound costs 1e-8: enough to go on with.
            return oracle.solve(plant, x, target, guess, 1e-4).controls

        controls = _by_horizon(self.plant, inputs, solve)
        return {"controls": controls, "plan": _later(controls)}

    def _follow(self, inputs: Arrays) -> Arrays:
        """Act by the plans that are carried, or make them, or make them anew far from them."""
        plant, held = self.plant, {k: np.array(inputs[k], np.float32) for k in _CARRIED}
        if not held["plan"].any():
            held = self._plan(inputs, oracle.remembered)
        off = self._off(inputs, held)
        lost = np.flatnonzero((np.abs(off) / plant.start_box).max(1) > _STRAYED)
        if lost.size:
            part = self._plan({k: np.asarray(v)[lost] for k, v in inputs.items()}, oracle.solve)
            for name, array in part.items():
                held[name][lost] = array
            off = self._off(inputs, held)
        gains = held["gains"][:, 0].reshape(-1, plant.m, plant.n)
        now = plant.clip(held["plan"][:, 0] + np.einsum("bij,bj->bi", gains, off))
        held["plan"][:, 0] = now
        return {"controls": held["plan"], **{k: _later(v) for k, v in held.items()}}

    def _off(self, inputs: Arrays, held: Mapping[str, NDArray[np.float32]]) -> Floats:
        """Return how far each case (B, n) is from where its plan wanted it now."""
        moved = np.asarray(inputs["state"], np.float64) - held["course"][:, 0]
        return np.asarray(self.plant.error(moved, np.zeros_like(moved)))

    def _plan(
        self, inputs: Arrays, solve: Callable[[Plant, Floats, Floats], oracle.Solution]
    ) -> dict[str, NDArray[np.float32]]:
        plant, steps = self.plant, self.plant.num_steps
        x, target = (np.asarray(inputs[k], np.float64) for k in ("state", "target"))
        left = steps_left(plant, inputs)
        shapes = {"plan": plant.m, "course": plant.n, "gains": plant.m * plant.n}
        held = {k: np.zeros((len(x), steps, v), np.float32) for k, v in shapes.items()}
        for count in np.unique(left):
            rows = np.flatnonzero(left == count)
            part = oracle.shortened(plant, int(count))
            best = solve(part, x[rows], target[rows])
            gains = ilqr.feedback(part, Course(best.states, best.controls), target[rows])
            held["plan"][rows, :count] = best.controls
            held["course"][rows, :count] = best.states[:, :-1]
            held["gains"][rows, :count] = gains.reshape(len(rows), count, -1)
        return held


def _solved(plant: Plant, rows: NDArray[np.intp], x: Floats, target: Floats) -> Floats:
    return oracle.remembered(plant, x, target).controls


def _later(plan: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the plan (B, N, ...) as it reads a step later, 0 at its end."""
    return np.concatenate([plan[:, 1:], np.zeros_like(plan[:, :1])], 1)


@dataclass(frozen=True)
class Admm:
    """A fixed number of ADMM iterations on the quadratic program of a linear plant."""

    plant: Plant
    iterations: int

    @property
    def signature(self) -> Signature:
        return signature(self.plant, self.plant.num_steps)

    def act(self, inputs: Arrays) -> Arrays:
        """Iterate every case for its own time left; controls past the end are 0."""

        def solve(plant: Plant, rows: NDArray[np.intp], x: Floats, target: Floats) -> Floats:
            return oracle.admm(plant, x, target, self.iterations)

        return {"controls": _by_horizon(self.plant, inputs, solve)}


Solve = Callable[[Plant, NDArray[np.intp], Floats, Floats], Floats]


def _by_horizon(plant: Plant, inputs: Arrays, solve: Solve) -> NDArray[np.float32]:
    x = np.asarray(inputs["state"], np.float64)
    target = np.asarray(inputs["target"], np.float64)
    left = steps_left(plant, inputs)
    controls = np.zeros((len(x), plant.num_steps, plant.m), np.float32)
    for steps in np.unique(left):
        rows = np.flatnonzero(left == steps)
        part = oracle.shortened(plant, int(steps))
        controls[rows, :steps] = solve(part, rows, x[rows], target[rows])
    return controls


@dataclass(frozen=True)
class ClippedLqr:
    """Clipped LQR feedback: of the time left, or (steady) the infinite-horizon gain on the error.

    The infinite-horizon gain is what the original's labels come from.
    """

    plant: Plant
    steady: bool = False

    @property
    def signature(self) -> Signature:
        return signature(self.plant, 1)

    def act(self, inputs: Arrays) -> Arrays:
        """Return u = clip(c - K [e, target]) as (B, 1, m)."""
        target = np.asarray(inputs["target"], np.float64)
        e = self.plant.error(np.asarray(inputs["state"], np.float64), target)
        if self.steady:
            u = -e @ steady_tracking_gain(self.plant)[0].T
        else:
            gains = tracking_gains(self.plant, self.plant.num_steps)
            chosen = gains[self.plant.num_steps - steps_left(self.plant, inputs)]
            u = -np.einsum("bij,bj->bi", chosen, np.concatenate([e, target], 1))
        return {"controls": self.plant.clip(self.plant.centre + u)[:, None].astype(np.float32)}


@dataclass(frozen=True)
class Zero:
    """No control at all; where the range is one-sided (a rotor), its middle."""

    plant: Plant

    @property
    def signature(self) -> Signature:
        return signature(self.plant, 1)

    def act(self, inputs: Arrays) -> Arrays:
        """Return the middle of the range, (B, 1, m)."""
        shape = (len(inputs["state"]), 1, self.plant.m)
        return {"controls": np.broadcast_to(self.plant.centre, shape).astype(np.float32)}


@dataclass(frozen=True)
class Random:
    """Controls uniform within the bounds, from an explicit input in [0, 1)."""

    plant: Plant

    @property
    def signature(self) -> Signature:
        noise = TensorSpec((1, self.plant.m), low=0.0, high=1.0, role="uniform")
        return signature(self.plant, 1, {"noise": noise})

    def act(self, inputs: Arrays) -> Arrays:
        """Return c + (2 noise - 1) bound, (B, 1, m)."""
        u = (2.0 * np.asarray(inputs["noise"], np.float64) - 1.0) * self.plant.bound
        u = self.plant.centre + u
        return {"controls": u.astype(np.float32)}
