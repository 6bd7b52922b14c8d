"""Stop a training half-way, go on, and compare with one that was never stopped.

python examples/resume.py [STEPS]
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from ganglion import pipeline, registry
from ganglion.console import Quiet
from ganglion.core.errors import Preempted
from ganglion.session import chosen_checkpoint
from ganglion.train.checkpoint import state_digest


class StopsHalfway(Quiet):
    """Sends this process SIGTERM half-way, as a scheduler would that needs the machine."""

    def trained(self, step: int, total: int, metrics: object, rate: float) -> None:
        """See every block of steps."""
        if step == total // 2:
            os.kill(os.getpid(), signal.SIGTERM)


def main(steps: int = 200) -> bool:
    """Say whether both runs end with the same weights, bit for bit."""
    home = pipeline.Place(home=Path(tempfile.mkdtemp(prefix="ganglion-")))
    layer = {"train": {"steps": steps, "block": 10, "tensorboard": False},
             "data": {"validation": 64, "test": 64}}  # fmt: skip
    cfg = registry.resolve("control", "quick", [layer])

    whole = pipeline.begin("control", cfg, home)
    pipeline.train(whole)

    stopped = pipeline.begin("control", cfg, home)
    try:
        pipeline.train(stopped, StopsHalfway())
    except Preempted as reason:
        print(reason)
    pipeline.train(stopped)  # the same call goes on from the checkpoint

    weights = [chosen_checkpoint(run, "last").state["learner"] for run in (whole, stopped)]
    first, second = (state_digest(w) for w in weights)
    print(f"undisturbed {first[:16]}\nresumed     {second[:16]}")
    return first == second


if __name__ == "__main__":
    raise SystemExit(0 if main(*map(int, sys.argv[1:2])) else 1)
