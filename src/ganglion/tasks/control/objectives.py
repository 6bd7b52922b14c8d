"""Settings of what training minimises. No torch."""

from __future__ import annotations

from typing import Literal

from ganglion.core.settings import Settings, setting
from ganglion.train.settings import Width


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

    case_clip: float = setting(
        0.0, "Largest gradient of one case, in those of the batch's median case (feedback only); 0 "
        "does not clip. 3-10 where single closed loops run away.", ge=0.0, le=1e6,
    )  # fmt: skip


class ActorCriticLoss(Settings):
    """Short windows of the dynamics closed by a learned cost to go, then whole horizons."""

    kind: Literal["actor_critic"] = "actor_critic"
    trajectories: int = setting(
        256, "Trajectories that live on from step to step, each at its own time.", ge=1, le=65_536
    )
    window: int = setting(
        20, "Time steps differentiated at once. Longer sees further, but past a fall the gradient "
        "says little.", ge=1, le=1_000,
    )  # fmt: skip
    critic: Literal["learned", "grid"] = setting(
        "learned",
        "What closes a window: a net that learns the policy's own cost to go, or the "
        "optimal one from dynamic programming (pendulum only), which shows every way up.",
    )
    settling: float = setting(
        1.0, "Factor on the cost of states in the last moments, for critic=grid: arriving in time "
        "is then worth more than the cost says. 30 for swing-ups that end a little late.", gt=0.0,
        le=1e4,
    )  # fmt: skip
    critic_hidden: tuple[Width, ...] = setting(
        (64, 64), "Widths of the critic's SiLU layers.", min_length=1, max_length=8
    )
    critic_lr: float = setting(
        1.0, "The critic's rate, in the policy's of the same step.", gt=0.0, le=100.0
    )
    critic_floor: float = setting(
        0.05, "Cost to go, in the plant's cost of doing nothing, from which on the critic's errors "
        "count relative to it. Larger for swings, smaller for standing still.", gt=0.0, le=1e3,
    )  # fmt: skip
    td_lambda: float = setting(
        0.9, "Weight of longer returns in the critic's targets; 1 is the whole window.", ge=0.0,
        le=1.0,
    )  # fmt: skip
    target_ema: float = setting(
        0.995, "Decay of the average of the critic that closes windows.", ge=0.0, lt=1.0
    )
    restarts: float = setting(
        0.3, "Share of new trajectories from the hardest starts. Raise it where few starts keep "
        "failing.", ge=0.0, le=1.0,
    )  # fmt: skip
    mine_every: int = setting(
        0, "Steps between two searches for the starts that cost most beyond the optimum "
        "(critic=grid); 0: the worst ends count as hard.", ge=0, le=1_000_000,
    )  # fmt: skip
    renewal: float = setting(
        0.0, "Share of the trajectories that begin anew at each step, besides those that end. "
        "Raise it where the first moves decide.", ge=0.0, le=1.0,
    )  # fmt: skip
    leak: float = setting(
        0.0, "Least slope of the policy's bounds for gradients that lead off a bound. .3 where a "
        "policy holds the wrong bound.", ge=0.0, le=1.0,
    )  # fmt: skip
    trials: int = setting(
        0, "States from which other first controls are tried at each step, against getting used "
        "to a poor choice. 64-256 for swing-ups with a learned critic.", ge=0, le=65_536,
    )  # fmt: skip
    trial_weight: float = setting(
        1.0, "Weight of what trials found, beside the gradient of the windows.", ge=0.0, le=1e3
    )
    hardest: int = setting(128, "Hard starts that are remembered.", ge=1, le=65_536)
    fading: float = setting(
        0.995, "What is left of a hard start's score after each step.", gt=0.0, le=1.0
    )
    case_clip: float = setting(
        3.0, "Largest gradient of one trajectory, in those of the median one; 0 does not clip.",
        ge=0.0, le=1e6,
    )  # fmt: skip
    refine_share: float = setting(
        0.3, "Share of the steps, at the end, that differentiate whole horizons of batch_size "
        "cases. 0 where that does not converge.", ge=0.0, le=1.0,
    )  # fmt: skip
    refine_lr: float = setting(
        0.5, "Peak rate of that share, in those of optim.lr.", gt=0.0, le=10.0
    )

    @property
    def mines(self) -> bool:
        """Whether hard starts are looked for; only an optimum tells which those are."""
        return self.critic == "grid" and self.mine_every > 0


class DaggerLoss(Settings):
    """Imitation of optimal plans, some of them made on the way, from where the policy goes.

    Sources: Ross, Gordon and Bagnell, A Reduction of Imitation Learning and Structured Prediction
    to No-Regret Online Learning, AISTATS 2011 (DAgger); Mordatch and Todorov, Combining the
    Benefits of Function Approximation and Trajectory Optimization, RSS 2014 (the plan's gains).
    """

    kind: Literal["dagger"] = "dagger"
    plans: int = setting(1_000, "Optimal plans that training begins with.", ge=2, le=1_000_000)
    rounds: int = setting(
        10, "Times that plans are added where the policy goes, within the first 85 % of the steps. "
        "More for plants with many ways to a target.", ge=0, le=10_000,
    )  # fmt: skip
    plans_per_round: int = setting(
        300, "Plans that a round adds, half of them from where the policy loses most, half from "
        "anywhere on its way.", ge=2, le=1_000_000,
    )  # fmt: skip
    spread: float = setting(
        1.0, "Factor on the start box for the plans. Above 1 where starts outside the box matter.",
        gt=0.0, le=10.0,
    )  # fmt: skip
    disturbance: float = setting(
        0.03, "Standard deviation of what is added to a plan's states, in that of the states "
        "themselves; the plan's gains say what is best there.", ge=0.0, le=1.0,
    )  # fmt: skip
    regret_unit: float = setting(
        0.02, "Regret that counts fully, in the mean cost of a plan. Lower it to polish, raise it "
        "where a few wrong turns are what is lost.", gt=0.0, le=1e3,
    )  # fmt: skip
    least_weight: float = setting(
        0.1, "Chance to be drawn of a plan's last states, in that of its first.", gt=0.0, le=1.0
    )


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
