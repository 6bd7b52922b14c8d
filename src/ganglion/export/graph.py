"""Finish an ONNX graph before it is written: named axes, bounded loops, nothing left over."""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.export.inputs import BATCH
from ganglion.export.inspection import ELEMENTS, Limits, graphs

_TRIPS = "ganglion.loop_trips"


def finish(model: ModelProto, signature: Signature) -> ModelProto:
    """Return `model` without functions, dead weights and traces of the exporter's sources."""
    if model.functions:
        model = inline_local_functions(model)
    count_loops(model, signature)
    bound_loops(model)
    merge_squares(model)
    name_ends(model, signature)
    strip(model)
    prune(model)
    return model


def name_ends(model: ModelProto, signature: Signature) -> None:
    """Write the signature's types and axis names into the graph's inputs and outputs."""
    for values, specs in (
        (model.graph.input, signature.inputs),
        (model.graph.output, signature.outputs),
    ):
        for value in values:
            if value.name in specs:
                value.CopyFrom(_value(value.name, specs[value.name]))


def bound_loops(model: ModelProto, trips: int = Limits().trips) -> None:
    """Give each Loop that only has a condition a largest number of trips, so that it ends."""
    open_loops = [
        node
        for graph, _ in graphs(model)
        for node in graph.node
        if node.op_type == "Loop" and node.input[0] == ""
    ]
    for node in open_loops:
        node.input[0] = _TRIPS
    if open_loops:
        bound = helper.make_tensor(_TRIPS, onnx.TensorProto.INT64, [], [trips])
        model.graph.initializer.append(bound)


def count_loops(model: ModelProto, signature: Signature) -> None:
    """Let each Loop that only counts its trips be given their number, in place.

    `while_loop(lambda i, ...: i < limit, ...)` with i from 0 in steps of 1 arrives as a Loop that
    adds and compares at every trip. Where limit is an input of role "steps" or an initializer, it
    becomes the Loop's trip count; the counter goes, and its place is taken by the Loop's own.
    """
    limits = {name: name for name, spec in signature.inputs.items() if spec.role == "steps"}
    limits |= {t.name: t.name for t in model.graph.initializer}
    for node in model.graph.node:  # in topological order
        if node.op_type in ("Reshape", "Squeeze", "Identity") and node.input[0] in limits:
            limits[node.output[0]] = limits[node.input[0]]
    zeros = {t.name for t in model.graph.initializer if _is_integer(t, 0)}
    ones = {t.name for t in model.graph.initializer if _is_integer(t, 1)}
    for graph, _ in graphs(model):
        for node in graph.node:
            if node.op_type == "Loop" and node.input[0] == "":
                _count(node, limits, zeros, ones)


def _count(loop: NodeProto, limits: dict[str, str], zeros: set[str], ones: set[str]) -> None:
    body = next(a.g for a in loop.attribute if a.name == "body")
    made = {output: node for node in body.node for output in node.output}
    test = made.get(body.output[0].name)
    if test is None or test.op_type != "Less" or test.input[1] not in limits:
        return
    for place in range(2, len(loop.input)):
        old, new = body.input[place].name, body.output[place - 1].name
        step = made.get(new)
        if step is None or step.op_type != "Add" or test.input[0] != new:
            continue
        if loop.input[place] not in zeros or step.input[0] != old or step.input[1] not in ones:
            continue
        if any(new in node.input for node in body.node if node is not test):
            return
        counter, going = body.input[0].name, body.input[1].name
        kept = [node for node in body.node if node is not test and node is not step]
        for inner in [node for g in _within(body) for node in g.node]:
            inner.input[:] = [counter if name == old else name for name in inner.input]
        del body.node[:]
        body.node.append(helper.make_node("Identity", [going], [test.output[0]]))
        body.node.extend(kept)
        del body.input[place], body.output[place - 1]
        loop.input[0], loop.input[1] = limits[test.input[1]], ""
        del loop.input[place], loop.output[place - 2]
        return


def _within(graph: GraphProto) -> list[GraphProto]:
    """Return the graph and all inside it."""
    return [inner for inner, _ in graphs(ModelProto(graph=graph))]


def _is_integer(tensor: TensorProto, value: int) -> bool:
    whole = tensor.data_type == TensorProto.INT64
    return whole and numpy_helper.to_array(tensor).tolist() in (value, [value])


def merge_squares(model: ModelProto) -> None:
    """Replace ReduceSum(x * x) or ReduceSum(x^2) by ReduceSumSquare(x), in place."""
    twos = {
        t.name
        for graph, _ in graphs(model)
        for t in graph.initializer
        if t.data_type == TensorProto.FLOAT and numpy_helper.to_array(t).tolist() == 2.0
    }
    for graph, _ in graphs(model):
        squares = {
            node.output[0]: node.input[0]
            for node in graph.node
            if (node.op_type == "Pow" and node.input[1] in twos)
            or (node.op_type == "Mul" and node.input[0] == node.input[1])
        }
        for node in graph.node:
            if node.op_type == "ReduceSum" and node.input[0] in squares:
                node.op_type, node.input[0] = "ReduceSumSquare", squares[node.input[0]]


def strip(model: ModelProto) -> None:
    """Remove source paths, stack traces and inferred shapes, in place."""
    model.doc_string = ""
    del model.metadata_props[:]
    for graph, depth in graphs(model):
        graph.doc_string = ""
        del graph.metadata_props[:]
        del graph.value_info[:]
        ends = [*graph.input, *graph.output]
        for item in [*graph.node, *graph.initializer, *(ends if depth == 0 else [])]:
            item.doc_string = ""
            del item.metadata_props[:]
        for value in ends:
            del value.metadata_props[:]
    used = {node.domain for graph, _ in graphs(model) for node in graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def prune(model: ModelProto) -> None:
    """Remove nodes and weights that no output depends on, in place."""
    while True:
        used = {name for graph, _ in graphs(model) for name in _uses(graph)}
        removed = 0
        for graph, _ in graphs(model):
            nodes = [node for node in graph.node if any(out in used for out in node.output)]
            weights = [tensor for tensor in graph.initializer if tensor.name in used]
            removed += len(graph.node) - len(nodes) + len(graph.initializer) - len(weights)
            del graph.node[:]
            graph.node.extend(nodes)
            del graph.initializer[:]
            graph.initializer.extend(weights)
        if not removed:
            return


def _uses(graph: GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.input} | {v.name for v in graph.output}


def _value(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = (BATCH, *spec.shape) if spec.batched else spec.shape
    return helper.make_tensor_value_info(name, ELEMENTS[spec.dtype], shape)
