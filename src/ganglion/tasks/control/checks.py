"""Re-derive a dataset of the task from scratch: nothing in it is taken on trust."""

from __future__ import annotations

import numpy as np

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError, unknown
from ganglion.tasks.control import evaluation, oracle
from ganglion.tasks.control.plant import Floats, Plant
from ganglion.tasks.control.riccati import clipped_rollout, steady_tracking_gain


def check(plant: Plant, arrays: Arrays, labels: str) -> None:
    """Verify the arrays of `Control.label`; DataError names the first fault by key and index.

    Shapes and finite values; controls within the bounds; states follow from the controls; cost and
    oracle_error are those of the optimum; and the labels are what `labels` says.
    """
    shapes(plant, arrays)
    for name, array in arrays.items():
        finite(name, array)
    bounded(plant, "controls", arrays["controls"])
    state, target, controls, states = (
        np.asarray(arrays[k], np.float64) for k in ("state", "target", "controls", "states")
    )
    # Step by step: over seconds an unstable plant drifts off even from its own float32 controls.
    before, acted = states[:, :-1].reshape(-1, plant.n), controls.reshape(-1, plant.m)
    moved = plant.step(before, acted).reshape(states[:, 1:].shape)
    simulated = np.concatenate([state[:, None], moved], 1)
    _compare("states", states, simulated, 1e-3, "do not follow from the controls")
    best = oracle.remembered(plant, state, target)
    if plant.method == "exact":
        _compare("cost", arrays["cost"], best.cost, 1e-6, "is not the exact optimum")
        error = plant.arrival(best.states, target)
        _compare("oracle_error", arrays["oracle_error"], error, 1e-5, "is not the optimum's own")
    else:  # which of near-equal local optima is found may hang on the last bit
        _compare("cost", arrays["cost"], best.cost, 1e-2, "is not the best known")
    if labels == "optimal":
        reached = plant.cost(simulated, controls, target)
        _compare("controls", reached, best.cost, 1e-5, "are not optimal; their cost")
    elif labels == "clipped_lqr":
        expected = clipped_rollout(plant, steady_tracking_gain(plant), state, target)[1]
        _compare("controls", controls, expected, 1e-4, "are not those of the clipped LQR gain")


def shapes(plant: Plant, arrays: Arrays) -> None:
    """Verify that every array is there with its shape; DataError otherwise."""
    n, m, steps = plant.n, plant.m, plant.num_steps
    expected = {
        "state": (n,), "target": (n,), "time_left_s": (1,), "controls": (steps, m),
        "states": (steps + 1, n), "cost": (), "oracle_error": (),
    }  # fmt: skip
    rows = None
    for name, shape in expected.items():
        if name not in arrays:
            raise DataError(f"The data has no array {name!r}; {unknown('array', name, arrays)}")
        found = arrays[name].shape
        rows = found[0] if rows is None and found else rows
        if found != (rows, *shape):
            raise DataError(
                f"{name} has shape {found}; {(rows, *shape)} was expected for {plant.name} with "
                f"{steps} steps."
            )


def finite(name: str, array: Array) -> None:
    """DataError names the first value that is not finite by key and index."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name}[{_text(index)}] is {array[index]}, not a finite number.")


def bounded(plant: Plant, name: str, controls: Array) -> None:
    """DataError names the first control (B, N, m) beyond its bound by more than 1e-6."""
    over = plant.excess(np.asarray(controls, np.float64)) > evaluation.EXCESS
    if over.any():
        index = tuple(int(i) for i in np.argwhere(over)[0])
        raise DataError(
            f"{name}[{_text(index)}] is {controls[index]:g}, beyond the bound "
            f"{_limit(plant, index[-1], controls[index])} of {plant.name}. Set problem.bound to "
            "what the data was made with."
        )


def _limit(plant: Plant, control: int, value: float) -> str:
    """Return the bound that `value` is beyond, as text: the magnitude of a range about 0."""
    if plant.centre[control] == 0.0:
        return f"{plant.bound[control]:g}"
    return f"{(plant.high if value > plant.centre[control] else plant.low)[control]:g}"


def _compare(name: str, found: Array, expected: Floats, tolerance: float, fault: str) -> None:
    difference = np.abs(np.asarray(found, np.float64) - expected)
    off = difference > tolerance * (1.0 + np.abs(expected))
    if off.any():
        index = tuple(int(i) for i in np.argwhere(off)[0])
        raise DataError(
            f"{name} {fault}: at [{_text(index)}] {found[index]:.9g}, expected "
            f"{expected[index]:.9g}. The data was edited, or made with other settings."
        )


def _text(index: tuple[int, ...]) -> str:
    return ", ".join(map(str, index))
