"""Files that mean harm to whoever loads them. All but the broken ones are sealed anew."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from ganglion.export.sealing import CARD, DIGEST, SIGNATURE, seal

from . import toys

Change = Callable[[ModelProto], None]
_X = toys.STEEP  # x (1,) -> y (1,)


def sealed(change: Change, data: bytes | None = None) -> bytes:
    """Change a good file and seal it again, as one would who means harm."""
    model = ModelProto.FromString(data or toys.flat())
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    change(model)
    return seal(model)


# ---------------------------------------------------------------- data of other files


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def weight(location: str) -> Change:
    return lambda model: model.graph.initializer.append(outside(location))


def attribute(location: str) -> Change:
    node = helper.make_node("Constant", [], ["stolen"])
    tensor = AttributeProto(name="value", type=AttributeProto.TENSOR, t=outside(location))
    node.attribute.append(tensor)
    return lambda model: model.graph.node.append(node)


def inner(location: str) -> Change:
    graph = GraphProto(name="inner", initializer=[outside(location)])
    return lambda model: model.graph.node.append(
        helper.make_node("If", ["x"], ["y"], then_branch=graph)
    )


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add(dims=[16]).values.CopyFrom(outside("weights.bin"))


def training(model: ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(outside("weights.bin"))


# ---------------------------------------------------------------- work without an end


def loop(trips: int | None, body: GraphProto | None = None) -> Change:
    def change(model: ModelProto) -> None:
        name = ""
        if trips is not None:
            name = "trips"
            model.graph.initializer.append(numpy_helper.from_array(np.array(trips), name))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
        made = body or _body([], "v0")
        model.graph.node.insert(0, helper.make_node("Loop", [name, "go", "obs"], ["l"], body=made))
        model.graph.node[1].input[0] = "l"

    return change


def _body(nodes: list[Any], name: str, after: str | None = None) -> GraphProto:
    """x -> x + x, or what `nodes` make of x."""
    bool_, float_ = TensorProto.BOOL, TensorProto.FLOAT
    own = [helper.make_node("Identity", [f"{name}.c"], [f"{name}.d"])]
    own += nodes or [helper.make_node("Tanh", [f"{name}.x"], [f"{name}.y"])]
    return helper.make_graph(
        own, name,
        [helper.make_tensor_value_info(f"{name}.i", TensorProto.INT64, []),
         helper.make_tensor_value_info(f"{name}.c", bool_, []),
         helper.make_tensor_value_info(f"{name}.x", float_, None)],
        [helper.make_tensor_value_info(f"{name}.d", bool_, []),
         helper.make_tensor_value_info(after or f"{name}.y", float_, None)],
    )  # fmt: skip


def nested_loops(model: ModelProto) -> None:
    """Three Loops of 10,000 trips within each other: each bound is allowed, their product not."""
    innermost = _body([], "c")
    middle = _body([helper.make_node("Loop", ["trips", "", "b.x"], ["b.y"], body=innermost)], "b")
    outer = _body([helper.make_node("Loop", ["trips", "", "a.x"], ["a.y"], body=middle)], "a")
    loop(10_000, outer)(model)


def slow_steps(_: Path) -> bytes:
    """Steps up to 10,000, each a Loop of 10,000 trips."""
    data = toys.power()

    def change(model: ModelProto) -> None:
        signature = json.loads(next(e.value for e in model.metadata_props if e.key == SIGNATURE))
        signature["inputs"]["cycles"]["high"] = 10_000.0
        for entry in model.metadata_props:
            if entry.key == SIGNATURE:
                entry.value = json.dumps(signature)
        model.graph.initializer.append(numpy_helper.from_array(np.array(10_000), "trips"))
        node = next(n for n in model.graph.node if n.op_type == "Loop")
        tanh = _body([], "c")
        within = [helper.make_node("Loop", ["trips", "", "b.x"], ["b.y"], body=tanh)]
        node.attribute[0].g.CopyFrom(_body(within, "b"))

    return sealed(change, data)


def deep_graphs(model: ModelProto) -> None:
    graph = GraphProto(name="g")
    for _ in range(12):
        graph = helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], []
        )
    model.graph.node.extend(graph.node)


def deep_protobuf(_: Path) -> bytes:
    """graph.node.attribute.g, one within the other, 5,000 deep, in raw protobuf."""
    data = b""
    for _ in range(5000):
        for field in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            data = bytes([field << 3 | 2]) + _varint(len(data)) + data
    return b"\x3a" + _varint(len(data)) + data  # ModelProto.graph


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# ---------------------------------------------------------------- memory without an end


def sizes(*dims: int) -> Change:
    tensor = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=list(dims))
    return lambda model: model.graph.initializer.append(tensor)


def large_constant(model: ModelProto) -> None:
    """10^12 zeros from a shape, added to the answer."""
    shape = numpy_helper.from_array(np.array([10**6, 10**6, 1]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.node.insert(1, helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0))
    model.graph.node.insert(2, helper.make_node("Add", ["obs", "most"], ["moved"]))
    model.graph.node[3].input[0] = "moved"


def doubling(model: ModelProto) -> None:
    """36 Concats of a tensor with itself: 2^36 times its size, from a small file."""
    before = "obs"
    nodes = []
    for number in range(36):
        nodes.append(helper.make_node("Concat", [before, before], [f"d{number}"], axis=1))
        before = f"d{number}"
    nodes.append(helper.make_node("ReduceMax", [before], ["most"], keepdims=0))
    nodes.append(helper.make_node("Add", ["obs", "most"], ["moved"]))
    rest = list(model.graph.node)
    rest[0].input[0] = "moved"
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def many_nodes(model: ModelProto) -> None:
    for number in range(30_000):
        model.graph.node.append(helper.make_node("Identity", ["obs"], [f"n{number}"]))


def metadata(key: str, value: str) -> Change:
    def change(model: ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = value

    return change


def crafted_signature(**changes: Any) -> Change:
    def change(model: ModelProto) -> None:
        raw = toys.FLAT.to_json() | changes
        metadata(SIGNATURE, json.dumps(raw))(model)

    return change


def operator(name: str, domain: str = "") -> Change:
    return lambda model: model.graph.node.append(
        helper.make_node(name, ["obs"], ["z"], domain=domain)
    )


# ---------------------------------------------------------------- no file at all


def sparse_giant(folder: Path) -> Path:
    path = folder / "giant.onnx"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)
    return path


def pipe(folder: Path) -> Path:
    path = folder / "pipe.onnx"
    os.mkfifo(path)
    return path


def device(folder: Path) -> Path:
    path = folder / "device.onnx"
    path.symlink_to("/dev/zero")
    return path


def _symlink(folder: Path) -> str:
    (folder / "secret").write_bytes(bytes(64))
    (folder / "link").symlink_to(folder / "secret")
    return "link"


def _hard_link(folder: Path) -> str:
    (folder / "secret").write_bytes(bytes(64))
    os.link(folder / "secret", folder / "hard")
    return "hard"


class Harm:
    """What a pickle would do; nothing here ever opens one."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("/tmp/ganglion-pickle-was-opened",))


Made = bytes | Path
EXTERNAL = "keeps tensor 'stolen' in another file"
HOSTILE: dict[str, tuple[Callable[[Path], Made], str]] = {
    "external, relative": (lambda _: sealed(weight("weights.bin")), EXTERNAL),
    "external, parent": (lambda _: sealed(weight("../../../etc/passwd")), EXTERNAL),
    "external, absolute": (lambda _: sealed(weight("/etc/passwd")), EXTERNAL),
    "external, symlink": (lambda f: sealed(weight(_symlink(f))), EXTERNAL),
    "external, hard link": (lambda f: sealed(weight(_hard_link(f))), EXTERNAL),
    "external, attribute": (lambda _: sealed(attribute("weights.bin")), EXTERNAL),
    "external, attribute, absolute": (lambda _: sealed(attribute("/etc/shadow")), EXTERNAL),
    "external, inner graph": (lambda _: sealed(inner("weights.bin")), EXTERNAL),
    "external, sparse": (lambda _: sealed(sparse), EXTERNAL),
    "external, training graph": (lambda _: sealed(training), EXTERNAL),
    "loop, endless": (lambda _: sealed(loop(None)), "has a Loop without a bound"),
    "loop, 2^40 trips": (lambda _: sealed(loop(2**40)), "has a Loop without a bound"),
    "loops within loops": (lambda _: sealed(nested_loops), "too much processor time|took longer"),
    "loop, slow steps": (slow_steps, "too much processor time|took longer"),
    "graphs 12 deep": (lambda _: sealed(deep_graphs), "deeper than 8"),
    "protobuf 5,000 deep": (deep_protobuf, "is not an ONNX file|nested too deeply"),
    "initialiser of 2^40": (lambda _: sealed(sizes(2**40)), "more than 200000000 parameters"),
    "initialiser of 2^64": (lambda _: sealed(sizes(2**32, 2**32)), "more than 200000000 param"),
    "initialiser below 0": (lambda _: sealed(sizes(-1)), "of a size below zero"),
    "a constant of 4 TB": (lambda _: sealed(large_constant), "failed|cannot be loaded|memory"),
    "doubling to 800 GB": (lambda _: sealed(doubling), "failed|cannot be loaded|memory"),
    "30,000 nodes": (lambda _: sealed(many_nodes), "nodes; at most 20000"),
    "a card of 2 MB": (
        lambda _: sealed(metadata(CARD, json.dumps({"x": "y" * 2**21}))), "has metadata of",
    ),
    "a signature 100,000 deep": (
        lambda _: sealed(metadata(SIGNATURE, "[" * 100_000)), "metadata that cannot be read",
    ),
    "a signature of nothing": (
        lambda _: sealed(crafted_signature(inputs={}, outputs={})), "does not match its signature",
    ),
    "carried to nowhere": (
        lambda _: sealed(crafted_signature(carried={"action": "none"})), "which it does not have",
    ),
    "a foreign operator": (lambda _: sealed(operator("Exec", "evil")), "uses the operator 'evil"),
    "random numbers": (lambda _: sealed(operator("RandomNormalLike")), "uses the operator"),
    "answers that are no numbers": (lambda _: toys.root(), "is not finite"),
    "bytes at random": (
        lambda _: np.random.default_rng(0).bytes(4096), "is not an ONNX file|damaged|metadata",
    ),
    "half a file": (lambda _: toys.flat()[:300], "is not an ONNX file"),
    "one bit flipped": (
        lambda _: bytes([*toys.flat()[:60], toys.flat()[60] ^ 1, *toys.flat()[61:]]),
        "changed or damaged|is not an ONNX file|no .* metadata|metadata that cannot be read",
    ),
    "a pickle": (lambda _: pickle.dumps(Harm()), "is not an ONNX file|metadata"),
    "nothing": (lambda _: b"", "is empty"),
    "2 GB of zeros": (sparse_giant, "is larger than 134217728 bytes"),
    "a pipe": (pipe, "is no regular file"),
    "a device": (device, "is no regular file"),
}  # fmt: skip


def make(name: str, folder: Path) -> Path:
    """Make one hostile file and return its path."""
    made = HOSTILE[name][0](folder)
    if isinstance(made, Path):
        return made
    path = folder / "hostile.onnx"
    path.write_bytes(made)
    return path
