"""The pictures are made for every kind of policy and hold what they claim."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ganglion import registry
from ganglion.core.contracts import Arrays, Signature, TensorSpec
from ganglion.tasks.control import references
from ganglion.tasks.control.task import Control


def make(layer: dict[str, object]) -> Control:
    return Control(registry.resolve("control", "standard", [layer]))  # type: ignore[arg-type]


class Iterated:
    """ADMM with its number of iterations as the input `cycles`."""

    def __init__(self, task: Control) -> None:
        self.plant = task.plant
        steps = TensorSpec((1,), "int64", low=1, high=64, role="steps", batched=False)
        self.signature: Signature = references.signature(self.plant, 15, {"cycles": steps})

    def act(self, inputs: Arrays) -> Arrays:
        return references.Admm(self.plant, int(inputs["cycles"][0])).act(inputs)


@pytest.mark.parametrize("layer", [{"problem": {"target": "moving"}}, {"problem": "vanderpol"}])
def test_figures_of_a_feedback_policy_render(layer: dict[str, object]) -> None:
    task = make(layer)
    cases = task.generate(20, "test", np.random.default_rng(0))
    figures = task.draw(task.references()["lqr"], cases, np.random.default_rng(0))
    assert set(figures) == {"trajectories", "gap_map"}
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=50)
        assert len(Image.open(buffer).convert("RGB").getcolors(1 << 20) or []) > 50


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ({"kind": "pendulum", "num_steps": 20, "horizon_s": 1.0},
         {"trajectories", "gap_map", "worst", "portrait"}),
        ({"kind": "quadrotor2d", "num_steps": 10, "horizon_s": 0.5},
         {"trajectories", "gap_map", "worst"}),
    ],
)  # fmt: skip
def test_figures_of_plants_with_angles_render(problem: dict[str, object], names: set[str]) -> None:
    task = make({"problem": problem})
    cases = task.generate(12, "test", np.random.default_rng(0))
    figures = task.draw(task.references()["lqr"], cases, np.random.default_rng(0))
    assert set(figures) == names
    assert names <= set(task.captions)
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=50)
        assert len(Image.open(buffer).convert("RGB").getcolors(1 << 20) or []) > 50


def test_refinement_is_drawn_to_four_times_the_trained_cycles() -> None:
    task = make({"problem": {"target": "moving"}})
    cases = task.generate(20, "test", np.random.default_rng(0))
    figure = task.draw(Iterated(task), cases, np.random.default_rng(0))["refinement"]
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == list(range(1, 33))  # 4 x 8 cycles
    assert line.get_ydata()[-1] < 0.01 < line.get_ydata()[0]  # type: ignore[operator]


def test_the_oracle_lies_on_its_own_dashed_line() -> None:
    task = make({"problem": {"target": "moving"}})
    cases = task.generate(20, "test", np.random.default_rng(0))
    figure = task.draw(task.references()["oracle"], cases, np.random.default_rng(0))["trajectories"]
    dashed, solid = figure.axes[0].lines[:2]
    assert solid.get_xdata() == pytest.approx(dashed.get_xdata(), abs=1e-4)
    assert solid.get_ydata() == pytest.approx(dashed.get_ydata(), abs=1e-4)


def test_the_animation_has_a_frame_for_every_step_and_holds_the_last() -> None:
    task = make({})
    cases = task.generate(20, "test", np.random.default_rng(0))
    data = task.animate(task.references()["lqr"], cases, np.random.default_rng(0))
    with Image.open(io.BytesIO(data)) as picture:
        # 15 steps have 16 states; equal last frames may be joined, never dropped in time
        assert picture.format == "GIF"
        assert 16 <= picture.n_frames <= 28  # type: ignore[attr-defined]


def test_a_plant_that_can_be_seen_stands_beside_its_phase_plane() -> None:
    sizes = []
    for problem in ({}, {"problem": {"kind": "quadrotor2d", "num_steps": 5, "horizon_s": 0.25}}):
        task = make(problem)
        cases = task.generate(4, "test", np.random.default_rng(0))
        data = task.animate(task.references()["lqr"], cases, np.random.default_rng(0))
        with Image.open(io.BytesIO(data)) as picture:
            sizes.append(picture.size)
    assert sizes == [(540, 468), (954, 468)]
