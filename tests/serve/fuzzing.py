"""Requests that nobody would write: JSON of every shape, and requests with damaged bytes."""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .driver import Process, Reply, read_reply, request

NAMES = ("obs", "noise", "hidden", "x", "cycles", "scale", "inputs", "outputs", "seed", "job_id",
         "input", "data", "name", "shape", "datatype", "parameters", "id", "grid", "goal", "open",
         "binary_data_size", "previous", "surface")  # fmt: skip
POSTS = ("/act", "/act/memory", "/act/power", "/act/grid", "/act/pair", "/act/steep", "/jobs",
         "/v2/models/flat/infer", "/v2/models/memory/infer", "/v2/models/grid/infer")  # fmt: skip
GETS = ("/", "/signature", "/card/flat", "/metrics", "/list_jobs", "/jobs/1", "/v2", "/docs",
        "/openapi.json", "/v2/models/flat", "/v2/health/ready", "/stream")  # fmt: skip
VALID: tuple[tuple[str, Any], ...] = (
    ("/act", {"obs": [0.1, 0.2, 0.3]}),
    ("/act", {"inputs": {"obs": [[0.1, 0.2, 0.3], [0, 0, 0]]}, "seed": 3}),
    ("/act/memory", {"obs": [0.1, 0.2], "hidden": [0.5, 0.5]}),
    ("/act/power", {"x": [1, 2], "scale": [0.5], "cycles": [3]}),
    ("/act/grid", {"grid": [[0, 1], [1, 0]], "goal": [1, 2], "open": True}),
    ("/jobs", {"job_id": 5, "input": [[0.1, 0.2, 0.3]]}),
    ("/v2/models/flat/infer", {"id": "1", "inputs": [
        {"name": "obs", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}]}),
)  # fmt: skip

numbers = st.one_of(
    st.floats(-2, 2), st.integers(-3, 12), st.floats(allow_nan=False, allow_infinity=False),
    st.integers(), st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 1e300, 3.4028236e38, 1e-320]),
)  # fmt: skip
leaves = st.one_of(numbers, st.booleans(), st.none(), st.text(max_size=5), st.sampled_from(
    ["FP32", "INT64", "obs", "hidden"]))  # fmt: skip
keys = st.one_of(st.sampled_from(NAMES), st.text(max_size=6))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(numbers, max_size=4),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=12,
)  # fmt: skip
RAW = (b"NaN", b"1e999", b'"\xff"', b"[" * 2000, b'{"a":1,"a":2}', b"-", b"", b"\x00", b"1" * 400)


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, bytes]:
    """A valid document with a part replaced by anything."""
    path, document = draw(st.sampled_from(VALID))
    copied = json.loads(json.dumps(document))
    where: Any = copied
    while True:
        inside = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not inside:
            break
        key = draw(st.sampled_from(inside))
        if isinstance(where[key], dict | list) and draw(st.booleans()):
            where = where[key]
            continue
        where[key] = draw(values)
        break
    return path, json.dumps(copied).encode()


@st.composite
def near(draw: st.DrawFn) -> tuple[str, bytes]:
    """A valid document with one number changed a little: often valid, too."""
    path, document = draw(st.sampled_from([pair for pair in VALID if "0." in str(pair[1])]))
    text = json.dumps(document)
    place = draw(st.sampled_from([at for at in range(len(text) - 2) if text[at : at + 2] == "0."]))
    return path, (text[:place] + repr(draw(st.floats(0, 1.2))) + text[place + 3 :]).encode()


@st.composite
def torn(draw: st.DrawFn) -> bytes:
    """A valid request with bytes removed, doubled or replaced, cut off somewhere."""
    path, document = draw(st.sampled_from(VALID))
    raw = bytearray(request("POST", path, json.dumps(document).encode()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(raw)


bodies = st.one_of(
    near(), changed(), changed(),
    st.tuples(st.sampled_from(POSTS), st.dictionaries(keys, values, max_size=4).map(_json := (
        lambda document: json.dumps(document).encode()))),
    st.tuples(st.sampled_from(POSTS), values.map(_json)),
    st.tuples(st.sampled_from(POSTS), st.sampled_from(RAW)),
    st.tuples(st.sampled_from(POSTS), st.binary(max_size=60)),
)  # fmt: skip
paths = st.one_of(
    st.sampled_from([*GETS, *POSTS]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map("/".__add__),
    st.tuples(st.sampled_from(GETS), st.text("/.%2fe0?&=seed", max_size=8)).map("".join),
)
headers = st.dictionaries(
    st.sampled_from(["content_type", "origin", "authorization", "x_request_id", "expect", "accept",
                     "inference_header_content_length", "content_encoding", "connection", "te",
                     "upgrade", "range", "if_match"]),
    st.one_of(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
              st.sampled_from(["application/json", "12", "gzip", "close", "100-continue"])),
    max_size=2,
)  # fmt: skip
plain = st.tuples(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"]),
                  paths, headers)  # fmt: skip
requests = st.one_of(
    bodies.map(lambda pair: request("POST", pair[0], pair[1] or b" ")),
    bodies.map(lambda pair: request("POST", pair[0], pair[1] or b" ")),
    st.tuples(bodies, headers).map(lambda p: request("POST", p[0][0], p[0][1] or b" ", **p[1])),
    plain.map(lambda triple: request(triple[0], triple[1], **triple[2])),
    torn(),
)


class Fuzz:
    """Sends requests to a server and counts the statuses that come back."""

    def __init__(self, server: Process) -> None:
        self._server = server
        self.statuses: Counter[int] = Counter()

    def run(self, count: int) -> None:
        """Send `count` requests; an AssertionError shows the smallest one that goes wrong."""

        @settings(max_examples=count, deadline=None, database=None, derandomize=True,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(requests)
        def one(raw: bytes) -> None:
            reply = self.send(raw)
            self.statuses[reply.status] += 1
            assert reply.status < 500, (raw, reply)
            assert b"Traceback" not in reply.body
            if reply.status >= 400 and reply.body:
                assert set(reply.json) >= {"status", "detail"}, (raw, reply)

        one()

    def send(self, raw: bytes) -> Reply:
        """Send, then say that no more comes. A torn request may be left without a reply: 0."""
        with socket.create_connection(("127.0.0.1", self._server.port), 10) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
            try:
                return read_reply(connection, bare=raw.startswith(b"HEAD"))
            except (ConnectionError, ValueError):
                return Reply(0, {}, b"")
