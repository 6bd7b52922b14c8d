"""The OpenAPI description, made of the signatures that are loaded: lengths, types, ranges.

JSON Schema cannot say that two arrays have as many rows. So `/act` and `/jobs` are described in
their forms that need no such rule (one row; rows of all inputs side by side), and the batch forms
in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ganglion import __version__
from ganglion.core.contracts import Signature, TensorSpec
from ganglion.serve import problems
from ganglion.serve.jobs import LARGEST, data_widths
from ganglion.serve.models import Model
from ganglion.serve.openinference import DATATYPES
from ganglion.serve.problems import Problem
from ganglion.serve.reading import SEEDS
from ganglion.serve.settings import ServeSettings

Schema = dict[str, Any]
_FLOAT32 = float(np.finfo(np.float32).max)
_READ = (400, 403, 421)  # what any request may get
_WRITE = (408, 413, 415, 503)  # what any body may get


def document(models: Sequence[Model], settings: ServeSettings) -> Schema:
    """Return the OpenAPI 3.1 document of a server with these models; the first is the default."""
    paths: Schema = {}
    first = models[0]
    _add_policy(paths, first, settings, "")
    if len(models) > 1:
        for model in models:
            _add_policy(paths, model, settings, f"/{model.name}")
    _add_jobs(paths, first.signature, settings)
    for model in models:
        _add_model(paths, model)
    _add_server(paths)
    components: Schema = {"schemas": {"Problem": problems.SCHEMA}}
    found: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": f"ganglion serve {', '.join(model.name for model in models)}",
            "version": __version__,
            "description": "Decisions of exported policies. WebSocket: /stream. "
            "Refusals are RFC 9457 problem details.",
        },
        "paths": paths,
        "components": components,
    }
    if settings.tokens:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
        for path in paths:
            for operation in paths[path].values():
                operation["responses"]["401"] = _problem(401)
        for path in ("/v2/health/live", "/v2/health/ready"):
            paths[path]["get"]["security"] = []
    return found


# ---------------------------------------------------------------- addresses


def _add_policy(paths: Schema, model: Model, settings: ServeSettings, suffix: str) -> None:
    signature = model.signature
    clip = settings.out_of_range == "warn"
    row = {n: tensor(s, clip, batch=False) for n, s in signature.inputs.items()}
    needed = [n for n, s in signature.inputs.items() if s.role == "data"]
    decision = _operation(
        f"act{suffix.replace('/', '_')}", "One decision",
        f"One row: name of an input to its value, without a batch axis. {_left_out(signature)}"
        f"{_open_axes(signature)}"
        'A batch goes to the same address as {"inputs": {name: rows}, "seed": whole number} and '
        'comes back as {"outputs": {name: rows}}; all inputs then have as many rows.',
        _answer(
            _object({n: output(s) for n, s in signature.outputs.items()}, list(signature.outputs)),
            "The outputs of that row.",
        ),
        (*_READ, *_WRITE, 422),
    )  # fmt: skip
    decision["requestBody"] = _body(_object(row, needed))
    if any(s.role in ("normal", "uniform") for s in signature.inputs.values()):
        schema = {"type": "integer", "minimum": 0, "maximum": SEEDS - 1}
        decision["parameters"] = [
            {"name": "seed", "in": "query", "required": False, "schema": schema,
             "description": "What left-out noise is drawn from; else a counter. Reported."}
        ]  # fmt: skip
    paths[f"/act{suffix}"] = {"post": decision}
    for what, summary in (
        ("signature", "What the policy takes and gives"),
        ("card", "The policy card"),
    ):
        paths[f"/{what}{suffix}"] = {
            "get": _operation(
                f"{what}{suffix.replace('/', '_')}", summary, "", _answer({"type": "object"}), _READ
            )
        }


def _add_jobs(paths: Schema, signature: Signature, settings: ServeSettings) -> None:
    number = {"type": "integer", "minimum": 0, "maximum": LARGEST}
    job = _object({"job_id": number, "status": {"type": "string"}}, ["job_id", "status"], True)
    try:
        data_widths(signature)
        rows = {"job_id": number, "input": _rows(signature, settings)}
        body = _object(rows, list(rows))
    except Problem:  # no fixed row of numbers
        body = _object({"job_id": number, "data": _data(signature, settings)}, ["job_id", "data"])
    add = _operation(
        "add_job", "Queue a job",
        'A row of "input" is the data inputs side by side, in their order. Instead of "input" '
        'there may be "data": {name: rows}; beside it "seed". Without fixed lengths "data" is the '
        f"only form. {_open_axes(signature)}".rstrip(),
        {"202": _answer(job, "The job was taken.")["200"]}, (*_READ, *_WRITE, 409, 422, 429),
    )  # fmt: skip
    add["requestBody"] = _body(body)
    link = {"parameters": {"job_id": "$response.body#/job_id"}}
    add["responses"]["202"]["links"] = {
        "read": {"operationId": "get_job", **link},
        "delete": {"operationId": "delete_job", **link},
    }
    paths["/jobs"] = {"post": add}
    parameter = {"name": "job_id", "in": "path", "required": True, "schema": number}
    read = _operation("get_job", "A job and its result", "The result stays until it is deleted or "
                      "old.", _answer(job, headers=False), (*_READ, 404))  # fmt: skip
    delete = _operation("delete_job", "Forget a job", "", _answer(job, headers=False),
                        (*_READ, 404))  # fmt: skip
    paths["/jobs/{job_id}"] = {
        "get": {**read, "parameters": [parameter]},
        "delete": {**delete, "parameters": [parameter]},
    }
    listed = _object({"jobs": {"type": "array", "items": job}}, ["jobs"])
    answer = _answer(listed, headers=False)
    paths["/list_jobs"] = {"get": _operation("list_jobs", "All jobs", "", answer, _READ)}


def _add_model(paths: Schema, model: Model) -> None:
    base, name = f"/v2/models/{model.name}", model.name
    about = _object(
        {"name": {"const": name}, "versions": {"type": "array", "items": {"type": "string"}},
         "platform": {"type": "string"}, "inputs": {"type": "array"}, "outputs": {"type": "array"}},
        ["name", "platform", "inputs", "outputs"],
    )  # fmt: skip
    paths[base] = {
        "get": _operation(f"model_{name}", f"{name}: metadata", "", _answer(about), (*_READ, 404))
    }
    paths[f"{base}/ready"] = {
        "get": _operation(f"ready_{name}", f"{name}: ready", "",
                          _answer(_object({"name": {"const": name}, "ready": {"const": True}},
                                          ["name", "ready"])), (*_READ, 404))
    }  # fmt: skip
    infer = _operation(
        f"infer_{name}", f"{name}: infer",
        "Open Inference Protocol v2; tensors may also follow the JSON in binary (header "
        "Inference-Header-Content-Length). Sizes that do not agree are 400.",
        _answer(_object({"model_name": {"const": name}, "outputs": {"type": "array"}},
                        ["model_name", "model_version", "outputs"], True)),
        (*_READ, *_WRITE, 404),
    )  # fmt: skip
    tensors = [_v2_tensor(n, s) for n, s in model.signature.inputs.items()]
    body = _object(
        {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": tensors}},
        },
        ["inputs"],
    )
    infer["requestBody"] = _body(body)
    paths[f"{base}/infer"] = {"post": infer}


def _add_server(paths: Schema) -> None:
    plain: Mapping[str, tuple[str, str, Schema]] = {
        "/": ("index", "What is served here", {"type": "object"}),
        "/v2": ("server", "The server's metadata", {"type": "object"}),
        "/v2/health/live": ("live", "The process answers", {"type": "object"}),
        "/openapi.json": ("openapi", "This description", {"type": "object"}),
    }
    for path, (name, summary, schema) in plain.items():
        answer = _answer(schema, headers=False)
        paths[path] = {"get": _operation(name, summary, "", answer, _READ)}
    ready = _answer({"type": "object"}, headers=False)
    paths["/v2/health/ready"] = {
        "get": _operation("ready", "New requests may come", "", ready, (*_READ, 503))
    }
    text = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    paths["/metrics"] = {"get": _operation("metrics", "Prometheus metrics", "", text, _READ)}


# ---------------------------------------------------------------- schemas


def tensor(spec: TensorSpec, clip: bool, batch: bool) -> Schema:
    """Return the schema of one input; `clip`: values beyond the range are taken, too."""
    found = number(spec, clip)
    for axis in reversed(spec.shape):
        found = {"type": "array", "items": found, "minItems": 1}
        if isinstance(axis, int):
            found |= {"minItems": axis, "maxItems": axis}
    if batch and spec.batched:
        found = {"type": "array", "items": found, "minItems": 1}
    about = [spec.unit if spec.unit != "1" else "", ", ".join(spec.labels), _range(spec)]
    said = "; ".join(text for text in about if text)
    return {**found, "description": said} if said else found


def output(spec: TensorSpec) -> Schema:
    """Return the schema of one output row."""
    plain = TensorSpec(spec.shape, spec.dtype, spec.unit, labels=spec.labels)
    return tensor(plain, clip=False, batch=False)


def number(spec: TensorSpec, clip: bool) -> Schema:
    """Return the schema of one number of a tensor."""
    if spec.dtype == "bool":
        return {"type": "boolean"}
    steps = spec.role == "steps"
    low, high = (spec.low, spec.high) if steps or not clip else (None, None)
    low = 1 if steps and low is None else low
    if spec.dtype == "float32":
        least = _edge(-_FLOAT32 if low is None else low, -1)
        most = _edge(_FLOAT32 if high is None else high, 1)
        return {"type": "number", **least, **most}
    about = np.iinfo(spec.dtype)
    return {
        "type": "integer",
        "minimum": int(about.min) if low is None else int(np.ceil(low)),
        "maximum": int(about.max) if high is None else int(np.floor(high)),
    }


def _edge(bound: float, side: int) -> Schema:
    """Return what JSON's numbers may be at most (side 1) or at least (-1).

    They are rounded to float32 before they are compared with `bound`, so that a float32 at its
    bound is in range however it is written; what rounds to the bound is still in range.
    """
    rounded = np.float32(bound)
    with np.errstate(over="ignore"):
        beyond = float(np.nextafter(rounded, np.float32(side * np.inf)))
        if not np.isfinite(beyond):
            beyond = side * 2.0**128
        edge = (float(rounded) + beyond) / 2
        inside = side * np.float32(edge) <= side * rounded  # a tie goes to the even neighbour
    if inside:
        return {"maximum" if side > 0 else "minimum": edge}
    return {"exclusiveMaximum" if side > 0 else "exclusiveMinimum": edge}


def _rows(signature: Signature, settings: ServeSettings) -> Schema:
    """Return the schema of a job's rows: each column with its own range."""
    clip = settings.out_of_range == "warn"
    columns = [
        number(signature.inputs[name], clip)
        for name, width in data_widths(signature).items()
        for _ in range(width)
    ]
    row: Schema = {"type": "array", "minItems": len(columns), "maxItems": len(columns)}
    if all(column == columns[0] for column in columns):
        row["items"] = columns[0]
    else:
        row["prefixItems"] = columns
    return {"type": "array", "minItems": 1, "maxItems": settings.limits.job_rows, "items": row}


def _data(signature: Signature, settings: ServeSettings) -> Schema:
    """Return the schema of a job's rows by name; how many rows agree it cannot say."""
    clip, most = settings.out_of_range == "warn", settings.limits.job_rows
    named = {}
    for name, spec in signature.inputs.items():
        named[name] = tensor(spec, clip, batch=True)
        if spec.batched:
            named[name]["maxItems"] = most
    return _object(named, [n for n, s in signature.inputs.items() if s.role == "data"])


def _v2_tensor(name: str, spec: TensorSpec) -> Schema:
    rank = len(spec.shape) + spec.batched
    kind = "boolean" if spec.dtype == "bool" else "number"
    return _object(
        {
            "name": {"const": name},
            "datatype": {"const": DATATYPES[spec.dtype]},
            "shape": {"type": "array", "minItems": rank, "maxItems": rank,
                      "items": {"type": "integer", "minimum": 1}},
            "data": {"type": "array", "minItems": 1, "items": {"type": kind}},
        },
        ["name", "datatype", "shape", "data"],
    )  # fmt: skip


def _object(properties: Schema, required: list[str], more: bool = False) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "required": required}
    return found if more else {**found, "additionalProperties": False}


def _body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _answer(schema: Schema, description: str = "OK", headers: bool = True) -> Schema:
    found: Schema = {
        "description": description, "content": {"application/json": {"schema": schema}},
    }  # fmt: skip
    if headers:
        digest = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
        found["headers"] = {
            "ganglion-digest": {"required": True, "schema": digest},
            "ganglion-policy": {"required": True, "schema": {"type": "string"}},
        }
    return {"200": found}


def _operation(
    name: str, summary: str, description: str, answers: Schema, statuses: Sequence[int]
) -> Schema:
    found: Schema = {"operationId": name, "summary": summary}
    if description:
        found["description"] = description
    found["responses"] = answers | {str(s): _problem(s) for s in sorted(statuses)}
    return found


def _problem(status: int) -> Schema:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": _WHY[status], "content": {"application/problem+json": {"schema": schema}},
    }  # fmt: skip


_WHY = {
    400: "No JSON, no finite numbers, or headers that say what is not so.",
    401: "No valid token.",
    403: "The page of another site asks.",
    404: "There is no such thing.",
    408: "The request came too slowly.",
    409: "There is such a job already.",
    413: "The body is too large.",
    415: "The body is no uncompressed JSON.",
    421: "The Host header names another server.",
    422: "The body does not fit the signature, or the policy's answer to it is not finite.",
    429: "Too many jobs are kept.",
    503: "Too much to do, or the server stops.",
}


def _range(spec: TensorSpec) -> str:
    """Return the declared range in words."""
    if spec.low is None and spec.high is None:
        return ""
    if spec.high is None:
        return f"{spec.low:g} or more"
    return f"{spec.high:g} or less" if spec.low is None else f"{spec.low:g} to {spec.high:g}"


def _left_out(signature: Signature) -> str:
    names = [n for n, s in signature.inputs.items() if s.role != "data"]
    return f"May be left out: {', '.join(names)}. " if names else ""


def _open_axes(signature: Signature) -> str:
    """Say what a schema cannot: sizes that a request chooses, and that have to agree."""
    shapes = {
        name: ", ".join(map(str, spec.shape))
        for name, spec in signature.inputs.items()
        if any(isinstance(axis, str) for axis in spec.shape)
    }
    if not shapes:
        return ""
    listed = "; ".join(f"{name} ({shape})" for name, shape in shapes.items())
    return (
        f"Sized by the request: {listed}. Rows are equally long, and axes of one name have one "
        "size, else 422. "
    )
