"""Control loops over a WebSocket, with state that the server carries."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from .driver import Process, exchange, post, request


def open_stream(server: Process, path: str, **options: Any) -> Any:
    return connect(server.url.replace("http", "ws") + path, proxy=None, **options)


def test_carried_state_goes_from_step_to_step(server: Process) -> None:
    # next_hidden = tanh(obs + hidden), from 0: tanh(0.5), tanh(0.5 + that), ...
    with open_stream(server, "/stream/memory") as stream:
        hidden = np.zeros(2)
        for _ in range(5):
            stream.send('{"obs": [0.5, -0.5], "noise": [0, 0]}')
            reply = json.loads(stream.recv())
            hidden = np.tanh(np.array([0.5, -0.5]) + hidden)
            assert reply["action"] == pytest.approx(hidden, abs=1e-6)
        stream.send('"reset"')
        assert json.loads(stream.recv()) == {"reset": True}
        stream.send('{"obs": [0.5, -0.5], "noise": [0, 0]}')
        assert json.loads(stream.recv())["action"][0] == pytest.approx(np.tanh(0.5), abs=1e-6)


def test_two_streams_have_each_their_own_state(server: Process) -> None:
    with open_stream(server, "/stream/memory") as one, open_stream(server, "/stream/memory") as two:
        ask = '{"obs": [1, 1], "noise": [0, 0]}'
        for _ in range(3):
            one.send(ask)
            first = json.loads(one.recv())["action"]
        two.send(ask)
        assert json.loads(two.recv())["action"] == pytest.approx([np.tanh(1.0)] * 2, abs=1e-6)
        assert first != pytest.approx([np.tanh(1.0)] * 2, abs=1e-2)


def test_a_refused_message_leaves_the_state_as_it_was(server: Process) -> None:
    with open_stream(server, "/stream/memory") as stream:
        ask = '{"obs": [1, 1], "noise": [0, 0]}'
        stream.send(ask)
        stream.recv()
        for wrong, status in (
            ("nonsense", 400), ("[1]", 422), ('{"obs": [1]}', 422), ('{"obs": [NaN, 1]}', 400),
            ('{"obs": [1, 1], "obs": [2, 2]}', 422), (b"\x00\x01", 400),
        ):  # fmt: skip
            stream.send(wrong)
            assert json.loads(stream.recv())["status"] == status
        stream.send(ask)
        expected = np.tanh(1 + np.tanh(1.0))
        assert json.loads(stream.recv())["action"] == pytest.approx([expected] * 2, abs=1e-6)


def test_noise_of_a_stream_counts_on_from_its_seed(server: Process) -> None:
    def answers() -> list[Any]:
        with open_stream(server, "/stream/memory?seed=11") as stream:
            assert stream.response.headers["ganglion-seed"] == "11"
            found = []
            for _ in range(3):
                stream.send('{"obs": [0, 0], "hidden": [0, 0]}')
                found.append(json.loads(stream.recv())["action"])
            return found

    once = answers()
    assert once == answers()
    assert once[0] != once[1]
    plain = post(server.port, "/act/memory?seed=12", {"obs": [0, 0]})
    assert plain.json["action"] == once[1]


def test_a_stream_says_which_policy_answers(server: Process) -> None:
    with open_stream(server, "/stream") as stream:
        assert stream.response.headers["ganglion-policy"].startswith("flat@")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/stream/none", {}, 404),
        ("/nowhere", {}, 404),
        ("/stream", {"origin": "http://evil.example"}, 403),
        ("/stream?seed=x", {}, 422),
    ],
)
def test_a_stream_that_may_not_be_is_refused(
    path: str, headers: dict[str, str], status: int, server: Process
) -> None:
    with pytest.raises(InvalidStatus) as told, open_stream(
        server, path, additional_headers=headers
    ):  # fmt: skip
        pass
    assert told.value.response.status_code == status
    assert json.loads(told.value.response.body or b"{}")["status"] == status


def test_a_stream_for_another_host_is_refused(server: Process) -> None:
    upgrade = request("GET", "/stream", host="evil.example", upgrade="websocket",
                      connection="Upgrade", sec_websocket_version="13",
                      sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    assert exchange(server.port, upgrade).status == 421


def test_text_that_is_no_utf8_ends_the_stream_quietly(server: Process) -> None:
    with open_stream(server, "/stream") as stream:
        stream.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosedError, match="1007"):
            stream.recv()
    time.sleep(0.1)
    assert server.said() == ""
