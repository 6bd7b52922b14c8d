"""Settings and presets of control. No torch: help, forms and the registry read this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from ganglion.core.settings import Settings, combine, setting, variant
from ganglion.tasks.control.plant import DoubleIntegrator, Plant, VanDerPol
from ganglion.train.settings import DataSettings, OptimSettings, TaskSettings, TrainSettings, Width


class ProblemSettings(Settings):
    """What every problem has: the horizon and where cases start."""

    num_steps: int = setting(
        15, "Controls in a whole task. dt = horizon_s / num_steps everywhere: data, training and "
        "evaluation.", ge=1, le=1_000,
    )  # fmt: skip
    horizon_s: float = setting(
        5.0, "Length of a whole task. Change it with num_steps to keep dt.", unit="s", gt=0.0,
        le=1_000.0,
    )  # fmt: skip
    start_scale: float = setting(
        1.0, "Factor on the box of initial states (+-2). Raise it to train for larger deviations.",
        gt=0.0, le=10.0,
    )  # fmt: skip

    @property
    def dt(self) -> float:
        """Time step in s."""
        return self.horizon_s / self.num_steps

    def plant(self) -> Plant:
        """Return the plant as modelled."""
        raise NotImplementedError


class DoubleIntegratorSettings(ProblemSettings):
    """x'' = u with a bounded u, towards a target."""

    kind: Literal["double_integrator"] = "double_integrator"
    cost: Literal["terminal", "original"] = setting(
        "terminal", "terminal: Q = diag(10, 5), R = 0.1, Q_f = 20 Q, so that arriving pays; "
        "original: Q = I, R = 0.1, Q_f = 0, whose own optimum rarely arrives at moving targets.",
    )  # fmt: skip
    target: Literal["rest", "moving"] = setting(
        "rest", "rest: position in +-2 m at velocity 0; moving: velocity in +-2 m/s too, where "
        "about half of the cases can be reached.",
    )  # fmt: skip
    bound: float = setting(4.0, "Largest acceleration.", unit="m/s^2", gt=0.0, le=1e3)

    def plant(self) -> Plant:
        return DoubleIntegrator(
            self.num_steps, self.dt, limit=self.bound, cost_kind=self.cost, target_kind=self.target
        )


class VanDerPolSettings(ProblemSettings):
    """x'' = mu (1 - x^2) x' - x + u with a bounded u, to the origin."""

    kind: Literal["vanderpol"] = "vanderpol"
    num_steps: int = setting(
        100, "Controls in a whole task. dt = horizon_s / num_steps (0.05 s) everywhere; the "
        "Runge-Kutta step wants dt below about 0.2 s.", ge=1, le=1_000,
    )  # fmt: skip
    mu: float = setting(
        1.0, "Damping: 0 is a spring, above 3 the system is stiff and dt must fall.", ge=-5.0,
        le=5.0,
    )  # fmt: skip
    bound: float = setting(2.0, "Largest control.", unit="1/s^2", gt=0.0, le=1e3)

    def plant(self) -> Plant:
        return VanDerPol(self.num_steps, self.dt, mu=self.mu, limit=self.bound)


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


class CostLoss(Settings):
    """The problem's own cost through the differentiable dynamics; needs no labels."""

    kind: Literal["cost"] = "cost"
    discount: float = setting(
        0.7, "Weight of each earlier cycle relative to the next (process supervision). 0 trains "
        "the last cycle only; towards 1 early cycles count as much.", ge=0.0, le=1.0,
    )  # fmt: skip
    full_horizon_share: float = setting(
        0.5, "Share of the draws with the whole time left; the others have 1..N steps left. "
        "Lower it where the closed loop matters more than one open-loop call.", ge=0.0, le=1.0,
    )  # fmt: skip


class ImitationLoss(Settings):
    """Mean squared error to the labels' controls (the original's loss)."""

    kind: Literal["imitation"] = "imitation"
    discount: float = setting(
        0.0, "Weight of each earlier cycle relative to the next; 0 supervises the last cycle only, "
        "as the original did.", ge=0.0, le=1.0,
    )  # fmt: skip
    control_weight: float = setting(
        1.0, "Weight of the controls' squared error, in units of the bound.", ge=0.0, le=1e3
    )
    full_horizon_share: float = setting(
        1.0, "Share of the draws with the whole time left; the others begin later on the label's "
        "own trajectory.", ge=0.0, le=1.0,
    )  # fmt: skip


class ImitationTrajectoryLoss(ImitationLoss):
    """Imitation of the controls and of the trajectory they lead to."""

    kind: Literal["imitation_trajectory"] = "imitation_trajectory"  # type: ignore[assignment]
    trajectory_weight: float = setting(
        1.0, "Weight of the squared error of the simulated states; raise it where controls match "
        "and end points do not.", ge=0.0, le=1e3,
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
        1.0, "Factor on the plant's uncertain parameter (Van der Pol: mu); the policy does not "
        "know it.", ge=0.0, le=10.0,
    )  # fmt: skip
    closed_loop: bool = setting(
        True, "Run sequence policies in closed loop too (closed_*). Off saves N calls of the "
        "policy, which for a recursive policy on a long horizon is most of the evaluation.",
    )  # fmt: skip
    cycles: int | None = setting(
        None, "Recursion cycles at evaluation; none: as trained. More for anytime curves.", ge=1,
        le=1024,
    )  # fmt: skip


class Config(TaskSettings):
    """Settings of the task control."""

    presets: ClassVar[Mapping[str, str]] = {
        "quick": "a first policy in under a CPU-minute",
        "standard": "the recommended settings for each problem",
        "max": "the longest training that still pays",
        "guide20": "the original guide's imitation run, 20 epochs",
        "guide": "the original guide's imitation run, 100 epochs",
        "guide200": "the original guide's imitation run, 200 epochs",
    }

    problem: DoubleIntegratorSettings | VanDerPolSettings = variant(
        DoubleIntegratorSettings(), "The plant, its cost and its bounds."
    )
    labels: Literal["optimal", "clipped_lqr", "imported"] = setting(
        "optimal", "What the data's controls are: the exact optimum within the bounds; the "
        "original's clipped infinite-horizon LQR gain; or whatever an imported file holds.",
    )  # fmt: skip
    model: TrcSettings | FeedbackSettings | MlpSettings = variant(
        FeedbackSettings(), "The policy: feedback for targets at rest, trc for moving ones."
    )
    loss: CostLoss | ImitationLoss | ImitationTrajectoryLoss = variant(
        CostLoss(), "What training minimises."
    )
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings(fresh=True)
    train: TrainSettings = TrainSettings(steps=4_000, batch_size=256)
    optim: OptimSettings = OptimSettings(lr=3e-3)

    @model_validator(mode="after")
    def _fits(self) -> Config:
        form = self.model.form if isinstance(self.model, TrcSettings) else None
        if form == "preconditioned" and self.problem.kind != "double_integrator":
            raise ValueError(
                f"model.form=preconditioned is for linear plants, problem.kind={self.problem.kind} "
                "is none; choose model.form=single or two_level"
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

    @property
    def cycles(self) -> int | None:
        """Cycles that a policy with the input `cycles` is called with."""
        trained = self.model.cycles if isinstance(self.model, TrcSettings) else None
        return self.evaluation.cycles or trained

    def world(self) -> dict[str, Any]:
        """Return what decides the data: the problem and the kind of labels."""
        return {**super().world(), "labels": self.labels}

    @classmethod
    def preset(cls, name: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the layer of preset `name`; model and recipe follow from the problem."""
        if name in _GUIDE:
            return _guide(*_GUIDE[name])
        imitates = str(said.get("loss", {}).get("kind", "cost")).startswith("imitation")
        return combine([cls._recipe(name, said), {"data": {"fresh": False}} if imitates else {}])

    @staticmethod
    def _recipe(name: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        problem, model = said.get("problem", {}), said.get("model", {})
        nonlinear = problem.get("kind", "double_integrator") != "double_integrator"
        moving = not nonlinear and problem.get("target") == "moving"
        kind = model.get("kind", "trc" if moving else "feedback")
        linear = {"form": "preconditioned", "size": "tiny"}
        shape = {"form": "single", "size": "small"} if nonlinear else linear
        if kind == "feedback":
            return _layer(_VANDERPOL if nonlinear else _FEEDBACK, name)
        layer = _layer(_TRC if kind == "trc" else _MLP, name)
        return {**layer, "model": {"kind": kind, **(shape if kind == "trc" else {})}}


_GUIDE = {"guide20": (20, 20), "guide": (100, 20), "guide200": (200, 30)}  # epochs, patience


@dataclass(frozen=True)
class _Recipe:
    """Settings that were measured to work, and the steps of each preset (benchmarks/RESULTS.md)."""

    steps: Mapping[str, int]
    settings: Mapping[str, Any]


_FEEDBACK = _Recipe(
    {"quick": 3_000, "standard": 5_000, "max": 20_000},
    {
        "model": {"kind": "feedback"},
        "loss": {"kind": "cost", "full_horizon_share": 1.0},
        "train": {"batch_size": 128, "ema": 0.99},
        "optim": {"lr": 1e-2, "betas": [0.9, 0.99], "warmup_steps": 100},
    },
)
_VANDERPOL = _Recipe(
    {"quick": 700, "standard": 1_300, "max": 6_000},
    {
        "model": {"kind": "feedback", "hidden": [64, 64]},
        "loss": {"kind": "cost", "full_horizon_share": 1.0},
        "train": {"batch_size": 64, "ema": 0.98},
        "optim": {"lr": 2e-2, "betas": [0.9, 0.99], "warmup_steps": 50},
    },
)
_TRC = _Recipe(
    {"quick": 2_500, "standard": 4_000, "max": 20_000},
    {
        "loss": {"kind": "cost", "full_horizon_share": 0.5, "discount": 0.7},
        "train": {"batch_size": 512},
        "optim": {"lr": 3e-3, "warmup_steps": 100},
    },
)
_MLP = _Recipe(
    {"quick": 3_000, "standard": 8_000, "max": 30_000},
    {
        "loss": {"kind": "cost", "full_horizon_share": 0.5},
        "train": {"batch_size": 256},
        "optim": {"lr": 2e-3, "warmup_steps": 100},
    },
)


def _layer(recipe: _Recipe, preset: str) -> dict[str, Any]:
    train = {**recipe.settings["train"], "steps": recipe.steps[preset]}
    return {**recipe.settings, "train": train}


def _guide(epochs: int, patience: int) -> dict[str, Any]:
    return {
        "problem": {"kind": "double_integrator", "target": "moving"},
        "model": {"kind": "trc", "form": "two_level", "size": "medium"},
        "loss": {"kind": "imitation"},
        "data": {"train": 10_000, "test": 1_000, "seed": 42, "fresh": False},
        # average, warm-up and a low clip calm the spikes that the guide's rate has here
        "train": {"epochs": epochs, "batch_size": 64, "patience": patience, "ema": 0.995},
        "optim": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 300, "clip_norm": 0.1},
    }
