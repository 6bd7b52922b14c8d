"""A training loop of your own: load a dataset, make a model by size, step, save.

python examples/custom_loop.py [DATASET] [key=value ...]    e.g. model.size=small train.steps=2000
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ganglion import pipeline, registry
from ganglion.core.contracts import Ranks
from ganglion.core.dataset import open_dataset
from ganglion.core.settings import combine, parse_override
from ganglion.train import checkpoint


def main(words: list[str]) -> Path:
    """Train a recursive controller by imitation; return the checkpoint's folder."""
    given = Path(words.pop(0)) if words and "=" not in words[0] else None
    layer = combine([parse_override(word) for word in words])
    cfg = registry.resolve("control", "guide", [{"model": {"kind": "trc", "size": "small"}}, layer])
    home = Path(tempfile.mkdtemp(prefix="ganglion-"))
    folder = given or pipeline.generate("control", cfg, home=home).folder

    # --- the loop, and all that belongs to it
    data = open_dataset(folder).split("train")
    learner = registry.make("control", cfg).learner(data, "cpu", cfg.seed, Ranks())
    total = cfg.train.total_steps(len(data["state"]))
    while learner.step < total:
        metrics = learner.update()  # one block of steps: forward, backward, AdamW
        print(f"step {learner.step:5d}/{total}  loss {metrics['loss']:.5f}")
    return checkpoint.save(home / "checkpoints", learner.step, learner.state_dict(), {})
    # --- saved: safetensors and JSON. checkpoint.load(folder).state goes into
    # learner.load_state_dict, and learner.policy().act(inputs) is the trained policy.


if __name__ == "__main__":
    print(f"Saved {main(sys.argv[1:])}")
