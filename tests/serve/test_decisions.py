"""What a policy answers over HTTP is what it answers here."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ganglion.core.contracts import Arrays
from ganglion.core.seeds import rng
from ganglion.export.inputs import draw
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.export.remote import UrlPolicy
from ganglion.serve.openapi import _edge

from .driver import Process, get, post


def lists(arrays: Arrays) -> dict[str, object]:
    return {name: array.tolist() for name, array in arrays.items()}


def test_one_row_by_hand(server: Process) -> None:
    # tanh(0.1 + 0.2) = 0.29131, tanh(-1) = -0.76159
    reply = post(server.port, "/act", {"obs": [0.1, 0.2, -1.0]})
    assert reply.json["action"] == pytest.approx([0.291313, -0.761594], abs=1e-6)


def test_a_batch_is_answered_in_its_own_form(server: Process) -> None:
    reply = post(server.port, "/act", {"inputs": {"obs": [[0, 0, 0], [0.1, 0.2, -1.0]]}})
    assert reply.json["outputs"]["action"][0] == [0.0, 0.0]
    assert reply.json["outputs"]["action"][1] == pytest.approx([0.291313, -0.761594], abs=1e-6)


@pytest.mark.parametrize("name", ["flat", "pair", "memory", "power", "grid"])
def test_every_policy_answers_as_its_file(name: str, server: Process, files: Path) -> None:
    here = OnnxPolicy(files / f"{name}.onnx")
    inputs = draw(here.signature, 7, rng(0, name), {"height": 3, "width": 5})
    reply = post(server.port, f"/act/{name}", {"inputs": lists(inputs)})
    expected = here.act(inputs)
    assert reply.status == 200
    for output, array in expected.items():
        assert np.array_equal(np.asarray(reply.json["outputs"][output], array.dtype), array)


def test_a_served_policy_is_one_that_compare_can_ask(server: Process, files: Path) -> None:
    here = OnnxPolicy(files / "pair.onnx")
    inputs = draw(here.signature, 200, rng(0, "url"))
    there = UrlPolicy(f"{server.url}/act/pair", here.signature)
    assert np.array_equal(there.act(inputs)["colour"], here.act(inputs)["colour"])
    there.close()


def test_rows_asked_at_the_same_time_get_their_own_answers(server: Process) -> None:
    rows = rng(0, "rows").uniform(-1, 1, (64, 3))

    def ask(row: int) -> list[float]:
        return list(post(server.port, "/act", {"obs": rows[row].tolist()}).json["action"])

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    expected = np.tanh(np.stack([rows[:, 0] + rows[:, 1], rows[:, 2]], 1))
    assert np.array(answers) == pytest.approx(expected, abs=1e-6)


def test_every_answer_says_who_gave_it(server: Process) -> None:
    (flat,) = [m for m in server.models if m["name"] == "flat"]
    for reply in (
        post(server.port, "/act", {"obs": [0, 0, 0]}),
        post(server.port, "/act", {"obs": [9, 9, 9]}),
        get(server.port, "/signature"),
        get(server.port, "/card"),
        get(server.port, "/v2/models/flat"),
    ):
        assert reply.headers["ganglion-digest"] == f"sha256:{flat['digest']}"
        assert reply.headers["ganglion-policy"] == f"flat@{flat['version']}"


# ---------------------------------------------------------------- inputs that are left out


def test_left_out_noise_is_drawn_from_the_reported_seed(server: Process) -> None:
    one, two = (post(server.port, "/act/memory", {"obs": [0.5, 0.5]}) for _ in range(2))
    assert one.json["next_hidden"] == two.json["next_hidden"]
    assert one.json["action"] != two.json["action"]
    seed = one.headers["ganglion-seed"]
    assert int(two.headers["ganglion-seed"]) == int(seed) + 1
    again = post(server.port, f"/act/memory?seed={seed}", {"obs": [0.5, 0.5]})
    assert (again.body, again.headers["ganglion-seed"]) == (one.body, seed)


def test_a_batch_may_bring_its_seed(server: Process) -> None:
    ask = {"inputs": {"obs": [[0.5, 0.5], [0.5, 0.5]]}, "seed": 7}
    one, two = (post(server.port, "/act/memory", ask).json for _ in range(2))
    assert one == two
    assert one["seed"] == 7
    first, second = one["outputs"]["action"]
    assert first != second


def test_noise_that_is_given_is_used_and_no_seed_is_reported(server: Process) -> None:
    # next_hidden = tanh(0) = 0; action = 0.1 * noise
    reply = post(server.port, "/act/memory", {"obs": [0, 0], "noise": [1, -2]})
    assert reply.json["action"] == pytest.approx([0.1, -0.2], abs=1e-7)
    assert "ganglion-seed" not in reply.headers


def test_left_out_steps_are_those_of_the_card(server: Process) -> None:
    # y = scale * x * 2^cycles; the card says 3 cycles
    assert post(server.port, "/act/power", {"x": [1, 2], "scale": [0.5]}).json == {"y": [4.0, 8.0]}
    two = {"x": [1, 2], "scale": [0.5], "cycles": [2]}
    assert post(server.port, "/act/power", two).json == {"y": [2.0, 4.0]}
    reply = post(server.port, "/act/power", {**two, "cycles": [10]})
    assert (reply.status, reply.json["detail"]) == (
        422, "Input 'cycles' is 10 at index (0,); its high is 9.",
    )  # fmt: skip


def test_requests_share_a_run_only_where_all_unbatched_inputs_agree(server: Process) -> None:
    def ask(cycles: int) -> float:
        document = {"x": [1, 1], "scale": [1], "cycles": [cycles]}
        return float(post(server.port, "/act/power", document).json["y"][0])

    wanted = [1 + n % 9 for n in range(90)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, wanted)) == [2.0**n for n in wanted]


def test_axes_sized_at_run_time_are_read_and_must_agree(server: Process) -> None:
    row = {"grid": [[0, 1, 1], [0, 0, 1]], "goal": [5, 2], "open": True}
    assert post(server.port, "/act/grid", row).json == {"free": 3, "row": 5}
    assert post(server.port, "/act/grid", {**row, "open": False}).json["row"] == 0
    for wrong, said in (
        ({"grid": [[0, 2]]}, "'grid' is 2 at index (0, 0, 1); its high is 1"),
        ({"grid": [[0.5]]}, "values that are no uint8"),
        ({"goal": [1, 101]}, "its high is 100"),
        ({"open": 1}, "holds 1; expected bool"),
        ({"open": [True]}, "has shape (1,); expected ()"),
        ({"grid": [0, 1]}, "has shape (2,); expected (height, width)"),
    ):
        reply = post(server.port, "/act/grid", {**row, **wrong})
        assert reply.status == 422
        assert said in reply.json["detail"]


@pytest.mark.parametrize("seed", ["-1", "x", "9007199254740992", "1.5", ""])
def test_a_seed_that_is_none_is_refused(seed: str, server: Process) -> None:
    reply = post(server.port, f"/act/memory?seed={seed}", {"obs": [0, 0]})
    assert reply.status == 422
    assert "A seed is a whole number from 0 to" in reply.json["detail"]


def test_rows_of_a_batch_must_be_as_many(server: Process) -> None:
    ask = {"inputs": {"previous": [[0.1], [0.2]], "surface": [[0.1]]}}
    reply = post(server.port, "/act/pair", ask)
    assert reply.json["detail"] == "Input 'surface' has batch=1, but 'previous' has batch=2."


def test_numbers_of_any_form_are_taken(server: Process) -> None:
    body = b'{"obs": [1, -0.0, 1e-3]}'
    assert post(server.port, "/act", body).status == 200
    assert post(server.port, "/act", b'{"\\u006fbs": [0, 0, 0]}').status == 200
    twice = b'{"\\u006fbs": [0, 0, 0], "obs": [1, 1, 1]}'
    assert "given twice" in post(server.port, "/act", twice).json["detail"]


def test_a_value_at_its_bound_is_taken_as_float32_rounds_it(server: Process) -> None:
    exact = post(server.port, "/act", {"obs": [2.0, -2.0, 2.0 + 1e-9]})
    assert exact.status == 200
    assert post(server.port, "/act", {"obs": [2.0, -2.0, 2.0 + 2.0**-23]}).status == 200
    assert post(server.port, "/act", {"obs": [2.0, -2.0, 2.0 + 1.001 * 2.0**-23]}).status == 422


# ---------------------------------------------------------------- what is served


def test_the_signature_has_shapes_units_ranges_and_roles(server: Process, files: Path) -> None:
    raw = get(server.port, "/signature/memory").json
    assert raw["inputs"]["hidden"]["role"] == "state"
    assert raw["carried"] == {"next_hidden": "hidden"}
    assert get(server.port, "/signature").json["inputs"]["obs"]["unit"] == "m"
    card = get(server.port, "/card/power").json
    assert card["card"]["steps"] == {"cycles": 3}
    assert card["digest"] == f"sha256:{OnnxPolicy(files / 'power.onnx').digest}"


def test_the_index_names_every_policy(server: Process) -> None:
    index = get(server.port, "/").json
    assert [p["name"] for p in index["policies"]] == [m["name"] for m in server.models]
    for address in index["addresses"]:
        assert get(server.port, address).status in (200, 405, 426)


def test_metrics_count_requests_runs_and_rows(server: Process) -> None:
    def counted() -> dict[str, float]:
        text = get(server.port, "/metrics").body.decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines)}

    before = counted()
    post(server.port, "/act", {"obs": [0, 0, 0]})
    post(server.port, "/act", {"inputs": {"obs": [[0, 0, 0]] * 5}})
    post(server.port, "/act", {"obs": [9, 0, 0]})
    after = counted()

    def grown(name: str) -> float:
        return sum(v - before.get(k, 0.0) for k, v in after.items() if k.startswith(name))

    labels = 'policy="flat",endpoint="act"'
    assert grown(f'ganglion_requests_total{{{labels},status="200"}}') == 2
    assert grown(f'ganglion_requests_total{{{labels},status="422"}}') == 1
    assert grown('ganglion_run_rows_sum{policy="flat"') == 6
    assert grown('ganglion_run_rows_count{policy="flat"') == 2
    assert after["ganglion_resident_bytes"] > 1e7


def test_the_page_lists_every_address_and_runs_no_script(server: Process) -> None:
    page = get(server.port, "/docs")
    document = get(server.port, "/openapi.json").json
    text = page.body.decode()
    assert all(path in text for path in document["paths"])
    assert "<script" not in text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert get(server.port, "/docs.css").headers["content-type"] == "text/css"


def test_openapi_has_fixed_lengths_and_float32_bounds(server: Process) -> None:
    paths = get(server.port, "/openapi.json").json["paths"]
    row = paths["/act"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert row["properties"]["obs"] == {
        "type": "array", "minItems": 3, "maxItems": 3, "description": "m; -2 to 2",
        # what rounds to 2 in float32: up to 2 + 2^-23, half a step of 2^-22
        "items": {"type": "number", "minimum": -2.0 - 2.0**-23, "maximum": 2.0 + 2.0**-23},
    }  # fmt: skip
    memory = paths["/act/memory"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert memory["required"] == ["obs"]
    assert memory["properties"]["obs"]["items"]["exclusiveMaximum"] == pytest.approx(3.4028235e38)
    assert json.dumps(paths).count("minItems") > 10


def test_openapi_says_in_words_which_sizes_a_request_chooses(server: Process) -> None:
    act = get(server.port, "/openapi.json").json["paths"]["/act/grid"]["post"]
    assert "Sized by the request: grid (height, width). Rows are equally long" in act["description"]
    row = act["requestBody"]["content"]["application/json"]["schema"]
    cells = row["properties"]["grid"]["items"]
    assert cells == {"type": "array", "minItems": 1, "items": cells["items"]}  # no fixed length


@pytest.mark.parametrize("bound", [0.0, 0.1, 0.7, 1.0, -3.3, 1e-30, 12345.678, 3.4028234e38])
@pytest.mark.parametrize("side", [1, -1])
def test_the_described_bound_is_the_last_number_that_rounds_into_range(
    bound: float, side: int
) -> None:
    """Next to the edge, on both sides, the description and float32's rounding agree."""
    found = _edge(bound, side)
    ((name, edge),) = found.items()
    for value in (np.nextafter(edge, -np.inf), edge, np.nextafter(edge, np.inf)):
        described = side * value < side * edge if "exclusive" in name else (
            side * value <= side * edge
        )  # fmt: skip
        with np.errstate(over="ignore"):
            assert described == bool(side * np.float32(value) <= side * np.float32(bound))
