"""Settings of reinforcement learning. No torch."""

from __future__ import annotations

from ganglion.core.settings import Settings, setting
from ganglion.train.settings import Width


class PpoSettings(Settings):
    """Proximal policy optimisation; a step is one rollout with its epochs."""

    horizon: int = setting(
        24, "Environment steps of a rollout. The number of environments is train.batch_size over "
        "it: more environments are steadier, a longer horizon sees further.", ge=1, le=4_096,
    )  # fmt: skip
    epochs: int = setting(5, "Passes over each rollout.", ge=1, le=100)
    minibatches: int = setting(4, "Parts that a rollout is cut into in each pass.", ge=1, le=1_024)
    gamma: float = setting(
        0.97, "Discount per step; .97 looks about a second ahead at 50 Hz.", ge=0.0, lt=1.0
    )
    lam: float = setting(
        0.95, "Lambda of the advantage: nearer to 1 is less biased and noisier.", ge=0.0, le=1.0
    )
    clip: float = setting(0.2, "Largest change of an action's probability ratio.", gt=0.0, le=1.0)
    kl: float = setting(
        0.02, "Divergence that the learning rate is adapted to keep between rollouts; 0 leaves the "
        "rate to optim.schedule.", ge=0.0, le=1.0,
    )  # fmt: skip
    least_lr: float = setting(1e-5, "Lowest adapted learning rate.", gt=0.0, le=1.0)
    most_lr: float = setting(3e-3, "Highest adapted learning rate.", gt=0.0, le=1.0)
    value_weight: float = setting(1.0, "Weight of the critic's loss.", ge=0.0, le=100.0)
    entropy: float = setting(
        0.0, "Reward for keeping the actions random; .001-.01 where learning stalls early.", ge=0.0,
        le=1.0,
    )  # fmt: skip


class PriorSettings(Settings):
    """The style reward."""

    hidden: tuple[Width, ...] = setting((1024, 512), "Widths of the discriminator's layers.")
    lr: float = setting(1e-4, "Learning rate of the discriminator.", gt=0.0, le=1.0)
    batch: int = setting(1_024, "Transitions of either side in one of its steps.", ge=2)
    steps: int = setting(4, "Its steps per rollout.", ge=1, le=1_000)
    gradient_penalty: float = setting(5.0, "Weight of the squared gradient at data.", ge=0.0)
    logit: float = setting(0.01, "Weight of the last layer's squared weights.", ge=0.0)
    scale: float = setting(2.0, "Factor on the style reward.", gt=0.0)
    task: float = setting(0.4, "Share of the task's reward.", ge=0.0, le=1.0)
    style: float = setting(0.6, "Share of the style reward.", ge=0.0, le=1.0)
