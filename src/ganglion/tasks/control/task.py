"""The task control: where its data comes from, how a policy is judged. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganglion.core.contracts import Array, Arrays, Claim, Learner, Policy, Ranks
from ganglion.core.errors import SettingsError
from ganglion.tasks.control import checks, evaluation, formats, oracle, references
from ganglion.tasks.control.config import Config
from ganglion.tasks.control.plant import Floats, Plant
from ganglion.tasks.control.problem import ProblemSettings
from ganglion.tasks.control.riccati import clipped_rollout, steady_tracking_gain
from ganglion.tasks.control.rocket.task import RocketLanding

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_QUOTES = (  # claims of the original's guide, shown beside what is measured here
    {"name": "language model (Qwen 2.5-3B)", "parameters": 50e6, "latency_ms": 100.0,
     "memory_mb": 6000.0, "source": "claim of the original's guide; parameters: trainable ones"},
    {"name": "tiny recursive control, original", "parameters": 530e3, "latency_ms": 5.0,
     "memory_mb": 20.0, "source": "claim of the original's guide"},
)  # fmt: skip
_CLAIMS = (  # of the same guide, for moving targets
    Claim("mean final error", "< 0.5", "final_error"),
    Claim("success: final error < 0.1", "> 50 %", "success"),
    Claim("gap from optimal (here of cost; the guide's is of final errors)", "< 30 %", "gap"),
    Claim("time of a decision", "< 10 ms", "latency"),
    Claim("final error, in that of random controls", "~90 % better", "error_against_random"),
    Claim("the same, untrained", "20-30 % better", "error_against_random", of="untrained"),
    Claim("gap, untrained", "~300 %", "gap", of="untrained"),
    *(Claim(f"loss at epoch {epoch}, train/validation", said, "loss", epoch=epoch)
      for epoch, said in {1: "5.2/5.3", 20: "2.1/2.2", 50: ".8/.9", 80: ".2/.3",
                          100: ".1/.15"}.items()),
)  # fmt: skip


class Control:
    """Controls for one plant with bounded actuators, as the settings describe it.

    `plant` is the plant as modelled (data, training, planning), `truth` the plant as it is
    (evaluation: actuator gain, parameter mismatch).
    """

    import_settings: ClassVar[Mapping[str, Any]] = {"labels": "imported"}  # of foreign data
    efficiency_quotes = _QUOTES
    captions: ClassVar[Mapping[str, str]] = {
        "trajectories": "Six far-apart cases: the policy in colour, the exact optimum dashed.",
        "gap_map": "Cost above the exact optimum, by initial state.",
        "worst": "The three cases that cost most above the optimum: policy blue, optimum dashed.",
        "portrait": "The policy over the optimal flow and control (colour) at the beginning.",
        "refinement": "Cost above the optimum after every cycle, to four times those trained.",
    }
    scenario_note = (
        "A policy that answers with a whole sequence (trc, mlp, admm) is judged by one call at the "
        "start, without feedback; its closed loop is in the closed_ columns."
    )
    goal = evaluation.GAP

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        assert isinstance(settings.problem, ProblemSettings)
        self.problem = settings.problem
        self.plant: Plant = self.problem.plant()
        self.metrics = evaluation.metrics_of(self.plant)
        self.truth: Plant = evaluation.actual_plant(self.plant, settings.evaluation)
        self.scenarios: Mapping[str, Mapping[str, Any]] = _scenarios(self.problem)
        self.importers: Mapping[str, Callable[[Path], Arrays]] = {"npz": self._import_npz}
        self.formats: Mapping[str, Callable[[Arrays, Path], None]] = {"npz": formats.write_npz}

    @property
    def settings(self) -> Config:
        return self._settings

    @property
    def claims(self) -> Sequence[Claim]:
        """What the original's guide promises; it speaks of moving targets alone."""
        moving = getattr(self.problem, "target", None) == "moving"
        return _CLAIMS if moving else ()

    @property
    def steps(self) -> Mapping[str, int]:
        """What an input of role "steps" gets where nobody says otherwise."""
        return {} if self.settings.cycles is None else {"cycles": self.settings.cycles}

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each array of the data."""
        state = ", ".join(self.plant.state_units)
        return {
            "state": state, "target": state, "states": state, "time_left_s": "s",
            "controls": ", ".join(self.plant.control_units), "cost": "1", "oracle_error": state,
        }  # fmt: skip

    def generate(self, count: int, split: str, rng: np.random.Generator) -> Arrays:
        """Draw `count` cases and label them; see `label` for the arrays."""
        if self.settings.labels == "imported":
            raise SettingsError(
                "labels=imported is for data from a file (`ganglion data import`); choose "
                "labels=optimal or clipped_lqr to generate."
            )
        x0 = self.plant.sample_starts(rng, count, self.problem.start_scale)
        return self.label(x0, self.plant.sample_targets(rng, count))

    def label(self, x0: Floats, target: Floats) -> dict[str, Array]:
        """Solve given cases, x0 and target (B, n).

        Returns state, target (B, n), time_left_s (B, 1), controls (B, N, m) and states
        (B, N + 1, n) of the label, all float32, and of the exact optimum cost (B,) = J* and
        oracle_error (B,), its `Plant.arrival`, in float64. Starts are rounded to float32
        first, so the labels belong to exactly the numbers that are stored.
        """
        x0, target = (a.astype(np.float32).astype(np.float64) for a in (x0, target))
        best = oracle.remembered(self.plant, x0, target)
        states, controls = best.states, best.controls
        if self.settings.labels == "clipped_lqr":
            gain = steady_tracking_gain(self.plant)
            states, controls = clipped_rollout(self.plant, gain, x0, target)
        return self._rows(x0, target, states, controls, best)

    def _rows(
        self, x0: Floats, target: Floats, states: Floats, controls: Floats, best: oracle.Solution
    ) -> dict[str, Array]:
        return {
            "state": x0.astype(np.float32),
            "target": target.astype(np.float32),
            "time_left_s": np.full((len(x0), 1), self.plant.horizon_s, np.float32),
            "controls": np.ascontiguousarray(controls, np.float32),
            "states": np.ascontiguousarray(states, np.float32),
            "cost": best.cost,
            "oracle_error": self.plant.arrival(best.states, target),
        }

    def learner(self, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
        from ganglion.tasks.control.learning import make  # torch begins here

        return make(self, data, device, seed, ranks)

    def references(self) -> Mapping[str, Policy]:
        """Return oracle, lqr, lqr_steady, zero, random, and for linear plants admm_5/10/20."""
        return references.references(self.plant, self.truth)

    def evaluate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Arrays:
        """Score any policy on the plant as it is; see `evaluation.score` for the columns."""
        trial = self.trial(cases, rng)
        best, possible = self.optimum(cases)
        return evaluation.score(policy, trial, best, possible, rng)

    def trial(self, cases: Arrays, rng: np.random.Generator) -> evaluation.Trial:
        """Set up the cases on the plant as it is, with this world's disturbances."""
        return evaluation.trial(
            self.truth, cases, self.settings.evaluation, self.settings.cycles, rng
        )

    def optimum(self, cases: Arrays) -> tuple[Floats, evaluation.Flags]:
        """Return J* (B,) on the plant as it is, and whether that optimum succeeds (B,)."""
        if self.truth == self.plant and "cost" in cases and "oracle_error" in cases:
            error = np.asarray(cases["oracle_error"], np.float64)
            return np.asarray(cases["cost"], np.float64), error < evaluation.ARRIVED
        return evaluation.optimum(self.truth, cases)

    def decode(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        return outputs

    def check(self, arrays: Arrays) -> None:
        """Re-derive dynamics, bounds, optimum and labels; DataError names the first fault."""
        checks.check(self.plant, arrays, self.settings.labels)

    def curves(self, policy: Policy, cases: Arrays) -> Arrays:
        """Return what each number of cycles achieves, {} for policies without the input `cycles`.

        cycles (C,) from 1 to four times as trained; gap (C,); rising (C,), the share of cases whose
        cost is above that of the cycle before by more than 1e-6 relative.
        """
        trial = self.trial(cases, np.random.default_rng(0))
        most = 4 * (self.settings.cycles or 8)
        return evaluation.anytime(policy, trial, self.optimum(cases)[0], most)

    def draw(
        self, policy: Policy, cases: Arrays, rng: np.random.Generator, curves: Arrays | None = None
    ) -> dict[str, Figure]:
        """Return pictures by name: trajectories, gap_map and, where it refines, refinement."""
        from ganglion.tasks.control import view

        return view.draw(self, policy, cases, rng, curves)

    def animate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> bytes:
        """Return a GIF of policy and optimum moving together."""
        from ganglion.tasks.control import animation

        return animation.animate(self, policy, cases, rng)

    def _import_npz(self, path: Path) -> Arrays:
        """Read a file of the original and solve its cases; labels are the file's controls."""
        found = formats.read_npz(path, self.plant)
        x0, target = found["state"], found["target"]
        best = oracle.solve(self.plant, x0, target)
        return self._rows(x0, target, found["states"], found["controls"], best)


def _scenarios(problem: ProblemSettings) -> Mapping[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {"nominal": {}}
    for factor in (1.5, 2.0):
        found[f"starts_x{factor:g}"] = {"problem.start_scale": problem.start_scale * factor}
    for factor in (0.5, 2.0):
        steps = max(1, round(problem.num_steps * factor))
        found[f"horizon_x{factor:g}"] = {
            "problem.num_steps": steps, "problem.horizon_s": steps * problem.dt,
        }  # fmt: skip
    found["noise_0.02"] = {"evaluation.process_noise": 0.02}
    for factor in (0.8, 1.2):
        found[f"gain_{factor:g}"] = {"evaluation.actuator_gain": factor}
    if problem.plant().uncertain is not None:
        for factor in (0.8, 1.2):
            found[f"{problem.plant().uncertain}_{factor:g}"] = {"evaluation.mismatch": factor}
    return found


def make(settings: Config) -> Control | RocketLanding:
    """Build the task of the problem: the lander's plans are no controls at a fixed time step."""
    return RocketLanding(settings) if settings.model.kind == "plan" else Control(settings)


TASK = make
