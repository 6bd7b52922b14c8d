"""Look into an ONNX file without running it: is it safe, whole, and what it says it is?

Only protobuf is parsed. What ONNX Runtime would read from other files (external data), run without
bound (an open Loop) or load from elsewhere (foreign operators) is refused before it sees the bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.core.errors import DataError, unknown
from ganglion.export.operators import OPERATORS
from ganglion.export.sealing import CARD, DIGEST, MADE, SIGNATURE, sealed

ELEMENTS: Mapping[str, int] = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
_WEIGHTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class Limits:
    """What an exported file may hold at most."""

    file_bytes: int = 512 * 2**20
    nodes: int = 20_000
    parameters: int = 200_000_000
    depth: int = 8  # graphs within graphs
    trips: int = 10_000  # of one Loop


@dataclass(frozen=True)
class Inspection:
    """What a file holds; `made` says how it was exported (precision, opset, versions, parity)."""

    signature: Signature
    card: Mapping[str, Any]
    made: Mapping[str, Any]
    digest: str  # SHA-256 of the whole file
    file_bytes: int
    nodes: int
    parameters: int  # learned numbers, as the exporter counted them (else: all weights)
    operators: tuple[str, ...]


def inspect(source: Path | str | bytes, limits: Limits | None = None) -> Inspection:
    """Inspect a file or its bytes; raises DataError with one sentence where it is not in order."""
    return inspect_bytes(*read(source, limits), limits=limits)


def read(source: Path | str | bytes, limits: Limits | None = None) -> tuple[bytes, str]:
    """Return the bytes of `source`, read once, and the name it has in messages."""
    most = (limits or Limits()).file_bytes
    if isinstance(source, bytes):
        data, name = source, "The ONNX file"
    else:
        name = str(source)
        try:
            with open(source, "rb") as file:
                data = file.read(most + 1)
        except IsADirectoryError:
            raise DataError(f"{name} is a folder; expected an ONNX file.") from None
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise DataError(f"{name} cannot be read: {reason}.") from None
    if len(data) > most:
        raise DataError(f"{name} is larger than {most} bytes, the most that is allowed.")
    if not data:
        raise DataError(f"{name} is empty.")
    return data, name


def inspect_bytes(data: bytes, name: str, limits: Limits | None = None) -> Inspection:
    """Inspect what `read` returned."""
    try:
        model = ModelProto.FromString(data)
        return _inspect(model, data, name, limits or Limits())
    except DecodeError:
        raise DataError(f"{name} is not an ONNX file, or is cut off.") from None
    except UnicodeDecodeError:
        raise DataError(f"{name} is damaged: a name in it is no text.") from None


def _inspect(model: ModelProto, data: bytes, name: str, limits: Limits) -> Inspection:
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise DataError(
                f"{name} keeps tensor {tensor.name!r} in another file, which is not allowed; "
                "export it with its weights inside."
            )
        if any(dim < 0 for dim in tensor.dims):
            raise DataError(f"{name} holds tensor {tensor.name!r} of a size below zero.")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    for key in (SIGNATURE, CARD, MADE, DIGEST):
        if key not in metadata:
            raise DataError(f"{name} has no {key!r} metadata; write it with `ganglion export`.")
    if not sealed(data):
        raise DataError(f"{name} was changed or damaged after it was written; export it again.")
    if model.functions or model.training_info:
        raise DataError(f"{name} holds functions or training graphs, which are not allowed.")
    nodes, operators = _check_nodes(model, name, limits)
    weights = sum(_size(t) for t in _tensors(model) if t.data_type in _WEIGHTS)
    if sum(_size(t) for t in _tensors(model)) > limits.parameters:
        raise DataError(f"{name} holds more than {limits.parameters} parameters.")
    signature, card, made = _metadata(metadata, name)
    _check_ends(model.graph, signature, name)
    _check_loops(model.graph, signature, name, limits)
    parameters = made.get("parameters", weights)
    if not isinstance(parameters, int) or not 0 <= parameters <= limits.parameters:
        raise DataError(f"{name} has metadata that cannot be read; export it again.")
    digest = hashlib.sha256(data).hexdigest()
    return Inspection(
        signature, card, made, digest, len(data), nodes, parameters, tuple(sorted(operators))
    )


def graphs(model: ModelProto) -> Iterator[tuple[GraphProto, int]]:
    """Yield every graph with its depth, the main one (0) first."""
    stack = [(model.graph, 0)]
    while stack:
        graph, depth = stack.pop()
        yield graph, depth
        for node in graph.node:
            for attribute in node.attribute:
                inner = ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
                stack.extend((g, depth + 1) for g in inner)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor anywhere in the file: graphs, attributes, functions, training graphs."""
    roots = [
        model.graph,
        *(g for t in model.training_info for g in (t.initialization, t.algorithm)),
    ]
    for root in roots:
        for graph, _ in graphs(ModelProto(graph=root) if root is not model.graph else model):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            for node in graph.node:
                yield from _attribute_tensors(node.attribute)
    for function in model.functions:
        yield from _attribute_tensors(function.attribute_proto)
        inside = ModelProto(graph=GraphProto(node=function.node))
        yield from _tensors(inside)


def _attribute_tensors(attributes: Any) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for tensor in [*sparse, *attribute.sparse_tensors]:
            yield from (tensor.values, tensor.indices)


def _size(tensor: TensorProto) -> int:
    return math.prod(max(0, dim) for dim in tensor.dims)


def _check_nodes(model: ModelProto, name: str, limits: Limits) -> tuple[int, set[str]]:
    count = 0
    operators: set[str] = set()
    for graph, depth in graphs(model):
        if depth > limits.depth:
            raise DataError(f"{name} nests graphs deeper than {limits.depth}.")
        count += len(graph.node)
        for node in graph.node:
            if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
                full = f"{node.domain}.{node.op_type}".lstrip(".")
                raise DataError(f"{name} uses the operator {full!r}, which is not allowed.")
            operators.add(node.op_type)
    if count > limits.nodes:
        raise DataError(f"{name} has {count} nodes; at most {limits.nodes} are allowed.")
    return count, operators


def _metadata(
    raw: Mapping[str, str], name: str
) -> tuple[Signature, Mapping[str, Any], Mapping[str, Any]]:
    try:
        signature = Signature.from_json(json.loads(raw[SIGNATURE]))
        card, made = json.loads(raw[CARD]), json.loads(raw[MADE])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{name} has metadata that cannot be read; export it again.") from None
    if not isinstance(card, dict) or not isinstance(made, dict):
        raise DataError(f"{name} has metadata that cannot be read; export it again.")
    return signature, card, made


def _check_ends(graph: GraphProto, signature: Signature, name: str) -> None:
    """Compare the graph's inputs and outputs with the signature's: names, types, shapes."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {v.name: v for v in graph.input if v.name not in weights}
    outputs = {v.name: v for v in graph.output}
    for side, found, declared in (
        ("input", inputs, signature.inputs),
        ("output", outputs, signature.outputs),
    ):
        for other in found.keys() - declared.keys():
            raise DataError(
                f"{name} does not match its signature. {unknown(side, other, declared)}"
            )
        for key, spec in declared.items():
            if key not in found:
                raise DataError(f"{name} has no {side} {key!r}, which its signature declares.")
            if not _fits(found[key], spec):
                raise DataError(
                    f"{name} has an {side} {key!r} that is not what its signature says."
                )


def _fits(value: onnx.ValueInfoProto, spec: TensorSpec) -> bool:
    tensor = value.type.tensor_type
    axes = ("batch", *spec.shape) if spec.batched else spec.shape
    if tensor.elem_type != ELEMENTS.get(spec.dtype) or len(tensor.shape.dim) != len(axes):
        return False
    # An axis that the file leaves open may have any size; a fixed one must be the declared one.
    return all(
        dim.dim_value == axis if dim.HasField("dim_value") else True
        for dim, axis in zip(tensor.shape.dim, axes, strict=True)
    )


def _check_loops(graph: GraphProto, signature: Signature, name: str, limits: Limits) -> None:
    """Refuse a Loop whose first input is no constant and no bounded input of role "steps"."""
    bounded = {
        key: int(spec.high)
        for key, spec in signature.inputs.items()
        if spec.role == "steps" and spec.high is not None and math.isfinite(spec.high)
    }
    stack = [(graph, bounded)]
    while stack:
        inner, outer = stack.pop()
        hidden = {output for node in inner.node for output in node.output}
        if inner is not graph:
            hidden |= {value.name for value in inner.input}
        scope = {k: v for k, v in outer.items() if k not in hidden} | _constants(inner)
        for node in inner.node:
            trips = scope.get(node.input[0]) if node.op_type == "Loop" and node.input else 0
            if trips is None or trips > limits.trips or (node.op_type == "Loop" and not node.input):
                raise DataError(
                    f"{name} has a Loop without a bound of at most {limits.trips} trips."
                )
            stack.extend((a.g, scope) for a in node.attribute if a.type == AttributeProto.GRAPH)


def _constants(graph: GraphProto) -> dict[str, int]:
    """Return the integer scalars that `graph` defines."""
    scalars = {}
    for tensor in graph.initializer:
        scalars[tensor.name] = _integer(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            scalars[node.output[0]] = _constant(node)
    return {key: value for key, value in scalars.items() if value is not None}


def _constant(node: NodeProto) -> int | None:
    for attribute in node.attribute:
        if attribute.name == "value_int":
            return int(attribute.i)
        if attribute.name == "value":
            return _integer(attribute.t)
    return None


def _integer(tensor: TensorProto) -> int | None:
    if tensor.data_type != TensorProto.INT64 or _size(tensor) != 1:
        return None
    if tensor.int64_data:
        return int(tensor.int64_data[0])
    return int.from_bytes(tensor.raw_data, "little", signed=True) if tensor.raw_data else None
