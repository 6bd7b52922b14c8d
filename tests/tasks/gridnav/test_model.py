"""The deployed policies: size, halting, any map, and what the exported file answers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from ganglion.export.onnx_export import Checks, export
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.models import Model
from ganglion.serve.problems import Problem
from ganglion.serve.reading import Reader
from ganglion.tasks.gridnav import maps, references, tokens
from ganglion.tasks.gridnav.config import (
    DensitySettings,
    MixerSettings,
    TrmSettings,
    WaveSettings,
)
from ganglion.tasks.gridnav.model import Reasoner, StateMixer, build, signature_of
from ganglion.train.policy import TorchPolicy

PLACE = DensitySettings()


def wave(**changes: Any) -> Reasoner:
    torch.manual_seed(3)
    module = build(WaveSettings.model_validate(changes), PLACE)
    assert isinstance(module, Reasoner)
    # gates half open, so that an untrained net goes on changing its mind for a while
    torch.nn.init.zeros_(module.core.layers[0].gate.bias)  # type: ignore[arg-type, union-attr]
    return module.eval()


def planes(count: int, height: int, width: int, seed: int = 0) -> dict[str, Tensor]:
    cases = maps.draw_cases("density", count, height, width, np.random.default_rng(seed))
    given = references.inputs(cases.free, cases.goal)
    return {name: torch.from_numpy(a) for name, a in given.items()}


def test_the_default_policy_has_6358_parameters() -> None:
    # entry 2*9*32+32, second convolution 16*9*32, gate and candidate 32*32+16, head 16*6+6
    assert sum(p.numel() for p in wave().parameters()) == 608 + 4608 + 1040 + 102 == 6358


def test_blocked_cells_answer_unknown_and_all_answers_are_moves() -> None:
    given = planes(4, 9, 7)
    moves = wave(halting=False)(**given, steps=torch.tensor([24]))
    assert moves.shape == (4, 9, 7)
    assert bool((moves[given["free"] == 0] == 5).all())
    assert 0 <= int(moves.min()) <= int(moves.max()) <= 5


def test_steps_are_rounded_up_to_the_stride() -> None:
    given, module = planes(3, 8, 8), wave(halting=False, stride=4)
    found = {n: module(**given, steps=torch.tensor([n])) for n in (1, 4, 5, 8, 9)}
    assert torch.equal(found[1], found[4])
    assert torch.equal(found[5], found[8])
    assert any(not torch.equal(found[a], found[b]) for a, b in ((4, 8), (8, 9)))


@torch.no_grad()
def test_a_halted_map_answers_as_it_did_when_it_settled() -> None:
    given, module = planes(6, 8, 8), wave(stride=2)
    x = module.observe(**given)
    entered, latents = module.enter(x), module.core.initial(x)
    history = [torch.full((6, 8, 8), 5)]
    for _ in range(60):
        latents = module.core(module.core(latents, entered), entered)
        history.append(module.moves(latents, given["free"]))
    found = module(**given, steps=torch.tensor([120]))
    halts = []
    for row in range(6):
        still = (torch.equal(a[row], b[row]) for a, b in pairwise(history))
        halts.append(next(i for i, same in enumerate(still) if same))
        assert torch.equal(found[row], history[halts[-1]][row])
    assert len(set(halts)) > 1  # they settle at different times


def test_no_more_steps_are_taken_than_a_map_has_cells_and_a_stride() -> None:
    given, module = planes(3, 4, 5), wave(stride=2)
    module.moves = lambda _, free: torch.randint(5, free.shape)  # type: ignore[method-assign]
    taken = []
    core, module.core.forward = module.core.forward, lambda *a: taken.append(1) or core(*a)  # type: ignore
    module(**given, steps=torch.tensor([1000]))
    assert len(taken) == 4 * 5 + 2


def test_what_a_map_answers_does_not_depend_on_the_others() -> None:
    given, module = planes(8, 10, 10), wave()
    together = module(**given, steps=torch.tensor([200]))
    for row in range(8):
        alone = module(**{k: v[row : row + 1] for k, v in given.items()}, steps=torch.tensor([200]))
        assert torch.equal(alone[0], together[row])


def test_walls_around_a_map_change_no_answer() -> None:
    given, module = planes(8, 10, 10), wave()
    wider = {k: torch.nn.functional.pad(v, (3, 2, 1, 4)) for k, v in given.items()}
    steps = torch.tensor([200])
    found = module(**wider, steps=steps)
    assert torch.equal(found[:, 1:11, 3:13], module(**given, steps=steps))


def test_values_between_are_read_as_blocked_or_free() -> None:
    given, module = planes(2, 8, 8), wave()
    blurred = {k: v * 0.8 + 0.1 for k, v in given.items()}
    steps = torch.tensor([50])
    assert torch.equal(module(**given, steps=steps), module(**blurred, steps=steps))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reasoner, Path]:
    module = wave(stride=4)
    path = tmp_path_factory.mktemp("wave") / "policy.onnx"
    card = {"steps": {"steps": 40_000}}  # what a policy that halts is given
    made = export(
        module, signature_of(WaveSettings(stride=4), PLACE), path, card, checks=Checks(rows=200)
    )
    assert made.parity is not None
    assert made.parity.max_abs == 0.0
    return module, path


@pytest.mark.parametrize(("height", "width", "steps"), [(8, 8, 1), (23, 17, 97), (2, 40, 300)])
def test_the_file_answers_at_sizes_and_steps_not_seen_at_export(
    exported: tuple[Reasoner, Path], height: int, width: int, steps: int
) -> None:
    module, path = exported
    given = {
        **{k: v.numpy() for k, v in planes(5, height, width).items()},
        "steps": np.array([steps]),
    }
    wanted = TorchPolicy(module, signature_of(WaveSettings(stride=4), PLACE)).act(given)
    np.testing.assert_array_equal(OnnxPolicy(path).act(given)["moves"], wanted["moves"])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 6), (23, 17), (40, 3)])
def test_served_it_takes_maps_of_any_size_and_the_steps_they_need(
    exported: tuple[Reasoner, Path], height: int, width: int
) -> None:
    module, path = exported
    given = {k: v.numpy() for k, v in planes(1, height, width).items()}
    reader = Reader(Model("grid", "1", OnnxPolicy(path), 1e-5, 1e-8))
    row = reader.row({k: v[0].tolist() for k, v in given.items()}, seed=0)
    assert row.arrays["steps"].tolist() == [40_000]
    policy = TorchPolicy(module, signature_of(WaveSettings(stride=4), PLACE))
    wanted = policy.act({**given, "steps": row.arrays["steps"]})
    found = reader.only_row(OnnxPolicy(path).act(row.arrays))
    np.testing.assert_array_equal(found["moves"], wanted["moves"][0])
    other = {"free": given["free"][0].tolist(), "goal": [[1.0] * (width + 1)] * height}
    with pytest.raises(Problem, match=f"'goal' has width={width + 1}, but 'free' has width"):
        reader.row(other, seed=0)


def test_the_recursion_is_one_loop_of_four_steps_a_trip(exported: tuple[Reasoner, Path]) -> None:
    loops = [n for n in onnx.load(exported[1]).graph.node if n.op_type == "Loop"]
    assert len(loops) == 1
    body = next(a.g for a in loops[0].attribute if a.name == "body")
    kinds = [node.op_type for node in body.node]
    assert kinds.count("HardSigmoid") == 4
    assert kinds.count("Split") == 0


def test_two_latents_take_no_more_parameters_than_one() -> None:
    one, two = (
        sum(p.numel() for p in build(TrmSettings(latents=n), PLACE).parameters()) for n in (1, 2)
    )
    assert one == two  # the network is shared


def test_the_papers_setting_serves_one_size() -> None:
    settings = TrmSettings(update="post_norm", mixing="mlp", dim=32, inner=2)
    module, signature = build(settings, PLACE), signature_of(settings, PLACE)
    assert signature.inputs["free"].shape == (8, 8)
    moves = module(**planes(3, 8, 8), steps=torch.tensor([8]))
    assert moves.shape == (3, 8, 8)


def test_the_mixer_asks_one_state_for_every_cell() -> None:
    torch.manual_seed(0)
    module = build(MixerSettings(dim=32, depth=1), PLACE)
    assert isinstance(module, StateMixer)
    module.eval()
    cases = maps.draw_cases("density", 2, 8, 8, np.random.default_rng(0))
    given = {k: torch.from_numpy(a) for k, a in references.inputs(cases.free, cases.goal).items()}
    moves = module(**given)
    for row, column in ((0, 0), (3, 6), (7, 1)):
        robot = np.array([[row, column]] * 2)
        words = torch.from_numpy(tokens.encode(cases.free, robot, cases.goal))
        wanted = module.mixer(words).argmax(1)
        free = torch.from_numpy(cases.free[:, row, column])
        assert torch.equal(moves[:, row, column], torch.where(free, wanted, 5))
