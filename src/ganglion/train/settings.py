"""Settings that every task shares: data counts, the loop, the optimiser, the export. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ganglion.core.settings import Settings, setting

LARGEST = 2**63 - 1  # of a seed: what JSON readers agree on
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class DataSettings(Settings):
    """How much data there is, and which."""

    train: int = setting(10_000, "Training rows. More of them against overfitting.", ge=1)
    validation: int = setting(1_000, "Rows that early stopping and the best checkpoint see.", ge=1)
    test: int = setting(1_000, "Rows that only the report reads, once.", ge=1)
    seed: int = setting(
        42, "Seed of the generator's streams; another seed is other data.", ge=0, le=LARGEST
    )
    shard: int = setting(
        1_000, "Rows drawn from one stream. Part of the data's identity; leave it.", ge=1
    )
    fresh: bool = setting(
        False, "Draw new training rows at every step instead of reading a dataset, where the "
        "task can: no overfitting, and nothing is stored.",
    )  # fmt: skip


class TrainSettings(Settings):
    """The loop."""

    alternatives: ClassVar[tuple[str, ...]] = ("steps", "epochs")

    steps: int | None = setting(
        4_000, "Optimizer steps. Raise it while the validation value still falls.", ge=1
    )
    epochs: int | None = setting(
        None, "Passes over the training rows, instead of steps. Raise it while validation falls.",
        ge=1,
    )  # fmt: skip
    batch_size: int = setting(
        256, "Rows per optimizer step and rank: 32 is noisier, 128 smoother, 256 and more want a "
        "rate raised in proportion.", ge=1,
    )  # fmt: skip
    accumulate: int = setting(
        1, "Batches summed into one step; raise it where memory is short.", ge=1
    )
    eval_every: int | None = setting(
        None, "Steps between validations; none: once an epoch where epochs are set, else a "
        "twentieth of the run.", ge=1,
    )  # fmt: skip
    patience: int = setting(
        0, "Validations in which neither the goal nor the loss is better than ever before training "
        "stops early; 0 is never. 5-10 for a quick look, 20 to be sure.", ge=0,
    )  # fmt: skip
    block: int = setting(
        20, "Steps between two looks at the device (metrics, the non-finite guard, signals). "
        "Lower it where a step takes over a second.", ge=1,
    )  # fmt: skip
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "Arithmetic of the forward pass; bf16 (autocast) pays on GPUs and recent CPUs."
    )
    compile: bool = setting(
        False, "torch.compile the step: about a minute at first, then faster. Wants a C++ compiler."
    )
    ema: float = setting(
        0.0, "Decay of the weight average that is validated and deployed; 0 is none, .999 smooths "
        "the last thousand steps.", ge=0.0, lt=1.0,
    )  # fmt: skip
    threads: int = setting(
        1, "CPU threads. Part of a run's identity: another count gives other last bits. Small "
        "nets are fastest on one.", ge=1, le=256,
    )  # fmt: skip
    checkpoint_seconds: float = setting(
        10.0, "Seconds of training between checkpoints: what a kill can cost.", unit="s", ge=0.0
    )
    checkpoint_every: int | None = setting(
        None, "Steps between checkpoints, besides those by time.", ge=1
    )
    keep_every: int | None = setting(
        None, "Keep the first checkpoint after every so many steps, besides the best and the last "
        "two.", ge=1,
    )  # fmt: skip
    on_nonfinite: Literal["halve", "stop"] = setting(
        "halve", "After a NaN or Inf in loss or gradient: leave that step out and go on at half "
        "the rate, or stop.",
    )  # fmt: skip
    nonfinite_limit: int = setting(
        5, "Non-finite steps in a run after which training stops with advice.", ge=1
    )
    deterministic: bool = setting(
        False, "Ask CUDA for deterministic kernels (slower); CPU runs always are."
    )
    tensorboard: bool = setting(True, "Write TensorBoard event files beside metrics.jsonl.")

    def total_steps(self, rows: int | None) -> int:
        """Return the optimizer steps of a run over `rows` training rows (None: fresh draws)."""
        return (self.epochs or 0) * self.epoch_steps(rows) if self.epochs else self.steps or 1

    def epoch_steps(self, rows: int | None) -> int:
        """Return the optimizer steps of one pass; the last, smaller batch counts as one."""
        return math.ceil((rows or self.batch_size) / (self.batch_size * self.accumulate))

    def evaluation_steps(self, rows: int | None) -> int:
        """Return the steps between two validations."""
        if self.eval_every:
            return self.eval_every
        return self.epoch_steps(rows) if self.epochs else max(1, self.total_steps(rows) // 20)

    def next_boundary(self, step: int, rows: int | None) -> int:
        """Return where the block that begins at `step` ends: a pure function of the settings."""
        every, total = self.evaluation_steps(rows), self.total_steps(rows)
        return min((step // self.block + 1) * self.block, (step // every + 1) * every, total)


class OptimSettings(Settings):
    """AdamW and its schedule."""

    lr: float = setting(
        1e-3, "Peak learning rate. 1e-3 suits small nets; halve it when the loss oscillates or "
        "turns NaN, raise it when the loss creeps.", gt=0.0, le=10.0,
    )  # fmt: skip
    betas: tuple[Decay, Decay] = setting((0.9, 0.999), "Decay of the two moment averages.")
    weight_decay: float = setting(
        0.0, "Decoupled decay of matrices (never of biases, norms and scalars); .01-.1 against "
        "overfitting, 0 when underfitting.", ge=0.0, le=10.0,
    )  # fmt: skip
    clip_norm: float = setting(1.0, "Largest gradient norm; 0 does not clip.", ge=0.0)
    schedule: Literal["cosine", "step", "plateau", "none"] = setting(
        "cosine", "How the rate falls: to final_lr along a cosine; by step_gamma every step_share "
        "of the run; by plateau_factor when validation stalls; or not.",
    )  # fmt: skip
    warmup_steps: int = setting(
        0, "Steps over which the rate rises from 0; 100 calms starts.", ge=0
    )
    final_lr: float = setting(
        0.0, "Rate at the end of the cosine, as a share of the peak.", ge=0.0, le=1.0
    )
    step_share: float = setting(
        0.3, "Share of the run between two drops of `step`.", gt=0.0, le=1.0
    )
    step_gamma: float = setting(0.1, "Factor of each drop of `step`.", gt=0.0, le=1.0)
    plateau_patience: int = setting(5, "Stalled validations before `plateau` drops the rate.", ge=1)
    plateau_factor: float = setting(0.5, "Factor of each drop of `plateau`.", gt=0.0, lt=1.0)


class ExportSettings(Settings):
    """What is written beside the exported policy."""

    tolerance: float = setting(
        1e-4, "Largest difference between exported and trained policy before the export is "
        "refused.", gt=0.0, le=1e-2,
    )  # fmt: skip
    parity_inputs: int = setting(1_000, "Inputs on which the two are compared.", ge=1, le=1_000_000)


class TaskSettings(Settings):
    """What every task's settings begin with; a task adds its own below.

    `presets` maps a preset's name to one sentence about it; `preset` gives its layer.
    """

    presets: ClassVar[Mapping[str, str]] = {"standard": "the recommended settings"}
    resumable: ClassVar[tuple[str, ...]] = (  # may differ when a run goes on
        "train.steps", "train.epochs", "train.patience", "train.checkpoint_seconds",
        "train.checkpoint_every", "train.keep_every", "train.tensorboard",
        "train.nonfinite_limit", "export.tolerance", "export.parity_inputs",
    )  # fmt: skip

    seed: int = setting(
        0, "Seed of initialisation, batch order and every draw of training.", ge=0, le=LARGEST
    )
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    optim: OptimSettings = OptimSettings()
    export: ExportSettings = ExportSettings()

    @model_validator(mode="after")
    def _passes(self) -> Self:
        if self.data.fresh and self.train.epochs:
            raise ValueError(
                "train.epochs counts passes over a dataset, but data.fresh=true draws new rows at "
                "every step; choose train.steps, or data.fresh=false"
            )
        return self

    @classmethod
    def preset(cls, name: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the layer of preset `name`; `said` is what file and command line say (nested)."""
        return {}

    def world(self) -> dict[str, Any]:
        """Return what decides the data besides counts and seed; it enters the dataset's digest."""
        problem = getattr(self, "problem", None)
        return {} if problem is None else {"problem": problem.model_dump(mode="json")}
