"""How far from the exact optimum is a policy, and where is it worst?

python examples/compare_with_oracle.py RUN|FILE.onnx [CASES]
"""

from __future__ import annotations

import sys

import numpy as np

import ganglion
from ganglion import registry, scoring, sources
from ganglion.core import run as runs
from ganglion.core import seeds


def main(source: str, cases: int = 200) -> float:
    """Print a table over fresh cases; return the policy's gap (0 is the optimum)."""
    found = sources.find(source, runs.home())
    if found.task is None or found.cfg is None:
        raise SystemExit(f"{source} does not say what it was trained for.")
    task = registry.make(found.task, found.cfg)
    fresh = scoring.fresh_cases(task, found.task, found.cfg, cases, seed=100_000)

    policies = {"policy": ganglion.load(source), **task.references()}
    gaps = {}
    print(f"{'':12}{'gap':>12}{'success':>10}{'closed loop':>14}")
    for name, policy in policies.items():
        rows = task.evaluate(policy, fresh, seeds.rng(0, "example"))
        gaps[name] = float(rows["gap"].sum() / rows["optimal_cost"].sum())
        closed = float(rows["closed_gap"].sum() / rows["optimal_cost"].sum())
        print(f"{name:12}{gaps[name]:12.4%}{rows['success'].mean():10.1%}{closed:14.4%}")
        if name == "policy":
            worst = int(np.argmax(rows["case_gap"]))
    start, target = fresh["state"][worst], fresh["target"][worst]
    print(f"The policy is worst from {start.tolist()} to {target.tolist()}.")
    return gaps["policy"]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:3]))
