from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.core.errors import ExportError, OutputError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export.inputs import draw
from ganglion.export.inspection import graphs, inspect
from ganglion.export.onnx_export import Checks, export
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.export.parity import parity
from ganglion.export.precision import Precision
from ganglion.train.policy import TorchPolicy

from .conftest import CARD
from .toys import FIELD, FLAT, MEMORY, Mlp

SIGNATURES = {"flat": FLAT, "field": FIELD, "memory": MEMORY}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_file_answers_as_the_module_on_a_thousand_inputs(
    name: str, files: Path, modules: dict[str, nn.Module]
) -> None:
    torch_policy = TorchPolicy(modules[name], SIGNATURES[name])
    found = parity(torch_policy, OnnxPolicy(files / f"{name}.onnx"), 1000, rng(1, "test"))
    assert found.inputs == 1000
    assert found.max_abs <= 1e-5
    assert list(found.per_output) == list(SIGNATURES[name].outputs)


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 257])
def test_any_batch_is_answered_row_by_row_alike(batch: int, files: Path) -> None:
    policy = OnnxPolicy(files / "flat.onnx")
    inputs = draw(FLAT, batch, rng(0, batch))
    whole = policy.act(inputs)["action"]
    rows = [policy.act({"obs": inputs["obs"][i : i + 1]})["action"][0] for i in range(batch)]
    np.testing.assert_allclose(whole, rows, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "cycles"), [(1, 1, 1), (2, 9, 4), (17, 5, 9)])
def test_sizes_and_steps_are_set_at_run_time(
    height: int, width: int, cycles: int, files: Path, modules: dict[str, nn.Module]
) -> None:
    inputs = {"grid": np.random.default_rng(0).random((2, 2, height, width), np.float32)}
    arrays = {**inputs, "cycles": np.array(cycles)}
    found = OnnxPolicy(files / "field.onnx").act(arrays)
    wanted = TorchPolicy(modules["field"], FIELD).act(arrays)
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-6)
    np.testing.assert_array_equal(found["move"], wanted["move"])


def test_run_time_steps_are_one_loop_with_a_bound(files: Path) -> None:
    model = onnx.load(files / "field.onnx")
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    assert len(loops) == 1
    assert "Conv" in {node.op_type for node in loops[0].attribute[0].g.node}
    assert loops[0].input[0] in {tensor.name for tensor in model.graph.initializer}


def test_signature_and_card_come_back_from_the_file(files: Path) -> None:
    for name, signature in SIGNATURES.items():
        policy = OnnxPolicy(files / f"{name}.onnx")
        assert policy.signature == signature
        assert policy.card == CARD
        assert policy.precision == "fp32"
        assert policy.inspection.made["parity"]["inputs"] == 200


def test_axes_carry_the_names_of_the_signature(files: Path) -> None:
    graph = onnx.load(files / "field.onnx").graph
    shown = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert shown == ["batch", 2, "height", "width"]
    assert len(graph.input[1].type.tensor_type.shape.dim) == 0


def test_the_same_module_gives_the_same_bytes(files: Path, modules: dict[str, nn.Module]) -> None:
    again = files / "again.onnx"
    export(modules["flat"], FLAT, again, CARD, checks=Checks(rows=200))
    assert again.read_bytes() == (files / "flat.onnx").read_bytes()


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "from ganglion.export.onnx_export import Checks, export\n"
        "from tests.export.toys import FLAT, Mlp\n"
        "torch.manual_seed(5)\n"
        "done = export(Mlp(8), FLAT, sys.argv[1], {}, checks=Checks(rows=0))\n"
        "print(done.digest)"
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        here = export(Mlp(8), FLAT, tmp_path / "a.onnx", {}, checks=Checks(rows=0))
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "b.onnx")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, f"{root}/src"])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == here.digest
    assert done.stderr == ""  # the exporter's advice stays silent


def test_nothing_of_the_sources_is_left_in_the_file(files: Path) -> None:
    model = onnx.load(files / "field.onnx")
    assert b".py" not in (files / "field.onnx").read_bytes()
    for graph, _ in graphs(model):
        assert not graph.doc_string
        assert not any(node.metadata_props or node.doc_string for node in graph.node)
    used = {name for graph, _ in graphs(model) for node in graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def test_the_file_is_private_and_alone_in_its_folder(
    tmp_path: Path, modules: dict[str, nn.Module]
) -> None:
    done = export(modules["flat"], FLAT, tmp_path / "new" / "p.onnx", {}, checks=Checks(rows=1))
    assert [entry.name for entry in done.path.parent.iterdir()] == ["p.onnx"]
    assert done.path.stat().st_mode & 0o777 == 0o600
    assert done.digest == inspect(done.path).digest
    assert done.file_bytes == done.path.stat().st_size
    # 6*64 + 64, 64*64 + 64, 64*3 + 3
    assert done.parameters == 448 + 4160 + 195


def test_export_leaves_the_module_and_the_random_state_alone(tmp_path: Path) -> None:
    module = Mlp(8)
    module.last.eval()
    modes = [part.training for part in module.modules()]
    state = torch.random.get_rng_state()
    export(module, FLAT, tmp_path / "p.onnx", {}, checks=Checks(rows=10))
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)


def test_torch_policy_answers_in_evaluation_mode_and_puts_modes_back() -> None:
    module = Mlp(8)
    module.middle.eval()
    modes = [part.training for part in module.modules()]
    policy = TorchPolicy(module, FLAT)
    inputs = draw(FLAT, 5, rng(0, "drop"))
    # dropout would make two answers differ
    np.testing.assert_array_equal(policy.act(inputs)["action"], policy.act(inputs)["action"])
    assert [part.training for part in module.modules()] == modes


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"obz": np.zeros((1, 6))}, "Unknown input 'obz'. Did you mean 'obs'"),
        ({}, "Input 'obs' is missing; this policy takes obs"),
        ({"obs": np.zeros((1, 5))}, r"shape \(1, 5\); expected \(batch=1, 6\)"),
        ({"obs": np.zeros(6)}, r"shape \(6,\); expected \(batch, 6\)"),
    ],
)
def test_torch_policy_says_what_is_wrong_with_its_inputs(
    inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        TorchPolicy(Mlp(8), FLAT).act(inputs)


@pytest.mark.parametrize(("precision", "gap"), [("fp16", 1e-2), ("int8", 0.2)])
def test_a_lossy_form_is_smaller_and_states_its_error(
    precision: Precision, gap: float, files: Path, modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    full = inspect(files / "flat.onnx")
    path = tmp_path / "lossy.onnx"
    done = export(modules["flat"], FLAT, path, CARD, precision=precision)
    assert done.parity is not None
    assert 1e-7 < done.parity.max_abs < gap
    assert done.file_bytes < 0.75 * full.file_bytes
    policy = OnnxPolicy(path)
    assert policy.precision == precision
    assert policy.inspection.made["parity"]["max_abs"] == done.parity.max_abs


def test_a_loop_is_quantised_too(tmp_path: Path) -> None:
    from torch._higher_order_ops import while_loop

    class Repeat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(32, 32)

        def forward(self, x: Tensor, turns: Tensor) -> Tensor:
            if not torch.compiler.is_exporting():
                for _ in range(int(turns)):
                    x = torch.tanh(self.inner(x))
                return x
            start = torch.zeros((), dtype=torch.int64)
            last: Tensor
            _, _, last = while_loop(
                lambda i, n, _: i < n,
                lambda i, n, h: (i + 1, n.clone(), torch.tanh(self.inner(h))),
                (start, turns, x),
            )
            return last

    turns = TensorSpec((), "int64", role="steps", high=4, batched=False)
    signature = Signature(
        {"x": TensorSpec((32,), low=-1, high=1), "turns": turns}, {"y": TensorSpec((32,))}
    )
    checks = Checks(rows=100)
    for precision in ("fp16", "int8"):
        done = export(
            Repeat(),
            signature,
            tmp_path / "p.onnx",
            {},
            precision=precision,
            checks=checks,
        )
        assert done.parity is not None
        assert 0 < done.parity.max_abs < 0.1
    assert "MatMulInteger" in inspect(tmp_path / "p.onnx").operators


def test_a_lossy_form_above_its_limit_is_refused(
    tmp_path: Path, modules: dict[str, nn.Module]
) -> None:
    checks = Checks(rows=100, lossy_limit=1e-6)
    with pytest.raises(ExportError, match=r"'action' of the exported file is off by .* limit is"):
        export(modules["flat"], FLAT, tmp_path / "p.onnx", {}, precision="int8", checks=checks)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_traced_is_told_in_one_sentence(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, obs: Tensor) -> Tensor:
            return obs[:, :3] if obs.sum() > 0 else obs[:, 3:]

    with pytest.raises(ExportError, match="cannot be exported to ONNX: ") as told:
        export(Branch(), FLAT, tmp_path / "p.onnx", {})
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_module_with_other_outputs_than_declared_is_refused(tmp_path: Path) -> None:
    signature = Signature(FLAT.inputs, {**FLAT.outputs, "value": TensorSpec(())})
    with pytest.raises(
        SettingsError, match="gives 1 outputs; its signature names 2: action, value"
    ):
        export(Mlp(8), signature, tmp_path / "p.onnx", {})


def test_a_module_that_fails_is_told_in_one_sentence(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, obs: Tensor) -> Tensor:
            return obs @ torch.zeros(7, 3)

    with pytest.raises(ExportError, match="fails on an example of its inputs: RuntimeError: "):
        export(Broken(), FLAT, tmp_path / "p.onnx", {})


def test_random_numbers_inside_the_module_are_refused(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, obs: Tensor) -> Tensor:
            return obs[:, :3] + torch.randn_like(obs[:, :3])

    with pytest.raises(ExportError, match=r"operator 'RandomNormalLike', .* must be inputs"):
        export(Noisy(), FLAT, tmp_path / "p.onnx", {})


def test_a_wrong_shape_of_an_output_is_refused(tmp_path: Path) -> None:
    signature = Signature(FLAT.inputs, {"action": TensorSpec((4,))})
    with pytest.raises(ExportError, match=r"'action' has shape \(3, 3\); expected \(3, 4\)"):
        export(Mlp(8), signature, tmp_path / "p.onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_a_float_where_an_integer_is_declared_is_refused(tmp_path: Path) -> None:
    signature = Signature(FLAT.inputs, {"action": TensorSpec((3,), "int64")})
    with pytest.raises(SettingsError, match=r"'action' of the module holds float32; .* int64"):
        export(Mlp(8), signature, tmp_path / "p.onnx", {})


def test_an_output_may_be_narrowed_and_may_be_an_input(tmp_path: Path) -> None:
    class Pick(nn.Module):
        def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            best = obs.argmax(1)
            return best, best, obs

    outputs = {
        "one": TensorSpec((), "int32"),
        "two": TensorSpec((), "int64"),
        "same": TensorSpec((6,)),
    }
    export(Pick(), Signature(FLAT.inputs, outputs), tmp_path / "p.onnx", {})
    answer = OnnxPolicy(tmp_path / "p.onnx").act({"obs": np.array([[0, 1, 2, 0, 0, 0]])})
    assert [str(answer[name].dtype) for name in outputs] == ["int32", "int64", "float32"]
    assert (int(answer["one"][0]), int(answer["two"][0])) == (2, 2)


def test_steps_without_a_high_are_refused(tmp_path: Path, modules: dict[str, nn.Module]) -> None:
    cycles = TensorSpec((), "int64", role="steps", batched=False)
    signature = Signature({**FIELD.inputs, "cycles": cycles}, FIELD.outputs)
    with pytest.raises(SettingsError, match="'cycles' is a number of steps; declare its high"):
        export(modules["field"], signature, tmp_path / "p.onnx", {})


def test_more_steps_than_a_loop_may_take_are_refused(tmp_path: Path) -> None:
    steps = TensorSpec((), "int64", role="steps", high=10_001, batched=False)
    signature = Signature({**FLAT.inputs, "steps": steps}, FLAT.outputs)
    with pytest.raises(SettingsError, match="'steps' may be 10001; a Loop takes at most 10000"):
        export(Mlp(8), signature, tmp_path / "p.onnx", {})


def test_a_trip_may_take_several_steps(tmp_path: Path) -> None:
    class Climb(nn.Module):
        steps_per_trip = 4

        def forward(self, obs: Tensor, steps: Tensor) -> Tensor:
            limit = steps.reshape(())

            def more(i: Tensor, value: Tensor) -> Tensor:
                return i < limit

            def trip(i: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                return i + 4, value + 4.0

            carried = (torch.zeros_like(limit), obs)
            if torch.compiler.is_exporting():
                return while_loop(more, trip, carried)[1]  # type: ignore[no-any-return]
            while bool(more(*carried)):
                carried = trip(*carried)
            return carried[1]

    steps = TensorSpec((1,), "int64", role="steps", low=1, high=40_000, batched=False)
    signature = Signature({"obs": TensorSpec((1,)), "steps": steps}, {"out": TensorSpec((1,))})
    export(Climb(), signature, tmp_path / "p.onnx", {"steps": {"steps": 9}})
    given = {"obs": np.zeros((1, 1), np.float32), "steps": np.array([30_001])}
    assert OnnxPolicy(tmp_path / "p.onnx").act(given)["out"].item() == 30_004  # rounded up
    above = Signature({**signature.inputs, "steps": replace(steps, high=40_001)}, signature.outputs)
    with pytest.raises(SettingsError, match="'steps' may be 40001; a Loop takes at most 10000"):
        export(Climb(), above, tmp_path / "q.onnx", {})


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'ganglion\.card' cannot be written as JSON"):
        export(Mlp(8), FLAT, tmp_path / "p.onnx", {"value": float("nan")})


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written: "):
        export(Mlp(8), FLAT, tmp_path / "file" / "p.onnx", {}, checks=Checks(rows=0))
