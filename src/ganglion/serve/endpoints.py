"""What each address does. Everything here gets a request that was let in, and returns an answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ganglion import __version__
from ganglion.core.contracts import Arrays
from ganglion.serve import metrics as counting
from ganglion.serve import openinference as v2
from ganglion.serve.exchange import JSON, OCTETS, Answer, Request, has_booleans, loads
from ganglion.serve.jobs import Jobs, columns, job_id
from ganglion.serve.metrics import Metrics
from ganglion.serve.problems import Headers, Problem, missing, unfit
from ganglion.serve.reading import SEEDS, Ask, seed_of
from ganglion.serve.settings import ServeSettings
from ganglion.serve.shadow import Shadow
from ganglion.serve.table import Served, Table

SPLIT = "split"  # the name under which Open Inference Protocol clients reach a split
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


@dataclass
class State:
    """What the endpoints of one process share."""

    settings: ServeSettings
    table: Table
    metrics: Metrics
    jobs: Jobs
    shadow: Shadow | None
    folder: Path  # where workers leave their numbers
    worker: int = 0
    draining: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        given = self.settings.seed
        self.seed = secrets.randbelow(SEEDS) if given is None else given % SEEDS

    def next_seed(self) -> int:
        """Return the next number of the counter that noise is drawn from."""
        self.seed = (self.seed + 1) % SEEDS
        return self.seed


class Endpoints:
    """The endpoints of one process."""

    def __init__(self, state: State) -> None:
        self._state, self._table = state, state.table
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ decisions

    async def act(self, request: Request, served: Served) -> Answer:
        """One row, name -> list; or {"inputs": {name: rows}} -> {"outputs": {name: rows}}."""
        document = request.json()
        if not isinstance(document, dict):
            raise unfit("The body is a JSON object: name of an input -> its values.")
        booleans = has_booleans(request.body)
        given = document.get("inputs")
        if isinstance(given, dict):
            seed = self._seed(document.get("seed"))
            if len(document) > 1 + ("seed" in document):
                raise unfit('Beside "inputs" there may be "seed", nothing else.')
            ask = served.reader.batch(given, seed, booleans)
        else:
            seed = self._seed(request.parameter("seed"))
            ask = served.reader.row(document, seed, booleans)
        outputs = await self._ask(served, ask)
        if isinstance(given, dict):
            batch: dict[str, Any] = {"outputs": outputs}
            if ask.seed is not None:
                batch["seed"] = ask.seed
            return Answer(200, orjson.dumps(batch, option=_NUMPY), headers=_about(served, ask))
        body = orjson.dumps(served.reader.only_row(outputs), option=_NUMPY)
        return Answer(200, body, headers=_about(served, ask))

    async def infer(self, request: Request, name: str, version: str | None) -> Answer:
        """Open Inference Protocol v2. Its clients expect 400 for whatever does not fit."""
        served = self._v2_model(name, version)
        try:
            return await self._infer(request, served, name)
        except Problem as problem:
            if problem.status != 422:
                raise
            raise Problem(400, problem.code, problem.detail, served.headers) from None

    async def _infer(self, request: Request, served: Served, name: str) -> Answer:
        request.check_encoding()
        raw = request.headers.get(v2.LENGTH)
        body = request.body
        length = v2.header_length(raw, len(body))
        if raw is None:
            document = request.json(JSON)  # its clients do not always say so
        else:
            self._check_octets(request)
            document = loads(memoryview(body)[:length])
        booleans = has_booleans(body[:length])
        parsed = v2.parse(document, memoryview(body)[length:], served.model.signature, booleans)
        if name == SPLIT and self._table.shared:
            served = self._table.route(parsed.id or request.id or secrets.token_hex(8))
        ask = served.reader.arrays(parsed.given, self._seed(parsed.seed))
        outputs = await self._ask(served, ask)
        parameters = {} if ask.seed is None else {"seed": ask.seed}
        answer, head = v2.answer(parsed, served.model, outputs, parameters)
        if head is None:
            return Answer(200, answer, headers=_about(served, ask))
        headers = [*_about(served, ask), (v2.LENGTH, str(head).encode())]
        return Answer(200, answer, OCTETS, headers)

    def _check_octets(self, request: Request) -> None:
        request.check_encoding()
        kind = request.headers.get(b"content-type", OCTETS).partition(b";")[0].strip().lower()
        if kind not in (OCTETS, JSON):
            raise Problem(415, "not_octets", "Binary tensors come as application/octet-stream.")

    async def _ask(self, served: Served, ask: Ask) -> dict[str, Any]:
        outputs = await served.batcher.submit(ask)
        shadow = self._state.shadow
        if shadow is not None and served.model.name != shadow.name:
            shadow.offer(ask, outputs, served, self._table.named(shadow.name))
        return outputs

    def _seed(self, given: Any) -> int:
        return self._state.next_seed() if given is None else seed_of(given)

    # ------------------------------------------------------------ jobs

    async def add_job(self, request: Request, served: Served) -> Answer:
        """Queue a job: 202 and its id; its result is read with `GET /jobs/ID`."""
        document = request.json()
        if not isinstance(document, dict) or "job_id" not in document:
            raise unfit('A job is an object with "job_id" and "input" (or "data").')
        other = document.keys() - {"job_id", "input", "data", "seed"}
        if other or ("input" in document) == ("data" in document):
            raise unfit('A job has "job_id", either "input" or "data", and perhaps "seed".')
        number = job_id(document["job_id"])
        booleans = has_booleans(request.body)
        seed = self._seed(document.get("seed"))
        if "input" in document:
            ask = served.reader.batch(columns(document["input"], served.model.signature), seed)
        elif isinstance(document["data"], dict):
            ask = served.reader.batch(document["data"], seed, booleans)
        else:
            raise unfit('"data" is an object: name of an input -> rows.')
        self._check_ask(served, ask)
        self._state.jobs.add(number)
        answer = self._patiently(served, ask)
        task = asyncio.get_running_loop().create_task(self._work(number, answer, served, ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        body = orjson.dumps({"job_id": number, "status": "queued"})
        location = (b"location", f"/jobs/{number}".encode())
        return Answer(202, body, headers=[*served.headers, location])

    def _check_ask(self, served: Served, ask: Ask) -> None:
        """Refuse now what would be refused later, so that a job that was taken is answered."""
        most = self._state.settings.limits.job_rows
        if ask.rows > most:
            raise unfit(f"{ask.rows} rows are too many for one job; at most {most}.")
        if served.reader.join([ask]) is None:
            served.reader.settle(ask)

    async def _patiently(self, served: Served, ask: Ask) -> dict[str, Any]:
        """Ask again while there is too much to do."""
        while True:
            try:
                return await self._ask(served, ask)
            except Problem as problem:
                if problem.status != 503:
                    raise
                await asyncio.sleep(0.05)

    async def _work(self, number: int, answer: Any, served: Served, ask: Ask) -> None:
        began = time.perf_counter()
        job: dict[str, Any] = {"job_id": number}
        try:
            outputs: Arrays = await answer
            job |= {"status": "done", "result": outputs}
            if ask.seed is not None:
                job["seed"] = ask.seed
        except Problem as problem:
            job |= {"status": "failed", "error": problem.detail}
        job |= {
            "policy": served.model.name, "version": served.model.version,
            "digest": f"sha256:{served.model.digest}",
            "seconds": round(time.perf_counter() - began, 6),
        }  # fmt: skip
        try:
            self._state.jobs.put(number, job)
        except Problem as problem:  # no room for the result: then at least for the reason
            with suppress(Problem):
                failed = {"job_id": number, "status": "failed", "error": problem.detail}
                self._state.jobs.put(number, failed)

    async def finish(self) -> None:
        """Wait for the jobs that were taken."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def job(self, raw: str) -> Answer:
        """Return a job; its result stays."""
        return Answer(200, self._state.jobs.get(_job_number(raw)))

    def delete_job(self, raw: str) -> Answer:
        """Forget a job."""
        number = _job_number(raw)
        self._state.jobs.delete(number)
        return Answer(200, orjson.dumps({"job_id": number, "status": "deleted"}))

    def list_jobs(self) -> Answer:
        """Return id and state of every job."""
        return Answer(200, orjson.dumps({"jobs": self._state.jobs.listed()}))

    # ------------------------------------------------------------ what is served

    def index(self) -> Answer:
        """Return what is served, and under which addresses."""
        policies = [
            {"name": s.model.name, "version": s.model.version, "digest": f"sha256:{s.model.digest}"}
            for s in self._table.served.values()
        ]
        addresses = ["/act", "/stream", "/jobs", "/list_jobs", "/signature", "/card", "/metrics",
                     "/docs", "/openapi.json", "/v2"]  # fmt: skip
        return _json({"name": "ganglion", "version": __version__, "policies": policies,
                      "addresses": addresses})  # fmt: skip

    def signature(self, served: Served) -> Answer:
        """Return what a policy takes and gives: shapes, dtypes, units, ranges, roles."""
        model = served.model
        found = {"name": model.name, "version": model.version,
                 "digest": f"sha256:{model.digest}", "steps": dict(model.steps),
                 **model.signature.to_json()}  # fmt: skip
        return _json(found, served.headers)

    def card(self, served: Served) -> Answer:
        """Return the policy card, and how the file was made."""
        found = served.model.policy.inspection
        about = {
            "name": served.model.name, "version": served.model.version,
            "digest": f"sha256:{found.digest}", "card": found.card, "made": found.made,
            "parameters": found.parameters, "file_bytes": found.file_bytes,
        }  # fmt: skip
        return _json(about, served.headers)

    def numbers(self) -> Answer:
        """Return the metrics of all workers."""
        state = self._state
        state.metrics.set("ganglion_waiting", self._table.waiting)
        state.metrics.set("ganglion_jobs", state.jobs.count)
        state.metrics.set("ganglion_resident_bytes", counting.resident_bytes())
        total = counting.added(state.folder, state.worker, state.metrics)
        return Answer(200, total.text().encode(), b"text/plain; version=0.0.4; charset=utf-8")

    # ------------------------------------------------------------ Open Inference Protocol

    def server(self) -> Answer:
        """Return the server's metadata."""
        return _json({"name": "ganglion", "version": __version__, "extensions": v2.EXTENSIONS})

    def live(self) -> Answer:
        """Say that the process answers."""
        return _json({"live": True})

    def ready(self) -> Answer:
        """Say whether new requests should come here; 503 while the server stops."""
        if self._state.draining:
            raise Problem(503, "stopping", "The server stops.", [(b"retry-after", b"1")])
        return _json({"ready": True})

    def model(self, name: str, version: str | None) -> Answer:
        """Return a model's metadata."""
        served = self._v2_model(name, version)
        return _json({**v2.metadata(served.model), "name": name}, served.headers)

    def model_ready(self, name: str, version: str | None) -> Answer:
        """Say that a model is ready: what is in the table is verified and warm."""
        served = self._v2_model(name, version)
        return _json({"name": name, "ready": True}, served.headers)

    def _v2_model(self, name: str, version: str | None) -> Served:
        if name == SPLIT and self._table.shared and version is None:
            return self._table.first
        return self._table.named(name, version)


def _job_number(raw: str) -> int:
    try:
        return job_id(raw)
    except Problem:
        raise missing(f"There is no job {raw[:40]!r}; ids are whole numbers.") from None


def _json(document: Mapping[str, Any], headers: Headers = ()) -> Answer:
    return Answer(200, orjson.dumps(document), headers=headers)


def _about(served: Served, ask: Ask) -> Headers:
    if ask.seed is None and not ask.clipped:
        return served.headers
    more = list(served.headers)
    if ask.seed is not None:
        more.append((b"ganglion-seed", str(ask.seed).encode()))
    if ask.clipped:
        names = ", ".join(ask.clipped)
        more.append(
            (b"ganglion-warning", f"clipped into range: {names}".encode("ascii", "replace"))
        )
    return more
