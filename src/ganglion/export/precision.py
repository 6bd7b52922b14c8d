"""Smaller forms of an exported graph: half-precision weights, and 8-bit matrix products."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from ganglion.core.errors import ExportError
from ganglion.export.inspection import graphs

Precision = Literal["fp32", "fp16", "int8"]
_SMALLEST = 256  # tensors below this many elements (biases, normalisers) stay as they are


def convert(model: ModelProto, precision: Precision) -> ModelProto:
    """Return `model` with its weights in `precision`; the arithmetic's inputs stay float32.

    fp16 stores matrices as IEEE half precision and widens them when the file is loaded: half the
    bytes, the same speed, rounding of 2^-11 relative. int8 turns matrix products into 8-bit ones
    with ranges measured at each call over the whole batch, so that an answer depends a little on
    the rows beside it (onnxruntime dynamic quantisation). Raises ExportError where there is nothing
    to convert.
    """
    if precision == "fp32":
        return model
    return _half(model) if precision == "fp16" else _int8(model)


def _half(model: ModelProto) -> ModelProto:
    """Replace each large float32 weight w by Cast(half(w)), in the graph that holds it."""
    converted = 0
    for graph, _ in graphs(model):
        casts = []
        for tensor in graph.initializer:
            if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
                continue
            values = numpy_helper.to_array(tensor)
            if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
                continue
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        converted += len(casts)
    if not converted:
        raise ExportError(f"There is no weight of {_SMALLEST} elements or more to store as fp16.")
    return model


def _int8(model: ModelProto) -> ModelProto:
    """Quantise matrix products by onnxruntime, weights per column, activations per call."""
    # Without this mark the quantiser logs its advice to the root logger.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            file,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"EnableSubgraph": True},
        )
        quantized = onnx.load(file, load_external_data=False)
    operators = {node.op_type for graph, _ in graphs(quantized) for node in graph.node}
    if "MatMulInteger" not in operators:
        raise ExportError("There is no matrix product with fixed weights to quantise to int8.")
    return quantized
