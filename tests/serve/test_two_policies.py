"""Two policies side by side, clipping, tokens: what a server is told at its start."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ganglion.core.errors import SettingsError
from ganglion.export.external import RecordedPolicy
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.table import same_ends

from . import toys
from .local import Local, model, run


def two() -> list:  # type: ignore[type-arg]
    return [model("A", toys.flat(1.0)), model("B", toys.flat(2.0))]


def test_a_split_follows_from_the_request_id(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, two(), split=(90, 10))
        chosen: Counter[str] = Counter()
        for number in range(1000):
            headers = {"x_request_id": f"id-{number}"}
            one = await local.post("/act", {"obs": [0.1, 0.2, 0.3]}, **headers)
            again = await local.post("/act", {"obs": [0.1, 0.2, 0.3]}, **headers)
            assert one.headers["ganglion-policy"] == again.headers["ganglion-policy"]
            assert one.headers["x-request-id"] == f"id-{number}"
            chosen[one.headers["ganglion-policy"]] += 1
        assert chosen["A@1"] + chosen["B@1"] == 1000
        assert 70 <= chosen["B@1"] <= 130  # 100 +- 3 sqrt(1000 * 0.9 * 0.1)

    run(work)


def test_a_request_without_an_id_gets_one_that_repeats_its_choice(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, two(), split=(50, 50))
        seen = set()
        for _ in range(40):
            reply = await local.post("/act", {"obs": [0, 0, 0]})
            seen.add(reply.headers["ganglion-policy"])
            served = local.table.route(reply.headers["x-request-id"])
            assert f"{served.model.name}@1" == reply.headers["ganglion-policy"]
        assert seen == {"A@1", "B@1"}

    run(work)


def test_open_inference_clients_reach_a_split_by_its_name(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, two(), split=(50, 50))
        tensor = {"name": "obs", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}
        seen = set()
        for number in range(40):
            ask = {"id": str(number), "inputs": [tensor]}
            seen.add((await local.post("/v2/models/split/infer", ask)).json["model_name"])
        assert seen == {"A", "B"}
        assert (await local.ask("GET", "/v2/models/split")).json["name"] == "split"

    run(work)


def test_each_policy_of_several_is_counted_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, two())
        await local.post("/act/B", {"obs": [0, 0, 0]})
        await local.post("/act", {"obs": [0, 0, 0]})
        text = local.metrics.text()
        for name in "AB":
            labels = f'policy="{name}",endpoint="act",status="200"'
            assert f"ganglion_requests_total{{{labels}}} 1" in text

    run(work)


def test_policies_that_take_other_things_cannot_share(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="A and B do not take and give the same"):
        same_ends({"A": model("A", toys.flat()), "B": model("B", toys.pair())})


# ---------------------------------------------------------------- shadow


def test_a_shadow_answers_unseen_and_compare_can_read_the_pairs(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    rows = np.random.default_rng(0).uniform(-1, 1, (30, 3)).astype(np.float32)

    async def work() -> None:
        local = Local(tmp_path, two(), shadow="B", pairs=pairs)
        for row in rows[:20]:
            reply = await local.post("/act", {"obs": row.tolist()})
            assert reply.headers["ganglion-policy"] == "A@1"
        await local.post("/act", {"inputs": {"obs": rows[20:].tolist()}})
        assert local.shadow is not None
        await local.shadow.close()
        text = local.metrics.text()
        assert "ganglion_shadow_pairs_total 21" in text
        assert 'ganglion_shadow_difference{output="action"} ' in text

    run(work)
    for name, gain in (("A", 1.0), ("B", 2.0)):
        (path,) = pairs.glob(f"*.{name}.npz")
        recorded = RecordedPolicy(path, toys.FLAT)
        answers = recorded.act({"obs": rows[::-1]})["action"]  # found by their inputs
        wanted = OnnxPolicy(toys.flat(gain)).act({"obs": rows[::-1].copy()})["action"]
        assert answers == pytest.approx(wanted, abs=1e-7)


def test_a_shadow_that_lags_behind_is_left_out(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, two(), shadow="B")
        asks = [local.post("/act", {"obs": [0, 0, 0]}) for _ in range(100)]
        replies = await asyncio.gather(*asks)
        assert {reply.status for reply in replies} == {200}
        assert "ganglion_shadow_dropped_total 36" in local.metrics.text()  # 64 may wait

    run(work)


# ---------------------------------------------------------------- out of range


def test_out_of_range_is_refused_or_clipped_with_a_warning(tmp_path: Path) -> None:
    async def work() -> None:
        strict = Local(tmp_path, [model("flat", toys.flat())])
        refused = await strict.post("/act", {"obs": [5, 0, 9]})
        assert (refused.status, "its high is 2 m" in refused.json["detail"]) == (422, True)
        lenient = Local(tmp_path, [model("flat", toys.flat())], out_of_range="warn")
        clipped = await lenient.post("/act", {"obs": [5, 0, 9]})
        bounds = await lenient.post("/act", {"obs": [2, 0, 2]})
        assert clipped.headers["ganglion-warning"] == "clipped into range: obs"
        assert clipped.body == bounds.body
        assert "ganglion-warning" not in bounds.headers
        assert 'ganglion_clipped_total{policy="flat",version="1"} 1' in lenient.metrics.text()
        schema = (await lenient.ask("GET", "/openapi.json")).json["paths"]["/act"]["post"]
        row = schema["requestBody"]["content"]["application/json"]["schema"]
        assert row["properties"]["obs"]["items"]["exclusiveMaximum"] > 1e38

    run(work)


def test_steps_out_of_range_are_refused_even_where_others_are_clipped(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("power", toys.power())], out_of_range="warn")
        ask = {"x": [99, 1], "scale": [1], "cycles": [3]}
        assert (await local.post("/act", ask)).json == {"y": [80.0, 8.0]}
        refused = await local.post("/act", {**ask, "cycles": [1000]})
        assert (refused.status, "its high is 9" in refused.json["detail"]) == (422, True)

    run(work)


def test_only_the_guilty_row_of_a_shared_run_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("steep", toys.steep())])
        values = [1.0, 1e300, -1.0, 5000.0, 2.0]
        replies = await asyncio.gather(*[local.post("/act", {"x": [v]}) for v in values])
        assert [reply.status for reply in replies] == [200, 422, 200, 422, 200]
        assert "not finite in float32" in replies[1].json["detail"]
        assert "output 'y' is not finite" in replies[3].json["detail"]
        # exp(0.05 * 2) = 1.105171
        assert replies[4].json["y"] == pytest.approx([1.105171], abs=1e-6)
        assert 'ganglion_not_finite_total{policy="steep",version="1"} 1' in local.metrics.text()

    run(work)


# ---------------------------------------------------------------- tokens, hosts, load


def test_a_token_is_asked_for_except_by_probes(tmp_path: Path) -> None:
    token = "correct horse battery staple"

    async def work() -> None:
        digest = hashlib.sha256(token.encode()).digest()
        local = Local(tmp_path, [model("flat", toys.flat())], tokens=(digest,))
        for headers in ({}, {"authorization": "Bearer no"}, {"authorization": f"Basic {token}"}):
            refused = await local.post("/act", {"obs": [0, 0, 0]}, **headers)
            assert refused.status == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        good = {"authorization": f"Bearer {token}"}
        assert (await local.post("/act", {"obs": [0, 0, 0]}, **good)).status == 200
        assert (await local.ask("GET", "/metrics")).status == 401
        assert (await local.ask("GET", "/v2/health/live")).status == 200
        document = (await local.ask("GET", "/openapi.json", **good)).json
        assert document["security"] == [{"token": []}]
        assert token not in str(document)

    run(work)


def test_hosts_that_were_allowed_are_known_by_name(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("flat", toys.flat())], allowed_hosts=("robot.example",))
        for host, status in (("robot.example", 200), ("ROBOT.example:8080", 200),
                             ("robot.example.evil", 421), ("[::1", 421)):  # fmt: skip
            assert (await local.ask("GET", "/", host=host)).status == status
        same = await local.ask("GET", "/", origin="http://robot.example:8080")
        other = await local.ask("GET", "/", origin="http://robot.example.evil")
        assert (same.status, other.status) == (200, 403)

    run(work)


def test_a_full_queue_answers_503_and_when_to_come_again(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("flat", toys.flat())])
        asks = [local.post("/act", {"obs": [0, 0, 0]}) for _ in range(3000)]
        replies = Counter(reply.status for reply in await asyncio.gather(*asks))
        assert replies == {200: 2048, 503: 952}

    run(work)
