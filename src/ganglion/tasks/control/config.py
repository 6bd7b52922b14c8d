"""Settings and presets of control. No torch: help, forms and the registry read this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

from pydantic import model_validator

from ganglion.core.settings import Settings, setting, variant
from ganglion.tasks.control import recipes
from ganglion.tasks.control.objectives import (
    ActorCriticLoss,
    CostLoss,
    DaggerLoss,
    ImitationLoss,
    ImitationTrajectoryLoss,
)
from ganglion.tasks.control.plants.settings import (
    CartpoleSettings,
    DoubleIntegratorSettings,
    PendulumSettings,
    Quadrotor2dSettings,
    VanDerPolSettings,
)
from ganglion.tasks.control.problem import ProblemSettings, installed
from ganglion.tasks.control.rocket.settings import FuelLoss, PlanSettings, RocketSettings
from ganglion.train.settings import DataSettings, OptimSettings, TaskSettings, TrainSettings, Width


class TrcSettings(Settings):
    """The recursive controller: a whole sequence of controls, refined over cycles."""

    kind: Literal["trc"] = "trc"
    form: Literal["preconditioned", "single", "two_level"] = setting(
        "preconditioned", "preconditioned: linear update of a latent with the preconditioned cost "
        "gradient and exact line search (linear plants only); single, two_level: encoder and "
        "reasoning block with one or two latents, any plant.",
    )  # fmt: skip
    size: Literal["tiny", "small", "medium", "large"] = setting(
        "tiny", "Parameter budget: < 10K, ~105K, ~530K, ~2.6M. Larger ones are for imitation."
    )
    latent_dim: int | None = setting(
        None, "Width of the latent; none: the largest that fits the size's budget.", ge=8, le=4096
    )
    outer_cycles: int | None = setting(
        None, "Cycles trained, and the default of the run-time input `cycles`; none: 8 "
        "(preconditioned tiny), 6 (preconditioned, larger) or 5. Fewer answer sooner, more come "
        "closer.", ge=1, le=64,
    )  # fmt: skip
    inner_cycles: int = setting(
        3, "Reasoning steps with shared weights inside a cycle (single, two_level).", ge=1, le=16
    )
    damping: float = setting(
        10.0, "Ridge added to the cost's Hessian (per squared control unit) in the "
        "preconditioner; raise it where training is unstable.", gt=0.0, le=1e6,
    )  # fmt: skip

    @property
    def cycles(self) -> int:
        """Cycles that are trained."""
        if self.outer_cycles is not None or self.form != "preconditioned":
            return self.outer_cycles or 5
        return 8 if self.size == "tiny" else 6


class FeedbackSettings(Settings):
    """pi(e, t): one control from state, target and time left, applied in closed loop."""

    kind: Literal["feedback"] = "feedback"
    hidden: tuple[Width, ...] = setting(
        (48, 48), "Widths of the SiLU layers. Wider for a lower gap, narrower for latency.",
        min_length=1, max_length=8,
    )  # fmt: skip


class MlpSettings(Settings):
    """A whole sequence of controls at once: the baseline of the recursive controller."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Width, ...] = setting(
        (256, 256), "Widths of the SiLU layers of the sequence baseline.", min_length=1,
        max_length=8,
    )  # fmt: skip


class EvaluationSettings(Settings):
    """The world a policy is tried in; never part of the data. The optimum follows the plant."""

    process_noise: float = setting(
        0.0, "Standard deviation of the noise added to every state component at every step.",
        ge=0.0, le=10.0,
    )  # fmt: skip
    actuator_gain: float = setting(
        1.0, "What the actuators make of a command, as a factor; the policy does not know it.",
        gt=0.0, le=10.0,
    )  # fmt: skip
    mismatch: float = setting(
        1.0, "Factor on the plant's uncertain parameter (Van der Pol mu, the pendulum's gravity, "
        "the pole's length, the quadrotor's mass); the policy does not know it.", ge=0.0, le=10.0,
    )  # fmt: skip
    closed_loop: bool = setting(
        True, "Run sequence policies in closed loop too (closed_*). Off saves N calls of the "
        "policy, which for a recursive policy on a long horizon is most of the evaluation.",
    )  # fmt: skip
    cycles: int | None = setting(
        None, "Recursion cycles at evaluation; none: as trained. More for anytime curves.", ge=1,
        le=1024,
    )  # fmt: skip


_BUILTIN = (
    DoubleIntegratorSettings, VanDerPolSettings, PendulumSettings, CartpoleSettings,
    Quadrotor2dSettings, RocketSettings,
)  # fmt: skip
_INSTALLED = installed({c.model_fields["kind"].default for c in _BUILTIN})

if TYPE_CHECKING:
    Problem = (
        DoubleIntegratorSettings
        | VanDerPolSettings
        | PendulumSettings
        | CartpoleSettings
        | Quadrotor2dSettings
        | RocketSettings
    )
else:  # and those that other packages bring
    Problem = Union[(*_BUILTIN, *_INSTALLED.values())]


class Config(TaskSettings):
    """Settings of the task control."""

    presets: ClassVar[Mapping[str, str]] = {
        "quick": "a first policy in about a CPU-minute of training",
        "standard": "the recommended settings for each problem",
        "max": "the longest training that still pays",
        "guide20": "the original guide's imitation run, 20 epochs",
        "guide": "the original guide's imitation run, 100 epochs",
        "guide200": "the original guide's imitation run, 200 epochs",
    }

    problem: Problem = variant(DoubleIntegratorSettings(), "The plant, its cost and its bounds.")
    labels: Literal["optimal", "clipped_lqr", "imported"] = setting(
        "optimal", "What the data's controls are: the exact optimum within the bounds; the "
        "original's clipped infinite-horizon LQR gain; or whatever an imported file holds.",
    )  # fmt: skip
    model: TrcSettings | FeedbackSettings | MlpSettings | PlanSettings = variant(
        FeedbackSettings(),
        "The policy: feedback for targets at rest, trc for moving ones, plan for the rocket.",
    )
    loss: (
        CostLoss | ActorCriticLoss | DaggerLoss | ImitationLoss | ImitationTrajectoryLoss | FuelLoss
    ) = variant(CostLoss(), "What training minimises.")
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings(fresh=True)
    train: TrainSettings = TrainSettings(steps=4_000, batch_size=256)
    optim: OptimSettings = OptimSettings(lr=3e-3)

    @model_validator(mode="after")
    def _fits(self) -> Config:
        kinds = (self.problem.kind, self.model.kind, self.loss.kind)
        rocket = [a == b for a, b in zip(kinds, ("rocket_landing", "plan", "fuel"), strict=True)]
        if any(rocket) and not all(rocket):
            raise ValueError(
                "problem.kind=rocket_landing, model.kind=plan and loss.kind=fuel belong together, "
                f"got {', '.join(kinds)}"
            )
        if isinstance(self.problem, RocketSettings):
            return self._lands()
        form = self.model.form if isinstance(self.model, TrcSettings) else None
        if form == "preconditioned" and self.problem.kind != "double_integrator":
            raise ValueError(
                f"model.form=preconditioned is for linear plants, problem.kind={self.problem.kind} "
                "is none; choose model.form=single or two_level"
            )
        if self.loss.kind in ("actor_critic", "dagger") and self.model.kind != "feedback":
            raise ValueError(
                f"loss.kind={self.loss.kind} trains state feedback, model.kind={self.model.kind} "
                "is none; choose model.kind=feedback or loss.kind=cost"
            )
        if (
            self.loss.kind == "actor_critic"
            and self.loss.critic == "grid"
            and self.problem.plant().method != "grid"
        ):
            raise ValueError(
                f"loss.critic=grid needs dynamic programming, which {self.problem.kind} has none "
                "of; choose loss.critic=learned"
            )
        if isinstance(self.loss, ImitationLoss) and self.data.fresh:
            raise ValueError(
                f"loss.kind={self.loss.kind} learns from labels, which fresh draws have none of; "
                "choose data.fresh=false"
            )
        if self.evaluation.mismatch != 1.0 and self.problem.plant().uncertain is None:
            raise ValueError(
                f"evaluation.mismatch: {self.problem.kind} has no uncertain parameter; try "
                "evaluation.actuator_gain"
            )
        return self

    def _lands(self) -> Config:
        changed = {k for k, v in self.evaluation if v != getattr(EvaluationSettings(), k)}
        if changed:
            raise ValueError(
                f"evaluation.{min(changed)}: landing plans are flown once, on the lander as "
                "modelled; change problem.mass_scale, problem.thrust_n or problem.start_scale"
            )
        return self

    @property
    def cycles(self) -> int | None:
        """Cycles that a policy with the input `cycles` is called with."""
        trained = self.model.cycles if isinstance(self.model, TrcSettings) else None
        return self.evaluation.cycles or trained

    def world(self) -> dict[str, Any]:
        """Return what decides the data: the problem and the kind of labels."""
        source = self.problem.source() if isinstance(self.problem, ProblemSettings) else None
        brought = {} if source is None else {"plant_source": source}
        return {**super().world(), "labels": self.labels, **brought}

    @classmethod
    def preset(cls, name: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the layer of preset `name`; model and recipe follow from the problem."""
        if name in recipes.GUIDE:
            return recipes.guide(name)
        own = _INSTALLED.get(said.get("problem", {}).get("kind", ""))
        return recipes.layer(name, said, None if own is None else own.recipe)
