"""A load generator for HTTP/1.1 on this machine: closed loops, and fixed rates in bursts.

python benchmarks/load.py URL BODY.json --connections 16 --seconds 5 [--rate 1000 [--burst 16]]

One process, raw asyncio protocols: a request costs it about a tenth of what it costs a server in
Python, so that it is not what limits. With --rate, requests are due at fixed times whatever the
server does, and latency counts from when a request was due; a closed loop would be kind to a server
that stalls. Prints one line of JSON. Only addresses of this machine are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

LOCAL = ("127.0.0.1", "localhost", "::1")


class Client(asyncio.Protocol):
    """One kept connection; asks again as soon as it is answered, or when it is told to."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._due: deque[float] = deque()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._load.closed:
            self.ask(time.perf_counter())

    def ask(self, due: float) -> None:
        """Send one request; latency counts from `due`."""
        self._due.append(due)
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            line = head[at + 15 : head.find(b"\r\n", at) if b"\r\n" in head[at:] else None]
            total = end + 4 + int(line)
            if len(self._buffer) < total:
                return
            good = self._buffer.startswith(b"HTTP/1.1 200")
            self._buffer = self._buffer[total:]
            self._load.answered(self, self._due.popleft(), good)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self, len(self._due))


class Load:
    """What is sent, and what came back."""

    def __init__(self, url: str, body: bytes, closed: bool) -> None:
        parts = urlsplit(url)
        if parts.hostname not in LOCAL:
            raise SystemExit(f"{url} is not on this machine.")
        self.host, self.port = parts.hostname, parts.port or 80
        path = parts.path or "/"
        self.request = (
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.closed = closed
        self.running = self.counting = False
        self.seconds: list[float] = []
        self.all = 0
        self.errors = 0
        self.idle: deque[Client] = deque()
        self.due: deque[float] = deque()

    def answered(self, client: Client, due: float, good: bool) -> None:
        now = time.perf_counter()
        self.all += 1
        if self.counting:
            self.seconds.append(now - due)
            self.errors += not good
        if self.closed:
            if self.running:
                client.ask(now)
        elif self.due:
            client.ask(self.due.popleft())
        else:
            self.idle.append(client)

    def lost(self, client: Client, waiting: int) -> None:
        if self.running:
            self.errors += max(1, waiting)

    def tick(self, due: float, count: int) -> None:
        """Send `count` requests, or note that they are due."""
        for _ in range(count):
            if self.idle:
                self.idle.popleft().ask(due)
            else:
                self.due.append(due)


async def measure(load: Load, args: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    load.running = True
    for _ in range(args.connections):
        _, client = await loop.create_connection(lambda: Client(load), load.host, load.port)
        load.idle.append(client)
    pacer = None if load.closed else asyncio.ensure_future(_pace(load, args.rate, args.burst))
    await asyncio.sleep(args.warmup)
    load.counting = True
    began = time.perf_counter()
    await asyncio.sleep(args.seconds)
    took = time.perf_counter() - began
    load.counting = load.running = False
    if pacer is not None:
        pacer.cancel()
    late = sum(1 for due in load.due if due < began + took - 1.0)
    return {**summary(load.seconds, took, load.errors, late), "all": load.all}


async def _pace(load: Load, rate: float, burst: int) -> None:
    due = time.perf_counter()
    while True:
        due += burst / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        load.tick(due, burst)


def summary(seconds: list[float], took: float, errors: int, late: int) -> dict[str, Any]:
    """Return rate, errors and latency in ms."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    found: dict[str, Any] = {"requests": len(ordered), "per_s": len(ordered) / took}
    found |= {"errors": errors, "late": late}
    if ordered:
        found |= {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--burst", type=int, default=1)
    args = parser.parse_args()
    load = Load(args.url, args.body.read_bytes(), args.rate is None)
    print(json.dumps(uvloop.run(measure(load, args))))


if __name__ == "__main__":
    main()
