"""Finish an ONNX graph before it is written: named axes, bounded loops, nothing left over."""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, helper
from onnx.inliner import inline_local_functions

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.export.inputs import BATCH
from ganglion.export.inspection import ELEMENTS, Limits, graphs

_TRIPS = "ganglion.loop_trips"


def finish(model: ModelProto, signature: Signature) -> ModelProto:
    """Return `model` without functions, dead weights and traces of the exporter's sources."""
    if model.functions:
        model = inline_local_functions(model)
    bound_loops(model)
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
