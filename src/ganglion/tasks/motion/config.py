"""Settings and presets of motion. Neither torch nor MuJoCo: help and forms read this."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ganglion.core import files
from ganglion.core.errors import SettingsError
from ganglion.core.settings import Settings, combine, setting, variant
from ganglion.rl.settings import PpoSettings, PriorSettings
from ganglion.train.settings import (
    DataSettings,
    ExportSettings,
    OptimSettings,
    TaskSettings,
    TrainSettings,
    Width,
)

MOST_GAITS = 1_000  # of a sweep
LARGEST_FILE = 1 << 30  # bytes of a motion or of a robot
_PLANAR = "Hold the root in the x-z plane: it cannot fall sideways. For quick checks."
Range = tuple[float, float]
Speed = Annotated[float, Field(ge=-10.0, le=10.0)]


# ---------------------------------------------------------------- robots


class MinibipedSettings(Settings):
    """The built-in biped: 1.97 kg, 0.4 m, ten joints."""

    kind: Literal["minibiped"] = "minibiped"
    planar: bool = setting(False, _PLANAR)


class MiniquadSettings(Settings):
    """The built-in quadruped: 2.5 kg, twelve joints."""

    kind: Literal["miniquad"] = "miniquad"
    planar: bool = setting(False, _PLANAR)


class MjcfSettings(Settings):
    """A robot of your own: an MJCF file with a free root and position actuators."""

    kind: Literal["mjcf"] = "mjcf"
    file: str = setting("", "Path of the MJCF file; what it refers to lies in its folder.")
    planar: bool = setting(False, _PLANAR)
    feet: tuple[str, ...] = setting(
        (), "Names of the bodies that are feet; none: those lowest in the home pose."
    )


# ---------------------------------------------------------------- motions


class GaitSettings(Settings):
    """A generated walk at constant speeds."""

    kind: Literal["gait"] = "gait"
    forward: float = setting(0.15, "Speed ahead.", unit="m/s", ge=-2.0, le=2.0)
    lateral: float = setting(0.0, "Speed to the left.", unit="m/s", ge=-2.0, le=2.0)
    turn: float = setting(0.0, "Rate of turn to the left.", unit="rad/s", ge=-6.0, le=6.0)
    period_s: float = setting(
        0.64, "Time of two steps; a whole number of control steps.", unit="s", ge=0.1, le=5.0
    )
    double_support: float = setting(
        0.2, "Share of the period in which both feet stand; more is steadier.", ge=0.0, le=0.8
    )
    foot_height: float = setting(0.025, "How high feet are lifted.", unit="m", ge=0.0, le=0.5)
    crouch: float = setting(
        0.0, "How much lower than at home the body is; more where steps are long.", unit="m",
        ge=-0.1, le=0.5,
    )  # fmt: skip


class SweepSettings(Settings):
    """Generated walks over a grid of commanded speeds: many clips, one policy."""

    kind: Literal["sweep"] = "sweep"
    forward: Range = setting((0.0, 0.2), "Lowest and highest speed ahead.", unit="m/s")
    forward_steps: int = setting(5, "Speeds ahead in the grid.", ge=1, le=100)
    lateral: Range = setting((0.0, 0.0), "Lowest and highest speed to the left.", unit="m/s")
    lateral_steps: int = setting(1, "Speeds to the left in the grid.", ge=1, le=100)
    turn: Range = setting((-0.5, 0.5), "Lowest and highest rate of turn.", unit="rad/s")
    turn_steps: int = setting(5, "Rates of turn in the grid.", ge=1, le=100)
    period_s: float = setting(0.64, "Time of two steps.", unit="s", ge=0.1, le=5.0)
    double_support: float = setting(0.2, "Share in which both feet stand.", ge=0.0, le=0.8)
    foot_height: float = setting(0.025, "How high feet are lifted.", unit="m", ge=0.0, le=0.5)
    crouch: float = setting(0.0, "How much lower the body is.", unit="m", ge=-0.1, le=0.5)

    @property
    def count(self) -> int:
        """How many gaits the grid has."""
        return self.forward_steps * self.lateral_steps * self.turn_steps


class FileSettings(Settings):
    """A motion from a file: motion.npz, or a format of another system."""

    kind: Literal["file"] = "file"
    path: str = setting("", "Path of the motion file.")
    format: Literal["auto", "motion", "awd", "openduck", "mjlab", "unitree", "qpos", "angles"] = (
        setting("auto", "Its layout; auto tells by suffix and contents.")
    )
    fps: float | None = setting(
        None, "Frames a second, for formats that do not state it (angles, unitree, qpos).", gt=0.0,
        le=1000.0,
    )  # fmt: skip
    joint_names: tuple[str, ...] = setting(
        (), "The file's joints in order, where it does not name them and they are not the robot's."
    )
    loop: Literal["file", "wrap", "clamp"] = setting(
        "file", "Whether the motion repeats: as the file says, always, or never."
    )
    clip: str = setting(
        "", "Only clips whose name holds this text; of several clips one policy learns all."
    )
    faults: Literal["error", "warn"] = setting(
        "error", "What a fault of the motion does: stop, or be noted; then it is only cloned."
    )


class AugmentSettings(Settings):
    """Variants of every clip that are learned beside it."""

    mirror: bool = setting(False, "Left and right exchanged.")
    time_scale: float = setting(
        0.0, "Also this much slower and faster, as a share; .1 is 10 %.", ge=0.0, le=0.5
    )
    noise: float = setting(
        0.0, "Also with smooth noise of this size on the joints.", unit="rad", ge=0.0, le=0.5
    )


# ---------------------------------------------------------------- physics and problem


class PhysicsSettings(Settings):
    """The simulator."""

    backend: Literal["rollout", "warp"] = setting(
        "rollout", "rollout: MuJoCo's C engine on threads; warp: MuJoCo Warp on CUDA (to install)."
    )
    control_hz: float = setting(50.0, "Control steps a second.", unit="Hz", ge=5.0, le=1000.0)
    substeps: int = setting(4, "Physics steps in a control step.", ge=1, le=100)
    threads: int = setting(
        0, "Threads that step robots; 0 is the training's own. Changes no bit.", ge=0, le=256
    )


class ProblemSettings(Settings):
    """What the policy sees, does and is disturbed by while it learns."""

    observation: Literal["full", "proprio"] = setting(
        "full", "full adds errors of position, heading and velocity, which a real robot must "
        "estimate; proprio is what its sensors say, and drifts.",
    )  # fmt: skip
    action: Literal["residual", "absolute"] = setting(
        "residual", "What actions are added to: the reference's next angles, or its mean pose."
    )
    action_scale: float = setting(
        0.25, "Joint angle of an action of 1.", unit="rad", gt=0.0, le=3.2
    )
    goal: Literal["track", "command"] = setting(
        "track", "track: follow the reference; command: follow its speeds, in its style "
        "(loss.style)."
    )  # fmt: skip
    episode_s: float = setting(10.0, "Longest episode of training.", unit="s", gt=0.0, le=1000.0)
    start_noise: float = setting(
        1.0, "Factor on the noise at starts (joints and tilt .05 rad, speeds .1).", ge=0.0, le=10.0
    )
    start_offset: float = setting(
        0.12, "How far off the reference's place training starts, where the policy sees its place: "
        "it learns to come back. For the biped's leg; scaled with others.", unit="m", ge=0.0,
        le=0.2,
    )  # fmt: skip
    sensor_noise: float = setting(
        0.0, "Factor on noise of the sensors (joints .02 rad, gyro .2 rad/s, up .03).", ge=0.0,
        le=10.0,
    )  # fmt: skip
    latency: int = setting(0, "Most control steps by which targets come late.", ge=0, le=1)
    push: float = setting(
        0.0, "Speed of kicks to the body, one about every four seconds.", unit="m/s", ge=0.0, le=5.0
    )
    randomise: float = setting(
        0.0, "Share by which friction and masses vary between robots.", ge=0.0, le=0.9
    )


class ModelSettings(Settings):
    """Actor and critic."""

    hidden: tuple[Width, ...] = setting((128, 128), "Widths of both nets' layers.")
    initial_std: float = setting(0.4, "Spread of the first actions.", gt=0.0, le=10.0)


class StyleSettings(PriorSettings):
    """The style reward (adversarial motion prior); for problem.goal=command."""

    on: bool = setting(False, "Pay for moving like the clips.")


class PpoLoss(PpoSettings):
    """Reinforcement learning in physics."""

    kind: Literal["ppo"] = "ppo"
    style: StyleSettings = StyleSettings()


class CloningLoss(Settings):
    """Supervised learning of the clip's joint angles from its phase: no physics, seconds."""

    kind: Literal["cloning"] = "cloning"
    state_noise: float = setting(
        0.1, "Noise on what the net sees of the robot, so that it leans on the phase.", ge=0.0,
        le=10.0,
    )  # fmt: skip


class EvaluationSettings(Settings):
    """How policies are judged, and how that world differs from the model."""

    seconds: float = setting(10.0, "Length of an episode.", unit="s", gt=0.0, le=1000.0)
    substeps: int | None = setting(
        None, "Physics steps in a control step; 10 is 2 ms at 50 Hz. None: as in training.", ge=1,
        le=100,
    )  # fmt: skip
    friction: float = setting(1.0, "Factor on friction.", gt=0.0, le=10.0)
    mass: float = setting(1.0, "Factor on all masses.", gt=0.0, le=10.0)
    push: float = setting(
        0.0, "Speed of a kick every two seconds, in a random direction.", unit="m/s", ge=0.0, le=5.0
    )
    sensor_noise: float = setting(0.0, "Factor on noise of the sensors.", ge=0.0, le=10.0)
    threads: int = setting(
        2, "Threads of the physics; 0 is the calling one. Changes no figure.", ge=0, le=256
    )


# ---------------------------------------------------------------- all of it


class Config(TaskSettings):
    """Settings of the task motion."""

    presets: ClassVar[Mapping[str, str]] = {
        "smoke": "planar robot, 100k environment steps: does the line work?",
        "quick": "the default walk in about a minute of one core",
        "standard": "the recommended settings, 1.5 million environment steps",
        "max": "for a real robot: proprioceptive, noise, latency, pushes, varied bodies",
        "gpu": "thousands of robots, many speeds, MuJoCo Warp",
        "guide": "the original form's defaults: 100 updates of 128 robots",
        "clone": "behaviour cloning, seconds, kinematic only",
    }

    robot: MinibipedSettings | MiniquadSettings | MjcfSettings = variant(
        MinibipedSettings(), "The robot."
    )
    clip: GaitSettings | SweepSettings | FileSettings = variant(
        GaitSettings(), "The reference motion: generated, many generated ones, or a file."
    )
    augment: AugmentSettings = AugmentSettings()
    physics: PhysicsSettings = PhysicsSettings()
    problem: ProblemSettings = ProblemSettings()
    model: ModelSettings = ModelSettings()
    loss: PpoLoss | CloningLoss = variant(PpoLoss(), "How the policy learns.")
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings(fresh=True, validation=16, test=64, shard=64)
    train: TrainSettings = TrainSettings(steps=488, batch_size=3_072, eval_every=122)
    optim: OptimSettings = OptimSettings(lr=1e-3, schedule="none")
    export: ExportSettings = ExportSettings(tolerance=1e-5)

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.clip.kind == "file" and not self.clip.path:
            raise ValueError("clip.kind=file needs clip.path=FILE")
        if self.robot.kind == "mjcf" and not self.robot.file:
            raise ValueError("robot.kind=mjcf needs robot.file=FILE")
        if self.faulty and self.loss.kind != "cloning":
            raise ValueError(
                "clip.faults=warn lets faulty motions through, which no robot can perform; they "
                "are only cloned: choose loss.kind=cloning, or clip.faults=error"
            )
        if self.loss.kind == "cloning" and self.problem.goal == "command":
            raise ValueError("loss.kind=cloning clones a reference; choose problem.goal=track")
        styled = self.loss.kind == "ppo" and self.loss.style.on
        if styled != (self.problem.goal == "command"):
            raise ValueError(
                "problem.goal=command and loss.style.on=true belong together: the command says "
                "where to, the style how"
            )
        if self.problem.goal == "command" and self.problem.action == "residual":
            raise ValueError(
                "problem.goal=command has no reference to add to; choose problem.action=absolute"
            )
        if isinstance(self.clip, SweepSettings) and self.clip.count > MOST_GAITS:
            raise ValueError(
                f"clip=sweep asks for {self.clip.count:,} gaits; at most {MOST_GAITS:,} are made"
            )
        if self.physics.backend == "warp" and self.problem.randomise:
            raise ValueError(
                "problem.randomise needs physics.backend=rollout: Warp's robots are equal"
            )
        if isinstance(self.loss, PpoLoss):
            self._learns_by_ppo(self.loss)
        return self

    def _learns_by_ppo(self, loss: PpoLoss) -> None:
        """ValueError where something is set that reinforcement learning would not look at."""
        defaults = {"ema": 0.0, "precision": "fp32", "accumulate": 1, "compile": False}
        for name, usual in defaults.items():
            if getattr(self.train, name) != usual:
                raise ValueError(f"train.{name} is for loss=cloning; loss=ppo does without it")
        if self.optim.schedule == "plateau":
            raise ValueError(
                "optim.schedule=plateau is for loss=cloning; loss=ppo has its own, loss.kl"
            )
        if loss.kl and (self.optim.schedule != "none" or self.optim.warmup_steps):
            raise ValueError(
                "optim.schedule and optim.warmup_steps need loss.kl=0: otherwise the rate follows "
                "how far the policy moves"
            )

    @property
    def faulty(self) -> bool:
        """Whether faults of the motion are only noted."""
        return isinstance(self.clip, FileSettings) and self.clip.faults == "warn"

    @property
    def environments(self) -> int:
        """How many robots practise at once."""
        horizon = self.loss.horizon if isinstance(self.loss, PpoLoss) else 1
        return max(1, self.train.batch_size // horizon)

    def world(self) -> dict[str, Any]:
        """Return what decides the cases: robot, motion, rate; files by what is in them."""
        robot, clip = (s.model_dump(mode="json") for s in (self.robot, self.clip))
        for entry, key in ((robot, "file"), (clip, "path")):
            if entry.get(key):
                entry["sha256"] = _digest(Path(entry.pop(key)))
        return {
            "robot": robot, "clip": clip, "augment": self.augment.model_dump(mode="json"),
            "control_hz": self.physics.control_hz, "start_noise": self.problem.start_noise,
        }  # fmt: skip

    def world_text(self) -> str:
        """Return `world` as one text, files by what is in them: a key for what is built of it."""
        return json.dumps(self.world(), sort_keys=True)

    @classmethod
    def preset(cls, name: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the layer of preset `name`."""
        layers = [_PRESETS[name]]
        if said.get("problem", {}).get("goal") == "command" and name != "clone":
            layers.append(_COMMAND if name != "gpu" else _COMMAND_GPU)
        if said.get("loss", {}).get("kind") == "cloning" and name != "clone":
            layers.append(_PRESETS["clone"])
        return combine(layers)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; SettingsError where it cannot be read or is too large."""
    try:
        if not path.is_file():
            raise SettingsError(f"There is no file {path}.")
        if path.stat().st_size > LARGEST_FILE:
            raise SettingsError(
                f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST_FILE:,} are read."
            )
        return files.sha256(path)
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from error


_COMMAND = {
    "clip": {"kind": "sweep"},
    "problem": {"action": "absolute"},
    # a discriminator that a processor can train; the defaults are for a GPU
    "loss": {"kind": "ppo", "style": {"on": True, "hidden": [256, 128], "batch": 512, "steps": 2}},
}
_COMMAND_GPU = {**_COMMAND, "loss": {"kind": "ppo", "style": {"on": True}}}
_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "robot": {"planar": True},
        "train": {"steps": 49, "batch_size": 2_048, "eval_every": 49},
    },
    "quick": {"train": {"steps": 140, "eval_every": 70}},
    "standard": {},
    "max": {
        "problem": {
            "observation": "proprio", "sensor_noise": 1.0, "latency": 1, "push": 0.3,
            "randomise": 0.2,
        },
        "train": {"steps": 651, "batch_size": 6_144, "eval_every": 93},
    },
    "gpu": {
        "clip": {"kind": "sweep"},
        "physics": {"backend": "warp"},
        "train": {"steps": 510, "batch_size": 196_608, "eval_every": 100},
    },
    "guide": {
        "train": {"steps": 100, "batch_size": 3_072, "eval_every": 50}, "optim": {"lr": 1e-3},
        "model": {"hidden": [256, 256]},
    },
    "clone": {
        "loss": {"kind": "cloning"},
        "train": {"steps": 600, "batch_size": 256, "eval_every": 300, "block": 20},
        "optim": {"lr": 3e-3, "schedule": "cosine"},
    },
}  # fmt: skip
