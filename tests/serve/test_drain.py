"""A stop loses no request that was accepted."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from ganglion.serve.drain import drop_new_connections

from .driver import exchange, read_reply, request, serving
from .hammer import stopped_under_load


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_sigterm_under_load_loses_no_request(words: list[str], files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "flat.onnx"), *words) as server:
        stop = lambda: server.child.send_signal(signal.SIGTERM)  # noqa: E731
        count = stopped_under_load(server.port, stop, kept=8, fresh=8, after_s=0.5)
        assert server.child.wait(20) == 0
        assert count.lost == 0
        assert set(count.answered) == {200}
        assert count.answered[200] > 300
        assert count.refused == 16  # every client went on until the door was shut
        assert server.said() == ""


def test_while_it_stops_answers_say_so(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "flat.onnx")) as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as kept:
            ask = request("POST", "/act", b'{"obs": [0, 0, 0]}')
            kept.sendall(ask)
            assert "connection" not in read_reply(kept).headers
            server.child.send_signal(signal.SIGTERM)
            time.sleep(0.4)
            ready = exchange(server.port, request("GET", "/v2/health/ready"))
            assert (ready.status, ready.headers["connection"]) == (503, "close")
            kept.sendall(ask)
            reply = read_reply(kept)
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert kept.recv(10) == b""
        assert server.child.wait(20) == 0


def test_a_silent_connection_does_not_hold_up_the_stop(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "flat.onnx")) as server:
        silent = socket.create_connection(("127.0.0.1", server.port), 10)
        time.sleep(0.1)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 6
        silent.close()


def test_a_second_signal_stops_at_once(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "flat.onnx")) as server:
        with socket.create_connection(("127.0.0.1", server.port), 10):
            server.child.send_signal(signal.SIGINT)
            time.sleep(0.3)
            began = time.monotonic()
            assert server.stop() == 0
        assert time.monotonic() - began < 1.5


def test_streams_are_told_and_the_answer_under_way_is_given(files: Path, tmp_path: Path) -> None:
    with serving(tmp_path, str(files / "memory.onnx")) as server:
        address = server.url.replace("http", "ws") + "/stream"
        with connect(address, proxy=None) as idle, connect(address, proxy=None) as busy:
            server.child.send_signal(signal.SIGTERM)
            answers = []

            def ask_on() -> None:
                for _ in range(10_000):
                    busy.send('{"obs": [0, 0]}')
                    answers.append(busy.recv(10))

            with pytest.raises(ConnectionClosedOK, match="1001"):
                ask_on()
            assert len(answers) > 50
            with pytest.raises(ConnectionClosedOK, match="1001"):
                idle.recv(10)
        assert server.child.wait(20) == 0
        assert server.said() == ""


def test_a_filter_on_the_door_drops_new_connections_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = door.getsockname()
        before = socket.create_connection(address, 5)
        assert drop_new_connections(door)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, 0.3)
        accepted, _ = door.accept()  # what was connected before still gets through, both ways
        before.sendall(b"hello")
        assert accepted.recv(10) == b"hello"
        accepted.sendall(b"there")
        assert before.recv(10) == b"there"
        before.close()
        accepted.close()
