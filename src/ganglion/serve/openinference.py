"""Open Inference Protocol v2: requests and answers of `infer`, in JSON and with binary tensors.

Source: the KServe project's "Open Inference Protocol" and its binary tensor data extension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ganglion.core.contracts import Array, Arrays, Signature, TensorSpec
from ganglion.core.errors import unknown
from ganglion.serve.models import Model
from ganglion.serve.problems import malformed, unfit

DATATYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "uint8": "UINT8",
             "bool": "BOOL"}  # fmt: skip
LENGTH = b"inference-header-content-length"
EXTENSIONS = ["binary_tensor_data"]


@dataclass(frozen=True)
class Infer:
    """One request. outputs maps each wanted output to whether it is wanted in binary."""

    id: str | None
    given: dict[str, Array]
    outputs: dict[str, bool]
    seed: Any


def metadata(model: Model) -> dict[str, Any]:
    """Return what `GET /v2/models/NAME` answers."""
    signature = model.signature
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [_tensor(n, s) for n, s in signature.inputs.items()],
        "outputs": [_tensor(n, s) for n, s in signature.outputs.items()],
    }


def _tensor(name: str, spec: TensorSpec) -> dict[str, Any]:
    axes = [-1 if isinstance(axis, str) else axis for axis in spec.shape]
    return {
        "name": name,
        "datatype": DATATYPES[spec.dtype],
        "shape": [-1, *axes] if spec.batched else axes,
    }


# ---------------------------------------------------------------- requests


def header_length(raw: bytes | None, total: int) -> int:
    """Return how many bytes of the body are JSON; `raw` is the header that says it."""
    if raw is None:
        return total
    if not raw.isdigit() or len(raw) > 9 or int(raw) > total:
        raise malformed(
            f"{LENGTH.decode()} is {raw.decode('latin-1')!r:.40}; the body has {total} bytes."
        )
    return int(raw)


def parse(document: Any, binary: memoryview, signature: Signature, booleans: bool) -> Infer:
    """Read a request's JSON and the binary tensors behind it. Every refusal is a Problem."""
    if not isinstance(document, dict):
        raise unfit("A request is a JSON object.")
    entries = document.get("inputs")
    if not isinstance(entries, list):
        raise unfit('"inputs" is a list of tensors.')
    given: dict[str, Array] = {}
    start = 0
    for entry in entries:
        name, spec, shape = _described(entry, signature)
        if name in given:
            raise unfit(f"Input {name!r} is given twice.")
        size = _binary_size(entry, name)
        if size is None:
            given[name] = _from_list(entry, name, spec, shape, booleans)
        else:
            given[name] = _from_bytes(binary[start : start + size], size, name, spec, shape)
            start += size
    if start != len(binary):
        raise unfit(f"{len(binary)} binary bytes came, but the inputs say {start}.")
    parameters = _parameters(document, "The request")
    outputs = _wanted(document.get("outputs"), signature, parameters.get("binary_data_output"))
    asked = document.get("id")
    if asked is not None and not isinstance(asked, str):
        raise unfit('"id" is a text.')
    return Infer(asked, given, outputs, parameters.get("seed"))


def _described(entry: Any, signature: Signature) -> tuple[str, TensorSpec, list[int]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise unfit('A tensor is an object with "name", "shape", "datatype" and "data".')
    name, shape, datatype = entry["name"], entry.get("shape"), entry.get("datatype")
    spec = signature.inputs.get(name)
    if spec is None:
        raise unfit(unknown("input", name, signature.inputs))
    if datatype != DATATYPES[spec.dtype]:
        raise unfit(
            f"Input {name!r} has datatype {datatype!r:.40}; expected {DATATYPES[spec.dtype]!r}."
        )
    if not isinstance(shape, list) or len(shape) > 16 or not all(map(_is_size, shape)):
        raise unfit(
            f"Input {name!r} has shape {shape!r:.60}; expected a list of whole numbers from 0 to "
            "2^31 - 1."
        )
    return name, spec, shape


def _is_size(axis: Any) -> bool:
    return isinstance(axis, int) and not isinstance(axis, bool) and 0 <= axis < 2**31


def _binary_size(entry: Mapping[str, Any], name: str) -> int | None:
    size = _parameters(entry, f"Input {name!r}").get("binary_data_size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise unfit(f"Input {name!r} has binary_data_size {size!r:.40}; expected a byte count.")
    if "data" in entry:
        raise unfit(f'Input {name!r} has both "data" and binary data.')
    return size


def _parameters(entry: Mapping[str, Any], whose: str) -> dict[str, Any]:
    found = entry.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise unfit(f'{whose} has "parameters" that are no object.')
    return found


def _from_list(
    entry: Mapping[str, Any], name: str, spec: TensorSpec, shape: list[int], booleans: bool
) -> Array:
    data = entry.get("data")
    if not isinstance(data, list):
        raise unfit(f'Input {name!r} has no "data", a list.')
    flat = data
    if any(isinstance(item, list) for item in data):
        flat = _flattened(data, name)
    if booleans or spec.dtype == "bool":
        wrong = [item for item in flat if isinstance(item, bool) != (spec.dtype == "bool")]
        if wrong:
            raise unfit(f"Input {name!r} holds {wrong[0]!r:.40}; expected {spec.dtype}.")
    if len(flat) != math.prod(shape):
        raise unfit(f"Input {name!r} has {len(flat)} values; its shape {shape} needs others.")
    return np.asarray(flat, dtype=None if flat else spec.dtype).reshape(shape)


def _flattened(data: list[Any], name: str) -> list[Any]:
    try:
        array = np.asarray(data)
    except ValueError:
        raise unfit(f"Input {name!r} has rows of different lengths.") from None
    if array.dtype.kind not in "biuf":
        raise unfit(f"Input {name!r} holds text or mixed values.")
    items = []
    stack = data[::-1]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item[::-1])
        else:
            items.append(item)
    return items


def _from_bytes(
    data: memoryview, size: int, name: str, spec: TensorSpec, shape: list[int]
) -> Array:
    dtype = np.dtype(spec.dtype)
    if len(data) != size:
        raise unfit(f"Input {name!r} says {size} binary bytes; {len(data)} came.")
    if size != math.prod(shape) * dtype.itemsize:
        raise unfit(f"Input {name!r} has {size} binary bytes; its shape {shape} needs others.")
    raw = np.frombuffer(data, dtype=np.uint8)
    if dtype.kind == "b" and (raw > 1).any():
        raise unfit(f"Input {name!r} holds bytes that are neither 0 nor 1.")
    return raw.view(dtype).reshape(shape).copy()


def _wanted(raw: Any, signature: Signature, all_binary: Any) -> dict[str, bool]:
    if all_binary is not None and not isinstance(all_binary, bool):
        raise unfit('"binary_data_output" is true or false.')
    if raw is None:
        return {name: bool(all_binary) for name in signature.outputs}
    if not isinstance(raw, list):
        raise unfit('"outputs" is a list of tensors.')
    wanted: dict[str, bool] = {}
    for entry in raw:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise unfit('An output is an object with "name".')
        name = entry["name"]
        if name not in signature.outputs:
            raise unfit(unknown("output", name, signature.outputs))
        binary = _parameters(entry, f"Output {name!r}").get("binary_data", all_binary)
        if binary is not None and not isinstance(binary, bool):
            raise unfit('"binary_data" is true or false.')
        wanted[name] = bool(binary)
    return wanted or {name: bool(all_binary) for name in signature.outputs}


# ---------------------------------------------------------------- answers


def answer(
    request: Infer, model: Model, outputs: Arrays, parameters: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """Return the body of an answer and the length of its JSON, None where it is JSON alone."""
    tensors, parts = [], []
    for name, binary in request.outputs.items():
        array = np.ascontiguousarray(outputs[name])
        entry: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": DATATYPES[model.signature.outputs[name].dtype],
        }
        if binary:
            parts.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = array.reshape(-1)
        tensors.append(entry)
    document: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id is not None:
        document["id"] = request.id
    if parameters:
        document["parameters"] = dict(parameters)
    document["outputs"] = tensors
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return head, None
    return b"".join([head, *parts]), len(head)
