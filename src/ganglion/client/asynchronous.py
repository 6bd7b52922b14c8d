"""A served policy with asyncio. Calls may run at the same time, each on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from ganglion.client import wire
from ganglion.core.contracts import Array, Arrays, Signature
from ganglion.core.errors import ServiceError
from ganglion.export.external import MOST_BYTES

_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_HEAD = 2**16  # bytes of an answer's head


async def async_policy(
    url: str,
    name: str | None = None,
    *,
    token: str | None = None,
    timeout_s: float = 10.0,
    ranges: bool = True,
) -> AsyncRemotePolicy:
    """Return a policy served at `url`; as `policy`, with asyncio."""
    found = AsyncRemotePolicy(wire.address(url, name, token), timeout_s, ranges)
    await found.connect()
    return found


class AsyncRemotePolicy:
    """A policy whose `act` asks a server without holding up the event loop."""

    about: wire.About

    def __init__(self, address: wire.Address, timeout_s: float, ranges: bool) -> None:
        self._address, self._timeout_s, self._ranges = address, timeout_s, ranges
        self._idle: list[_Ends] = []

    async def connect(self) -> None:
        """Ask for the signature; the first thing to do."""
        try:
            status, body = await self._ask("GET", "signature", b"")
            wire.accepted(status, body)
            self.about = wire.about(body)
        except BaseException:
            await self.close()
            raise

    @property
    def signature(self) -> Signature:
        return self.about.signature

    async def act(
        self, inputs: Arrays | Mapping[str, Any], seed: int | None = None
    ) -> dict[str, Array]:
        """Answer a batch; errors are those of `RemotePolicy.act`."""
        body, rows = wire.question(inputs, self.signature, seed, self._ranges)
        status, answer = await self._ask("POST", "act", body)
        return wire.outputs(status, answer, self.signature, rows)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncStream]:
        """Open a stream: one row in, one row out, carried state kept by the server."""
        address = self._address
        try:
            socket = await connect(
                address.websocket(), additional_headers=dict(address.headers), compression=None,
                open_timeout=self._timeout_s, max_size=MOST_BYTES, proxy=None,
            )  # fmt: skip
        except (OSError, WebSocketException) as problem:
            raise ServiceError(f"No stream from {address.host}: {problem}.") from None
        async with socket:
            yield AsyncStream(socket, self.signature, self._timeout_s, self._ranges)

    async def close(self) -> None:
        """Close the connections that are not in use; harmless when called again."""
        idle, self._idle = self._idle, []
        for _, writer in idle:
            writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, method: str, what: str, body: bytes) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    kept = bool(self._idle)
                    ends = self._idle.pop() if kept else await self._open()
                    try:
                        return await self._exchange(ends, method, what, body)
                    except (asyncio.IncompleteReadError, ConnectionError) as problem:
                        ends[1].close()
                        if not kept:
                            raise self._unreachable(problem) from None
                    except BaseException:
                        ends[1].close()
                        raise
        except TimeoutError:
            raise ServiceError(
                f"The server {self._address.host} gave no answer in {self._timeout_s:g} s."
            ) from None

    async def _open(self) -> _Ends:
        address = self._address
        try:
            return await asyncio.open_connection(
                address.host, address.port, ssl=address.secure or None, limit=_HEAD
            )
        except OSError as problem:
            raise self._unreachable(problem) from None

    async def _exchange(
        self, ends: _Ends, method: str, what: str, body: bytes
    ) -> tuple[int, bytes]:
        reader, writer = ends
        headers = {"host": self._address.parts.netloc.rpartition("@")[2], **self._address.headers}
        if method == "POST":
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{method} {self._address.path(what)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        status, found = await _head(reader)
        size = found.get("content-length", "")
        if not size.isdecimal():
            raise ServiceError("The server gave an answer without a length.")
        if int(size) > MOST_BYTES:
            raise wire.too_large()
        answer = await reader.readexactly(int(size))
        if found.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append(ends)
        return status, answer

    def _unreachable(self, problem: Exception) -> ServiceError:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return ServiceError(f"The server {self._address.host} cannot be reached: {reason}.")


class AsyncStream:
    """One open stream. Rows have no batch axis."""

    def __init__(
        self, socket: ClientConnection, signature: Signature, timeout_s: float, ranges: bool
    ) -> None:
        self._socket, self._signature = socket, signature
        self._timeout_s, self._ranges = timeout_s, ranges

    async def act(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Answer one row; carried inputs that are left out are the last step's outputs."""
        message = wire.row_question(inputs, self._signature, self._ranges)
        return wire.row_outputs(await self._exchange(message.decode()), self._signature)

    async def reset(self) -> None:
        """Begin anew: carried inputs are zero again."""
        await self._exchange('"reset"')

    async def _exchange(self, message: str) -> str | bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._socket.send(message)
                return await self._socket.recv()
        except TimeoutError:
            raise ServiceError(f"The stream gave no answer in {self._timeout_s:g} s.") from None
        except (OSError, WebSocketException) as problem:
            raise ServiceError(f"The stream ended: {problem}.") from None


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    try:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = raw.split("\r\n")
        status = int(first.split()[1])
    except (asyncio.LimitOverrunError, ValueError, IndexError):
        raise ServiceError("The server gave no HTTP answer.") from None
    pairs = (line.partition(":") for line in lines if line)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
