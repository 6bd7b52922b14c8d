"""Keeps asking a server from many connections and counts what became of every request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from .driver import request


@dataclass
class Count:
    """answered by status; lost: sent whole on an open connection, and no whole answer came."""

    answered: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    refused: int = 0  # connections that could not be opened: nothing was accepted
    digests: Counter[str] = field(default_factory=Counter)
    bad: list[bytes] = field(default_factory=list)


class Hammer:
    """`kept` connections ask again and again on one connection, `fresh` ones open one each time."""

    def __init__(self, port: int, raw: bytes | None = None) -> None:
        self.port = port
        self.raw = raw or request("POST", "/act", b'{"obs": [0.1, 0.2, 0.3]}')
        self.closing = self.raw.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
        self.count = Count()
        self.running = True

    async def run(self, kept: int, fresh: int, until: float | None = None) -> Count:
        """Ask until `stop` is called, the time `until`, or no connection can be opened any more."""
        asks = [self._kept() for _ in range(kept)] + [self._fresh() for _ in range(fresh)]
        if until is not None:
            asyncio.get_running_loop().call_at(until, self.stop)
        await asyncio.gather(*asks)
        return self.count

    def stop(self) -> None:
        self.running = False

    async def _kept(self) -> None:
        while self.running and (ends := await self._open()):
            reader, writer = ends
            again = True
            while self.running and again:
                again = await self._ask(reader, writer, self.raw)
            writer.close()

    async def _fresh(self) -> None:
        while self.running and (ends := await self._open()):
            await self._ask(*ends, self.closing)
            ends[1].close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 10)
        except (ConnectionRefusedError, TimeoutError):
            self.count.refused += 1
            return None

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes
    ) -> bool:
        """Ask once; say whether the connection can be used again."""
        try:
            writer.write(raw)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(lines[b"content-length"]))
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            self.count.lost += 1
            return False
        status = int(head.split()[1])
        self.count.answered[status] += 1
        self.count.digests[lines.get(b"ganglion-digest", b"").decode()] += 1
        if status != 200:
            self.count.bad.append(body)
        return lines.get(b"connection") != b"close"


def hammer(port: int, kept: int, fresh: int, seconds: float) -> Count:
    """Ask for some seconds."""

    async def run() -> Count:
        end = asyncio.get_running_loop().time() + seconds
        return await Hammer(port).run(kept, fresh, end)

    return asyncio.run(run())


def stopped_under_load(port: int, stop: object, kept: int, fresh: int, after_s: float) -> Count:
    """Ask, call `stop` after a while, and go on until the door is shut."""

    async def run() -> Count:
        asking = Hammer(port)
        task = asyncio.ensure_future(asking.run(kept, fresh))
        await asyncio.sleep(after_s)
        stop()  # type: ignore[operator]
        began = time.monotonic()
        await asyncio.wait_for(task, 60)
        assert time.monotonic() - began < 30
        return asking.count

    return asyncio.run(run())
