"""Open Inference Protocol v2, asked by another implementation of it (tritonclient) and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganglion.core.seeds import rng
from ganglion.export.inputs import draw
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.openinference import DATATYPES

from .driver import Process, Reply, exchange, get, post, request

http = pytest.importorskip("tritonclient.http")
INFER = "/v2/models/flat/infer"
ROW = {"name": "obs", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, -1.0]}


@pytest.fixture
def client(server: Process) -> Iterator[Any]:
    with http.InferenceServerClient(server.url.removeprefix("http://")) as found:
        yield found


def test_its_client_finds_server_and_models(client: Any, server: Process) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("flat")
    assert not client.is_model_ready("none")
    about = client.get_server_metadata()
    assert (about["name"], about["extensions"]) == ("ganglion", ["binary_tensor_data"])
    found = client.get_model_metadata("grid")
    assert found["inputs"] == [
        {"name": "grid", "datatype": "UINT8", "shape": [-1, -1, -1]},
        {"name": "goal", "datatype": "INT64", "shape": [-1, 2]},
        {"name": "open", "datatype": "BOOL", "shape": [-1]},
    ]
    version = next(m["version"] for m in server.models if m["name"] == "grid")
    assert found["versions"] == [version]
    assert client.get_model_metadata("grid", version)["name"] == "grid"


@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("name", ["flat", "memory", "power", "grid"])
def test_its_client_gets_what_the_file_answers(
    name: str, binary_in: bool, binary_out: bool, client: Any, files: Path
) -> None:
    here = OnnxPolicy(files / f"{name}.onnx")
    inputs = draw(here.signature, 5, rng(0, name), {"height": 3, "width": 4})
    tensors = []
    for key, array in inputs.items():
        kind = DATATYPES[here.signature.inputs[key].dtype]
        tensor = http.InferInput(key, array.shape, kind)
        tensor.set_data_from_numpy(array, binary_data=binary_in)
        tensors.append(tensor)
    wanted = [http.InferRequestedOutput(k, binary_data=binary_out) for k in here.signature.outputs]
    result = client.infer(name, tensors, outputs=wanted, request_id="42")
    assert result.get_response()["id"] == "42"
    for key, array in here.act(inputs).items():
        assert np.array_equal(result.as_numpy(key), array)
        assert result.as_numpy(key).dtype == array.dtype


def test_its_client_reads_a_refusal(client: Any) -> None:
    tensor = http.InferInput("obs", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.full((1, 3), 9, np.float32))
    with pytest.raises(Exception, match="its high is 2 m"):
        client.infer("flat", [tensor])


def test_outputs_may_be_left_out_or_named(server: Process) -> None:
    whole = post(server.port, "/v2/models/memory/infer", {"inputs": [obs()]}).json
    assert [o["name"] for o in whole["outputs"]] == ["action", "next_hidden"]
    assert whole["parameters"]["seed"] >= 0
    ask = {"inputs": [obs()], "outputs": [{"name": "next_hidden"}], "parameters": {"seed": 5}}
    part = post(server.port, "/v2/models/memory/infer", ask).json
    assert part["parameters"] == {"seed": 5}
    # tanh(0.5) = 0.4621172
    assert part["outputs"] == [
        {"name": "next_hidden", "shape": [1, 2], "datatype": "FP32",
         "data": [pytest.approx(0.4621172), pytest.approx(0.4621172)]}
    ]  # fmt: skip


def obs() -> dict[str, Any]:
    return {"name": "obs", "shape": [1, 2], "datatype": "FP32", "data": [[0.5, 0.5]]}


def test_all_outputs_in_binary(server: Process) -> None:
    ask = {"inputs": [ROW], "parameters": {"binary_data_output": True}}
    reply = post(server.port, INFER, ask)
    length = int(reply.headers["inference-header-content-length"])
    (tensor,) = json.loads(reply.body[:length])["outputs"]
    assert tensor["parameters"] == {"binary_data_size": 8}
    values = np.frombuffer(reply.body[length:], "<f4")
    assert values == pytest.approx([0.291313, -0.761594], abs=1e-6)
    assert reply.headers["content-type"] == "application/octet-stream"


def binary(sizes: Any, payload: bytes, **more: Any) -> bytes:
    entry = {k: v for k, v in ROW.items() if k != "data"} | more
    return json.dumps({"inputs": [entry | {"parameters": {"binary_data_size": sizes}}]}).encode()


def send(server: Process, head: bytes, payload: bytes, length: str | None = None) -> Reply:
    return exchange(
        server.port,
        request("POST", INFER, head + payload, content_type="application/octet-stream",
                inference_header_content_length=length or str(len(head))),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "payload", "more", "said"),
    [
        (12, bytes(8), {}, "says 12 binary bytes; 8 came"),
        (8, bytes(8), {}, "has 8 binary bytes; its shape [1, 3] needs others"),
        (12, bytes(16), {}, "16 binary bytes came, but the inputs say 12"),
        (-12, bytes(12), {}, "expected a byte count"),
        (True, bytes(12), {}, "expected a byte count"),
        (12, bytes(12), {"data": [1, 2, 3]}, 'both "data" and binary data'),
        (12, np.array([np.nan, 0, 0], "<f4").tobytes(), {}, "is not finite in float32"),
        (12, bytes(12), {"datatype": "INT64"}, "has datatype 'INT64'; expected 'FP32'"),
    ],
)
def test_binary_tensors_that_lie_are_refused(
    sizes: Any, payload: bytes, more: dict[str, Any], said: str, server: Process
) -> None:
    reply = send(server, binary(sizes, payload, **more), payload)
    assert (reply.status, said in reply.json["error"]) == (400, True), reply.json


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999", "٣", "0"])
def test_a_header_length_that_lies_is_refused(length: str, server: Process) -> None:
    head = binary(12, bytes(12))
    reply = send(server, head, bytes(12), length.encode().decode("latin-1"))
    assert reply.status == 400


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "A request is a JSON object"),
        ({}, '"inputs" is a list of tensors'),
        ({"inputs": []}, "Input 'obs' is missing"),
        ({"inputs": [1]}, "A tensor is an object"),
        ({"inputs": [ROW, ROW]}, "'obs' is given twice"),
        ({"inputs": [{**ROW, "name": "obz"}]}, "Did you mean 'obs'?"),
        ({"inputs": [{**ROW, "shape": "3"}]}, "expected a list of whole numbers"),
        ({"inputs": [{**ROW, "shape": [1, True]}]}, "expected a list of whole numbers"),
        ({"inputs": [{**ROW, "shape": [3]}]}, "has shape (3,); expected (batch, 3)"),
        ({"inputs": [{**ROW, "data": [1, 2, "3"]}]}, "holds text"),
        ({"inputs": [{**ROW, "data": [1, 2, True]}]}, "holds True; expected float32"),
        ({"inputs": [{**ROW, "data": [[1, 2], [3]]}]}, "rows of different lengths"),
        ({"inputs": [{**ROW, "data": {}}]}, 'has no "data", a list'),
        ({"inputs": [{**ROW, "parameters": 3}]}, '"parameters" that are no object'),
        ({"inputs": [ROW], "outputs": [{"name": "none"}]}, "Unknown output 'none'"),
        ({"inputs": [ROW], "outputs": [7]}, 'An output is an object with "name"'),
        ({"inputs": [ROW], "outputs": 7}, '"outputs" is a list'),
        ({"inputs": [ROW], "id": 7}, '"id" is a text'),
        ({"inputs": [ROW], "parameters": {"binary_data_output": 1}}, "is true or false"),
    ],
)
def test_a_request_that_does_not_fit_is_400_with_an_error(
    document: Any, said: str, server: Process
) -> None:
    reply = post(server.port, INFER, document)
    assert (reply.status, said in reply.json["error"]) == (400, True), reply.json


def test_a_model_that_is_not_there_is_404(server: Process) -> None:
    assert post(server.port, "/v2/models/none/infer", {"inputs": [ROW]}).status == 404
    assert get(server.port, "/v2/models/flat/nothing").status == 404
