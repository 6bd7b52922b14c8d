"""Figures of a map by hand, of the oracle, and in parts of any size."""

from __future__ import annotations

import numpy as np
import pytest

from ganglion.core import metrics
from ganglion.core.contracts import Arrays, Signature, TensorSpec
from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import evaluation, maps, packing, paths, records, references
from ganglion.tasks.gridnav.evaluation import Trial

from .drawn import drawn

U, D, L, R, S, N = range(6)


def trial_of(cases: maps.Cases, steps: int | None = None) -> tuple[Trial, Arrays]:
    arrays = records.make(cases.free, cases.goal, cases.start, cases.distance)
    return Trial.of(arrays, steps), arrays


def some(kind: maps.Kind = "density", count: int = 30, side: int = 8) -> maps.Cases:
    return maps.draw_cases(kind, count, side, side, np.random.default_rng(1))


def test_the_figures_of_a_map_by_hand() -> None:
    free = drawn("...", ".#.", "..#")
    goal, start = np.array([[0, 0]]), np.array([[0, 2]])
    arrays = records.make(free, goal, start)
    trial = Trial.of(arrays, None)
    # distances 0 1 2 / 1 # 3 / 2 3 #
    moves = np.array([[[S, L, L], [U, N, L], [R, L, N]]])
    rows = {k: float(v[0]) for k, v in evaluation.rows(moves, trial).items()}
    # wrong: (1, 2) walks into the wall, (2, 0) goes right and comes back for ever, with (2, 1)
    assert (rows["cells"], rows["wrong"], rows["optimal"]) == (7, 2, 5)
    assert (rows["starts"], rows["success"]) == (6, 3)
    assert (rows["collisions"], rows["loops"]) == (1, 2)
    # shortest 1 + 2 + 1 + 3 + 2 + 3 = 12; made 1 + 2 + 1 and three times the limit 4 * 9
    assert (rows["shortest"], rows["path_ratio"]) == (12, 4 + 3 * 36)
    assert (rows["exact"], rows["perfect_maps"], rows["without_way"]) == (1, 0, 0)
    assert (rows["label_accuracy"], rows["label_random_optimal"]) == (1, 1)


def test_a_longer_way_arrives_but_is_not_exact() -> None:
    free = drawn("..", "..")
    trial = Trial.of(records.make(free, np.array([[0, 1]]), np.array([[0, 0]])), None)
    around = np.array([[[D, S], [R, U]]])
    rows = evaluation.rows(around, trial)
    assert (rows["success"][0], rows["exact"][0], rows["path_ratio"][0]) == (3, 0, 3 + 2 + 1)
    assert rows["label_random_optimal"][0] == 1.0


def test_two_optimal_moves_halve_the_chance_of_the_single_label() -> None:
    free = drawn("..", "..")
    trial = Trial.of(records.make(free, np.array([[1, 1]]), np.array([[0, 0]])), None)
    moves = np.array([[[R, D], [R, S]]])
    rows = evaluation.rows(moves, trial)
    assert rows["label_random_optimal"][0] == 0.5
    assert rows["exact"][0] == 1.0


def test_cells_without_a_way_are_counted_apart() -> None:
    free = drawn(".#.", ".#.")
    trial = Trial.of(records.make(free, np.array([[0, 0]]), np.array([[1, 0]])), None)
    moves = np.array([[[S, N, N], [U, N, U]]])
    rows = evaluation.rows(moves, trial)
    assert (rows["without_way"][0], rows["no_way_known"][0], rows["cells"][0]) == (2, 1, 2)
    assert rows["perfect_maps"][0] == 1.0


@pytest.mark.parametrize("kind", ["density", "maze", "mixed"])
def test_the_oracle_makes_no_mistake(kind: maps.Kind) -> None:
    trial, arrays = trial_of(some(kind))
    rows = evaluation.score(references.Oracle(), trial, arrays, np.random.default_rng(0))
    found = {m.name: metrics.mean(rows, m) for m in evaluation.METRICS}
    for name in ("success", "exact", "perfect_maps", "optimal", "path_ratio"):
        assert found[name] == 1.0
    assert (found["wrong"], found["loops"], found["collisions"]) == (0.0, 0.0, 0.0)
    assert np.isnan(found["as_published"])
    if (rows["without_way"] > 0).any():
        assert found["no_way_known"] == 1.0


class Stepping:
    """The oracle, as far as a wave has come after so many steps."""

    def __init__(self) -> None:
        steps = TensorSpec((1,), "int64", low=1.0, high=50.0, role="steps", batched=False)
        self.signature = references.signature({"steps": steps})
        self.asked: list[tuple[int, int]] = []

    def act(self, inputs: Arrays) -> Arrays:
        self.asked.append((len(inputs["free"]), int(inputs["steps"][0])))
        distance = paths.distances(*references.read(inputs))
        moves = references.Oracle().act({k: inputs[k] for k in ("free", "goal")})["moves"]
        return {"moves": np.where(distance <= inputs["steps"][0], moves, 5)}


def test_steps_are_those_of_the_trial_within_what_is_declared() -> None:
    policy = Stepping()
    cases = some(count=3)
    for steps, asked in ((7, 7), (900, 50), (None, 50)):
        trial_of(cases, steps)[0].moves(policy, np.random.default_rng(0))
        assert policy.asked[-1] == (3, asked)


def test_more_steps_know_more_cells() -> None:
    trial, _ = trial_of(some("maze", 10, 16), 40)
    found = evaluation.over_steps(Stepping(), trial, points=6)
    assert found["steps"][-1] == 120
    assert (np.diff(found["optimal"]) >= 0).all()
    assert found["optimal"][0] < 0.2
    assert evaluation.over_steps(references.Oracle(), trial) == {}


def test_large_maps_are_asked_for_one_by_one() -> None:
    policy = Stepping()
    trial, _ = trial_of(some(count=5, side=160), 10)
    trial.moves(policy, np.random.default_rng(0))
    assert [count for count, _ in policy.asked] == [1] * 5


def test_by_distance_far_cells_come_last_and_all_are_counted() -> None:
    trial, _ = trial_of(some("maze", 20, 15), 12)
    moves = trial.moves(Stepping(), np.random.default_rng(0))
    found = evaluation.by_distance(moves, trial, bins=5)
    assert (np.diff(found["distance"]) > 0).all()
    assert found["cells"].sum() == (trial.distance > 0).sum()
    assert (found["optimal"][0], found["optimal"][-1]) == (1.0, 0.0)


def test_the_published_rule_wants_the_files_own_way() -> None:
    free = np.repeat(drawn("..", ".."), 2, 0)
    goal, start = np.array([[1, 1]] * 2), np.array([[0, 0]] * 2)
    ways = np.array([[[True, True], [False, True]], [[True, False], [True, True]]])
    arrays = {**records.make(free, goal, start), "answer": packing.pack(ways)}
    rows = evaluation.score(
        references.Oracle(), Trial.of(arrays, None), arrays, np.random.default_rng(0)
    )
    # the oracle goes down first: that is the second file's way, though both are shortest
    assert rows["as_published"].tolist() == [0.0, 1.0]
    assert rows["exact"].tolist() == [1.0, 1.0]


def test_an_input_that_the_task_does_not_have_is_told() -> None:
    class Strange(Stepping):
        def __init__(self) -> None:
            super().__init__()
            more = {"wind": TensorSpec((2,))}
            self.signature = Signature({**self.signature.inputs, **more}, {})

    with pytest.raises(DataError, match="wants an input 'wind'"):
        trial_of(some(count=2))[0].moves(Strange(), np.random.default_rng(0))
