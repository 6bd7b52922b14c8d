"""What came in during one turn goes into one run; a long run does not hold up the others."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from ganglion.serve.models import Model
from ganglion.serve.settings import Limits

from . import toys
from .hostile_files import _body
from .local import Local, model, run


def trap() -> bytes:
    """y = x, but 10^8 trips of two Loops where x is above 1: a probe may not find it."""
    inner = _body([], "b")
    outer = _body([helper.make_node("Loop", ["trips", "", "a.x"], ["a.y"], body=inner)], "a")
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "one"], ["go"]),
        helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=outer),
    ]
    # the outer Loop goes on while its condition holds, which it hands on
    weights = {"one": np.array(1.0, np.float32), "trips": np.array(10_000)}
    made = toys.model(toys.STEEP, nodes, {})
    for name, array in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return toys.seal(made)


def runs(local: Local, name: str) -> list[float]:
    """Rows and number of runs so far."""
    rows = local.metrics.histogram("ganglion_run_rows", (("policy", name), ("version", "1")), ())
    return [rows.total, float(sum(rows.counts))]


def test_requests_of_one_turn_share_one_run(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("flat", toys.flat())])
        asks = [local.post("/act", {"obs": [0.01 * n, 0, 0]}) for n in range(16)]
        replies = await asyncio.gather(*asks)
        assert runs(local, "flat") == [16.0, 1.0]
        for number, reply in enumerate(replies):
            assert abs(reply.json["action"][0] - np.tanh(0.01 * number)) < 1e-6
        await local.post("/act", {"obs": [0, 0, 0]})  # and one alone does not wait
        assert runs(local, "flat") == [17.0, 2.0]

    run(work)


def test_a_run_has_a_largest_number_of_rows(tmp_path: Path) -> None:
    async def work() -> None:
        limits = replace(Limits(), batch_rows=10)
        local = Local(tmp_path, [model("flat", toys.flat())], limits=limits)
        await asyncio.gather(*[local.post("/act", {"obs": [0, 0, 0]}) for _ in range(25)])
        assert runs(local, "flat") == [25.0, 3.0]  # 10 + 10 + 5
        large = {"inputs": {"obs": [[0, 0, 0]] * 30}}  # one request is never split
        assert (await local.post("/act", large)).status == 200
        assert runs(local, "flat") == [55.0, 4.0]

    run(work)


def test_asks_that_differ_in_an_unbatched_input_run_apart(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("power", toys.power())])
        asks = [
            local.post("/act", {"x": [1, 1], "scale": [1], "cycles": [1 + n % 3]})
            for n in range(12)
        ]
        replies = await asyncio.gather(*asks)
        assert runs(local, "power") == [12.0, 3.0]
        assert [r.json["y"][0] for r in replies] == [2.0 ** (1 + n % 3) for n in range(12)]

    run(work)


def test_what_comes_in_during_a_long_run_is_the_next_batch(tmp_path: Path) -> None:
    async def work() -> None:
        slow = replace(model("flat", toys.flat()), call_s=1.0)  # said to be slow: runs in a thread
        local = Local(tmp_path, [slow])
        first = asyncio.ensure_future(local.post("/act", {"obs": [0, 0, 0]}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [local.post("/act", {"obs": [0, 0, 0]}) for _ in range(9)]
        replies = [await first, *await asyncio.gather(*rest)]
        assert {reply.status for reply in replies} == {200}
        assert runs(local, "flat")[0] == 10.0
        assert runs(local, "flat")[1] <= 3.0

    run(work)


def test_a_run_without_an_end_is_ended_and_said_to_have_failed(tmp_path: Path) -> None:
    async def work(here: Model) -> None:
        local = Local(tmp_path, [here], limits=replace(Limits(), run_s=0.4))
        assert (await local.post("/act", {"x": [0.5]})).json == {"y": [0.5]}
        began = time.monotonic()
        reply = await local.post("/act", {"x": [2.0]})
        assert (reply.status, reply.json["code"]) == (503, "too_long")
        assert "takes more than 0.4 s for this" in reply.json["detail"]
        assert time.monotonic() - began < 3.0
        assert (await local.post("/act", {"x": [0.5]})).json == {"y": [0.5]}

    quick = model("trap", trap())
    run(lambda: work(quick))  # on the event loop: the watchdog ends it
    run(lambda: work(replace(quick, call_s=1.0)))  # in the thread: a timer does


def test_a_caller_that_left_costs_no_run(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("flat", toys.flat())])
        gone = asyncio.ensure_future(local.post("/act", {"obs": [0, 0, 0]}))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert runs(local, "flat") == [0.0, 0.0]

    run(work)
