"""Connections that hold a server up are ended: silent ones, slow readers, too many."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .driver import SRC, exchange, post, read_reply, request

PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from ganglion.serve.settings import Limits, ServeSettings
from ganglion.serve.workers import serve
limits = replace(Limits(), idle_s=0.7, write_s=1.0, connections=20, run_s=1.0)
settings = ServeSettings((("flat", Path(sys.argv[1])),), port=0, limits=limits)
serve(settings, lambda url, models: print(json.dumps(url), flush=True), print)
"""


@pytest.fixture(scope="module")
def port(files: Path) -> Iterator[int]:
    """A server with tight limits."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(files / "flat.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        yield int(json.loads(child.stdout.readline()).rpartition(":")[2])
        child.kill()


def test_a_kept_connection_that_stays_silent_is_closed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        ask = request("POST", "/act", b'{"obs": [0, 0, 0]}')
        for _ in range(3):  # it is not silent as long as it asks
            connection.sendall(ask)
            assert read_reply(connection).status == 200
            time.sleep(0.3)
        began = time.monotonic()
        assert connection.recv(10) == b""
        assert 0.2 < time.monotonic() - began < 2.5


def test_more_connections_than_allowed_are_turned_away(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(20)]
    time.sleep(0.2)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        refused = read_reply(connection)
    assert (refused.status, "too many connections" in refused.json["detail"]) == (503, True)
    for one in held:
        one.close()
    time.sleep(0.2)
    assert post(port, "/act", {"obs": [0, 0, 0]}).status == 200


def test_a_client_that_does_not_read_its_answers_is_cut_off(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asks = request("GET", "/openapi.json") * 50
        began = time.monotonic()

        def ask_on() -> None:
            while time.monotonic() - began < 20:
                greedy.sendall(asks)
                time.sleep(0.02)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            ask_on()
        assert time.monotonic() - began < 15
    assert exchange(port, request("GET", "/v2/health/live")).status == 200
