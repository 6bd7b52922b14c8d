"""Load a policy from a run or an .onnx file and close the loop on the plant.

python examples/load_and_act.py RUN|FILE.onnx [STATE ...]    e.g. runs/control/demo-... 1.5 -0.5
"""

from __future__ import annotations

import sys

import numpy as np

import ganglion
from ganglion.export.inputs import defaults
from ganglion.tasks.control.plants.settings import DoubleIntegratorSettings


def main(source: str, state: tuple[float, ...] = (1.5, -0.5)) -> float:
    """Drive a double integrator to the origin; return the final error, the 2-norm."""
    policy = ganglion.load(source)
    plant = DoubleIntegratorSettings().plant()
    x, target = np.array([state]), np.zeros((1, plant.n))
    # noise and steps, where a policy takes any, have defaults
    more = defaults(policy.signature, 1, np.random.default_rng(0))
    for t in range(plant.num_steps):
        left = np.array([[(plant.num_steps - t) * plant.dt]])
        asked = {"state": x, "target": target, "time_left_s": left}
        inputs = {n: np.asarray(a, np.float32) for n, a in {**more, **asked}.items()}
        u = np.asarray(policy.act(inputs)["controls"][:, 0], np.float64)
        print(f"t {t * plant.dt:5.2f} s  position {x[0, 0]:7.3f} m  control {u[0, 0]:7.3f} m/s^2")
        x = plant.step(x, plant.clip(u))
    error = float(np.linalg.norm(x - target))
    print(f"final error {error:.4f}")
    return error


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1], tuple(float(word) for word in sys.argv[2:4]) or (1.5, -0.5))
