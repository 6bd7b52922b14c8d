"""What a server is told at its start, and the limits that it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ganglion.export.inspection import Limits as FileLimits

OutOfRange = Literal["refuse", "warn"]


@dataclass(frozen=True)
class Limits:
    """What one client, request, file or moment may take at most."""

    body_bytes: int = 2**20
    header_bytes: int = 16 * 2**10
    header_s: float = 5.0  # from the first byte of a request (or the connection) to its last header
    body_s: float = 10.0  # from the last header to the last byte of the body
    idle_s: float = 15.0  # a kept connection without a request
    write_s: float = 10.0  # a client that does not read its answer
    connections: int = 1000
    waiting: int = 2048  # requests in the queue of one policy
    batch_rows: int = 256  # rows that are answered in one run, where they come from many requests
    request_rows: int = 16_384
    run_s: float = 5.0  # one run of a policy
    inline_s: float = 0.002  # a run that will take longer leaves the event loop
    jobs: int = 10_000
    job_rows: int = 1000  # of one job
    job_bytes: int = 256 * 2**20
    job_s: float = 3600.0  # how long a result is kept
    streams: int = 256


@dataclass(frozen=True)
class ProbeLimits:
    """What a file may take in the child process that tries it."""

    file: FileLimits = field(default_factory=lambda: FileLimits(file_bytes=128 * 2**20))
    wall_s: float = 10.0
    cpu_s: int = 8
    memory_bytes: int = 2 * 2**30  # beyond what the interpreter itself takes
    one_run_s: float = 2.0  # one row at the largest number of steps
    answer_bytes: int = 2**20


@dataclass(frozen=True)
class DrainTimes:
    """The three phases of a stop, in seconds (`drain.stop`)."""

    announce_s: float = 1.0  # answers say "connection: close"
    handshake_s: float = 0.05  # connections that were half open when the door was shut
    idle_s: float = 1.0  # kept connections that stay silent
    most_s: float = 30.0


@dataclass(frozen=True)
class ServeSettings:
    """Everything `ganglion serve` was asked for.

    sources are (name, path) with path a file or a folder of numbered versions. split gives each
    source its share of the requests; shadow names the source that answers beside the first one,
    into `pairs`. tokens are SHA-256 digests.
    """

    sources: tuple[tuple[str, Path], ...]
    host: str = "127.0.0.1"
    port: int = 8080
    split: tuple[int, ...] = ()
    shadow: str | None = None
    pairs: Path | None = None
    workers: int = 1
    out_of_range: OutOfRange = "refuse"
    tokens: tuple[bytes, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    watch_s: float = 1.0
    seed: int | None = None  # of the counter that noise is drawn from; None: a random one
    limits: Limits = field(default_factory=Limits)
    probe: ProbeLimits = field(default_factory=ProbeLimits)
    drain: DrainTimes = field(default_factory=DrainTimes)
