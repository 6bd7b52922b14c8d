"""Proximal policy optimisation with an adaptive rate; a `Learner` for any vectorised environment.

One step: a rollout, advantages, and several passes over it in minibatches. Observations are
normalised by moments that are frozen within a step. The rate follows the divergence that the last
pass ended with: adapted after every minibatch, as is common, it falls to its floor within each step
and hardly anything is learned in its second half. Sources: Schulman et al., arXiv 1707.06347,
equation 7 (clipped ratio); Schulman et al., arXiv 1707.06347, section 4 (adaptive divergence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Metrics, Signature
from ganglion.core.errors import TrainingError
from ganglion.rl.advantages import advantages
from ganglion.rl.environment import VectorEnvironment
from ganglion.rl.networks import Critic, GaussianActor, divergence, log_probability
from ganglion.rl.prior import MotionPrior
from ganglion.rl.rollout import Rollout, collect
from ganglion.rl.settings import PpoSettings
from ganglion.train import optim
from ganglion.train.policy import TorchPolicy
from ganglion.train.settings import OptimSettings, TrainSettings


@dataclass(frozen=True)
class Parts:
    """What a task hands over: its environment, the nets, and the policy's deployed form."""

    environment: Callable[[], VectorEnvironment]
    actor: GaussianActor
    critic: Critic
    signature: Signature
    deployed: Callable[[GaussianActor], nn.Module] = lambda actor: actor
    prior: MotionPrior | None = None


class PpoLearner:
    """Train `parts.actor`; see the module's text. The environment is made at the first update."""

    def __init__(
        self,
        parts: Parts,
        settings: tuple[PpoSettings, TrainSettings, OptimSettings],
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._parts, self._seed, self._device = parts, seed, torch.device(device)
        self._ppo, self._train, self._optim = settings
        self._both = nn.ModuleDict({"actor": parts.actor, "critic": parts.critic}).to(self._device)
        self._optimizer = optim.build(self._both, self._optim)
        self._prior = None if parts.prior is None else parts.prior.to(self._device)
        self._made: VectorEnvironment | None = None
        self._waiting: dict[str, Any] | None = None  # the environment's state, until it is made
        self._lr = min(max(self._optim.lr, self._bounds[0]), self._bounds[1])
        self._step, self._skipped = 0, 0
        self._notes: list[Mapping[str, Any]] = []

    @property
    def step(self) -> int:
        """Return the number of rollouts learned from."""
        return self._step

    @property
    def _bounds(self) -> tuple[float, float]:
        """Lowest and highest rate; a starting rate outside of them widens them."""
        return min(self._ppo.least_lr, self._optim.lr), max(self._ppo.most_lr, self._optim.lr)

    @property
    def environment(self) -> VectorEnvironment:
        """The environments, made when they are first needed."""
        if self._made is None:
            self._made = self._parts.environment()
            if self._waiting is not None:
                self._made.load_state_dict(self._waiting)
                self._waiting = None
        return self._made

    # ------------------------------------------------------------ one step

    def update(self) -> Metrics:
        """Collect one rollout and learn from it; TrainingError where nothing finite is learned."""
        draw = torch.Generator().manual_seed(seeds.key(self._seed, "step", self._step) >> 1)
        if not self._ppo.kl:
            self._lr = optim.rate(self._optim, self._step, self._train.total_steps(None))
        rollout, style = self._collect(draw)
        rows = self._rows(rollout)
        sums: dict[str, Tensor] = {}
        parameters = list(self._both.parameters())
        done = bad = 0
        moved: list[float] = []  # how far the policy has, in each part of the last pass
        for part in self._minibatches(rows, draw):
            loss, terms, mean = self._loss(part)
            if done >= self._last_pass:
                moved.append(self._divergence(part, mean))
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grads = [p.grad for p in parameters if p.grad is not None]
            norm = torch.cat([g.view(-1) for g in grads]).norm()
            if self._optim.clip_norm:
                factor = (self._optim.clip_norm / (norm + 1e-6)).clamp(max=1.0)
                for grad in grads:
                    grad.mul_(factor)
            done += 1
            if not torch.isfinite(norm):
                bad += 1
                continue
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr
            self._optimizer.step()
            for name, value in {"loss": loss, "grad_norm": norm, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
        self._guard(bad, done)
        self.take_in(rollout)
        self._step += 1
        used, kl = self._lr, sum(moved) / len(moved)
        self._adapt(kl)
        means = {name: float(value) / max(1, done - bad) for name, value in sums.items()}
        return {**means, **style, **{k: float(v) for k, v in rollout.terms.items()},
                "std": float(self._parts.actor.log_std.detach().exp().mean()),
                "kl": kl, "lr": used}  # fmt: skip

    def _collect(self, draw: torch.Generator) -> tuple[Rollout, dict[str, float]]:
        """Return a rollout, its rewards mixed with the style's where there is a prior."""
        environment = self.environment
        shape = (self._ppo.horizon, environment.count, environment.actions)
        noise = torch.randn(shape, generator=draw).to(self._device)
        rng = seeds.rng(self._seed, "environment", self._step)
        if self._step == 0:  # the first moments come from the first observations
            observation, privileged = environment.observe()
            self._parts.actor.normaliser.update(observation)
            self._parts.critic.normaliser.update(privileged)
        networks = (self._parts.actor, self._parts.critic)
        rollout = collect(environment, networks, self._ppo.horizon, noise, rng)
        if self._prior is None or rollout.style is None:
            return rollout, {}
        found = self._prior.learn(rollout.style, draw)
        style = self._prior.reward(rollout.style)
        mixed = self._prior.mixed(rollout.rewards, style)
        terms = {**found, "style_reward": float(style.mean())}
        return Rollout(**{**vars(rollout), "rewards": mixed}), terms

    def _rows(self, rollout: Rollout) -> dict[str, Tensor]:
        """Return the rollout flattened (T N, ...), with normalised advantages and returns."""
        gains = advantages(
            rollout.rewards, rollout.values, rollout.following, rollout.ended, self._ppo.gamma,
            self._ppo.lam,
        )  # fmt: skip
        returns = gains + rollout.values
        gains = (gains - gains.mean()) / (gains.std() + 1e-8)
        named = {
            "seen": rollout.seen, "judged": rollout.judged, "mean": rollout.mean,
            "action": rollout.action, "log_prob": rollout.log_prob, "gain": gains,
            "returns": returns,
        }  # fmt: skip
        rows = {name: value.flatten(0, 1) for name, value in named.items()}
        rows["log_std"] = self._parts.actor.log_std.detach().clone()
        return rows

    def _minibatches(self, rows: dict[str, Tensor], draw: torch.Generator) -> Any:
        count = len(rows["gain"])
        parts = min(self._ppo.minibatches, count)
        for _ in range(self._ppo.epochs):
            order = torch.randperm(count, generator=draw).to(self._device)
            for chosen in order.chunk(parts):
                picked = {k: v.index_select(0, chosen) for k, v in rows.items() if k != "log_std"}
                yield {**picked, "log_std": rows["log_std"]}

    @property
    def _last_pass(self) -> int:
        """The first minibatch of the last pass."""
        parts = min(self._ppo.minibatches, self._ppo.horizon * self.environment.count)
        return (self._ppo.epochs - 1) * parts

    @torch.no_grad()
    def _divergence(self, part: dict[str, Tensor], mean: Tensor) -> float:
        """Return the mean divergence of the policy that acts `mean` now from the one that acted."""
        spread = self._parts.actor.log_std
        return float(divergence(part["mean"], part["log_std"], mean, spread).mean())

    def _loss(self, part: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the loss, its parts, and the mean actions."""
        actor, critic, cfg = self._parts.actor, self._parts.critic, self._ppo
        mean, log_std = actor.layers(part["seen"]), actor.log_std
        ratio = torch.exp(log_probability(part["action"], mean, log_std) - part["log_prob"])
        bounded = ratio.clamp(1.0 - cfg.clip, 1.0 + cfg.clip)
        surrogate = -torch.minimum(ratio * part["gain"], bounded * part["gain"]).mean()
        values = critic.layers(part["judged"]).squeeze(-1)
        value_loss = (values - part["returns"]).square().mean()
        entropy = log_std.sum()  # up to a constant
        loss = surrogate + cfg.value_weight * value_loss - cfg.entropy * entropy
        return loss, {"surrogate": surrogate, "value_loss": value_loss}, mean

    def _adapt(self, kl: float) -> None:
        """Lower the rate where the policy moved too far, raise it where it hardly moved."""
        if not self._ppo.kl:
            return
        if kl > 2.0 * self._ppo.kl:
            self._lr = max(self._bounds[0], self._lr / 1.5)
        elif 0.0 < kl < 0.5 * self._ppo.kl:
            self._lr = min(self._bounds[1], self._lr * 1.5)

    def take_in(self, rollout: Rollout) -> None:
        """Let the normalisers see the rollout, for the next one."""
        self._parts.actor.normaliser.update(rollout.raw_seen)
        self._parts.critic.normaliser.update(rollout.raw_judged)

    def _guard(self, bad: int, done: int) -> None:
        if not bad:
            return
        self._skipped += bad
        text = (
            f"{bad} of {done} minibatches of step {self._step} had a gradient that is not finite "
            "and were left out."
        )
        if self._skipped > self._train.nonfinite_limit or self._train.on_nonfinite == "stop":
            raise TrainingError(f"{text} Try optim.lr={self._optim.lr / 2:g}.")
        self._notes.append({"event": "nonfinite", "step": self._step, "message": text})

    # ------------------------------------------------------------ looking

    def loss(self, data: Arrays) -> Metrics:
        """There is no loss to validate: {}."""
        return {}

    def observe(self, value: float) -> None:
        """Nothing here listens to the validation value."""

    def notes(self) -> list[Mapping[str, Any]]:
        """Return and forget what happened since the last call that a person should know."""
        found, self._notes = self._notes, []
        return found

    def policy(self) -> TorchPolicy:
        """Return the deterministic policy: the mean action, in its deployed form."""
        deployed = self._parts.deployed(self._parts.actor)
        return TorchPolicy(deployed, self._parts.signature, self._device)

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return weights, normalisers, moments, environments and counters."""
        made = self._waiting if self._made is None else self._made.state_dict()
        return {
            "module": dict(self._both.state_dict()),
            "optimizer": self._optimizer.state_dict()["state"],
            "prior": None if self._prior is None else self._prior.everything(),
            "environment": made,
            "lr": self._lr,
            "step": self._step,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._both.load_state_dict(state["module"])
        groups = self._optimizer.state_dict()["param_groups"]
        held = {"state": state["optimizer"], "param_groups": groups}
        self._optimizer.load_state_dict(held)
        if self._prior is not None:
            self._prior.set_everything(state["prior"])
        self._waiting, self._lr = state["environment"], state["lr"]
        if self._made is not None and self._waiting is not None:
            self._made.load_state_dict(self._waiting)
            self._waiting = None
        self._step, self._skipped = state["step"], state["skipped"]

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take the nets and normalisers of another learner's state, no more."""
        self._both.load_state_dict(state["module"])
