"""A new version takes over under load; a bad one leaves the old one answering (F34)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ganglion.export.onnx_policy import OnnxPolicy

from . import toys
from .driver import Process, get, post, serving
from .hammer import Count, Hammer


def replace(path: Path, data: bytes) -> str:
    """Put a file in place as a deployment does, by a rename; return its digest header."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return f"sha256:{OnnxPolicy(data).digest}"


def until(seen: Callable[[], bool], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not seen():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def digest(server: Process) -> str:
    return get(server.port, "/signature").headers["ganglion-digest"]


def metric(server: Process, name: str) -> float:
    lines = get(server.port, "/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_a_new_file_takes_over_under_load_without_an_error(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    first = replace(path, toys.flat(1.0))
    with serving(tmp_path, str(path)) as server:

        async def work() -> tuple[Count, str]:
            asking = Hammer(server.port)
            task = asyncio.ensure_future(asking.run(6, 2))
            await asyncio.sleep(0.3)
            second = replace(path, toys.flat(2.0))
            for _ in range(200):
                await asyncio.sleep(0.1)
                if asking.count.digests[second] > 50:
                    break
            asking.stop()
            return await task, second

        count, second = asyncio.run(work())
        assert count.lost == 0
        assert set(count.answered) == {200}
        assert set(count.digests) == {first, second}
        assert digest(server) == second
        assert "took over from" in server.said()
        assert metric(server, "ganglion_replacements_total") == 1


def test_a_bad_file_leaves_the_old_one_answering(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    first = replace(path, toys.flat(1.0))
    with serving(tmp_path, str(path)) as server:
        path.write_bytes(toys.flat(2.0)[:-100])  # cut off
        server.child.send_signal(signal.SIGHUP)
        until(lambda: metric(server, "ganglion_refusals_total") >= 1)
        assert digest(server) == first
        assert post(server.port, "/act", {"obs": [0.1, 0.2, -1.0]}).status == 200
        assert "The version before keeps answering." in server.said()
        path.unlink()
        until(lambda: "cannot be read" in server.said())
        assert digest(server) == first
        third = replace(path, toys.flat(3.0))
        until(lambda: digest(server) == third)


def test_a_new_version_folder_takes_over_and_may_be_taken_back(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for number, gain in ((1, 1.0), (2, 2.0)):
        (models / str(number)).mkdir(parents=True)
        (models / str(number) / "policy.onnx").write_bytes(toys.flat(gain))
    with serving(tmp_path, f"arm={models}") as server:
        assert server.models[0]["version"] == "2"
        (models / "3").mkdir()
        (models / "3" / "policy.onnx").write_bytes(b"no model")
        server.child.send_signal(signal.SIGHUP)
        until(lambda: metric(server, "ganglion_refusals_total") == 1)
        assert get(server.port, "/v2/models/arm").json["versions"] == ["2"]
        (models / "3" / "policy.onnx").unlink()
        (models / "3").rmdir()
        (models / "2" / "policy.onnx").unlink()
        server.child.send_signal(signal.SIGHUP)
        until(lambda: get(server.port, "/v2/models/arm").json["versions"] == ["1"])
        assert get(server.port, "/v2/models/arm/versions/2").status == 404
        assert post(server.port, "/act", {"obs": [0, 0, 0]}).status == 200
