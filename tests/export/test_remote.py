"""A policy behind a URL, against a server of the standard library."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.core.errors import ServiceError, SettingsError
from ganglion.export import remote
from ganglion.export.remote import UrlPolicy

DOUBLE = Signature({"x": TensorSpec((2,))}, {"y": TensorSpec((2,))})
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Answer
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.question = json.loads(self.rfile.read(length))
        type(self).answer(self)

    def log_message(self, *given: object) -> None:
        pass

    def give(self, body: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


def double(handler: Handler) -> None:
    rows = handler.question["inputs"]["x"]
    handler.give(json.dumps({"outputs": {"y": [[2 * v for v in row] for row in rows]}}))


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], tuple[str, type[Handler]]]]:
    servers = []

    def begin(answer: Answer) -> tuple[str, type[Handler]]:
        kind = type("Handler", (Handler,), {"answer": answer, "connections": 0})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/act", kind

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def asked(url: str, **how: float) -> str:
    policy = UrlPolicy(url, DOUBLE, **how)
    with pytest.raises(ServiceError) as caught:
        policy.act({"x": np.array([[1, 2]])})
    policy.close()
    return str(caught.value)


def test_batch_after_batch_is_answered_on_one_connection(serve: Callable[..., tuple]) -> None:
    url, seen = serve(double)
    policy = UrlPolicy(url, DOUBLE)
    for batch in (1, 3, 5000):
        x = np.random.default_rng(batch).standard_normal((batch, 2)).astype(np.float32)
        np.testing.assert_allclose(policy.act({"x": x})["y"], 2 * x, rtol=1e-6)
    policy.close()
    assert seen.connections == 1


def test_a_connection_closed_while_idle_is_made_anew(serve: Callable[..., tuple]) -> None:
    def once(handler: Handler) -> None:
        double(handler)
        handler.close_connection = True  # without saying so

    url, seen = serve(once)
    policy = UrlPolicy(url, DOUBLE)
    for _ in range(3):
        assert policy.act({"x": np.ones((1, 2))})["y"].tolist() == [[2.0, 2.0]]
    policy.close()
    assert seen.connections == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda h: h.give("hello"), "gave a bad answer. It is not JSON"),
        (lambda h: h.give('{"outputs": {}}'), "Output 'y' is missing"),
        (lambda h: h.give('{"outputs": {"y": [[1]]}}'), "'y' has shape (1, 1); expected"),
        (lambda h: h.give('{"outputs": {"y": [[NaN, 1]]}}'), "not JSON with finite numbers"),
        (lambda h: h.give("no such robot", 404), "answered 404 Not Found: no such robot"),
        (lambda h: h.give("", 302), "answered 302 Found"),
        (lambda h: h.connection.shutdown(2), "cannot be reached"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_told(answer: Answer, said: str, serve: Callable[..., tuple]) -> None:
    assert said in asked(serve(answer)[0])


def test_silence_and_a_trickle_end_in_time(serve: Callable[..., tuple]) -> None:
    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    for answer in (lambda _: time.sleep(2.0), trickle):
        began = time.monotonic()
        assert "gave no answer in 0.5 s" in asked(serve(answer)[0], timeout_s=0.5)
        assert time.monotonic() - began < 1.5


def test_an_endless_answer_is_cut(
    serve: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST_BYTES", 1000)
    assert "answered more than 1000 bytes" in asked(serve(lambda h: h.give(" " * 5000))[0])


def test_nobody_there_is_told() -> None:
    assert "cannot be reached: Connection refused" in asked("http://127.0.0.1:9/act")


@pytest.mark.parametrize(
    "url",
    ["", "robot", "ftp://robot/act", "file:///etc/passwd", "http://", "http://a:b/c",
     "http://a/\r\nHost: b"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="no URL of a policy"):
        UrlPolicy(url, DOUBLE)
