"""A WebSocket for one control loop: a row in, a row out, carried state kept between them.

Each text message is what `POST /act` takes for one row; carried inputs may be left out and are
then what the policy gave at the last step, zeros at the first. The text `"reset"` (a JSON string)
begins anew. A refused message is answered with its problem, and the state stays as it was. The
stream keeps the policy that it began with, whatever takes over meanwhile. Where noise is left out,
message k (from 0) draws it from seed + k; the accepting header `ganglion-seed` tells the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from ganglion.core.contracts import Array
from ganglion.serve.exchange import has_booleans, loads
from ganglion.serve.problems import Problem, malformed, unfit
from ganglion.serve.reading import SEEDS
from ganglion.serve.table import Served

GOING_AWAY = 1001
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Session:
    """One open stream."""

    def __init__(self, served: Served, seed: int) -> None:
        self._served, self._seed = served, seed
        self._state: dict[str, Array] = {}
        self._ending = False
        self._receiving: asyncio.Future[Any] | None = None

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer until the caller leaves, or `end` is called."""
        await receive()  # the connection itself
        headers = list(self._served.headers)
        if self._served.reader.draws:
            headers.append((b"ganglion-seed", str(self._seed).encode()))
        await send({"type": "websocket.accept", "headers": headers})
        while not self._ending:
            self._receiving = asyncio.ensure_future(receive())
            try:
                message = await self._receiving
            except asyncio.CancelledError:
                if not self._ending:
                    raise
                break
            if message["type"] != "websocket.receive":
                return
            self._receiving = None
            try:
                body = await self._answer(message.get("text"))
            except Problem as problem:
                body = problem.body()
            await send({"type": "websocket.send", "text": body.decode()})
        await send({"type": "websocket.close", "code": GOING_AWAY, "reason": "the server stops"})

    def end(self) -> None:
        """End after the answer that is under way, or at once where there is none."""
        self._ending = True
        if self._receiving is not None and not self._receiving.done():
            self._receiving.cancel()

    async def _answer(self, text: str | None) -> bytes:
        if text is None:
            raise malformed("A message is text: one JSON object.")
        raw = text.encode()
        document = loads(raw)
        if document == "reset":
            self._state = {}
            return b'{"reset":true}'
        if not isinstance(document, dict):
            raise unfit('A message is an object of inputs, or "reset".')
        served, seed = self._served, self._seed
        self._seed = (seed + 1) % SEEDS
        ask = served.reader.row(document, seed, has_booleans(raw), self._state)
        outputs = await served.batcher.submit(ask)
        carried = served.model.signature.carried
        self._state = {fed: outputs[output] for output, fed in carried.items()}
        row = served.reader.only_row(outputs)
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
