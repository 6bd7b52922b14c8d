"""Asynchronous jobs, in the form of the octopus inference server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ganglion.serve.jobs import Jobs, columns
from ganglion.serve.problems import Problem
from ganglion.serve.settings import Limits

from . import toys
from .driver import Process, exchange, get, post, request
from .local import Local, model, run

FIRST = {"job_id": 1, "input": [[0.5, 0.3]]}


async def done(local: Local, number: int) -> dict:  # type: ignore[type-arg]
    for _ in range(200):
        job = (await local.ask("GET", f"/jobs/{number}")).json
        if job["status"] != "queued":
            return dict(job)
        await asyncio.sleep(0.005)
    raise TimeoutError


def test_the_octopus_form_is_answered_by_a_policy_with_two_columns(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("sucker", toys.pair())])
        reply = await local.post("/jobs", FIRST)
        assert (reply.status, reply.json) == (202, {"job_id": 1, "status": "queued"})
        assert reply.headers["location"] == "/jobs/1"
        job = await done(local, 1)
        # previous 0.5, surface 0.3: 0.5 + 0.5 (0.3 - 0.5) = 0.4
        assert job["status"] == "done"
        assert job["result"] == {"colour": [[pytest.approx(0.4)]]}
        assert job["policy"] == "sucker"
        assert (await done(local, 1)) == job  # reading does not remove it
        listed = await local.ask("GET", "/list_jobs")
        assert listed.json == {"jobs": [{"job_id": 1, "status": "done"}]}
        again = await local.post("/jobs", FIRST)
        assert (again.status, "a job 1 already" in again.json["detail"]) == (409, True)
        assert (await local.ask("DELETE", "/jobs/1")).json["status"] == "deleted"
        assert (await local.ask("GET", "/jobs/1")).status == 404
        assert (await local.post("/jobs", FIRST)).status == 202

    run(work)


def test_a_job_may_name_its_inputs(tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("memory", toys.memory())])
        ask = {"job_id": 2, "data": {"obs": [[0, 0], [1, 1]]}, "seed": 3}
        assert (await local.post("/jobs", ask)).status == 202
        job = await done(local, 2)
        same = await local.post("/act", {"inputs": ask["data"], "seed": 3})
        assert job["result"] == same.json["outputs"]
        assert job["seed"] == 3

    run(work)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ({"job_id": 1}, 'either "input" or "data"'),
        ({"job_id": 1, "input": [[0.5, 0.3]], "data": {}}, 'either "input" or "data"'),
        ({"input": [[0.5, 0.3]]}, 'an object with "job_id"'),
        ({"job_id": -1, "input": [[0.5, 0.3]]}, "A job id is a whole number from 0"),
        ({"job_id": True, "input": [[0.5, 0.3]]}, "A job id is a whole number from 0"),
        ({"job_id": 2**53, "input": [[0.5, 0.3]]}, "A job id is a whole number from 0"),
        ({"job_id": "../1", "input": [[0.5, 0.3]]}, "A job id is a whole number from 0"),
        ({"job_id": 1, "input": []}, "has at least one"),
        ({"job_id": 1, "input": [[0.5, 0.3]] * 1001}, "1001 rows are too many for one job"),
        ({"job_id": 1, "input": [0.5, 0.3]}, "a list of rows"),
        ({"job_id": 1, "input": [[0.5]]}, "has 1 numbers; expected 2: previous (1), surface (1)"),
        ({"job_id": 1, "input": [[0.5, True]]}, "holds True; expected numbers"),
        ({"job_id": 1, "input": [[0.5, "0"]]}, "holds '0'; expected numbers"),
        ({"job_id": 1, "input": [[0.5, 1.5]]}, "'surface' is 1.5 at index (0, 0); its high is 1"),
        ({"job_id": 1, "input": [[0.5, 0.3]], "more": 1}, 'either "input" or "data"'),
        ({"job_id": 1, "data": [1]}, '"data" is an object'),
        ({"job_id": 1, "data": {"previous": [[1]]}}, "Input 'surface' is missing"),
    ],
)
def test_a_job_that_does_not_fit_is_refused_and_not_kept(
    ask: object, said: str, tmp_path: Path
) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("sucker", toys.pair())])
        reply = await local.post("/jobs", ask)
        assert reply.status == 422
        assert said in reply.json["detail"]
        assert (await local.ask("GET", "/list_jobs")).json == {"jobs": []}

    run(work)


@pytest.mark.parametrize("raw", ["x", "1.0", "-1", "99999999999999999999", "..", "1%2f2", "١"])
def test_a_job_that_cannot_be_is_not_found(raw: str, tmp_path: Path) -> None:
    async def work() -> None:
        local = Local(tmp_path, [model("sucker", toys.pair())])
        for method in ("GET", "DELETE"):
            assert (await local.ask(method, f"/jobs/{raw}")).status == 404

    run(work)


def test_rows_are_the_data_inputs_in_their_order() -> None:
    found = columns([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], toys.FLAT)
    assert found["obs"].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    with pytest.raises(Problem, match=r"'grid' is no fixed row of numbers; give \"data\""):
        columns([[1.0]], toys.GRID)


def test_old_jobs_go_and_a_full_store_says_so(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, replace(Limits(), jobs=2, job_s=100.0))
    jobs.add(1)
    jobs.add(2)
    jobs._checked_s = 0.0
    with pytest.raises(Problem, match=r"2 jobs of .* bytes are kept; delete some"):
        jobs.add(3)
    os.utime(tmp_path / "1.json", (0, 0))
    with pytest.raises(Problem, match="There is no job 1"):
        jobs.get(1)
    jobs._checked_s = 0.0
    jobs.add(3)
    assert jobs.count == 2
    assert [job["job_id"] for job in jobs.listed()] == [2, 3]


def test_a_folder_that_was_cleaned_away_is_made_again(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", Limits())
    jobs.add(1)
    shutil.rmtree(tmp_path / "jobs")
    assert (jobs.count, jobs.listed()) == (0, [])
    with pytest.raises(Problem, match="There is no job 1"):
        jobs.delete(1)
    jobs._checked_s = 0.0
    jobs.add(1)
    assert jobs.count == 1


def test_a_result_of_a_deleted_job_is_not_kept(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, Limits())
    jobs.add(1)
    jobs.delete(1)
    jobs.put(1, {"job_id": 1, "status": "done"})
    assert jobs.count == 0


def test_two_workers_share_their_jobs(tmp_path: Path) -> None:
    one, two = Jobs(tmp_path, Limits()), Jobs(tmp_path, Limits())
    one.add(1)
    with pytest.raises(Problem, match="There is a job 1 already"):
        two.add(1)
    one.put(1, {"job_id": 1, "status": "done"})
    assert json.loads(two.get(1))["status"] == "done"


def test_the_line_of_the_original_works_with_curl(server: Process) -> None:
    post(server.port, "/act", {"obs": [0, 0, 0]})
    exchange(server.port, request("DELETE", "/jobs/7"))  # the fuzzing may have met it
    command = ["curl", "-s", f"{server.url}/jobs", "-H", "content-type: application/json",
               "-d", '{"job_id": 7, "input": [[0.1, 0.2, -1.0]]}']  # fmt: skip
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout) == {
        "job_id": 7, "status": "queued",
    }  # fmt: skip
    for _ in range(100):
        job = get(server.port, "/jobs/7").json
        if job["status"] == "done":
            break
        time.sleep(0.02)
    assert job["result"]["action"][0] == pytest.approx([0.291313, -0.761594], abs=1e-6)
