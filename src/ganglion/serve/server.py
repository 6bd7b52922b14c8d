"""One serving process: loads, listens, watches, and stops without losing a request."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from ganglion.serve import metrics as counting
from ganglion.serve.app import App
from ganglion.serve.drain import accept_rest, drop_new_connections, finish
from ganglion.serve.endpoints import State
from ganglion.serve.exchange import Guard
from ganglion.serve.jobs import Jobs
from ganglion.serve.metrics import Metrics
from ganglion.serve.models import Model
from ganglion.serve.protocol import Connection, Stream, sweep
from ganglion.serve.settings import ServeSettings
from ganglion.serve.shadow import Shadow
from ganglion.serve.table import Table, same_ends
from ganglion.serve.watching import Say, Source, Watcher

Ready = Callable[[list[Model]], None]


def run(
    settings: ServeSettings,
    listening: socket.socket,
    folder: Path,
    worker: int,
    ready: Ready,
    say: Say,
) -> None:
    """Serve in this process until a signal says to stop; DataError where no policy can be loaded.

    folder is shared with the other workers. ready is called once requests are answered.
    """
    sources = [Source(name, path, settings.probe) for name, path in settings.sources]
    models = [source.first(say) for source in sources]
    if settings.split or settings.shadow:
        same_ends({model.name: model for model in models})
    try:
        import uvloop

        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:  # not made for this platform
        loop_factory = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(settings, listening, folder, worker, ready, say, sources, models))


async def _serve(
    settings: ServeSettings,
    listening: socket.socket,
    folder: Path,
    worker: int,
    ready: Ready,
    say: Say,
    sources: list[Source],
    models: list[Model],
) -> None:
    metrics = Metrics()
    alike = bool(settings.split or settings.shadow)
    table = Table(settings.limits, metrics, settings.out_of_range, settings.split, alike)
    for model in models:
        table.put(model)
    shadow = Shadow(settings.shadow, settings.pairs, metrics) if settings.shadow else None
    jobs = Jobs(folder / "jobs", settings.limits)
    state = State(settings, table, metrics, jobs, shadow, folder, worker)
    app = App(state, Guard(_hosts(settings), settings.tokens))
    watcher = Watcher(sources, table, metrics, say)
    server = Server(app, state, watcher, lambda: ready(models))
    chores = [
        asyncio.ensure_future(sweep(server.server_state)),
        asyncio.ensure_future(watcher.run(settings.watch_s)),
        asyncio.ensure_future(_write_metrics(state, server)),
    ]
    try:
        await server.serve(sockets=[listening])
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


async def _write_metrics(state: State, server: Server) -> None:
    while True:
        state.metrics.set("ganglion_connections", len(server.server_state.connections))
        if state.settings.workers > 1:
            state.metrics.set("ganglion_waiting", state.table.waiting)
            state.metrics.set("ganglion_resident_bytes", counting.resident_bytes())
            counting.write(state.folder, state.worker, state.metrics)
        await asyncio.sleep(1.0)


class Server(uvicorn.Server):
    """uvicorn with our connections, signals and stop."""

    def __init__(self, app: App, state: State, watcher: Watcher, ready: Callable[[], None]) -> None:
        self._app, self._state, self._watcher, self._ready = app, state, watcher, ready
        limits = state.settings.limits

        class Limited(Connection):
            """Our connections with this server's limits."""

        Limited.limits = limits
        super().__init__(
            uvicorn.Config(
                app, http=Limited, ws=Stream, lifespan="off", log_config=None,
                log_level="critical", access_log=False, proxy_headers=False, server_header=False,
                ws_max_size=limits.body_bytes, ws_per_message_deflate=False, backlog=2048,
            )
        )  # fmt: skip

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say that we do."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop (a second one at once), SIGHUP looks for new versions."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._watcher.kick)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in three phases (`drain`)."""
        times, loop = self._state.settings.drain, asyncio.get_running_loop()
        self._state.draining = True
        closing = (b"connection", b"close")
        self.server_state.default_headers = [*self.server_state.default_headers, closing]
        await self._pause(times.announce_s)
        doors = [door.dup() for door in sockets or []]
        for door in doors:
            drop_new_connections(door)
        await self._pause(times.handshake_s)
        for server in self.servers:
            server.close()
        for door in sockets or []:
            door.close()
        for door in doors:
            await accept_rest(door, lambda: self._connection(loop))
            door.close()
        self._app.end_streams()
        await finish(lambda: self.server_state.connections, times, lambda: self.force_exit)
        if not self.force_exit:
            await self._app.endpoints.finish()
        if self._state.shadow is not None:
            await self._state.shadow.close()

    def _connection(self, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state={}, _loop=loop
        )
        return made

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless a second signal comes."""
        end = asyncio.get_running_loop().time() + seconds
        while not self.force_exit and (left := end - asyncio.get_running_loop().time()) > 0.0:
            await asyncio.sleep(min(left, 0.05))


def _hosts(settings: ServeSettings) -> tuple[str, ...]:
    return ("127.0.0.1", "localhost", "::1", settings.host, *settings.allowed_hosts)
