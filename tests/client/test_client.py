"""The client: a served policy is a policy."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ganglion import client
from ganglion.core.errors import ServiceError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export.inputs import draw
from ganglion.export.onnx_policy import OnnxPolicy
from serve import toys
from serve.driver import SRC, Process, serving

TOKEN = "a-token-of-forty-letters-0123456789"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.write(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that asks for a token and clips."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN + "\n")
    names = [str(files / f"{name}.onnx") for name in ("flat", "memory", "grid")]
    words = ["--token-file", str(folder / "token"), "--out-of-range", "warn"]
    with serving(folder, *names, *words) as process:
        yield process


@pytest.mark.parametrize("name", ["flat", "memory", "grid"])
def test_it_answers_as_the_file_does(name: str, server: Process, files: Path) -> None:
    here = OnnxPolicy(files / f"{name}.onnx")
    inputs = draw(here.signature, 9, rng(0, name), {"height": 3, "width": 4})
    with client.policy(server.url, name, token=TOKEN) as there:
        assert there.signature == here.signature
        assert (there.about.name, there.about.digest) == (name, f"sha256:{here.digest}")
        for key, array in here.act(inputs).items():
            assert np.array_equal(there.act(inputs)[key], array)

    async def work() -> None:
        async with await client.async_policy(server.url, name, token=TOKEN) as there:
            found = await asyncio.gather(*[there.act(inputs) for _ in range(5)])
            for one in found:
                for key, array in here.act(inputs).items():
                    assert np.array_equal(one[key], array)

    asyncio.run(work())


def test_a_stream_carries_state_sync_and_async(server: Process) -> None:
    policy = client.policy(server.url, "memory", token=TOKEN)
    row = {"obs": [0.5, 0.5], "noise": [0.0, 0.0]}
    first, second = np.tanh(0.5), np.tanh(0.5 + np.tanh(0.5))
    with policy.stream() as stream:
        assert stream.act(row)["action"] == pytest.approx([first] * 2, abs=1e-6)
        assert stream.act(row)["action"] == pytest.approx([second] * 2, abs=1e-6)
        stream.reset()
        assert stream.act(row)["action"] == pytest.approx([first] * 2, abs=1e-6)
    policy.close()

    async def work() -> None:
        async with (
            await client.async_policy(server.url, "memory", token=TOKEN) as policy,
            policy.stream() as stream,
        ):
            assert (await stream.act(row))["action"] == pytest.approx([first] * 2, abs=1e-6)
            assert (await stream.act(row))["action"] == pytest.approx([second] * 2, abs=1e-6)
            await stream.reset()
            assert (await stream.act(row))["action"] == pytest.approx([first] * 2, abs=1e-6)

    asyncio.run(work())


def test_what_does_not_fit_is_refused_here_before_it_is_sent(server: Process) -> None:
    with client.policy(server.url, token=TOKEN) as policy:
        with pytest.raises(SettingsError, match="its high is 2 m"):
            policy.act({"obs": [[9.0, 0.0, 0.0]]})
        with pytest.raises(SettingsError, match=r"Unknown input 'obz'\. Did you mean 'obs'"):
            policy.act({"obz": [[0.0, 0.0, 0.0]]})
        with pytest.raises(SettingsError, match="Input 'obs' is missing"):
            policy.act({})
    with client.policy(server.url, token=TOKEN, ranges=False) as policy:  # the server clips
        assert policy.act({"obs": [[9.0, 0.0, 0.0]]})["action"][0, 0] == pytest.approx(np.tanh(2.0))


def test_a_refusal_is_told_in_the_servers_words(server: Process) -> None:
    with pytest.raises(SettingsError, match="A valid token is needed"):
        client.policy(server.url)
    with pytest.raises(SettingsError, match=r"Unknown policy 'flap'\. Did you mean 'flat'"):
        client.policy(server.url, "flap", token=TOKEN)
    with (
        client.policy(server.url, "memory", token=TOKEN) as policy,
        policy.stream() as stream,
        pytest.raises(SettingsError, match="has shape"),
    ):
        stream.act({"obs": [1.0]})


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://", "http://a b", "http://x:0"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="is no URL of a server"):
        client.policy(url)
    with pytest.raises(SettingsError, match="is no URL of a server"):
        asyncio.run(client.async_policy(url))


def test_the_address_of_act_is_taken_for_its_server(server: Process) -> None:
    with client.policy(f"{server.url}/act", token=TOKEN) as policy:
        assert policy.signature.inputs.keys() == {"obs"}


def test_nobody_there_is_told_in_one_sentence() -> None:
    with pytest.raises(ServiceError, match="cannot be reached: Connection refused"):
        client.policy("http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="cannot be reached"):
        asyncio.run(client.async_policy("http://127.0.0.1:9"))


def test_a_client_goes_on_over_a_restart(files: Path, tmp_path: Path) -> None:
    """A kept connection that was closed is opened anew; the caller sees nothing of it."""
    with serving(tmp_path, str(files / "flat.onnx")) as first:
        port = first.port
        policy = client.policy(first.url)
        policy.act({"obs": [[0, 0, 0]]})
        assert first.stop() == 0
    with serving(tmp_path, str(files / "flat.onnx"), port=port):
        assert policy.act({"obs": [[0, 0, 0]]})["action"].tolist() == [[0.0, 0.0]]
    policy.close()
    with pytest.raises(ServiceError, match="cannot be reached"):
        policy.act({"obs": [[0, 0, 0]]})


def test_a_loop_goes_on_while_the_server_stops(files: Path, tmp_path: Path) -> None:
    """From the signal until the door is shut, every act is answered."""
    with serving(tmp_path, str(files / "flat.onnx")) as server:
        policy = client.policy(server.url)
        stopper = threading.Timer(0.3, server.child.send_signal, [signal.SIGTERM])
        stopper.start()
        end = time.monotonic() + 1.1
        while time.monotonic() < end:
            policy.act({"obs": [[0, 0, 0]]})
        stopper.join()
        policy.close()
        assert server.child.wait(20) == 0


def test_the_client_needs_no_torch() -> None:
    code = "import sys, ganglion.client; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SRC)})
    assert done.returncode == 0
