"""Trains a recursive policy on slots with carried latents, under a mask that follows the wave.

A step takes the slots of one size, renews those that have lived, adds noise to half of the carried
latents, runs a few cycles with gradient (after `blind` ones without), asks for what a wave of that
age can know at some of them, and leaves the latents for the next step on those slots.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Metrics, Signature
from ganglion.core.errors import TrainingError
from ganglion.nets.recurrence import Latents
from ganglion.tasks.gridnav import records, references
from ganglion.tasks.gridnav.config import PoolSettings
from ganglion.tasks.gridnav.losses import Labels, known_right, wave_front
from ganglion.tasks.gridnav.model import Reasoner
from ganglion.tasks.gridnav.pool import Pool, Schedule
from ganglion.tasks.gridnav.training_maps import Source, labelled
from ganglion.train import optim
from ganglion.train.policy import TorchPolicy
from ganglion.train.settings import OptimSettings, TrainSettings

_MAPS_AT_ONCE = 64  # of the validation


@dataclass(frozen=True)
class Recipe:
    """What the learner is told besides the net: where maps come from and how it goes about it.

    speed: cells that a wave goes in a cycle; blind: cycles without gradient before each update;
    steps: cycles after which validation judges.
    """

    source: Source
    pool: PoolSettings
    signature: Signature
    speed: int
    blind: int
    steps: int


class SlotLearner:
    """A `Learner` of a `Reasoner`; see the module's text."""

    def __init__(
        self, module: Reasoner, recipe: Recipe, train: TrainSettings, optimizer: OptimSettings,
        seed: int, device: str,
    ) -> None:  # fmt: skip
        self._recipe, self._train, self._optim, self._seed = recipe, train, optimizer, seed
        self._device = torch.device(device)
        self._module = module.to(self._device)
        self._ema = copy.deepcopy(self._module)
        self._optimizer = optim.build(self._module, optimizer)
        small, large = recipe.pool.sides
        self._pools = [self._pool(small, 2 * train.batch_size), self._pool(large, train.batch_size)]
        self._total = train.total_steps(None)
        self._step, self._skipped, self._rate_scale = 0, 0, 1.0
        self._notes: list[Mapping[str, Any]] = []
        self._validation: tuple[Arrays, Any] | None = None
        self.data_seconds = 0.0  # host time spent on maps, for the diagnosis

    def _pool(self, side: int, count: int) -> Pool:
        latents = self._module.core.initial(torch.zeros(count, 2, side, side, device=self._device))
        settings = self._recipe.pool
        schedule = Schedule(self._recipe.speed, settings.stay, settings.targets == "first")
        return Pool(side, count, self._recipe.source, schedule, latents, self._seed)

    @property
    def step(self) -> int:
        """Return the number of optimizer steps taken, skipped ones included."""
        return self._step

    # ------------------------------------------------------------ steps

    def update(self) -> Metrics:
        """Take the steps up to the next boundary; TrainingError where they stay non-finite."""
        first, last = self._step, self._train.next_boundary(self._step, None)
        parameters = list(self._module.parameters())
        sums: dict[str, Tensor] = {}
        bad = torch.zeros((), device=self._device)
        self._module.train()
        for step in range(first, last):
            torch.default_generator.manual_seed(seeds.key(self._seed, "step", step) >> 1)
            pool = self._chosen(step)
            began = time.perf_counter()
            pool.renew()
            self.data_seconds += time.perf_counter() - began
            with self._autocast():
                loss, terms = self._unroll(pool, seeds.rng(self._seed, "asked", step))
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grads = [p.grad for p in parameters if p.grad is not None]
            norm = nn.utils.get_total_norm(grads, foreach=True)
            if self._optim.clip_norm:
                nn.utils.clip_grads_with_norm_(
                    parameters, self._optim.clip_norm, norm, foreach=True
                )
            skip = ~(torch.isfinite(norm) & torch.isfinite(loss.detach()))
            bad = bad + skip
            self._optimizer.found_inf = skip.float()  # type: ignore[attr-defined]  # fused: skips
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate(step)
            self._optimizer.step()
            self._average(step)
            for name, value in {"loss": loss, "grad_norm": norm, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            self._step = step + 1
        self._guard(int(bad), first)
        means = {name: float(value) / (last - first) for name, value in sums.items()}
        return {**means, "lr": self._rate(last - 1)}

    def _chosen(self, step: int) -> Pool:
        """The smaller maps first, the larger last, by turns while both run."""
        share, settings = step / self._total, self._recipe.pool
        small, large = self._pools
        if share < settings.large_from:
            return small
        return large if share >= settings.small_until or step % 2 else small

    def _unroll(self, pool: Pool, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of some cycles on every slot; the latents move on by all of them."""
        settings, module = self._recipe.pool, self._module
        free, goal = pool.planes()
        entered = module.enter(_last(module.observe(free, goal)))
        latents = self._noisy(pool.latents)
        with torch.no_grad():
            for _ in range(self._recipe.blind):
                latents = module.core(latents, entered)
        latents = tuple(z.detach() for z in latents)
        asked = {settings.cycles - 1}
        others = min(settings.supervised, settings.cycles) - 1
        asked |= set(rng.permutation(settings.cycles - 1)[:others].tolist())
        labels = Labels(pool.parts, pool.distance, pool.free)
        losses = []
        for cycle in range(settings.cycles):
            latents = module.core(latents, entered)
            if cycle in asked:
                age = pool.time + self._recipe.blind + cycle + 1
                reach = age * self._recipe.speed
                logits = module.logits(latents)
                losses.append(wave_front(logits, labels, reach, settings.lag, settings.near))
        pool.latents = tuple(z.detach().float() for z in latents)
        pool.time += self._recipe.blind + settings.cycles
        right = known_right(logits, labels, reach, settings.lag)
        return torch.stack(losses).mean(), {"known_right": right}

    def _noisy(self, latents: Latents) -> Latents:
        size = self._recipe.pool.noise
        if not size:
            return latents
        count, device = len(latents[0]), self._device
        some = (torch.rand((count, 1, 1, 1), device=device) < 0.5) * size
        return tuple(z + some * torch.randn(z.shape, device=device) for z in map(_last, latents))

    def _rate(self, step: int) -> float:
        """Warm-up, a share at the peak, then the settings' own schedule over the rest."""
        held = max(self._optim.warmup_steps, round(self._recipe.pool.hold * self._total))
        if step < held:
            warm = min(1.0, (step + 1) / max(1, self._optim.warmup_steps))
            return self._rate_scale * self._optim.lr * warm
        rest = self._optim.model_copy(update={"warmup_steps": 0})
        return optim.rate(rest, step - held, max(1, self._total - held), self._rate_scale)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._device.type, dtype=torch.bfloat16, enabled=self._train.precision == "bf16"
        )

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self._train.ema, (1 + step) / (10 + step))
        ours: list[Tensor] = list(self._ema.parameters())
        theirs: list[Tensor] = list(self._module.parameters())
        torch._foreach_lerp_(ours, theirs, 1.0 - decay)

    def _guard(self, bad: int, first: int) -> None:
        """Say which block had steps left out, halve the rate, and begin every map anew."""
        if not bad:
            return
        self._skipped += bad
        text = f"{bad} steps from {first} on had a gradient that is not finite and were left out."
        if self._skipped > self._train.nonfinite_limit or self._train.on_nonfinite == "stop":
            raise TrainingError(f"{text} Try optim.lr={self._optim.lr / 2:g}.")
        self._rate_scale *= 0.5
        for pool in self._pools:
            pool.forget()
        self._notes.append(
            {"event": "nonfinite", "step": first, "rate_scale": self._rate_scale, "message": text}
        )

    # ------------------------------------------------------------ looking

    @torch.no_grad()
    def loss(self, data: Arrays) -> Metrics:
        """Cross-entropy of the averaged weights over all cells of `data`, after all cycles."""
        if self._validation is None or self._validation[0] is not data:
            found = records.read(data)
            single = self._recipe.pool.targets == "first"
            held = (found.free, found.goal, *labelled(found.free, found.goal, single))
            self._validation = (data, held)
        free, goal, distance, parts = self._validation[1]
        total = torch.zeros((), device=self._device)
        for begin in range(0, len(free), _MAPS_AT_ONCE):
            part = slice(begin, begin + _MAPS_AT_ONCE)
            planes = references.inputs(free[part], goal[part])
            logits = self._answer(*(torch.from_numpy(planes[k]) for k in ("free", "goal")))
            labels = Labels(*(
                torch.from_numpy(a[part]).to(self._device) for a in (parts, distance, free)
            ))  # fmt: skip
            reach = torch.full((len(logits),), 1 << 30, device=self._device)
            total += wave_front(logits, labels, reach, 0) * len(logits)
        return {"loss": float(total) / len(free)}

    def _answer(self, free: Tensor, goal: Tensor) -> Tensor:
        module = self._ema
        x = _last(module.observe(free.to(self._device), goal.to(self._device)))
        entered, latents = module.enter(x), module.core.initial(x)
        for _ in range(self._recipe.steps):
            latents = module.core(latents, entered)
        return module.logits(latents)

    def observe(self, value: float) -> None:
        """Nothing here listens to the validation value."""

    def notes(self) -> list[Mapping[str, Any]]:
        """Return and forget what happened since the last call that a person should know."""
        found, self._notes = self._notes, []
        return found

    def policy(self) -> TorchPolicy:
        """Return the averaged policy."""
        return TorchPolicy(self._ema, self._recipe.signature, self._device)

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averages, moments, slots and counters."""
        return {
            "module": dict(self._module.state_dict()),
            "ema": dict(self._ema.state_dict()),
            "optimizer": self._optimizer.state_dict()["state"],
            "pools": [pool.state_dict() for pool in self._pools],
            "step": self._step, "skipped": self._skipped, "rate_scale": self._rate_scale,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._module.load_state_dict(state["module"])
        self._ema.load_state_dict(state["ema"])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        for pool, held in zip(self._pools, state["pools"], strict=True):
            pool.load_state_dict(held)
        self._step, self._skipped = state["step"], state["skipped"]
        self._rate_scale = state["rate_scale"]

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take the averaged weights of another learner's state, no more."""
        for module in (self._module, self._ema):
            module.load_state_dict(state.get("ema") or state["module"])


def _last(z: Tensor) -> Tensor:
    """Return planes with the channels last in memory, which convolutions on a CPU like."""
    return z.contiguous(memory_format=torch.channels_last)
