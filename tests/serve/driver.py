"""Starts servers as a person does, and talks to them byte by byte."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SRC = Path(__file__).parents[2] / "src"


@dataclass
class Process:
    """One `ganglion serve`."""

    child: subprocess.Popen[str]
    log: Path
    url: str = ""
    models: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def said(self) -> str:
        return self.log.read_text()

    def resident_bytes(self) -> int:
        return _resident(self.child.pid) + sum(map(_resident, _children(self.child.pid)))

    def stop(self, limit_s: float = 40.0) -> int:
        """SIGTERM; return the exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(limit_s)


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(folder: Path, *words: str, port: int = 0) -> Iterator[Process]:
    """Run `ganglion serve WORDS` until the block ends; its standard error goes to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"log-{time.monotonic_ns()}.txt"
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "ganglion", "serve", *words,
               "--port", str(port), "--json"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1",
                   "TMPDIR": str(folder)}  # fmt: skip
    with log.open("w") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=folder
        )
    process = Process(child, log)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            child.wait(10)
            raise RuntimeError(f"the server did not start ({child.returncode}): {process.said()}")
        ready = json.loads(line)
        process.url, process.models = ready["url"], ready["models"]
        yield process
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    method: str, path: str, body: bytes = b"", *, host: str = "127.0.0.1", **headers: str
) -> bytes:
    """Return a request's bytes; a header's underscores become dashes."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    if body:
        lines += ["content-type: application/json"] if "content_type" not in headers else []
        lines.append(f"content-length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def exchange(port: int, raw: bytes, limit_s: float = 30.0) -> Reply:
    """Send bytes on a connection of their own and read one reply."""
    with socket.create_connection(("127.0.0.1", port), limit_s) as connection:
        # refused before all was sent, the reply may be there all the same
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(raw)
        return read_reply(connection)


def read_reply(connection: socket.socket, bare: bool = False) -> Reply:
    """Read one reply, without a body where `bare`; ConnectionError where none comes."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"closed after {data!r}")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    while not bare and len(body) < int(headers.get("content-length", 0)):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed within the body")
        body += part
    return Reply(int(first.split()[1]), headers, body)


def post(port: int, path: str, document: Any, **headers: str) -> Reply:
    """POST a document as JSON."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return exchange(port, request("POST", path, body, **headers))


def get(port: int, path: str, **headers: str) -> Reply:
    return exchange(port, request("GET", path, **headers))
