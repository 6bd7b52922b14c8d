"""The ASGI application: finds the endpoint, and turns every refusal into one plain answer."""

from __future__ import annotations

import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ganglion.serve.endpoints import Endpoints, State
from ganglion.serve.exchange import Answer, Gone, Guard, Receive, Request
from ganglion.serve.metrics import labels
from ganglion.serve.openapi import document
from ganglion.serve.page import STYLE, page
from ganglion.serve.problems import TYPE, Headers, Problem, busy, missing
from ganglion.serve.reading import seed_of
from ganglion.serve.stream import Send, Session
from ganglion.serve.table import Served

OPEN = ("/v2/health/live", "/v2/health/ready")  # probes of an orchestrator carry no token
_SAFE: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
)


class App:
    """One process' application. `end_streams` is for its stop."""

    def __init__(self, state: State, guard: Guard) -> None:
        self._state, self._guard = state, guard
        self.endpoints = Endpoints(state)
        self._sessions: set[Session] = set()
        self._prefix, self._count = secrets.token_hex(4), 0
        endpoints = self.endpoints
        self._plain: Mapping[str, Callable[[], Answer]] = {
            "/": endpoints.index, "/metrics": endpoints.numbers, "/list_jobs": endpoints.list_jobs,
            "/v2": endpoints.server, "/v2/health/live": endpoints.live,
            "/v2/health/ready": endpoints.ready, "/openapi.json": self._openapi,
            "/docs": self._docs, "/docs.css": lambda: Answer(200, STYLE, b"text/css"),
        }  # fmt: skip

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or one stream. Nothing but the loop's own errors gets out."""
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        began, call, answer = time.perf_counter(), _Call(), None
        try:
            request = Request(scope)
            self._guard.check(request.headers, scope["path"] in OPEN)
            await request.read(receive, self._state.settings.limits)
            answer = await self._answer(request, call)
        except Gone:
            return
        except Problem as problem:
            answer = _refusal(problem, call)
        except Exception as error:  # noqa: BLE001 - the border of a request
            _report(error)
            answer = _refusal(Problem(500, "internal", "internal error; see the log"), call)
        self._count_answer(call, answer.status, time.perf_counter() - began)
        await _send(send, answer, call)

    async def _answer(self, request: Request, call: _Call) -> Answer:
        path, method = request.path, request.method
        if path == "/act":
            _allow(method, "POST")
            call.begin("act", self._route(request, call))
            assert call.served is not None
            return await self.endpoints.act(request, call.served)
        plain = self._plain.get(path)
        if plain is not None:
            call.endpoint = path.strip("/") or "index"
            _allow(method, "GET")
            return plain()
        return await self._nested(request, path.split("/")[1:], call)

    async def _nested(self, request: Request, parts: list[str], call: _Call) -> Answer:
        """Answer an address with parts: a policy's or a job's."""
        endpoints, method = self.endpoints, request.method
        match parts:
            case ["act", name]:
                _allow(method, "POST")
                call.begin("act", self._state.table.named(name))
                assert call.served is not None
                return await endpoints.act(request, call.served)
            case ["jobs"]:
                _allow(method, "POST")
                call.begin("jobs", self._route(request, call))
                assert call.served is not None
                return await endpoints.add_job(request, call.served)
            case ["jobs", raw]:
                call.endpoint = "jobs"
                _allow(method, "GET", "DELETE")
                return endpoints.job(raw) if method == "GET" else endpoints.delete_job(raw)
            case ["signature" | "card" as what, *name] if len(name) < 2:
                _allow(method, "GET")
                served = self._state.table.named(name[0]) if name else self._state.table.first
                call.begin(what, served)
                return (
                    endpoints.signature(served) if what == "signature" else endpoints.card(served)
                )
            case ["stream", *name] if len(name) < 2:
                raise Problem(426, "upgrade", "This address is a WebSocket.",
                              [(b"upgrade", b"websocket")])  # fmt: skip
            case ["v2", "models", *rest] if rest:
                return await self._model(request, rest, call)
        raise missing(f"There is nothing at {request.path[:200]!r}; see /docs.")

    async def _model(self, request: Request, parts: list[str], call: _Call) -> Answer:
        name, version, rest = parts[0], None, parts[1:]
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        endpoints = self.endpoints
        if rest == ["infer"]:
            _allow(request.method, "POST")
            call.endpoint = "infer"
            answer = await endpoints.infer(request, name, version)
            call.served = self._state.table.served.get(name, self._state.table.first)
            return answer
        if rest in ([], ["ready"]):
            _allow(request.method, "GET")
            call.endpoint = "model"
            found = endpoints.model_ready if rest else endpoints.model
            return found(name, version)
        raise missing(f"There is nothing at {request.path[:200]!r}; see /docs.")

    def _route(self, request: Request, call: _Call) -> Served:
        """Choose the policy of a request that names none, by its id; make one where it has none."""
        table, given = self._state.table, request.id
        if given is None and table.shared:
            self._count += 1
            given = f"{self._prefix}-{self._count}"
        call.id = given
        return table.first if given is None else table.route(given)

    # ------------------------------------------------------------ pages

    def _openapi(self) -> Answer:
        return Answer(200, orjson.dumps(self._document()))

    def _docs(self) -> Answer:
        return Answer(200, page(self._document()).encode(), b"text/html; charset=utf-8")

    def _document(self) -> dict[str, Any]:
        table = self._state.table
        models = [served.model for served in table.served.values()]
        return document(models, self._state.settings)

    # ------------------------------------------------------------ streams

    async def _stream(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        call, session = _Call(endpoint="stream"), None
        try:
            request = Request({**scope, "method": "GET"})
            self._guard.check(request.headers)
            session = self._session(request, call)
        except Problem as problem:
            await _refuse_stream(send, problem)
            self._count_answer(call, problem.status, 0.0)
            return
        self._sessions.add(session)
        self._state.metrics.set("ganglion_streams", len(self._sessions))
        try:
            await session.run(receive, send)
        except OSError:  # the caller went away while it was answered
            pass
        except Exception as error:  # noqa: BLE001 - the border of a stream
            _report(error)
        finally:
            self._sessions.discard(session)
            self._state.metrics.set("ganglion_streams", len(self._sessions))

    def _session(self, request: Request, call: _Call) -> Session:
        match request.path.split("/")[1:]:
            case ["stream"]:
                served = self._route(request, call)
            case ["stream", name]:
                served = self._state.table.named(name)
            case _:
                raise missing(f"There is no stream at {request.path[:200]!r}.")
        if len(self._sessions) >= self._state.settings.limits.streams:
            raise busy(f"{len(self._sessions)} streams are open already.")
        if self._state.draining:
            raise busy("The server stops.")
        given = request.parameter("seed")
        seed = self._state.next_seed() if given is None else seed_of(given)
        return Session(served, seed)

    def end_streams(self) -> None:
        """End every stream after the answer that is under way."""
        for session in list(self._sessions):
            session.end()

    def _count_answer(self, call: _Call, status: int, seconds: float) -> None:
        policy = call.served.model.name if call.served else ""
        self._state.metrics.add(
            "ganglion_requests_total",
            labels(policy=policy, endpoint=call.endpoint, status=str(status)),
        )
        if call.served is not None:
            call.served.seconds.add(seconds)


class _Call:
    """What is known of a request while it is answered."""

    __slots__ = ("endpoint", "id", "served")

    def __init__(self, endpoint: str = "none") -> None:
        self.endpoint = endpoint
        self.served: Served | None = None
        self.id: str | None = None

    def begin(self, endpoint: str, served: Served) -> None:
        """Note which endpoint and policy it is for."""
        self.endpoint, self.served = endpoint, served


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed and not (method == "HEAD" and "GET" in allowed):
        known = ", ".join(allowed)
        raise Problem(405, "method", f"{method} is not possible here; {known} is.",
                      [(b"allow", known.encode())])  # fmt: skip


def _refusal(problem: Problem, call: _Call) -> Answer:
    about = call.served.headers if call.served else ()
    headers = list(problem.headers)
    headers += [pair for pair in about if pair not in headers]
    return Answer(problem.status, problem.body(), TYPE, headers)


async def _send(send: Send, answer: Answer, call: _Call) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    ]
    if call.id is not None:
        headers.append((b"x-request-id", call.id.encode()))
    if answer.content_type != b"application/json":
        headers += _SAFE
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _refuse_stream(send: Send, problem: Problem) -> None:
    body = problem.body()
    headers = [(b"content-type", TYPE), (b"content-length", b"%d" % len(body)), *problem.headers]
    start = {"type": "websocket.http.response.start", "status": problem.status}
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _report(error: Exception) -> None:
    """Say in one line what went wrong within; the traceback with GANGLION_DEBUG=1."""
    if os.environ.get("GANGLION_DEBUG") == "1":
        traceback.print_exception(error)
    else:
        sys.stderr.write(f"ganglion: internal error ({type(error).__name__}: {error})\n"[:500])
