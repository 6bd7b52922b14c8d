"""Small policies made by hand, with every role an input can have; no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.export.inspection import ELEMENTS
from ganglion.export.sealing import CARD, MADE, SIGNATURE, seal

FLAT = Signature(
    inputs={"obs": TensorSpec((3,), unit="m", low=-2.0, high=2.0)},
    outputs={"action": TensorSpec((2,), unit="N", low=-1.0, high=1.0)},
)
PAIR = Signature(  # as an arm's sucker takes it
    inputs={
        "previous": TensorSpec((1,), low=0.0, high=1.0),
        "surface": TensorSpec((1,), low=0.0, high=1.0),
    },
    outputs={"colour": TensorSpec((1,), low=0.0, high=1.0)},
)
MEMORY = Signature(
    inputs={
        "obs": TensorSpec((2,)),
        "noise": TensorSpec((2,), role="normal"),
        "hidden": TensorSpec((2,), role="state", low=-1.0, high=1.0),
    },
    outputs={"action": TensorSpec((2,)), "next_hidden": TensorSpec((2,))},
    carried={"next_hidden": "hidden"},
)
POWER = Signature(  # x times 2 to the power of `cycles`, by a Loop; a scale for all rows
    inputs={
        "x": TensorSpec((2,), low=-10.0, high=10.0),
        "cycles": TensorSpec((1,), "int64", low=1.0, high=9.0, role="steps", batched=False),
        "scale": TensorSpec((1,), low=0.0, high=2.0, batched=False),
    },
    outputs={"y": TensorSpec((2,))},
)
GRID = Signature(
    inputs={
        "grid": TensorSpec(("height", "width"), "uint8", low=0.0, high=1.0),
        "goal": TensorSpec((2,), "int64", low=0.0, high=100.0),
        "open": TensorSpec((), "bool"),
    },
    outputs={"free": TensorSpec((), "int64"), "row": TensorSpec((), "int64")},
)
STEEP = Signature(inputs={"x": TensorSpec((1,))}, outputs={"y": TensorSpec((1,))})


def flat(gain: float = 1.0) -> bytes:
    """action = tanh(gain * (obs0 + obs1, obs2))."""
    weight = np.array([[1, 0], [1, 0], [0, 1]], np.float32) * gain
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["action"]),
    ]
    return file(FLAT, nodes, {"w": weight}, {"task": "toy", "gain": gain})


def pair() -> bytes:
    """colour = clip(previous + 0.5 (surface - previous), 0, 1)."""
    nodes = [
        helper.make_node("Sub", ["surface", "previous"], ["gap"]),
        helper.make_node("Mul", ["gap", "half"], ["step"]),
        helper.make_node("Add", ["previous", "step"], ["sum"]),
        helper.make_node("Clip", ["sum", "zero", "one"], ["colour"]),
    ]
    weights = {"half": _f(0.5), "zero": _f(0.0), "one": _f(1.0)}
    return file(PAIR, nodes, weights)


def memory() -> bytes:
    """next_hidden = tanh(obs + hidden); action = next_hidden + 0.1 noise."""
    nodes = [
        helper.make_node("Add", ["obs", "hidden"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next_hidden"]),
        helper.make_node("Mul", ["noise", "tenth"], ["small"]),
        helper.make_node("Add", ["next_hidden", "small"], ["action"]),
    ]
    return file(MEMORY, nodes, {"tenth": _f(0.1)})


def power() -> bytes:
    """y = scale * x * 2^cycles."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Loop", ["cycles", "", "scaled"], ["y"], body=body),
    ]
    return file(POWER, nodes, {}, {"task": "toy", "steps": {"cycles": 3}})


def grid() -> bytes:
    """Free = number of cells that are 0; row = goal's first number, or 0 where not open."""
    nodes = [
        helper.make_node("Cast", ["grid"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["unit", "whole"], ["holes"]),
        helper.make_node("ReduceSum", ["holes", "cells"], ["free"], keepdims=0),
        helper.make_node("Gather", ["goal", "first"], ["line"], axis=1),
        helper.make_node("Where", ["open", "line", "none"], ["row"]),
    ]
    weights = {
        "unit": np.array(1, np.int64), "cells": np.array([1, 2], np.int64),
        "first": np.array(0, np.int64), "none": np.array(0, np.int64),
    }  # fmt: skip
    return file(GRID, nodes, weights)


def steep() -> bytes:
    """y = exp(0.05 x): beyond float32 from x = 1775 up."""
    nodes = [helper.make_node("Mul", ["x", "slope"], ["z"]), helper.make_node("Exp", ["z"], ["y"])]
    return file(STEEP, nodes, {"slope": _f(0.05)})


def root() -> bytes:
    """y = sqrt(x): not a number below zero."""
    return file(STEEP, [helper.make_node("Sqrt", ["x"], ["y"])], {})


def file(
    signature: Signature,
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray[Any, Any]],
    card: dict[str, Any] | None = None,
) -> bytes:
    return seal(model(signature, nodes, weights, card))


def model(
    signature: Signature,
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray[Any, Any]],
    card: dict[str, Any] | None = None,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "toy",
        [_value(name, spec) for name, spec in signature.inputs.items()],
        [_value(name, spec) for name, spec in signature.outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    said = {SIGNATURE: signature.to_json(), CARD: card or {"task": "toy"}, MADE: {}}
    for key, value in said.items():
        made.metadata_props.add(key=key, value=json.dumps(value))
    return made


def write(folder: Path) -> Path:
    """Write every toy into a folder as NAME.onnx."""
    for name, data in TOYS.items():
        (folder / f"{name}.onnx").write_bytes(data())
    return folder


TOYS = {"flat": flat, "pair": pair, "memory": memory, "power": power, "grid": grid,
        "steep": steep}  # fmt: skip


def _value(name: str, spec: TensorSpec) -> Any:
    shape = ("batch", *spec.shape) if spec.batched else spec.shape
    return helper.make_tensor_value_info(name, ELEMENTS[spec.dtype], shape)


def _f(value: float) -> np.ndarray[Any, Any]:
    return np.array(value, np.float32)
