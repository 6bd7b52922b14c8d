from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.core.errors import DataError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export.inspection import Limits, inspect
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.export.sealing import CARD, DIGEST, MADE, SIGNATURE, seal

from .toys import FLAT


def test_a_policy_loads_and_answers_without_torch(files: Path) -> None:
    program = (
        "import sys\n"
        "import ganglion.export.efficiency, ganglion.export.external, ganglion.export.parity\n"
        "from ganglion.export.onnx_policy import OnnxPolicy\n"
        "policy = OnnxPolicy(sys.argv[1])\n"
        "print(policy.act({'obs': [[0, 0, 0, 0, 0, 0]]})['action'].shape, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(files / "flat.onnx")]
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "(1, 3) False"
    assert done.stderr == ""


def test_bytes_and_path_give_the_same_policy(files: Path) -> None:
    data = (files / "flat.onnx").read_bytes()
    assert OnnxPolicy(data).digest == OnnxPolicy(files / "flat.onnx").digest
    assert OnnxPolicy(data).path is None
    assert OnnxPolicy(str(files / "flat.onnx")).path == files / "flat.onnx"


def test_another_digest_than_the_expected_one_is_refused(files: Path) -> None:
    with pytest.raises(DataError, match=r"has digest .*; expected 0000"):
        OnnxPolicy(files / "flat.onnx", digest="0" * 64)


def test_steps_above_their_high_are_refused_by_act(files: Path) -> None:
    inputs = {"grid": np.zeros((1, 2, 4, 4), np.float32), "cycles": np.array(10)}
    with pytest.raises(SettingsError, match=r"'cycles' is 10 at .*; its high is 9"):
        OnnxPolicy(files / "field.onnx").act(inputs)


def test_act_leaves_other_ranges_to_the_server(files: Path) -> None:
    assert OnnxPolicy(files / "flat.onnx").act({"obs": np.full((1, 6), 3.0)})["action"].shape == (
        1,
        3,
    )


# ---------------------------------------------------------------- damaged and foreign files


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(position: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda _: b"",
        lambda _: b"not a model, just text\n" * 10,
        lambda _: b"\x80\x04\x95pickled",
        lambda data: b"PK\x03\x04" + data[:500],
        lambda data: data[:-85],  # the seal
        *(_flip(position) for position in (0, 1, 3, 5, 11, 40, -20)),
    ],
)
def test_a_damaged_file_gives_one_sentence(
    damage: Callable[[bytes], bytes], files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(damage((files / "flat.onnx").read_bytes()))
    with pytest.raises(DataError, match=r"^.*damaged\.onnx [^\n]*\.$") as told:
        OnnxPolicy(path)
    assert told.value.exit_code == 65


def test_no_single_flipped_bit_gets_through(files: Path) -> None:
    data = (files / "flat.onnx").read_bytes()
    stream = rng(0, "flip")
    for _ in range(300):
        position, bit = int(stream.integers(len(data))), int(stream.integers(8))
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        with pytest.raises(DataError, match=r"^The ONNX file [^\n]*\.$"):
            inspect(bytes(flipped))


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; expected an ONNX file"):
        OnnxPolicy(tmp_path)
    with pytest.raises(DataError, match="cannot be read: No such file or directory"):
        OnnxPolicy(tmp_path / "none.onnx")
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        OnnxPolicy("a\0b")


def _sealed(change: Callable[[onnx.ModelProto], None], data: bytes) -> bytes:
    """Change a good file and seal it again, as one would who means harm."""
    model = onnx.ModelProto.FromString(data)
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    change(model)
    return seal(model)


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd", "link"])
@pytest.mark.parametrize(
    "place", ["weight", "attribute", "sparse", "inner", "function", "training"]
)
@pytest.mark.parametrize("sealed_again", [False, True])
def test_weights_in_another_file_are_refused(
    location: str, place: str, sealed_again: bool, files: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    (tmp_path / "link").symlink_to(secret)
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    constant = helper.make_node("Constant", [], ["stolen"])
    constant.attribute.append(
        onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    )

    def change(model: onnx.ModelProto) -> None:
        if place == "weight":
            model.graph.initializer.append(tensor)
        elif place == "attribute":
            model.graph.node.append(constant)
        elif place == "sparse":
            model.graph.sparse_initializer.add(dims=[16]).values.CopyFrom(tensor)
        elif place == "inner":
            inner = onnx.GraphProto(name="inner", initializer=[tensor])
            model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))
        elif place == "function":
            model.functions.add(name="f", domain="d").node.append(constant)
        else:
            model.training_info.add().algorithm.initializer.append(tensor)

    data = (files / "flat.onnx").read_bytes()
    if sealed_again:
        data = _sealed(change, data)
    else:
        model = onnx.ModelProto.FromString(data)
        change(model)
        data = model.SerializeToString()
    path = tmp_path / "hostile.onnx"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(DataError, match="keeps tensor 'stolen' in another file"):
            OnnxPolicy(source)


def test_external_data_of_a_marked_tensor_with_default_location_is_refused(files: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].external_data.add(key="location", value="w.bin")

    with pytest.raises(DataError, match="in another file"):
        OnnxPolicy(_sealed(change, (files / "flat.onnx").read_bytes()))


def _metadata(key: str, value: str | None) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        entries = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(entries)
        if value is not None:
            model.metadata_props.add(key=key, value=value)

    return change


def _add_node(operator: str, domain: str = "") -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.append(
        helper.make_node(operator, ["obs"], ["extra"], domain=domain)
    )


def _add_loop(trips: int | None) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        if trips is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.array(trips), "trips"))
        body = helper.make_graph([], "body", [], [])
        model.graph.node.append(
            helper.make_node("Loop", ["" if trips is None else "trips", "go"], ["n"], body=body)
        )

    return change


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "obz"


def _widen_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7


def _retype_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _unplug(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_metadata(SIGNATURE, None), "has no 'ganglion.signature' metadata; write it with"),
        (_metadata(CARD, None), "has no 'ganglion.card' metadata"),
        (_metadata(MADE, None), "has no 'ganglion.export' metadata"),
        (_metadata(SIGNATURE, "{"), "has metadata that cannot be read"),
        (_metadata(SIGNATURE, '{"inputs": 3, "outputs": {}, "carried": {}}'), "cannot be read"),
        (_metadata(SIGNATURE, "[" * 100_000), "has metadata that cannot be read"),
        (_metadata(CARD, "[]"), "has metadata that cannot be read"),
        (_rename_input, "does not match its signature. Unknown input 'obz'"),
        (_widen_input, "has an input 'obs' that is not what its signature says"),
        (_retype_output, "has an output 'action' that is not what its signature says"),
        (_add_node("RandomNormalLike"), "uses the operator 'RandomNormalLike', which is not"),
        (_add_node("Relu", "evil.ops"), r"uses the operator 'evil\.ops\.Relu', which is not"),
        (_add_loop(None), "has a Loop without a bound of at most 10000 trips"),
        (_add_loop(2**40), "has a Loop without a bound of at most 10000 trips"),
        (_unplug, "cannot be loaded by ONNX Runtime: "),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    change: Callable[[onnx.ModelProto], None], message: str, files: Path
) -> None:
    data = _sealed(change, (files / "flat.onnx").read_bytes())
    with pytest.raises(DataError, match=message) as told:
        OnnxPolicy(data)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(file_bytes=100), "is larger than 100 bytes"),
        (Limits(nodes=1), "nodes; at most 1 are allowed"),
        (Limits(parameters=100), "holds more than 100 parameters"),
    ],
)
def test_caps_are_kept(limits: Limits, message: str, files: Path) -> None:
    with pytest.raises(DataError, match=message):
        OnnxPolicy(files / "flat.onnx", limits=limits)
    assert replace(limits) == limits


def test_a_loop_body_cannot_hide_a_bound_behind_a_known_name(files: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        outer = next(node for node in model.graph.node if node.op_type == "Loop")
        bound = outer.input[0]
        inner = outer.attribute[0].g
        nested = helper.make_node(
            "Loop", [bound, ""], ["m"], body=helper.make_graph([], "b", [], [])
        )
        inner.node.insert(0, helper.make_node("Identity", ["x"], [bound]))
        inner.node.append(nested)

    with pytest.raises(DataError, match="has a Loop without a bound"):
        inspect(_sealed(change, (files / "field.onnx").read_bytes()))


def test_an_input_that_onnx_runtime_cannot_take_gives_one_sentence() -> None:
    # a lookup outside its table: the signature declares no range
    signature = Signature({"token": TensorSpec((), "int64")}, {"row": TensorSpec((2,))})
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "token"], ["row"])],
        "lookup",
        [helper.make_tensor_value_info("token", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.zeros((3, 2), np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    import json

    for key, value in ((SIGNATURE, signature.to_json()), (CARD, {}), (MADE, {})):
        model.metadata_props.add(key=key, value=json.dumps(value))
    policy = OnnxPolicy(seal(model))
    assert policy.act({"token": np.array([2])})["row"].shape == (1, 2)
    with pytest.raises(DataError, match=r"failed on this input: [^\n]*\.$"):
        policy.act({"token": np.array([7])})


def test_a_sealed_file_is_still_plain_onnx(files: Path) -> None:
    onnx.checker.check_model(onnx.load(files / "flat.onnx"))
    onnx.checker.check_model(onnx.load(files / "field.onnx"))
    assert inspect(files / "flat.onnx").signature == FLAT
