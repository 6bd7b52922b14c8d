"""The application in this process, asked without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.app import App
from ganglion.serve.endpoints import State
from ganglion.serve.exchange import Guard
from ganglion.serve.jobs import Jobs
from ganglion.serve.metrics import Metrics
from ganglion.serve.models import Model
from ganglion.serve.settings import ServeSettings
from ganglion.serve.shadow import Shadow
from ganglion.serve.table import Table

from .driver import Reply

Ask = Callable[..., Awaitable[Reply]]


def model(name: str, data: bytes, version: str = "1") -> Model:
    return Model(name, version, OnnxPolicy(data), 1e-5, 1e-8)


class Local:
    """An application and what it is made of. Made within a running event loop."""

    def __init__(self, folder: Path, models: list[Model], **settings: Any) -> None:
        sources = tuple((m.name, Path(f"{m.name}.onnx")) for m in models)
        self.settings = ServeSettings(sources, **settings)
        self.metrics = Metrics()
        self.table = Table(
            self.settings.limits, self.metrics, self.settings.out_of_range, self.settings.split
        )
        for one in models:
            self.table.put(one)
        self.shadow = None
        if self.settings.shadow:
            self.shadow = Shadow(self.settings.shadow, self.settings.pairs, self.metrics)
        jobs = Jobs(folder / "jobs", self.settings.limits)
        self.state = State(self.settings, self.table, self.metrics, jobs, self.shadow, folder)
        hosts = ("127.0.0.1", *self.settings.allowed_hosts)
        self.app = App(self.state, Guard(hosts, self.settings.tokens))

    async def ask(self, method: str, path: str, document: Any = None, **headers: str) -> Reply:
        """Ask once."""
        body = b"" if document is None else json.dumps(document).encode()
        given = {"host": "127.0.0.1", "content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
        }  # fmt: skip
        sent: list[Mapping[str, Any]] = []

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return Reply(sent[0]["status"], found, sent[1]["body"])

    async def post(self, path: str, document: Any, **headers: str) -> Reply:
        return await self.ask("POST", path, document, **headers)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine."""

    async def outer() -> None:
        await work()

    asyncio.run(outer())
