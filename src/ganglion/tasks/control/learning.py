"""The learner of control: net, loss and batches put together from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ganglion.core.contracts import Arrays, Learner, Ranks, TensorSpec
from ganglion.tasks.control import losses, model, references
from ganglion.tasks.control.actor_critic import ActorCriticLearner, Problem
from ganglion.tasks.control.config import TrcSettings
from ganglion.tasks.control.critics import Critic, typical_cost
from ganglion.tasks.control.dagger import DaggerLearner
from ganglion.tasks.control.feedback import Feedback
from ganglion.tasks.control.objectives import (
    ActorCriticLoss,
    CostLoss,
    DaggerLoss,
    ImitationLoss,
    ImitationTrajectoryLoss,
)
from ganglion.tasks.control.rocket.settings import PlanSettings
from ganglion.train.batches import Batches, Fresh, Resident
from ganglion.train.supervised import Loss, Supervised, SupervisedLearner, initialised

if TYPE_CHECKING:
    from ganglion.tasks.control.task import Control

MOST_CYCLES = 64  # of the exported Loop; anytime curves go to four times the trained number


def make(task: Control, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
    """Build the learner of `task`; `data` None draws fresh starts at each step."""
    cfg = task.settings
    net = cfg.model
    if isinstance(net, PlanSettings):
        raise TypeError("the lander's task makes its own learner")
    module = initialised(seed, lambda: model.build(net, task.plant))
    if isinstance(cfg.loss, ActorCriticLoss):
        return _actor_critic(task, cfg.loss, module, device, seed)
    if isinstance(cfg.loss, DaggerLoss):
        return DaggerLearner(cfg, module, seed, device, ranks)
    more, steps = {}, task.plant.num_steps
    if isinstance(cfg.model, TrcSettings):
        high = float(max(MOST_CYCLES, 4 * cfg.model.cycles))
        more["cycles"] = TensorSpec((1,), "int64", low=1.0, high=high, role="steps", batched=False)
    elif cfg.model.kind == "feedback":
        steps = 1
    batches: Batches
    if data is None:
        starts = losses.FreshStarts(task.plant, _full_share(cfg.loss), task.problem.start_scale)
        batches = Fresh(starts, cfg.train, seed, device, ranks)
    else:
        batches = Resident(data, cfg.train, seed, device, ranks)
    parts = Supervised(module, _loss(task), batches, references.signature(task.plant, steps, more))
    return SupervisedLearner(parts, cfg.train, cfg.optim, seed, device)


def _actor_critic(
    task: Control, loss: ActorCriticLoss, actor: nn.Module, device: str, seed: int
) -> ActorCriticLearner:
    """It draws its own starts, so a dataset's rows are not used."""
    assert isinstance(actor, Feedback)  # the settings say so
    cfg, plant = task.settings, task.plant
    typical = typical_cost(plant, cfg.problem.start_scale)
    critic = initialised(seed + 1, lambda: Critic(plant, loss.critic_hidden, typical))
    assert isinstance(critic, Critic)
    problem = Problem(plant, cfg.problem.start_scale, references.signature(plant, 1))
    return ActorCriticLearner(problem, actor, critic, (loss, cfg.train, cfg.optim), seed, device)


def _full_share(loss: object) -> float:
    return float(getattr(loss, "full_horizon_share", 1.0))


def _loss(task: Control) -> Loss:
    loss = task.settings.loss
    if isinstance(loss, CostLoss):
        return losses.DynamicsCost(task.plant, loss.discount, loss.case_clip)
    assert isinstance(loss, ImitationLoss)
    weight = loss.trajectory_weight if isinstance(loss, ImitationTrajectoryLoss) else 0.0
    return losses.Imitation(
        task.plant, loss.control_weight, weight, loss.discount, loss.full_horizon_share
    )
