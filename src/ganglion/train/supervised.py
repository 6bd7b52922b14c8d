"""The learner of every task that has a differentiable loss: batches, a loss, AdamW.

One update is a block of steps with no host synchronisation inside. A non-finite loss or gradient
is skipped on the device; the flags are read at the end of the block, which is then replayed from
its start to name the step, the rows and the parameter.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Metrics, Signature
from ganglion.core.errors import TrainingError
from ganglion.train import optim
from ganglion.train.batches import Batch, Batches, to_device
from ganglion.train.policy import TorchPolicy
from ganglion.train.settings import OptimSettings, TrainSettings

# loss(module, batch, generator) -> scalar to minimise, named parts of it (scalars) to log
Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Supervised:
    """What a task hands over: the net, its loss, its batches, and its deployed form."""

    module: nn.Module
    loss: Loss
    batches: Batches
    signature: Signature
    deployed: Callable[[nn.Module], nn.Module] = lambda module: module


def initialised(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a net whose first weights follow from `seed` alone, leaving torch's streams as set."""
    torch.manual_seed(seeds.key(seed, "initialisation") >> 1)
    return build()


class SupervisedLearner:
    """Train `parts.module`; see the module's text for how a block works."""

    def __init__(
        self,
        parts: Supervised,
        train: TrainSettings,
        optimizer: OptimSettings,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._parts, self._cfg, self._optim, self._seed = parts, train, optimizer, seed
        self._device = torch.device(device)
        self._module = parts.module.to(self._device)
        self._ema = copy.deepcopy(self._module) if train.ema else None
        self._optimizer = optim.build(self._module, optimizer)
        self._loss = torch.compile(parts.loss) if train.compile else parts.loss
        self._draw = torch.Generator(self._device)
        self._total = train.total_steps(parts.batches.rows)
        self._plateau = optim.Plateau(optimizer)
        self._rate_scale, self._nonfinite, self._notes = 1.0, 0, list[dict[str, Any]]()
        self._step = 0
        self.data_seconds = 0.0  # host time spent on batches, for the diagnosis
        self._validation: tuple[Arrays, Batch] | None = None

    @property
    def step(self) -> int:
        """Return the number of optimizer steps taken, skipped ones included."""
        return self._step

    # ------------------------------------------------------------ one block

    def update(self) -> Metrics:
        """Take the steps up to the next boundary; TrainingError where they stay non-finite."""
        first = self._step
        last = self._cfg.next_boundary(first, self._parts.batches.rows)
        start = self._snapshot()
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        self._module.train()
        sums: dict[str, Tensor] = {}
        flags = []
        for step in range(first, last):
            self._seed_step(step)
            self._optimizer.zero_grad(set_to_none=True)
            finite: list[Tensor] = []
            for micro in range(self._cfg.accumulate):
                share = self._parts.batches.share(step, micro)
                if share == 0.0:  # the last step of an epoch may be too short for all parts
                    continue
                began = time.perf_counter()
                batch = self._parts.batches.batch(step, micro)
                self.data_seconds += time.perf_counter() - began
                with self._autocast():
                    loss, terms = self._loss(self._module, batch, self._draw)
                (loss * share).backward()
                finite.append(torch.isfinite(loss.detach()))
                for name, value in {"loss": loss, **terms}.items():
                    sums[name] = sums.get(name, 0.0) + value.detach() * share
            grads = [p.grad for p in parameters if p.grad is not None]
            norm = nn.utils.get_total_norm(grads, foreach=True)
            if self._optim.clip_norm:
                nn.utils.clip_grads_with_norm_(
                    parameters, self._optim.clip_norm, norm, foreach=True
                )
            sums["grad_norm"] = sums.get("grad_norm", 0.0) + norm
            bad = ~(torch.stack(finite).all() & torch.isfinite(norm))
            flags.append(bad)
            self._optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # fused: skips
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate(step)
            self._optimizer.step()
            self._average(step)
            self._step = step + 1
        bad_steps = torch.stack(flags).tolist()  # the one look at the device
        if any(bad_steps):
            return self._guard(start, first, first + bad_steps.index(True))
        count = last - first
        means = {name: float(value) / count for name, value in sums.items()}
        return {**means, "lr": self._rate(last - 1)}

    def _seed_step(self, step: int) -> None:
        """Count the streams: torch's default generators (dropout), and the loss's own."""
        key = seeds.key(self._seed, "step", step) >> 1
        # not torch.manual_seed: without a GPU it formats a stack trace at every call
        torch.default_generator.manual_seed(key)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(key)
        self._draw.manual_seed(key ^ 1)

    def _rate(self, step: int) -> float:
        scale = self._rate_scale * self._plateau.scale
        return optim.rate(self._optim, step, self._total, scale)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._device.type, dtype=torch.bfloat16, enabled=self._cfg.precision == "bf16"
        )

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """EMA; its decay grows as (1 + t) / (10 + t) so that early weights are forgotten."""
        if self._ema is None:
            return
        decay = min(self._cfg.ema, (1 + step) / (10 + step))
        ours: list[Tensor] = list(self._ema.parameters())
        theirs: list[Tensor] = list(self._module.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, other in zip(self._ema.buffers(), self._module.buffers(), strict=True):
            mine.copy_(other)

    # ------------------------------------------------------------ the non-finite guard

    def _snapshot(self) -> tuple[list[Tensor], bool]:
        return [t.detach().clone() for t in self._tensors()], bool(self._optimizer.state)

    @torch.no_grad()
    def _restore(self, start: tuple[list[Tensor], bool]) -> None:
        kept, had_state = start
        if not had_state:
            self._optimizer.state.clear()
        for tensor, old in zip(self._tensors(), kept, strict=True):
            tensor.copy_(old)

    def _tensors(self) -> list[Tensor]:
        modules = [self._module, *([self._ema] if self._ema is not None else [])]
        held = [t for m in modules for t in [*m.parameters(), *m.buffers()]]
        for parameter in self._module.parameters():
            held += [
                v for v in self._optimizer.state.get(parameter, {}).values()
                if isinstance(v, Tensor)
            ]  # fmt: skip
        return held

    def _guard(self, start: tuple[list[Tensor], bool], first: int, bad: int) -> Metrics:
        """Go back to just before step `bad`, name the cause, leave that step out."""
        self._restore(start)
        self._step = first
        metrics: Metrics = {}
        if bad > first:
            whole = self._cfg
            self._cfg = whole.model_copy(update={"block": 1})
            try:
                while self._step < bad:
                    metrics = self.update()
            finally:
                self._cfg = whole
        cause = self._cause(bad)
        self._nonfinite += 1
        clipped = (
            f"clipping at norm {self._optim.clip_norm:g} was active"
            if self._optim.clip_norm
            else "clipping was off"
        )
        what = f"Loss or gradient is not finite at step {bad}: {cause} ({clipped})."
        stop = self._cfg.on_nonfinite == "stop" or self._nonfinite > self._cfg.nonfinite_limit
        if stop:
            raise TrainingError(
                f"{what} Training stopped at the step before, after {self._nonfinite} such steps. "
                f"Try optim.lr={self._optim.lr / 2:g}, and check the data with `ganglion data "
                "check`."
            )
        self._rate_scale *= 0.5
        self._step = bad + 1
        self._notes.append(
            {"event": "nonfinite", "step": bad, "rate_scale": self._rate_scale, "message": what}
        )
        return {**metrics, "nonfinite": 1.0, "lr": self._rate(bad)}

    def _cause(self, step: int) -> str:
        """Name the parameter and the rows of the batch that are not finite at `step`."""
        parameters: set[str] = set()
        rows: list[int] = []
        checked = 0
        before = [b.clone() for b in self._module.buffers()]
        for micro in range(self._cfg.accumulate):
            if self._parts.batches.share(step, micro) == 0.0:
                continue
            batch = self._parts.batches.batch(step, micro)
            parameters |= self._nonfinite_parameters(step, batch)[1]
            size = len(next(iter(batch.values())))
            for row in range(min(size, 4096)):
                # twice: one row alone has no batch statistics
                one = {name: column[[row, row]] for name, column in batch.items()}
                if not self._nonfinite_parameters(step, one)[0]:
                    rows.append(checked + row)
            checked += size
        for buffer, old in zip(self._module.buffers(), before, strict=True):
            buffer.copy_(old)
        self._optimizer.zero_grad(set_to_none=True)
        where = f"gradient of {min(parameters)!r}" if parameters else "the loss"
        who = f"batch rows {rows[:8]}" if rows else f"no single row of the {checked}"
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return f"first in {where}, from {who}{more}"

    def _nonfinite_parameters(self, step: int, batch: Batch) -> tuple[bool, set[str]]:
        self._seed_step(step)
        self._optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss, _ = self._parts.loss(self._module, batch, self._draw)
        loss.backward()
        bad = {
            name
            for name, p in self._module.named_parameters()
            if p.grad is not None and not torch.isfinite(p.grad).all()
        }
        return bool(torch.isfinite(loss)) and not bad, bad

    def notes(self) -> list[Mapping[str, Any]]:
        """Return and forget what happened since the last call that a person should know."""
        found, self._notes = self._notes, []
        return list(found)

    # ------------------------------------------------------------ looking

    @torch.no_grad()
    def loss(self, data: Arrays) -> Metrics:
        """Mean loss over `data` in batches, with the deployed weights and no dropout."""
        if self._validation is None or self._validation[0] is not data:
            self._validation = (data, to_device(data, str(self._device)))
        columns = self._validation[1]
        module = self._deployable().eval()
        self._draw.manual_seed(seeds.key(self._seed, "validation") >> 1)
        count = len(next(iter(columns.values())))
        sums: dict[str, float] = {}
        for begin in range(0, count, 4096):
            batch = {name: column[begin : begin + 4096] for name, column in columns.items()}
            size = len(next(iter(batch.values())))
            with self._autocast():
                loss, terms = self._parts.loss(module, batch, self._draw)
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
        return {name: value / count for name, value in sums.items()}

    def observe(self, value: float) -> None:
        """Take the validation value (lower is better) for the schedule `plateau`."""
        if self._optim.schedule == "plateau":
            self._plateau.observe(value)

    def policy(self) -> TorchPolicy:
        """Return the deployed form, with averaged weights where there are any."""
        deployed = self._parts.deployed(self._deployable())
        return TorchPolicy(deployed, self._parts.signature, self._device)

    def _deployable(self) -> nn.Module:
        return self._module if self._ema is None else self._ema

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return weights, buffers, averages, moments and counters."""
        return {
            "module": dict(self._module.state_dict()),
            "ema": None if self._ema is None else dict(self._ema.state_dict()),
            "optimizer": self._optimizer.state_dict()["state"],
            "step": self._step,
            "rate_scale": self._rate_scale,
            "nonfinite": self._nonfinite,
            "plateau": [self._plateau.best, self._plateau.stalled, self._plateau.scale],
        }

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take the weights of another learner's state (its averages where it has any), no more.

        Raises RuntimeError where names or shapes differ.
        """
        weights = state["ema"] or state["module"]
        self._module.load_state_dict(weights)
        if self._ema is not None:
            self._ema.load_state_dict(weights)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._module.load_state_dict(state["module"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"] or state["module"])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self._step = state["step"]
        self._rate_scale, self._nonfinite = state["rate_scale"], state["nonfinite"]
        self._plateau.best, self._plateau.stalled, self._plateau.scale = state["plateau"]
