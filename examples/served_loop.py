"""Close the loop on a plant with a policy that is served elsewhere.

ganglion serve RUN &                                  e.g. RUN = latest
python examples/served_loop.py http://127.0.0.1:8080 [STATE ...]
"""

from __future__ import annotations

import sys

import numpy as np

from ganglion import client
from ganglion.tasks.control.plants.settings import DoubleIntegratorSettings


def main(url: str, state: tuple[float, ...] = (1.5, -0.5)) -> float:
    """Drive a double integrator to the origin; return the final error, the 2-norm."""
    plant = DoubleIntegratorSettings().plant()
    x, target = np.array([state]), np.zeros(plant.n)
    with client.policy(url) as policy, policy.stream() as stream:
        print(f"{policy.about.name} version {policy.about.version} answers")
        for t in range(plant.num_steps):
            left = [(plant.num_steps - t) * plant.dt]
            answer = stream.act({"state": x[0], "target": target, "time_left_s": left})
            u = answer["controls"][None, 0].astype(float)
            print(f"t {t * plant.dt:5.2f} s  position {x[0, 0]:7.3f} m  control {u[0, 0]:7.3f}")
            x = plant.step(x, plant.clip(u))
    error = float(np.linalg.norm(x - target))
    print(f"final error {error:.4f}")
    return error


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1], tuple(map(float, sys.argv[2:4])) or (1.5, -0.5))
