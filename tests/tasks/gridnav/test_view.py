"""The pictures are made for every kind of policy and hold what they claim."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from ganglion import registry
from ganglion.core.contracts import Arrays, Policy, Signature, TensorSpec
from ganglion.report.figures import png
from ganglion.tasks.gridnav import animation, paths, records, references, view
from ganglion.tasks.gridnav.task import GridNav

from .drawn import drawn

UP, DOWN, LEFT, RIGHT, STAY, UNKNOWN = range(6)


class Spreading:
    """The oracle within so many cells of the goal, UNKNOWN beyond; `flaw` of all moves wrong."""

    signature: Signature = references.signature(
        {"steps": TensorSpec((1,), "int64", low=1, high=999, role="steps", batched=False)}
    )

    def __init__(self, flaw: float = 0.0) -> None:
        self.flaw = flaw

    def act(self, inputs: Arrays) -> Arrays:
        near = paths.distances(*references.read(inputs)) <= inputs["steps"][0]
        moves = np.asarray(references.Oracle().act(inputs)["moves"])
        wrong = np.random.default_rng(0).random(moves.shape) < self.flaw
        return {"moves": np.where(near, np.where(wrong & (moves < 4), 3 - moves, moves), UNKNOWN)}


def make(layer: dict[str, Any] | None = None) -> GridNav:
    return GridNav(registry.resolve("gridnav", "standard", [layer] if layer else []))


def cases(task: GridNav, count: int = 30) -> Arrays:
    return task.generate(count, "test", np.random.default_rng(0))


def colours(picture: bytes) -> int:
    return len(Image.open(io.BytesIO(picture)).convert("RGB").getcolors(1 << 20) or [])


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (references.Greedy(), {"paths", "field", "failures", "distance"}),
        (references.Oracle(), {"paths", "field", "distance"}),
        (Spreading(0.05), {"paths", "field", "failures", "distance", "steps"}),
    ],
)
def test_figures_render_and_have_captions(policy: Policy, names: set[str]) -> None:
    task = make()
    figures = view.draw(task, policy, cases(task), np.random.default_rng(0))
    assert set(figures) == names
    assert names <= set(view.CAPTIONS)
    for figure in figures.values():
        assert colours(png(figure, dpi=60)) > 30


def test_curves_that_are_known_are_not_measured_again() -> None:
    task, rng = make(), np.random.default_rng(0)
    figures = view.draw(task, Spreading(0.05), cases(task), rng, curves={})
    assert "steps" not in figures


@pytest.mark.parametrize("problem", [{"kind": "maze", "height": 5, "width": 30}, {"kind": "hard"}])
def test_figures_of_other_maps_render(problem: dict[str, Any]) -> None:
    task = make({"problem": problem})
    figures = view.draw(task, Spreading(0.1), cases(task, 3), np.random.default_rng(0))
    assert "field" not in figures  # too many arrows
    assert all(colours(png(f, dpi=40)) > 20 for f in figures.values())


def trial_of(task: GridNav, start: tuple[int, int], goal: tuple[int, int], *rows: str) -> Any:
    made = records.make(drawn(*rows), np.array([goal]), np.array([start]))
    return task.trial(made)


@pytest.mark.parametrize(
    ("moves", "cells", "end"),
    [
        ([[RIGHT, RIGHT, STAY]], [(0, 0), (0, 1), (0, 2)], "arrives"),
        ([[RIGHT, LEFT, STAY]], [(0, 0), (0, 1), (0, 0)], "goes round"),
        ([[RIGHT, UNKNOWN, STAY]], [(0, 0), (0, 1), (0, 1)], "goes round"),
        ([[RIGHT, UP, STAY]], [(0, 0), (0, 1), (-1, 1)], "collides"),
    ],
)
def test_a_walk_is_drawn_to_its_end(moves: Any, cells: list[tuple[int, int]], end: str) -> None:
    trial = trial_of(make(), (0, 0), (0, 2), "...")
    found, how = view.walked(trial, np.array([moves]), 0, np.array([0, 0]))
    assert ([tuple(c) for c in found.tolist()], how) == (cells, end)


def test_a_walk_into_a_wall_ends_there() -> None:
    trial = trial_of(make(), (0, 0), (0, 2), "...", "#..")
    found, how = view.walked(trial, np.array([[[DOWN, 5, 4], [5, 5, 5]]]), 0, np.array([0, 0]))
    assert (found[-1].tolist(), how) == ([1, 0], "collides")


def test_the_shortest_path_is_one() -> None:
    task = make()
    trial = task.trial(cases(task))
    for row in range(30):
        start = trial.held.start[row]
        cells = view.shortest(trial, row, start)
        assert len(cells) - 1 == trial.distance[row][tuple(start)]
        assert (np.abs(np.diff(cells, axis=0)).sum(1) == 1).all()
        assert (cells[-1] == trial.held.goal[row]).all()


def test_maps_are_shown_from_near_to_far() -> None:
    task = make()
    trial = task.trial(cases(task))
    far = trial.distance[np.arange(30), trial.held.start[:, 0], trial.held.start[:, 1]]
    shown = far[view.spread(trial)]
    assert (np.diff(shown) >= 0).all()
    assert (shown[0], shown[-1], len(shown)) == (far.min(), far.max(), 6)


def test_failures_are_the_worst_maps_first() -> None:
    task = make()
    trial = task.trial(cases(task))
    moves = np.asarray(
        references.Greedy().act(references.inputs(trial.held.free, trial.held.goal))["moves"]
    )
    figure = view._failures(trial, moves)
    assert figure is not None
    failing = [int(a.get_title("left").split()[-2]) for a in figure.axes if a.get_title("left")]
    assert failing == sorted(failing, reverse=True)
    assert failing[0] > 0
    right = np.asarray(
        references.Oracle().act(references.inputs(trial.held.free, trial.held.goal))["moves"]
    )
    assert view._failures(trial, right) is None


def test_the_learning_curve_stands_beside_the_claims() -> None:
    figure = view.learning_curve({"wave": {1_000: 0.97, 5_000: 0.99}, "mixer": {1_000: 0.5}})
    axes = figure.axes[0]
    assert axes.lines[0].get_ydata().tolist() == [97.0, 99.0]
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    assert names == ["wave", "mixer", "claimed, plain", "claimed, augmented"]
    # The guide's 5,000 states: 65-80 % claimed, so the mark is at 72.5.
    bars = axes.containers[0]
    assert bars[0].get_ydata().tolist()[1] == 72.5


# ---------------------------------------------------------------- animations


def frames(gif: bytes) -> list[np.ndarray]:
    picture = Image.open(io.BytesIO(gif))
    return [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(picture)]


def test_policy_and_shortest_path_walk_together() -> None:
    task = make()
    found = animation.animate(task, references.Greedy(), cases(task), np.random.default_rng(0))
    assert set(found) == {"walk"}
    pictures = frames(found["walk"])
    assert len(pictures) > 5
    assert all((a != b).any() for a, b in itertools.pairwise(pictures))


def test_the_wave_fills_a_maze_from_the_goal() -> None:
    task = make()
    found = animation.animate(task, Spreading(), cases(task), np.random.default_rng(0))
    assert set(found) == {"walk", "wave"}
    white = [(f == 255).all(2).mean() for f in frames(found["wave"])[:12]]
    assert white == sorted(white, reverse=True)  # fewer cells stay UNKNOWN, step by step
    assert white[0] - white[-1] > 0.2


def test_every_cell_has_the_colour_of_its_step() -> None:
    # A corridor of six cells, goal at the left: after n steps the first n + 1 know their move.
    trial = trial_of(make(), (0, 5), (0, 0), "......")
    asked: list[int] = []

    def moves_at(steps: int) -> np.ndarray:
        asked.append(steps)
        known = np.arange(6) <= steps
        return np.where(known, [STAY, *[LEFT] * 5], UNKNOWN)[None]

    pictures = frames(animation.wave(moves_at, trial))
    assert asked[:5] == [1, 2, 3, 4, 5]
    cell, top = 480 // 6, 16 + 22
    middle = [16 + i * cell + cell // 4 for i in range(6)]
    for step, picture in enumerate(pictures[:4], start=1):
        row = picture[top + cell // 4]
        known = [not (row[x] == 255).all() for x in middle]
        assert known == [i <= step for i in range(6)]
    assert len({tuple(pictures[4][top + cell // 4, x]) for x in middle[1:]}) == 5


def test_the_wave_is_shown_at_the_steps_that_are_taken() -> None:
    trial = trial_of(make(), (0, 5), (0, 0), "......")  # 5 + 12 steps are shown, or as many as can
    asked: list[int] = []
    animation.wave(lambda n: asked.append(n) or np.full((1, 6), UNKNOWN), trial, every=8)
    assert asked == [8, 16, 24]
    asked.clear()
    animation.wave(lambda n: asked.append(n) or np.full((1, 6), UNKNOWN), trial, 8, most=12)
    assert asked == [8, 12]


def test_a_policy_of_one_size_fills_the_farthest_of_its_own_maps() -> None:
    class Fixed(Spreading):
        spec = TensorSpec((8, 8), low=0.0, high=1.0)
        signature = Signature(
            {**Spreading.signature.inputs, "free": spec, "goal": spec},
            {"moves": TensorSpec((8, 8), "int64", low=0, high=5)},
        )

    task = make()
    found = animation.animate(task, Fixed(), cases(task), np.random.default_rng(0))
    assert frames(found["wave"])[0].shape[1] == 2 * 16 + 8 * (480 // 8)
