"""Short-horizon actor-critic: a policy for tasks in which whole horizons have no useful gradient.

Some hundred trajectories live on from step to step, each at its own time. A step moves all of them
by a window of W time steps; the cost of the window, closed by a target critic V(x, time left), is
differentiated through the dynamics. The critic learns TD(lambda) targets of the same windows. The
last share of the steps refines the policy on whole horizons, whose gradient is exact once the
policy arrives everywhere. Sources: Xu et al., Accelerated Policy Learning with Parallel
Differentiable Simulation, ICLR 2022 (SHAC), section 3.2; Sutton and Barto, Reinforcement Learning,
2018, section 12.1 (lambda-return). Shapes: E trajectories, W steps, n states, m controls.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.core import seeds
from ganglion.core.contracts import Arrays, Metrics, Signature
from ganglion.core.errors import TrainingError
from ganglion.tasks.control.closed_loop import (
    Path,
    clipped,
    closed_loop_cost,
    jacobian,
    pulls,
    run,
)
from ganglion.tasks.control.critics import Critic, TableCritic, hull
from ganglion.tasks.control.feedback import Feedback
from ganglion.tasks.control.losses import steps_left
from ganglion.tasks.control.objectives import ActorCriticLoss
from ganglion.tasks.control.plant import Plant
from ganglion.tasks.control.trajectories import Living, Trajectories
from ganglion.train import optim
from ganglion.train.batches import to_device
from ganglion.train.policy import TorchPolicy
from ganglion.train.settings import OptimSettings, TrainSettings

_MINED = 1_000  # fresh starts that a search for hard ones looks at
_HELD = 4  # controls that a trial holds


@dataclass(frozen=True)
class Problem:
    """What the learner is about: the plant, the factor on its starts, the policy's signature."""

    plant: Plant
    scale: float
    signature: Signature


class ActorCriticLearner:
    """Train a feedback policy as the module's text says; a `Learner`."""

    def __init__(
        self, problem: Problem, actor: Feedback, critic: Critic,
        settings: tuple[ActorCriticLoss, TrainSettings, OptimSettings], seed: int, device: str,
    ) -> None:  # fmt: skip
        self._problem, self._plant, self._seed = problem, problem.plant, seed
        self._loss, self._train, self._optim = settings
        self._device = torch.device(device)
        self._actor, self._critic = actor.to(self._device), critic.to(self._device)
        self._target, self._ema = copy.deepcopy(self._critic), copy.deepcopy(self._actor)
        self._closing: nn.Module = self._target
        if self._loss.critic == "grid":
            self._closing = TableCritic(self._plant, self._loss.settling)
        self._actor_step = optim.build(self._actor, self._optim)
        self._critic_step = optim.build(self._critic, self._optim)
        self._living = Living(
            self._plant, problem.scale, self._loss, seeds.rng(seed, "trajectories"), self._device
        )
        self._total = self._train.total_steps(None)
        self._step, self._skipped = 0, 0
        self._notes: list[Mapping[str, Any]] = []
        self._validation: tuple[Arrays, dict[str, Tensor]] | None = None

    @property
    def step(self) -> int:
        """Return the number of steps taken: each moves actor and critic once."""
        return self._step

    # ------------------------------------------------------------ steps

    def update(self) -> Metrics:
        """Take the steps up to the next boundary; TrainingError where they stay non-finite."""
        first, last = self._step, self._train.next_boundary(self._step, None)
        sums: dict[str, Tensor] = {}
        bad = torch.zeros((), device=self._device)
        for step in range(first, last):
            torch.default_generator.manual_seed(seeds.key(self._seed, "step", step) >> 1)
            rng = seeds.rng(self._seed, "fresh", step)
            if self._loss.mines and step % self._loss.mine_every == self._loss.mine_every - 1:
                self._mine(seeds.rng(self._seed, "mine", step))
            refining = step >= self._total * (1.0 - self._loss.refine_share)
            loss, terms = self._refine(rng) if refining else self._explore(rng)
            norm = self._move(self._actor, self._actor_step, loss, self._rate(step))
            bad = bad + (~torch.isfinite(norm)).float()
            self._average(self._ema, self._actor, min(self._train.ema, (1 + step) / (10 + step)))
            for name, value in {"loss": loss, "grad_norm": norm, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            self._step = step + 1
        self._guard(int(bad), first)
        means = {name: float(value) / (last - first) for name, value in sums.items()}
        return {**means, "lr": self._rate(last - 1)}

    def _rate(self, step: int) -> float:
        """One schedule for each phase: the refinement begins anew at its own peak."""
        explored = round(self._total * (1.0 - self._loss.refine_share))
        if step < explored:
            return optim.rate(self._optim, step, explored)
        left = self._optim.model_copy(update={"warmup_steps": 0})
        return self._loss.refine_lr * optim.rate(left, step - explored, self._total - explored)

    def _move(
        self, module: nn.Module, optimizer: torch.optim.AdamW, loss: Tensor, rate: float
    ) -> Tensor:
        """Take one step; a gradient that is not finite takes none (on the device)."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = list(module.parameters())
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(grads, foreach=True)
        if self._optim.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self._optim.clip_norm, norm, foreach=True)
        optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        return norm

    @torch.no_grad()
    def _average(self, mean: nn.Module, module: nn.Module, decay: float) -> None:
        ours: list[Tensor] = list(mean.parameters())
        theirs: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(ours, theirs, 1.0 - decay)

    def _guard(self, bad: int, first: int) -> None:
        if not bad:
            return
        self._skipped += bad
        text = f"{bad} steps from {first} on had a gradient that is not finite and were left out."
        if self._skipped > self._train.nonfinite_limit or self._train.on_nonfinite == "stop":
            raise TrainingError(f"{text} Try optim.lr={self._optim.lr / 2:g}.")
        self._notes.append({"event": "nonfinite", "step": first, "message": text})

    def _refine(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of whole horizons, from fresh starts and some of the hardest known ones."""
        count = self._train.batch_size
        start, target = self._living.draw(rng, count)
        steps = torch.full((count, 1), self._plant.num_steps, device=self._device)
        inputs = start, target, steps
        loss = closed_loop_cost(self._actor, self._plant, inputs, self._loss.case_clip)
        return loss, {"cost": loss.detach()}

    def _explore(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a window of every trajectory; trains the critic and moves the trajectories on."""
        live = self._living.now
        self._living.restart(rng)
        path, left = self._window()
        plant, goal = self._plant, live.target.unsqueeze(1)
        x = path.states[:, :-1].flatten(0, 1).requires_grad_()
        goals = goal.expand(-1, self._loss.window, -1).flatten(0, 1)
        if self._loss.critic == "grid":
            return self._choose(path, left, x.detach(), goals)
        u = self._actor.control(x, goals, path.left.flatten(0, 1))

        def objective(states: Tensor, controls: Tensor) -> Tensor:
            e = states - goal
            stage = plant.stage_cost(e[:, :-1], controls) * path.acts.squeeze(-1)
            total: Tensor = stage.sum() + self._closing(e[:, -1], left[:, -1]).sum()
            return total

        pull = clipped(pulls(plant, path, objective, jacobian(u, x)), self._loss.case_clip)
        if self._loss.leak:
            inputs = x.detach(), goals, path.left.flatten(0, 1)
            u = self._actor.control(*inputs, self._loss.leak)
        push = (pull.flatten(0, 1) * u).sum() / len(goal)
        terms = {"critic_loss": self._learn_values(path, left)}
        if self._loss.trials:
            regret = self._try(rng)
            push, terms["regret"] = push + regret, regret.detach()
        live.state, live.left = path.states[:, -1].detach(), left[:, -1]
        cost = plant.stage_cost(path.states[:, :-1] - goal, path.controls).mean().detach()
        return push, {"stage_cost": cost, **terms}

    def _choose(
        self, path: Path, left: Tensor, x: Tensor, goals: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each control on the way by itself, closed by the optimal cost to go."""
        live, plant = self._living.now, self._plant
        assert isinstance(self._closing, TableCritic)
        costs = self._closing.controls_cost(x - goals, left[:, :-1].flatten())
        u = self._actor.control(x, goals, path.left.flatten(0, 1), self._loss.leak)
        acts = path.acts.flatten()
        regret = hull(costs - costs.min(1, keepdim=True).values, self._closing.controls, u)
        loss = (regret * acts).sum() / acts.sum().clamp(min=1.0)
        live.state, live.left = path.states[:, -1].detach(), left[:, -1]
        e = path.states[:, :-1] - live.target.unsqueeze(1)
        cost = plant.stage_cost(e, path.controls).mean().detach()
        return loss, {"stage_cost": cost}

    @torch.no_grad()
    def _mine(self, rng: np.random.Generator) -> None:
        """Look for the starts from which the averaged policy pays most beyond the optimum."""
        start, target = self._living.candidates(rng, _MINED)
        steps = torch.full((len(start), 1), self._plant.num_steps, device=self._device)
        path = run(self._ema, self._plant, start, target, steps)
        cost: Tensor = self._plant.cost(path.states, path.controls, target)
        optimum = self._closing(start - target, steps.squeeze(1))
        self._living.keep(torch.nan_to_num(cost - optimum, nan=1e30), start, target)

    def _try(self, rng: np.random.Generator) -> Tensor:
        """Loss that pulls towards other first controls which turn out cheaper than the policy's.

        From some of the trajectories' states each of a few random controls is held for a while
        before the policy goes on to the end of the window. Gradients alone
        never see that falling the other way, or catching instead of swinging once more, would
        have been better.
        """
        live, plant, count = self._living.now, self._plant, self._loss.trials
        rows = torch.as_tensor(rng.integers(0, self._loss.trajectories, count))
        x, goal, left = (a[rows.to(self._device)] for a in (live.state, live.target, live.left))
        share = rng.uniform(-1.0, 1.0, (_HELD, count, plant.m))
        share[::2] = np.sign(share[::2])  # corners of the box are often best
        held = torch.as_tensor(plant.centre + share * plant.bound, dtype=torch.float32)
        held = held.to(self._device)
        steps = torch.as_tensor(rng.integers(1, self._loss.window // 2 + 1, (_HELD, count, 1)))
        costs = self._held(x, goal, left, held, steps.to(self._device))
        least, best = costs[1:].min(0)
        regret = (costs[0] - least).clamp(0.0, 0.5 * self._critic.typical)
        better = held.gather(0, best.view(1, -1, 1).expand(1, -1, plant.m)).squeeze(0)
        seconds = (left * plant.dt).to(x.dtype).unsqueeze(-1)
        u = self._actor.control(x, goal, seconds, self._loss.leak)
        off = (u - better).abs() / torch.as_tensor(2.0 * plant.bound, dtype=u.dtype)
        # each trial stands for all the states that a window moves on by
        loss: Tensor = self._loss.trial_weight * (regret * off.mean(-1)).mean()
        return loss

    @torch.no_grad()
    def _held(self, x: Tensor, goal: Tensor, left: Tensor, held: Tensor, steps: Tensor) -> Tensor:
        """Cost of a window (1 + T, K): by the policy, and after holding (T, K, m) for some steps.

        x, goal (K, n), left (K,), steps (T, K, 1).
        """
        plant, tries = self._plant, 1 + len(held)
        state, target, time = x.repeat(tries, 1), goal.repeat(tries, 1), left.repeat(tries)
        until = torch.cat([torch.zeros_like(steps[:1]), steps]).flatten(0, 1)
        fixed = torch.cat([torch.zeros_like(held[:1]), held]).flatten(0, 1)
        total = torch.zeros(len(state), device=x.device)
        for t in range(self._loss.window):
            seconds = (time * plant.dt).to(x.dtype).unsqueeze(-1)
            u = torch.where(t < until, fixed, self._actor.control(state, target, seconds))
            acts = time > 0
            total += torch.where(acts, plant.stage_cost(state - target, u), 0.0)
            state = torch.where(acts.unsqueeze(-1), plant.step(state, u), state)
            time = (time - 1).clamp(min=0)
        total = total + self._closing(state - target, time)
        return torch.nan_to_num(total, nan=1e30).view(tries, -1)

    @torch.no_grad()
    def _window(self) -> tuple[Path, Tensor]:
        """Run every trajectory for W steps, or to its end; and the steps left (E, W + 1)."""
        plant, x = self._plant, self._living.now.state
        ages = torch.arange(self._loss.window + 1, device=self._device)
        left = (self._living.now.left.unsqueeze(-1) - ages).clamp(min=0)
        acts = (left[:, :-1] > 0).unsqueeze(-1)
        seconds = (left[:, :-1] * plant.dt).to(x.dtype).unsqueeze(-1)
        states, controls = [x], []
        for t in range(self._loss.window):
            u = self._actor.control(x, self._living.now.target, seconds[:, t])
            x = torch.where(acts[:, t], plant.step(x, u), x)
            states.append(x)
            controls.append(u)
        stacked = torch.stack(states, 1), torch.stack(controls, 1)
        return Path(*stacked, seconds, acts.to(x.dtype)), left

    def _learn_values(self, path: Path, left: Tensor) -> Tensor:
        """One step of the critic towards G_t = c_t + (1 - lambda) V_{t+1} + lambda G_{t+1}."""
        e = path.states - self._living.now.target.unsqueeze(1)
        acts, decay = path.acts.squeeze(-1), self._loss.td_lambda
        with torch.no_grad():
            values = self._target(e, left)
            costs = self._plant.stage_cost(e[:, :-1], path.controls)
            found = [values[:, -1]]
            for t in range(self._loss.window - 1, -1, -1):
                ahead = costs[:, t] + (1.0 - decay) * values[:, t + 1] + decay * found[-1]
                found.append(torch.where(acts[:, t] > 0, ahead, found[-1]))
            returns = torch.stack(found[:0:-1], 1)
        # Relative where little is left to pay: an error that a swing hides moves a standing cart.
        unit = self._critic.typical * self._loss.critic_floor + returns.abs()
        error = (self._critic(e[:, :-1], left[:, :-1]) - returns) / unit
        loss: Tensor = (error.square() * acts).sum() / acts.sum().clamp(min=1.0)
        rate = self._rate(self._step) * self._loss.critic_lr
        self._move(self._critic, self._critic_step, loss, rate)
        self._average(self._target, self._critic, self._loss.target_ema)
        return loss.detach()

    # ------------------------------------------------------------ looking

    @torch.no_grad()
    def loss(self, data: Arrays) -> Metrics:
        """Mean cost of the averaged policy in closed loop from the starts of `data`."""
        if self._validation is None or self._validation[0] is not data:
            used = {k: data[k] for k in ("state", "target", "time_left_s")}
            self._validation = (data, to_device(used, str(self._device)))
        batch = self._validation[1]
        steps = steps_left(self._plant, batch["time_left_s"])
        cost = closed_loop_cost(self._ema, self._plant, (batch["state"], batch["target"], steps))
        return {"loss": float(cost), "cost": float(cost)}

    def observe(self, value: float) -> None:
        """Nothing here listens to the validation value."""

    def notes(self) -> list[Mapping[str, Any]]:
        """Return and forget what happened since the last call that a person should know."""
        found, self._notes = self._notes, []
        return found

    def policy(self) -> TorchPolicy:
        """Return the averaged policy."""
        return TorchPolicy(self._ema, self._problem.signature, self._device)

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averages, moments, trajectories and counters."""
        modules = {n: dict(m.state_dict()) for n, m in self._modules().items()}
        return {
            **modules,
            "actor_optimizer": self._actor_step.state_dict()["state"],
            "critic_optimizer": self._critic_step.state_dict()["state"],
            "trajectories": self._living.now.tensors(),
            "step": self._step,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        optimizers = {"actor": self._actor_step, "critic": self._critic_step}
        for name, optimizer in optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            held = {"state": state[f"{name}_optimizer"], "param_groups": groups}
            optimizer.load_state_dict(held)
        live = {k: torch.as_tensor(v).to(self._device) for k, v in state["trajectories"].items()}
        self._living.now = Trajectories(**live)
        self._step, self._skipped = state["step"], state["skipped"]

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take the averaged policy of another learner's state, no more."""
        weights = state.get("ema") or state.get("actor") or state["module"]
        for module in (self._actor, self._ema):
            module.load_state_dict(weights)

    def _modules(self) -> dict[str, nn.Module]:
        named = {"actor": self._actor, "critic": self._critic}
        return {**named, "target_critic": self._target, "ema": self._ema}
