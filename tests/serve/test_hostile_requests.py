"""Requests that mean harm: each gets one plain sentence, and the server is as it was before."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from .driver import Process, Reply, exchange, get, post, read_reply, request

V2 = "/v2/models/flat/infer"


def raw(body: bytes) -> Callable[[int], Reply]:
    return lambda port: post(port, "/act", body)


def tensor(**changes: object) -> dict[str, object]:
    whole = {"name": "obs", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.2, 0.3]}
    return {"inputs": [{**whole, **changes}]}


def v2(**changes: object) -> Callable[[int], Reply]:
    return lambda port: post(port, V2, tensor(**changes))


def lying_header(port: int) -> Reply:
    body = json.dumps(tensor(data=None, parameters={"binary_data_size": 12})).encode()
    length = str(len(body) + 500)
    return exchange(port, request("POST", V2, body + bytes(12), content_type="application/octet-"
                                  "stream", inference_header_content_length=length))  # fmt: skip


def false_length(port: int) -> Reply:
    """A body that is announced, and never comes; the server waits 10 s for it."""
    head = b"POST /act HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return exchange(port, head + b'content-length: 500\r\n\r\n{"obs": [')


def endless_chunks(port: int) -> Reply:
    head = b"POST /act HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(head + b"content-type: application/json\r\n\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(400):
                connection.sendall(chunk)
        return read_reply(connection)


def slow_headers(port: int) -> Reply:
    """A header line a second, for as long as it is listened to."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b"POST /act HTTP/1.1\r\nhost: localhost\r\n")
        connection.settimeout(1.0)
        for number in range(20):
            try:
                return read_reply(connection)
            except TimeoutError:
                connection.sendall(f"x-{number}: y\r\n".encode())
        raise TimeoutError


def huge_frame(port: int) -> Reply:
    """A WebSocket frame that says it has 2^40 bytes. The reply is the closing frame's code."""
    handshake = request("GET", "/stream", upgrade="websocket", connection="Upgrade",
                        sec_websocket_version="13",
                        sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(handshake)
        assert read_reply(connection).status == 101
        connection.sendall(b"\x81\xff" + (2**40).to_bytes(8, "big") + b"mask" + b"[" * 1000)
        frame = connection.recv(1000)
    return Reply(int.from_bytes(frame[2:4], "big"), {}, b'{"detail": "too big", "error": ""}')


HOSTILE: dict[str, tuple[Callable[[int], Reply], int, str]] = {
    "NaN": (raw(b'{"obs": [NaN, 0, 0]}'), 400, "not JSON with finite numbers"),
    "Infinity": (raw(b'{"obs": [Infinity, 0, 0]}'), 400, "not JSON with finite numbers"),
    "1e999": (raw(b'{"obs": [1e999, 0, 0]}'), 400, "not JSON with finite numbers"),
    "1e300": (raw(b'{"obs": [1e300, 0, 0]}'), 422, "is not finite in float32 at index"),
    "depth 100k": (raw(b"[" * 100_000), 400, "not JSON"),
    "19 MB": (raw(b'{"obs": [' + b"0.25," * 3_800_000 + b"0]}"), 413, "larger than 1048576"),
    "bad UTF-8": (raw(b'{"obs\xff": [0, 0, 0]}'), 400, "not JSON"),
    "duplicate key": (raw(b'{"obs": [0, 0, 0], "obs": [1, 1, 1]}'), 422, "'obs' is given twice"),
    "missing input": (raw(b"{}"), 422, "Input 'obs' is missing; this policy needs obs"),
    "extra input": (raw(b'{"obs": [0, 0, 0], "obz": 1}'), 422, "Unknown input 'obz'. Did you mean"),
    "wrong type": (raw(b'{"obs": ["0", "0", "0"]}'), 422, "holds text"),
    "negative shape": (v2(shape=[-1, 3]), 400, "has shape [-1, 3]; expected a list of whole"),
    "overflowing shape": (v2(shape=[2**62, 2**62]), 400, "expected a list of whole numbers"),
    "mismatched shape": (v2(shape=[2, 3]), 400, "has 3 values; its shape [2, 3] needs others"),
    "batch 0": (v2(shape=[0, 3], data=[]), 400, "its axis 'batch' has size 0"),
    "false Content-Length": (false_length, 408, "body took too long"),
    "lying binary header": (lying_header, 400, "inference-header-content-length is"),
    "endless chunks": (endless_chunks, 413, "larger than 1048576 bytes"),
    "slow headers": (slow_headers, 408, "headers took too long"),
    "foreign Host": (
        lambda port: get(port, "/card", host="evil.example"), 421, "is not 'evil.example'",
    ),
    "traversal id": (
        lambda port: get(port, "/jobs/..%2f..%2fetc%2fpasswd"), 404, "There is nothing at",
    ),
    "huge WebSocket frame": (huge_frame, 1009, "too big"),
}  # fmt: skip


def test_there_are_22_hostile_requests() -> None:
    assert len(HOSTILE) == 22


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_one_sentence(name: str, server: Process) -> None:
    send, status, said = HOSTILE[name]
    reply = send(server.port)
    assert reply.status == status
    assert said in reply.json["detail"]
    assert "Traceback" not in reply.body.decode()
    assert post(server.port, "/act", {"obs": [0, 0, 0]}).status == 200
    assert "Traceback" not in server.said()
    assert "internal error" not in server.said()


def test_memory_comes_back_after_hostile_requests(server: Process) -> None:
    quick = [n for n in HOSTILE if n not in ("false Content-Length", "slow headers")]
    for name in quick:  # the first time, buffers grow to their size
        HOSTILE[name][0](server.port)
    before = server.resident_bytes()
    for _ in range(5):
        for name in quick:
            HOSTILE[name][0](server.port)
    time.sleep(1.5)
    assert server.resident_bytes() < 1.1 * before


@pytest.mark.parametrize(
    ("raw", "status", "said"),
    [
        (b"nonsense\r\n\r\n", 400, "no valid HTTP"),
        (b"GET / HTTP/1.1\r\n\r\n", 421, "is not ''"),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n", 400, "more than once"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431, "larger than"),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 20_000, 431, "larger than"),
        (request("GET", "/nowhere"), 404, "nothing at '/nowhere'"),
        (request("PUT", "/act"), 405, "PUT is not possible here; POST is"),
        (request("GET", "/stream"), 426, "is a WebSocket"),
        (request("POST", "/act", b"{}", content_type="text/plain"), 415, "expected application"),
        (request("POST", "/act", b"{}", content_encoding="gzip"), 415, "uncompressed"),
        (request("POST", "/act", b"{}", origin="http://evil.example"), 403, "may not ask here"),
        (request("POST", "/act", b"[]"), 422, "is a JSON object"),
        (request("POST", "/act", b'{"obs": [true, 1, 2]}'), 422, "holds true or false"),
        (request("POST", "/act", b'{"obs": null}'), 422, "is null; expected an array"),
        (request("POST", "/act", b'{"obs": [[0], [1, 2]]}'), 422, "rows of different lengths"),
        (request("POST", "/act", b'{"obs": [0, 0]}'), 422, "has shape (2,); expected (3,)"),
        (request("POST", "/act", b'{"obs": [0, 0, 2.5]}'), 422, "its high is 2 m"),
        (request("POST", "/act", b'{"obs": [0,0,0]}', x_request_id="a b"), 400, "x-request-id"),
        (request("POST", "/act/none", b'{"obs": [0, 0, 0]}'), 404, "Unknown policy 'none'"),
        (request("POST", "/act/steep", b'{"x": [1e6]}'), 422, "'y' is not finite at index (0, 0)"),
        (request("GET", "/v2/models/flat/versions/1"), 404, "not '1'"),
        (request("CONNECT", "evil:80"), 400, "no valid HTTP"),
        (request("GET", "/", upgrade="h2c", connection="upgrade"), 200, ""),
    ],
)
def test_an_odd_request_is_refused_in_words(
    raw: bytes, status: int, said: str, server: Process
) -> None:
    reply = exchange(server.port, raw)
    assert reply.status == status
    assert said in reply.json.get("detail", "")
    if status != 200:
        assert reply.headers["content-type"] == "application/problem+json"
        assert set(reply.json) == {"type", "title", "status", "code", "detail", "error"}


def test_two_hundred_half_open_connections_are_let_go(server: Process) -> None:
    held = []
    for _ in range(200):
        connection = socket.create_connection(("127.0.0.1", server.port), 30)
        connection.sendall(b"POST /act HTTP/1.1\r\n")
        held.append(connection)
    assert post(server.port, "/act", {"obs": [0, 0, 0]}).status == 200
    replies = [read_reply(connection).status for connection in held]
    for connection in held:
        connection.close()
    assert replies == [408] * 200


def test_a_client_that_says_no_more_comes_still_gets_its_answers(server: Process) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(2 * request("POST", "/act", b'{"obs": [0, 0, 0]}'))
        connection.shutdown(socket.SHUT_WR)
        data = b""
        while part := connection.recv(65536):
            data += part
    assert data.count(b"HTTP/1.1 200") == 2


def test_pipelined_requests_are_answered_in_order(server: Process) -> None:
    one = request("POST", "/act", b'{"obs": [0, 0, 0]}', x_request_id="one")
    two = request("GET", "/v2/health/live")
    three = request("POST", "/act", b'{"obs": [9, 0, 0]}', x_request_id="three")
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(one + two + three + request("GET", "/", connection="close"))
        data = b""
        while part := connection.recv(65536):
            data += part
    found = [int(part[1:4]) for part in data.split(b"HTTP/1.1")[1:]]
    assert found == [200, 200, 422, 200]
    assert data.index(b"x-request-id: one") < data.index(b'"live"') < data.index(b"three")
