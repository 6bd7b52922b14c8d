"""Several serving processes on one port, and the one that starts, watches and stops them.

Each worker has a listening socket of its own (SO_REUSEPORT), so that the kernel shares out the
connections. Jobs and metrics meet in one folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ganglion.core.errors import DataError, GanglionError, ServiceError, SettingsError
from ganglion.serve.settings import ServeSettings

Ready = Callable[[str, list[dict[str, Any]]], None]
Say = Callable[[str], None]
START_S = 120.0  # the first answer of a worker
AGAIN_S = 1.0  # before a worker that died is started again


def serve(settings: ServeSettings, ready: Ready, say: Say) -> None:
    """Serve until a signal says to stop. ready gets the server's URL and what it serves.

    SettingsError where the address cannot be had; DataError where a policy is refused.
    """
    door = listen(settings.host, settings.port, shared=settings.workers > 1)
    folder = Path(tempfile.mkdtemp(prefix="ganglion-serve-"))
    url = url_of(door)
    try:
        if settings.workers > 1:
            # The supervisor's socket only keeps the port; it never listens.
            _Supervisor(settings, door, folder, ready, say).run(url)
        else:
            from ganglion.serve.server import run

            run(settings, door, folder, 0, lambda models: ready(url, described(models)), say)
    finally:
        door.close()
        shutil.rmtree(folder, ignore_errors=True)


def listen(host: str, port: int, shared: bool) -> socket.socket:
    """Bind a socket; SettingsError with one sentence where that fails."""
    door = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        door = socket.socket(family, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.bind(address)
    except OSError as problem:
        if door is not None:
            door.close()
        reason = problem.strerror or str(problem)
        raise SettingsError(
            f"Cannot listen on {host} port {port}: {reason}. Choose another --port or --host."
        ) from None
    return door


def url_of(door: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def described(models: Any) -> list[dict[str, Any]]:
    """Return name, version and digest of models, for people and machines."""
    return [{"name": m.name, "version": m.version, "digest": m.digest} for m in models]


class _Supervisor:
    """Starts the workers, starts them again where they die, and ends them."""

    def __init__(
        self, settings: ServeSettings, door: socket.socket, folder: Path, ready: Ready, say: Say
    ) -> None:
        self._settings, self._door, self._folder = settings, door, folder
        self._ready, self._say = ready, say
        self._workers: dict[int, int] = {}  # process -> number
        self._stopping = 0

    def run(self, url: str) -> None:
        """Supervise until every worker has ended."""
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: self._tell(signal.SIGHUP))
        pipes = [self._start(number) for number in range(self._settings.workers)]
        try:
            served = [_first_word(pipe) for pipe in pipes]
        except GanglionError:
            self._tell(signal.SIGKILL)
            raise
        self._ready(url, served[0])
        while self._workers:
            try:
                process, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            number = self._workers.pop(process, None)
            if number is not None and not self._stopping:
                code = os.waitstatus_to_exitcode(status)
                self._say(f"Worker {number} ended with code {code}; it is started again.")
                time.sleep(AGAIN_S)
                if not self._stopping:
                    os.close(self._start(number))

    def _start(self, number: int) -> int:
        """Fork one worker; return the end of a pipe on which it says that it is ready."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            code = 1
            try:
                self._work(number, writing)
                code = 0
            except GanglionError as problem:
                _say_to(writing, {"error": str(problem), "code": problem.code})
                code = problem.exit_code
            finally:
                os._exit(code)
        os.close(writing)
        self._workers[process] = number
        return reading

    def _work(self, number: int, writing: int) -> None:
        from ganglion.serve.server import run

        for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signal_number, signal.SIG_DFL)
        host, port = self._door.getsockname()[:2]
        own = listen(host, port, shared=True)
        self._door.close()
        ready = lambda models: _say_to(writing, {"models": described(models)})  # noqa: E731
        run(self._settings, own, self._folder, number, ready, self._say)

    def _stop(self, *_: object) -> None:
        self._stopping += 1
        self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        for process in list(self._workers):
            with suppress(ProcessLookupError):
                os.kill(process, number)


def _say_to(pipe: int, word: dict[str, Any]) -> None:
    with suppress(OSError):  # nobody listens to a worker that was started again
        os.write(pipe, orjson.dumps(word) + b"\n")
        os.close(pipe)


def _first_word(pipe: int) -> list[dict[str, Any]]:
    """Wait for what a worker says first; DataError with its reason where it could not start."""
    with open(pipe, "rb") as file:
        line = file.readline()
    if not line:
        raise ServiceError("A worker died before it was ready.")
    word = orjson.loads(line)
    if "error" in word:
        kind = DataError if word["code"] == DataError.code else SettingsError
        raise kind(word["error"])
    models: list[dict[str, Any]] = word["models"]
    return models
