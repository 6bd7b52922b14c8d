"""Any program can join a comparison: it answers lines of JSON, one batch each.

ganglion compare RUN oracle --policy-cmd "python examples/external_controller.py 1.2 1.8"

In:  {"inputs": {"state": [[x, v], ...], "target": [[x, v], ...], "time_left_s": [[5.0], ...]}}
Out: {"outputs": {"controls": [[[u]], ...]}} of the shape that the first policy of the table has.
Here: a PD controller with two gains. A policy that gives a whole sequence gets one from here too,
by simulating the double integrator. Nothing but the standard library is needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

NUM_STEPS, DT, BOUND = 15, 5.0 / 15.0, 4.0


def plan(
    state: Sequence[float], target: Sequence[float], gains: Sequence[float], steps: int
) -> list[list[float]]:
    """Return `steps` controls [[u], ...] of a PD controller on x'' = u."""
    (x, v), controls = state, []
    for _ in range(steps):
        u = gains[0] * (target[0] - x) + gains[1] * (target[1] - v)
        u = max(-BOUND, min(BOUND, u))
        controls.append([u])
        x, v = x + DT * v + 0.5 * DT * DT * u, v + DT * u
    return controls


def main(gains: Sequence[float], steps: int) -> None:
    """Answer every line until the pipe closes."""
    for line in sys.stdin:
        inputs = json.loads(line)["inputs"]
        pairs = zip(inputs["state"], inputs["target"], strict=True)
        controls = [plan(state, target, gains, steps) for state, target in pairs]
        print(json.dumps({"outputs": {"controls": controls}}), flush=True)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--sequence"]
    whole = "--sequence" in sys.argv  # beside a sequence policy, e.g. model=trc
    main([float(w) for w in words[:2]] or [1.2, 1.8], NUM_STEPS if whole else 1)
