"""Settings and presets of gridnav. No torch: help, forms and the registry read this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ganglion.core.settings import Settings, setting, variant
from ganglion.tasks.gridnav import maps
from ganglion.train.settings import (
    DataSettings,
    ExportSettings,
    OptimSettings,
    TaskSettings,
    TrainSettings,
)

MOST_TRIPS = 10_000  # of the exported Loop, `stride` steps each
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Side = Annotated[int, Field(ge=1, le=1024)]
PoolSide = Annotated[int, Field(ge=4, le=128)]
Stay = Annotated[float, Field(gt=0.0, le=100.0)]


def _need_rising(name: str, pair: tuple[float, float]) -> None:
    if pair[0] > pair[1]:
        raise ValueError(f"{name}={list(pair)}: the smaller number comes first")


_SIDE = "Cells {}. The policies wave and trm need no other training for other sizes."


class MapSettings(Settings):
    """What all kinds of maps have: their size."""

    height: int = setting(8, _SIDE.format("from top to bottom"), ge=2, le=1024)
    width: int = setting(8, _SIDE.format("from left to right"), ge=2, le=1024)

    def options(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return what `maps.draw_cases` is told besides kind and size."""
        return {}

    def draw(self, count: int, rng: np.random.Generator) -> maps.Cases:
        """Draw `count` maps, each with a goal and a start that has a way to it."""
        kind: maps.Kind = getattr(self, "kind", "density")
        return maps.draw_cases(
            kind, count, self.height, self.width, rng, **self.options(count, rng)
        )

    @property
    def steps(self) -> int:
        """Recursion steps that lead a wave of one cell a step through any map of this kind."""
        return self.height * self.width // 2 + self.height + self.width


class DensitySettings(MapSettings):
    """Walls one by one, by chance."""

    kind: Literal["density"] = "density"
    density: float = setting(
        0.2, "Probability that a cell is a wall. From .4 on most cells have no way to the goal.",
        ge=0.0, le=0.9,
    )  # fmt: skip

    def options(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"density": self.density}

    @property
    def steps(self) -> int:
        few = 2 * (self.height + self.width)  # detours are short where walls are few
        return few if self.density <= 0.25 else super().steps


class RoomsSettings(MapSettings):
    """Rooms with doors."""

    kind: Literal["rooms"] = "rooms"
    sides: tuple[Side, Side] = setting((3, 7), "Least and greatest side of a room.", unit="cells")
    doors: float = setting(0.3, "Probability of a door between two neighbours.", ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _rises(self) -> RoomsSettings:
        _need_rising("problem.sides", self.sides)
        return self

    def options(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"sides": self.sides, "doors": self.doors}


class MazeSettings(MapSettings):
    """Mazes by depth-first search, with corridors of one cell."""

    kind: Literal["maze"] = "maze"
    braid: tuple[Share, Share] = setting(
        (0.0, 0.0), "Least and greatest probability that a dead end is opened; each maze draws "
        "its own in between. 0 0 is a perfect maze: one way between any two cells.",
    )  # fmt: skip
    openings: tuple[Share, Share] = setting(
        (0.0, 0.0), "Least and greatest share of all walls between corridors that are opened."
    )

    @model_validator(mode="after")
    def _rises(self) -> MazeSettings:
        _need_rising("problem.braid", self.braid)
        _need_rising("problem.openings", self.openings)
        return self

    def options(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        braid, openings = (rng.uniform(*share, count) for share in (self.braid, self.openings))
        return {"braid": braid, "openings": openings}


class HardSettings(MapSettings):
    """Maps whose shortest path is long, of the kind of the published hard mazes."""

    kind: Literal["hard"] = "hard"
    height: int = setting(30, _SIDE.format("from top to bottom"), ge=2, le=1024)
    width: int = setting(30, _SIDE.format("from left to right"), ge=2, le=1024)
    variants: tuple[Literal["perfect", "braided", "walls"], ...] = setting(
        ("perfect", "braided", "walls"), "Kinds of maps, in equal parts.", min_length=1
    )
    over: int = setting(110, "Every shortest path is longer than this.", unit="moves", ge=1)

    def options(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"variants": self.variants, "over": self.over}


class MixedSettings(MapSettings):
    """What fresh training maps are drawn from: walls of any density, and mazes of all kinds."""

    kind: Literal["mixed"] = "mixed"


Problem = DensitySettings | RoomsSettings | MazeSettings | HardSettings | MixedSettings


class RecurrentSettings(Settings):
    """What the recursive policies have in common."""

    dim: int = setting(16, "Channels of a latent. More where training does not fit.", ge=4, le=256)
    depth: int = setting(1, "Layers of the network that is applied again and again.", ge=1, le=4)
    latents: Literal[1, 2] = setting(1, "Latents: 1, or a slow one and a fast one.")
    update: Literal["hard_gate", "post_norm"] = setting(
        "hard_gate", "hard_gate: saturating gates keep what is known exactly; post_norm: residual "
        "with RMS norm and SwiGLU, as in the paper (far worse here).",
    )  # fmt: skip
    mixing: Literal["conv", "mlp", "attention"] = setting(
        "conv", "How cells learn from others: 3 x 3 convolution (any size), or, as in the paper, "
        "a perceptron over all cells (one size) or attention.",
    )  # fmt: skip
    positions: Literal["none", "rotary", "learned"] = setting(
        "none", "Positions for mixing=attention: rotary angles by row and column (any size), or "
        "learned (one size)."
    )  # fmt: skip
    inner: int = setting(1, "Applications to the fast latent in a cycle, n.", ge=1, le=16)
    blind: int = setting(
        0, "Cycles without gradient before each update's own, T - 1 of the paper.", ge=0, le=64
    )
    stride: int = setting(
        8, "Cycles in a trip of the exported Loop; steps are rounded up to it. More cost less "
        "overhead for each.", ge=1, le=32,
    )  # fmt: skip
    halting: bool = setting(
        True, "Stop a map's recursion once a whole stride changed none of its moves. Off: exactly "
        "the steps asked for.",
    )  # fmt: skip


class WaveSettings(RecurrentSettings):
    """A gated convolutional recurrence with one latent (6,358 parameters), one cell a step."""

    kind: Literal["wave"] = "wave"


class TrmSettings(RecurrentSettings):
    """A tiny recursive model with two latents; update=post_norm mixing=mlp dim=128 as published."""

    kind: Literal["trm"] = "trm"
    latents: Literal[1, 2] = setting(2, "Latents: 1, or a slow one and a fast one.")
    dim: int = setting(
        16, "Channels of a latent. 16 suffices for hard gates; 64, 128 or 256 as published.", ge=4,
        le=256,
    )  # fmt: skip
    inner: int = setting(2, "Applications to the fast latent in a cycle, n.", ge=1, le=16)
    stride: int = setting(
        4, "Cycles in a trip of the exported Loop; steps are rounded up to it. More cost less "
        "overhead for each.", ge=1, le=32,
    )  # fmt: skip


class MixerSettings(Settings):
    """The original's MLP-mixer over the tokens of one state; one size of maps."""

    kind: Literal["mixer"] = "mixer"
    dim: int = setting(64, "Channels of a token: 32, 64, 128 or 256.", ge=8, le=512)
    depth: int = setting(2, "Mixer layers, 1 to 4.", ge=1, le=8)
    dropout: float = setting(
        0.1, "Dropout after each perceptron: 0 above 100,000 samples, .15-.2 when overfitting, .3 "
        "and more when severe.", ge=0.0, lt=1.0,
    )  # fmt: skip
    augment: bool = setting(
        False, "Turn and mirror each sample by chance at every step; the data stay as many. First "
        "remedy for overfitting.",
    )  # fmt: skip
    targets: Literal["optimal", "first"] = setting(
        "first", "What is learned: all optimal moves in equal parts, or the one that A* takes, as "
        "in the original.",
    )  # fmt: skip


class PoolSettings(Settings):
    """How the recursive policies train: slots with carried latents, and a wave-front mask.

    A step uses train.batch_size slots of the larger side, twice as many of the smaller.
    """

    sides: tuple[PoolSide, PoolSide] = setting(
        (9, 16), "The two sizes of training maps.", unit="cells"
    )
    large_from: float = setting(
        0.4, "Share of the run after which larger maps join. Earlier costs time.", ge=0.0, le=1.0
    )
    small_until: float = setting(
        0.5, "Share of the run after which smaller maps leave.", ge=0.0, le=1.0
    )
    cycles: int = setting(
        10, "Cycles of back-propagation in an update. More see farther and cost time.", ge=1, le=64
    )
    supervised: int = setting(
        5, "Of those, how many have a loss (at most all); the last one always.", ge=1
    )
    lag: int = setting(
        2, "Cells around the wave's front that have no loss: what is nearer to the goal must be "
        "known, what is farther must be UNKNOWN.", unit="cells", ge=0, le=64,
    )  # fmt: skip
    noise: float = setting(
        0.02, "Standard deviation of what is added to half of the carried latents, so that what "
        "is settled heals.", ge=0.0, le=1.0,
    )  # fmt: skip
    stay: tuple[Stay, Stay] = setting(
        (0.2, 1.5), "A slot keeps its map for 4 steps and between this many times the steps that "
        "its wave needs. Short stays show more maps, and more goals."
    )  # fmt: skip
    pockets: float = setting(
        0.0, "Share of the fresh maps whose goal is in a pocket, a cell with one free neighbour: "
        "rare among random walls, and an error there ends all ways.", ge=0.0, le=1.0,
    )  # fmt: skip
    near: float = setting(
        8.0, "Weight of a cell's loss besides 1, over 1 + its distance to the goal: an error next "
        "to the goal ends all ways.", ge=0.0, le=100.0,
    )  # fmt: skip
    hold: float = setting(
        0.3, "Share of the run at the peak rate, before the cosine.", ge=0.0, le=1.0
    )
    targets: Literal["optimal", "first"] = setting(
        "optimal", "What is learned: all optimal moves in equal parts, or the one that A* takes."
    )

    @model_validator(mode="after")
    def _fits(self) -> PoolSettings:
        _need_rising("pool.sides", self.sides)
        _need_rising("pool.stay", self.stay)
        return self


class EvaluationSettings(Settings):
    """How a policy is tried; never part of the data."""

    steps: int | None = setting(
        None, "Most recursion steps; none: by size and kind of the maps, for imported ones as many "
        "as they have cells.", ge=1, le=80_000,
    )  # fmt: skip
    factor: float = setting(
        1.0, "Factor on the steps: what is known must stay known.", gt=0.0, le=16.0
    )


class Config(TaskSettings):
    """Settings of the task gridnav."""

    presets: ClassVar[Mapping[str, str]] = {
        "quick": "a first policy in two CPU-minutes, report included",
        "standard": "the recommended training, five CPU-minutes",
        "max": "eight CPU-minutes, twice the maps a step, for the largest maps",
        "puzzles": "the same training on crops of 1,000 hard mazes only",
        "trm": "the tiny recursive model with two latents and gated convolutions",
        "recipe1": "the original guide's quick recipe: mixer, 5,000 states",
        "recipe2": "the original guide's production recipe: mixer, 50,000 states, augmented",
        "recipe3": "the original guide's maximum recipe: mixer, 100,000 states, augmented",
    }

    problem: Problem = variant(DensitySettings(), "The maps that the policy is judged on.")
    labels: Literal["first", "imported"] = setting(
        "first", "What the data's single labels are: the move that A* takes first, or whatever an "
        "imported file holds.",
    )  # fmt: skip
    model: WaveSettings | TrmSettings | MixerSettings = variant(WaveSettings(), "The policy.")
    pool: PoolSettings = PoolSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings(fresh=True, validation=500, test=500, shard=500)
    train: TrainSettings = TrainSettings(steps=4_500, batch_size=16, ema=0.9975)
    optim: OptimSettings = OptimSettings(
        lr=8e-3, betas=(0.9, 0.99), warmup_steps=100, final_lr=0.02
    )
    export: ExportSettings = ExportSettings()

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if isinstance(self.model, RecurrentSettings):
            self._recurs(self.model)
        elif self.model.augment and self.problem.height != self.problem.width:
            raise ValueError("model.augment turns maps, so they must be square")
        return self

    def _recurs(self, model: RecurrentSettings) -> None:
        if self.train.accumulate != 1 or self.train.compile or self.train.epochs:
            raise ValueError(
                "train.accumulate, train.compile and train.epochs are for model=mixer; "
                f"model={getattr(model, 'kind', '')} trains on slots, step by step"
            )
        if self.one_size and self.problem.height != self.problem.width:
            raise ValueError("model.mixing=mlp and model.positions=learned train on square maps")
        if model.positions != "none" and model.mixing != "attention":
            raise ValueError(
                f"model.positions={model.positions} is for model.mixing=attention, which "
                f"model.mixing={model.mixing} is not"
            )
        if model.mixing == "attention" and model.dim % 16:
            raise ValueError(
                f"model.mixing=attention needs a multiple of 16 for model.dim, not {model.dim}"
            )

    @property
    def one_size(self) -> bool:
        """Whether the policy serves maps of the trained size only."""
        net = self.model
        return isinstance(net, MixerSettings) or net.mixing == "mlp" or net.positions == "learned"

    @property
    def steps(self) -> int | None:
        """Most recursion steps that a policy is called with; None for one that takes none.

        Imported maps are of any kind: no way is longer than they have cells.
        """
        if isinstance(self.model, MixerSettings):
            return None
        imported = self.problem.height * self.problem.width if self.labels == "imported" else None
        cells = self.evaluation.steps or imported or self.problem.steps
        return max(1, round(cells * self.evaluation.factor))

    def world(self) -> dict[str, Any]:
        """Return what decides the data: the maps and the kind of labels."""
        return {**super().world(), "labels": self.labels}

    @classmethod
    def preset(cls, name: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the layer of preset `name`; what is said about the model decides with it."""
        if name in _RECIPES:
            return _recipe(*_RECIPES[name])
        kind = said.get("model", {}).get("kind", "trm" if name == "trm" else "wave")
        if kind == "mixer":
            return _recipe(*_RECIPES["recipe1"])
        steps, ema = _STEPS[name]
        train = {"steps": steps, "ema": ema, "eval_every": steps // 10}
        pool: dict[str, Any] = {"cycles": 5} if kind == "trm" else {}  # each leads two cells far
        layer: dict[str, Any] = {"model": {"kind": kind}, "pool": pool, "train": train}
        if name in ("standard", "max"):  # more maps a step did more than more steps
            pool["pockets"], train["batch_size"] = 0.25, 32
        if name == "puzzles":
            layer["problem"] = {"kind": "hard"}
            layer["data"] = {"fresh": False, "train": 1_000, "validation": 30, "test": 100}
            train["eval_every"] = steps // 5  # the long ways make a validation dear
        return layer


# Steps of each preset and decay of its weight average, which spans some 8 % of them. What they
# cost and reach stands in benchmarks/RESULTS.md.
_STEPS = {
    "quick": (2_800, 0.996), "standard": (4_500, 0.9975), "max": (7_500, 0.9985),
    "puzzles": (4_500, 0.9975), "trm": (4_500, 0.9975),
}  # fmt: skip
# samples, validation, dim, depth, dropout, decay, rate, epochs, patience, batch, augmented
_RECIPES = {
    "recipe1": (5_000, 500, 64, 2, 0.1, 0.01, 1e-3, 30, 10, 64, False),
    "recipe2": (50_000, 2_000, 128, 3, 0.15, 0.01, 5e-4, 100, 20, 64, True),
    "recipe3": (100_000, 5_000, 256, 4, 0.2, 0.02, 3e-4, 150, 30, 128, True),
}


def _recipe(
    rows: int, held: int, dim: int, depth: int, dropout: float, decay: float, lr: float,
    epochs: int, patience: int, batch: int, augment: bool,
) -> dict[str, Any]:  # fmt: skip
    return {
        "model": {
            "kind": "mixer", "dim": dim, "depth": depth, "dropout": dropout, "augment": augment,
        },
        "data": {"fresh": False, "train": rows, "validation": held, "test": held, "shard": 1_000},
        "train": {"epochs": epochs, "batch_size": batch, "patience": patience, "ema": 0.0},
        "optim": {
            "lr": lr, "betas": [0.9, 0.999], "weight_decay": decay, "warmup_steps": 0,
            "final_lr": 0.0,
        },
    }  # fmt: skip
