"""Scoring: every policy by its signature, open and closed loop, on the plant as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from ganglion.core.contracts import Arrays, Signature, TensorSpec
from ganglion.core.errors import DataError
from ganglion.tasks.control import evaluation, oracle, references
from ganglion.tasks.control.config import EvaluationSettings
from ganglion.tasks.control.plant import DoubleIntegrator, Plant, VanDerPol

REST = DoubleIntegrator(15, 5 / 15)
OSCILLATOR = VanDerPol(40, 0.05)


@dataclass
class Spy:
    """Returns zeros of a chosen length and remembers what it was asked."""

    plant: Plant
    steps: int = 1
    more: dict[str, TensorSpec] = field(default_factory=dict)
    value: float = 0.0
    asked: list[Arrays] = field(default_factory=list)

    @property
    def signature(self) -> Signature:
        return references.signature(self.plant, self.steps, self.more)

    def act(self, inputs: Arrays) -> Arrays:
        self.asked.append(inputs)
        shape = (len(inputs["state"]), self.steps, self.plant.m)
        return {"controls": np.full(shape, self.value, np.float32)}


def trial_of(plant: Plant, count: int = 20, **settings: float) -> evaluation.Trial:
    rng = np.random.default_rng(0)
    cases = {"state": plant.sample_starts(rng, count), "target": plant.sample_targets(rng, count)}
    actual = evaluation.actual_plant(plant, EvaluationSettings(**settings))
    return evaluation.trial(actual, cases, EvaluationSettings(**settings), 3, rng)


def rows_of(policy: object, trial: evaluation.Trial) -> dict[str, np.ndarray]:
    best, possible = evaluation.optimum(trial.plant, vars(trial))
    return evaluation.score(policy, trial, best, possible, np.random.default_rng(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("plant", [REST, OSCILLATOR])
def test_the_oracle_has_no_gap_and_nobody_beats_it(plant: Plant) -> None:
    trial = trial_of(plant)
    for name, policy in references.references(plant, plant).items():
        rows = rows_of(policy, trial)
        assert (rows["gap"] >= -1e-9 * rows["optimal_cost"]).all(), name
        if name == "oracle":
            assert rows["case_gap"].max() < 1e-9
            assert (rows["success"] == rows["oracle_success"]).all()
            assert rows["violations"].max() == 0


def test_closed_loop_of_the_oracle_is_its_plan() -> None:
    for plant in (REST, OSCILLATOR):
        trial = trial_of(plant, 5)
        plan = oracle.solve(plant, trial.state, trial.target)
        run = trial.closed_loop(references.Oracle(plant), np.random.default_rng(0))
        assert run.cost == pytest.approx(plan.cost, rel=1e-6)


def test_feedback_is_asked_at_each_step_with_the_time_left() -> None:
    spy = Spy(REST)
    rows_of(spy, trial_of(REST))
    left = [float(a["time_left_s"][0, 0]) for a in spy.asked]
    assert left == pytest.approx([(15 - t) / 3 for t in range(15)])
    assert all(a["state"].dtype == np.float32 for a in spy.asked)


def test_a_sequence_is_scored_by_one_call_and_its_closed_loop_beside_it() -> None:
    spy = Spy(REST, 15)
    rows_of(spy, trial_of(REST))
    assert len(spy.asked) == 1 + 15


def test_closed_loop_of_sequences_can_be_left_out() -> None:
    spy = Spy(REST, 15)
    rows = rows_of(spy, trial_of(REST, closed_loop=False))
    assert len(spy.asked) == 1
    assert np.isnan(rows["closed_gap"]).all()
    assert np.isfinite(rows["gap"]).all()


def test_a_shorter_plan_recedes_with_its_time_left_clamped() -> None:
    spy = Spy(REST, 6)
    rows = rows_of(spy, trial_of(REST))
    left = [float(a["time_left_s"][0, 0]) * 3 for a in spy.asked]
    assert left == pytest.approx([6] * 10 + [5, 4, 3, 2, 1])
    assert (rows["gap"] == rows["closed_gap"]).all()


def test_inputs_are_filled_by_their_role() -> None:
    more = {
        "cycles": TensorSpec((1,), "int64", low=1, high=64, role="steps", batched=False),
        "noise": TensorSpec((2,), role="uniform"),
        "spread": TensorSpec((2,), role="normal"),
        "memory": TensorSpec((4,), role="state"),
    }
    spy = Spy(REST, more=more)
    rows_of(spy, trial_of(REST))
    asked = spy.asked[0]
    assert asked["cycles"].tolist() == [3]
    assert asked["cycles"].dtype == np.int64
    assert 0 <= asked["noise"].min() < asked["noise"].max() < 1
    assert asked["spread"].min() < 0
    assert asked["memory"].shape == (20, 4)
    assert not asked["memory"].any()


def test_an_unknown_input_is_named() -> None:
    spy = Spy(REST, more={"image": TensorSpec((3,))})
    with pytest.raises(DataError, match="input 'image' that this task does not have"):
        rows_of(spy, trial_of(REST))


def test_violations_count_commands_and_actuators_clip_them() -> None:
    # every command is 5 where 4 is allowed: all violate, and 4^2 * 5 s = 80 of energy is applied
    rows = rows_of(Spy(REST, value=5.0), trial_of(REST))
    assert rows["violations"] == pytest.approx(np.ones(20))
    assert rows["energy"] == pytest.approx(np.full(20, 80.0))


def test_the_optimum_follows_the_plant_as_it_is() -> None:
    # a gain of 0.5 with a bound of 4 is a bound of 2 whose command costs four times as much
    trial = trial_of(REST, actuator_gain=0.5)
    rows = rows_of(references.Oracle(trial.plant), trial)
    assert rows["case_gap"].max() < 1e-9
    nominal = oracle.solve(REST, trial.state, trial.target).cost
    assert (rows["optimal_cost"] >= nominal - 1e-9).all()


def test_mismatch_scales_the_uncertain_parameter() -> None:
    # 1.5 * 0.5 = 0.75, exact in binary
    actual = evaluation.actual_plant(VanDerPol(10, 0.05, mu=1.5), EvaluationSettings(mismatch=0.5))
    assert actual == VanDerPol(10, 0.05, mu=0.75)


def test_every_policy_meets_the_same_noise() -> None:
    first, second = (trial_of(REST, process_noise=0.02) for _ in range(2))
    assert (first.noise == second.noise).all()
    assert first.noise.std() == pytest.approx(0.02, rel=0.1)


def test_success_where_possible_leaves_hopeless_cases_out() -> None:
    moving = DoubleIntegrator(15, 5 / 15, target_kind="moving")
    trial = trial_of(moving, 100)
    rows = rows_of(references.Oracle(moving), trial)
    hopeless = rows["oracle_success"] == 0
    assert 0 < hopeless.sum() < 100
    assert np.isnan(rows["success_where_possible"][hopeless]).all()
    assert (rows["success_where_possible"][~hopeless] == 1).all()


def test_anytime_curve_falls_with_admm_iterations() -> None:
    @dataclass
    class Iterated(Spy):
        def act(self, inputs: Arrays) -> Arrays:
            return references.Admm(self.plant, int(inputs["cycles"][0])).act(inputs)

    steps = TensorSpec((1,), "int64", low=1, high=30, role="steps", batched=False)
    trial = trial_of(REST, 50)
    best, _ = evaluation.optimum(REST, vars(trial))
    curve = evaluation.anytime(Iterated(REST, 15, {"cycles": steps}), trial, best, 64)
    assert curve["cycles"].tolist() == list(range(1, 31))
    assert curve["gap"][-1] < 1e-4 < curve["gap"][0]
    assert evaluation.anytime(references.Zero(REST), trial, best, 64) == {}


def test_lqr_of_the_time_left_is_optimal_where_no_bound_is_near() -> None:
    trial = trial_of(REST)
    small = evaluation.Trial(trial.plant, 0.1 * trial.state, 0.1 * trial.target, trial.noise)
    rows = rows_of(references.ClippedLqr(REST), small)
    assert rows["case_gap"].max() < 1e-9
