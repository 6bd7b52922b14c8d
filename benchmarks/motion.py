"""How fast motion learns, everything included, beside rsl_rl and a bare environment loop.

python benchmarks/motion.py [--rounds 5] [--latency]

All three drive the same environment (128 robots of the preset `quick`) on one thread, turn
by turn, and are timed in CPU seconds: ours learns, rsl_rl learns with the same nets, rollouts,
passes and minibatches, the third acts at random through NumPy arrays as a Gymnasium loop does.
rsl_rl (BSD-3-Clause) is an extra for this alone: pip install -e '.[bench]'
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import header, table

from ganglion import registry
from ganglion.core import seeds
from ganglion.core.contracts import Ranks
from ganglion.tasks.motion.learning import environment

WARM = 2  # rollouts before the clock runs
TURN = 4  # rollouts of a turn


def ours(cfg: Any) -> Any:
    learner = registry.make("motion", cfg).learner(None, "cpu", 0, Ranks())
    return learner.update


def theirs(cfg: Any) -> Any:
    """Return one iteration of rsl_rl on our environment."""
    from rsl_rl.runners import OnPolicyRunner

    with contextlib.redirect_stdout(io.StringIO()):
        runner = OnPolicyRunner(Adapter(cfg), _theirs(cfg), tempfile.mkdtemp(), "cpu")

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            runner.learn(1)

    return step


def _theirs(cfg: Any) -> dict[str, Any]:
    net = {"class_name": "MLPModel", "hidden_dims": list(cfg.model.hidden), "activation": "elu",
           "obs_normalization": True}  # fmt: skip
    spread = {"class_name": "GaussianDistribution", "init_std": cfg.model.initial_std}
    loss = cfg.loss
    return {
        "num_steps_per_env": loss.horizon, "save_interval": 10**9, "logger": "tensorboard",
        "run_name": "", "experiment_name": "", "check_for_nan": False,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**net, "distribution_cfg": spread}, "critic": net,
        "algorithm": {
            "class_name": "PPO", "num_learning_epochs": loss.epochs,
            "num_mini_batches": loss.minibatches, "clip_param": loss.clip, "gamma": loss.gamma,
            "lam": loss.lam, "value_loss_coef": 1.0, "entropy_coef": 0.0,
            "learning_rate": cfg.optim.lr, "max_grad_norm": 1.0, "schedule": "adaptive",
            "desired_kl": loss.kl, "use_clipped_value_loss": False,
        },
    }  # fmt: skip


class Adapter:
    """Our environment with rsl_rl's interface."""

    def __init__(self, cfg: Any) -> None:
        world = registry.make("motion", cfg).world  # type: ignore[attr-defined]
        self._own: Any = environment(world, cfg, 0, "cpu")
        self.num_envs, self.num_actions = self._own.count, self._own.actions
        self.device, self.cfg = "cpu", {}
        self.max_episode_length = 500
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self._steps = 0

    def get_observations(self) -> Any:
        return self._wrapped(self._own.observe()[0])

    def step(self, actions: torch.Tensor) -> tuple[Any, ...]:
        self._steps += 1
        found = self._own.step(actions, seeds.rng(0, "bench", self._steps))
        done = (found.terminated | found.truncated).long()
        extras = {"time_outs": found.truncated}
        return self._wrapped(found.observation), found.reward, done, extras

    def _wrapped(self, observation: torch.Tensor) -> Any:
        from tensordict import TensorDict

        return TensorDict({"policy": observation.clone()}, batch_size=[self.num_envs])


def bare(cfg: Any) -> Any:
    """Return a rollout's worth of random acting, without learning."""
    world = registry.make("motion", cfg).world  # type: ignore[attr-defined]
    own: Any = environment(world, cfg, 0, "cpu")
    rng = np.random.default_rng(0)

    def step() -> None:
        for _ in range(cfg.loss.horizon):
            action = 0.4 * rng.standard_normal((own.count, own.actions))
            found = own.step(torch.as_tensor(action, dtype=torch.float32), rng)
            np.asarray(found.observation), np.asarray(found.reward)

    return step


def decisions(rounds: int) -> int:
    """Print the latency of the exported policy beside a bare perceptron of the same widths."""
    from ganglion.export.latency import latency
    from ganglion.export.onnx_export import Checks, export
    from ganglion.export.onnx_policy import OnnxPolicy
    from ganglion.rl.networks import perceptron

    learner = registry.make("motion", registry.resolve("motion", "quick")).learner(
        None, "cpu", 0, Ranks()
    )
    policy: Any = learner.policy()
    size = policy.signature.inputs["observation"].shape[0]
    bare_net = perceptron((size, 128, 128, 10), 1.0)
    folder = Path(tempfile.mkdtemp())
    files = {}
    for name, module in (("policy", policy.module), ("bare net", bare_net)):
        path = folder / f"{name}.onnx"
        export(module, policy.signature, path, {}, checks=Checks(rows=0))
        files[name] = OnnxPolicy(path)
    found: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, held in files.items():
            found[name].append(latency(held).p50_us)
    print(header("motion: latency of one decision, batch 1, one thread"))
    lines = [[n, f"{statistics.median(v):.1f}", f"{min(v):.1f}"] for n, v in found.items()]
    print(table(["file", "p50 (us)", "lowest"], lines))
    pairs = [a / b for a, b in zip(found["policy"], found["bare net"], strict=True)]
    print(f"policy / bare net: {statistics.median(pairs):.2f}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", action="store_true", help="of one decision, instead")
    asked = parser.parse_args()
    rounds = asked.rounds
    torch.set_num_threads(1)
    if asked.latency:
        return decisions(rounds)
    cfg: Any = registry.resolve("motion", "quick", [{"train": {"steps": 100_000}}])
    loops = {"ours": ours(cfg), "Gymnasium-style, no learning": bare(cfg)}
    try:
        loops["rsl_rl"] = theirs(cfg)
    except ImportError as error:
        print(f"rsl_rl is left out: {error}")
    for loop in loops.values():
        for _ in range(WARM):
            loop()
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            began = time.process_time()
            for _ in range(TURN):
                loop()
            spent = time.process_time() - began
            rates[name].append(TURN * cfg.train.batch_size / spent)
    print(header("motion: environment steps per CPU-second"))
    lines = [
        [name, f"{statistics.median(found):,.0f}", f"{min(found):,.0f} to {max(found):,.0f}"]
        for name, found in rates.items()
    ]
    print(table(["loop", "steps/CPU-s", "range"], lines))
    if "rsl_rl" in rates:
        pairs = [a / b for a, b in zip(rates["ours"], rates["rsl_rl"], strict=True)]
        print(f"ours / rsl_rl: {statistics.median(pairs):.2f} (median of {rounds} rounds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
