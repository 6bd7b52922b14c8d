"""The contracts that every task meets. Nothing in this file imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # name -> array; axis 0 is the batch where `batched`
Metrics = Mapping[str, float]

Dtype = Literal["float32", "int64", "int32", "uint8", "bool"]
Role = Literal["data", "normal", "uniform", "state", "steps"]


@dataclass(frozen=True)
class TensorSpec:
    """One named array. `shape` leaves the batch axis out; a str names an axis sized at run time.

    unit is SI, "1" where there is none. low and high are the declared range, checked by server and
    client. labels name the components of the last axis. role says who fills the array: the caller
    ("data"), a noise source ("normal", "uniform"), the last call's output ("state"), or a setting
    ("steps", a number of recursion or solver steps). one_hot says that of each row exactly one
    entry is 1 and the others are 0.
    """

    shape: tuple[int | str, ...]
    dtype: Dtype = "float32"
    unit: str = "1"
    low: float | None = None
    high: float | None = None
    labels: tuple[str, ...] = ()
    role: Role = "data"
    batched: bool = True
    one_hot: bool = False


@dataclass(frozen=True)
class Signature:
    """What a policy takes and gives.

    Noise, steps and carried state are inputs, so a policy is a pure function. `carried` maps an
    output to the input that it feeds at the next call.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    carried: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready form that `from_json` reads back to an equal signature."""
        return {
            "inputs": {name: asdict(spec) for name, spec in self.inputs.items()},
            "outputs": {name: asdict(spec) for name, spec in self.outputs.items()},
            "carried": dict(self.carried),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Signature:
        """Build a signature from `to_json`'s form; KeyError or TypeError where it is malformed."""

        def side(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
            return {
                name: TensorSpec(**{**s, "shape": tuple(s["shape"]), "labels": tuple(s["labels"])})
                for name, s in specs.items()
            }

        return Signature(side(raw["inputs"]), side(raw["outputs"]), dict(raw["carried"]))


class Policy(Protocol):
    """The thing that is scored, exported and served: trained nets, oracles and baselines alike."""

    @property
    def signature(self) -> Signature: ...

    def act(self, inputs: Arrays) -> Arrays:
        """Map a batch of inputs to a batch of outputs; pure, no state is kept between calls."""
        ...


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one policy together."""

    rank: int = 0
    world: int = 1


class Learner(Protocol):
    """The thing that is trained.

    One `update` is one unit of progress: a block of batches, or a rollout with its epochs. A
    step is one optimizer step; `step` counts them.
    """

    @property
    def step(self) -> int: ...

    def update(self) -> Metrics:
        """Train for one block and return its mean metrics, "loss" among them."""
        ...

    def loss(self, data: Arrays) -> Metrics:
        """Validation: no update, EMA weights where there are any; {} where there is no loss."""
        ...

    def observe(self, value: float) -> None:
        """Take the validation value (lower is better), for schedules that listen to it."""
        ...

    def notes(self) -> Sequence[Mapping[str, Any]]:
        """Return and forget events since the last call: {"event", "step", "message", ...}."""
        ...

    def policy(self) -> Policy:
        """Return the deployed form of what is being trained (EMA weights where there are any)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs; leaves are tensors, arrays, JSON scalars."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`, bit for bit."""
        ...


@dataclass(frozen=True)
class Metric:
    """One column of an evaluation.

    per names another column: the metric is then the ratio of the two columns' means (so an
    optimality gap is a ratio of sums over the same cases). help says in one sentence what the
    number means. percent says that people read the fraction as a percentage; values stay
    fractions. share says that each case's value, or its ratio to `per`, is from 0 to 1: where cases
    are yes or no, or all alike at one end, the interval is the exact one of a share, which is never
    empty. Columns that are no metrics may stand beside them in the rows.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    per: str | None = None
    help: str = ""
    percent: bool = False
    share: bool = False


@dataclass(frozen=True)
class Claim:
    """What somebody else's guide promises of a policy, quoted as it stands.

    metric is a column of the evaluation, "latency" (median of a decision) or "loss" (of training
    and validation after `epoch`). of says of which policy: the trained one, or the same net
    untrained.
    """

    what: str
    claimed: str
    metric: str
    of: Literal["trained", "untrained"] = "trained"
    epoch: int | None = None


@runtime_checkable
class Task(Protocol):
    """One problem: where its data comes from, how it is learned, how it is judged.

    `settings` is the resolved settings object it was built from. Optional attributes that generic
    code looks for: `draw(policy, cases, rng)` and `animate` (pictures; a task with `curves` also
    takes what they gave as `draw(..., curves=)`), `captions`, `steps` (what inputs of role "steps"
    get), `units` of the data, `check`, `groups`, `importers`, `formats` (data in and out),
    `exporters` (name -> function(policy, path, card): policy files of others),
    `curves(policy, cases)` (quality over steps), `same_in_use(trained, exported, cases, rng)`
    (figures of both in closed loop; ExportError where they differ), `kept()` (file name -> bytes
    that a run keeps: what was read and what it was made into), `about` (JSON for the policy card),
    `remarks` (sentences that the report's head and the end of a training say),
    `efficiency_quotes`, `claims` (what others promise of the problem as set, each a `Claim`),
    `inputs(cases)` (what a policy is given of cases, where data hold it in another form).
    """

    metrics: Sequence[Metric]
    goal: Metric  # decides early stopping, the best checkpoint and the sweep
    scenarios: Mapping[str, Mapping[str, Any]]  # name -> setting overrides; "nominal" is {}

    @property
    def settings(self) -> Any: ...

    def generate(self, count: int, split: str, rng: np.random.Generator) -> Arrays:
        """Make one shard of `count` rows."""
        ...

    def learner(self, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
        """Build the learner; `data` None means fresh draws at each step."""
        ...

    def references(self) -> Mapping[str, Policy]:
        """Return the oracle and the baselines by name; an oracle is named "oracle"."""
        ...

    def evaluate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Arrays:
        """Score `policy`: one row per case, a column per metric; NaN where it does not apply."""
        ...

    def decode(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        """Turn raw outputs into decisions where no graph can (NumPy); the identity by default."""
        ...
