"""The long proofs of the server: stops and replacements under load, hostile files, fuzz, schema.

make soak       full counts          make soak-ci    smaller ones

pytest runs this file; GANGLION_SOAK=full|ci|quick chooses the counts. Every proof prints what it
measured. All traffic stays on this machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from serve import hostile_files, toys  # noqa: E402
from serve.driver import Process, get, post, serving  # noqa: E402
from serve.fuzzing import Fuzz  # noqa: E402
from serve.hammer import Hammer, stopped_under_load  # noqa: E402

# stops, seconds before each, replacements, fuzzed requests, examples of schemathesis
COUNTS = {"full": (24, 2.0, 40, 20_000, 200), "ci": (8, 0.5, 8, 3000, 20),
          "quick": (2, 0.3, 3, 500, 3)}  # fmt: skip
STOPS, LOAD_S, REPLACEMENTS, FUZZED, EXAMPLES = COUNTS[os.environ.get("GANGLION_SOAK", "quick")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every toy policy."""
    return toys.write(tmp_path_factory.mktemp("toys"))


def test_no_stop_under_load_loses_a_request(files: Path, tmp_path: Path) -> None:
    answered: Counter[int] = Counter()
    lost = 0
    for number in range(STOPS):
        words = ["--workers", "2"] if number % 4 == 3 else []
        with serving(tmp_path, str(files / "flat.onnx"), *words) as server:

            def stop(child: subprocess.Popen[str] = server.child) -> None:
                child.send_signal(signal.SIGTERM)

            kept, fresh = ((16, 0), (8, 8), (0, 16))[number % 3]
            count = stopped_under_load(server.port, stop, kept, fresh, LOAD_S)
            assert server.child.wait(30) == 0
        answered += count.answered
        lost += count.lost
    total = sum(answered.values())
    print(f"\nSIGTERM under load: {lost} of {total + lost:,} requests lost in {STOPS} stops")
    assert lost == 0
    assert set(answered) == {200}


def test_replacements_under_load_cost_no_request(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"

    def put(data: bytes) -> None:
        path.with_suffix(".new").write_bytes(data)
        os.replace(path.with_suffix(".new"), path)

    put(toys.flat(1.0))
    with serving(tmp_path, str(path)) as server:

        async def work() -> Hammer:
            asking = Hammer(server.port)
            task = asyncio.ensure_future(asking.run(4, 2))
            for number in range(REPLACEMENTS):
                bad = number % 4 == 3
                put(toys.flat(2.0)[:200] if bad else toys.flat(1.0 + 0.01 * number))
                server.child.send_signal(signal.SIGHUP)
                await asyncio.sleep(1.5)
            asking.stop()
            await task
            return asking

        count = asyncio.run(work()).count
        refused = server.said().count("keeps answering")
        versions = len(count.digests)
    print(f"\nreplacement under load: {count.lost} lost, {dict(count.answered)}, {versions} "
          f"versions answered, {refused} bad ones refused")  # fmt: skip
    assert (count.lost, set(count.answered)) == (0, {200})
    assert versions >= REPLACEMENTS // 2
    assert refused >= REPLACEMENTS // 4


def test_hostile_files_are_refused_by_a_server_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "served" / "policy.onnx"
    path.parent.mkdir()
    path.write_bytes(toys.flat())
    slowest, names = (0.0, ""), [n for n in hostile_files.HOSTILE if n != "a device"]
    with serving(tmp_path, str(path)) as server:
        digest = get(server.port, "/signature").headers["ganglion-digest"]
        before, descriptors = server.resident_bytes(), _descriptors(server)
        for number, name in enumerate(names):
            folder = tmp_path / f"hostile-{number}"
            folder.mkdir()
            made = hostile_files.make(name, folder)
            refusals = _refusals(server)
            os.replace(made, path)
            began = time.monotonic()
            server.child.send_signal(signal.SIGHUP)
            while _refusals(server) == refusals:
                assert time.monotonic() - began < 12.0, name
                assert post(server.port, "/act", {"obs": [0, 0, 0]}).status == 200
                time.sleep(0.02)
            slowest = max(slowest, (time.monotonic() - began, name))
            assert get(server.port, "/signature").headers["ganglion-digest"] == digest, name
        grown = server.resident_bytes() / before - 1.0
        assert _descriptors(server) <= descriptors + 1
        assert "Traceback" not in server.said()
    print(f"\nhostile files: {len(names)} refused, the slowest ({slowest[1]}) in {slowest[0]:.1f} "
          f"s; memory {100 * grown:+.1f} %")  # fmt: skip
    assert grown < 0.1


def _refusals(server: Process) -> float:
    lines = get(server.port, "/metrics").body.decode().splitlines()
    return sum(float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith("ganglion_refusals_total"))


def _descriptors(server: Process) -> int:
    return len(os.listdir(f"/proc/{server.child.pid}/fd"))


def test_fuzzed_requests_get_plain_answers(files: Path, tmp_path: Path) -> None:
    words = [str(files / f"{name}.onnx") for name in toys.TOYS]
    with serving(tmp_path, *words) as server:
        fuzz = Fuzz(server)
        fuzz.run(300)
        before = server.resident_bytes()
        fuzz.run(FUZZED)
        time.sleep(1.0)
        grown = server.resident_bytes() / before - 1.0
        assert "Traceback" not in server.said()
        assert "internal error" not in server.said()
    errors = sum(n for status, n in fuzz.statuses.items() if status >= 500)
    print(f"\nfuzz: {sum(fuzz.statuses.values()):,} requests, {errors} 5xx, "
          f"{dict(sorted(fuzz.statuses.items()))}; memory {100 * grown:+.1f} %")  # fmt: skip
    assert errors == 0
    assert grown < 0.1


@pytest.mark.parametrize(("names", "config"), [
    (("flat", "pair", "memory", "power"), "schemathesis.toml"),
    (("grid",), "schemathesis-open.toml"),
])  # fmt: skip
def test_the_schema_is_what_the_server_does(
    names: Sequence[str], config: str, files: Path, tmp_path: Path
) -> None:
    """schemathesis, all checks. For axes sized by the request it is told that a body which its
    schema allows may be 422: JSON Schema cannot say that rows are equally long."""
    words = [str(files / f"{name}.onnx") for name in names]
    with serving(tmp_path, *words) as server:
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "--config-file",
             str(TESTS / "serve" / config), "run", f"{server.url}/openapi.json",
             "--checks", "all", "--max-examples", str(EXAMPLES), "--no-color"],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert "internal error" not in server.said()
    cases = [line for line in done.stdout.splitlines() if "generated" in line]
    print(f"\nschemathesis, all checks: {' '.join(cases).strip()}")
    assert done.returncode == 0, done.stdout[-4000:]
