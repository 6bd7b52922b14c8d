"""uvicorn's connections with limits: on headers, bodies, silence, slow readers and their number.

A sweeper looks at all connections twice a second instead of a timer for each request. What goes
wrong before a request reaches the application is answered here, as problem details.
"""

from __future__ import annotations

import asyncio
import os
import socket
import urllib.parse
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Literal

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from ganglion.serve.problems import TYPE, Problem, malformed
from ganglion.serve.settings import Limits

LINGER_S = 1.0  # how long what a refused client still sends is read and thrown away
Phase = Literal["head", "body", "answer", "idle", "over"]


class Connection(HttpToolsProtocol):
    """One connection. phase says what is waited for, and `since` from when on."""

    limits = Limits()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.phase: Phase = "head"
        self.since = self.loop.time()
        self._head_bytes = 0
        self._refusal: Problem | None = None
        if len(self.connections) > self.limits.connections:
            self.refuse(Problem(503, "busy", "There are too many connections; try again soon."))

    def data_received(self, data: bytes) -> None:
        if self.phase == "over":
            return
        if self.phase in ("idle", "head"):
            self._head_bytes += len(data)
        super().data_received(data)
        if self.phase == "head" and self._head_bytes > self.limits.header_bytes:
            self.refuse(_large_head(self.limits))

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused."""
        self.refuse(self._refusal or malformed("This is no valid HTTP request."))

    def refuse(self, problem: Problem) -> None:
        """Answer a problem by itself, and end the connection."""
        if self.phase == "over":
            return
        body = problem.body()
        headers = [
            *self.server_state.default_headers, (b"content-type", TYPE),
            (b"content-length", str(len(body)).encode()), *problem.headers,
        ]  # fmt: skip
        head = _head(STATUS_LINE[problem.status], headers, close=True)
        self.transport.write(head + body)
        if self.cycle is not None:
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()
        self.linger()

    def linger(self) -> None:
        """Close, but read on for a moment: unread bytes would take the answer back."""
        self.phase, self.since = "over", self.loop.time()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def eof_received(self) -> bool:  # type: ignore[override]
        """No more requests come. Those that came are answered, though, before it is over."""
        if self.phase != "answer":
            return False  # closes
        self.cycle.keep_alive = False
        return True

    # ------------------------------------------------------------ the parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.phase, self.since = "head", self.loop.time()

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_bytes = 0
        if size > self.limits.header_bytes:
            self._refusal = _large_head(self.limits)
            raise self._refusal
        self.phase, self.since = "body", self.loop.time()
        parser = self.parser
        self.scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            self.scope["http_version"] = version
        if parser.should_upgrade() and self._should_upgrade():
            return
        self._set_path()
        previous = self.cycle
        self.cycle = Exchange(
            scope=self.scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger, access_log=False,
            default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )  # fmt: skip
        self.cycle.close = self.linger
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # pipelined: answered in order
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _set_path(self) -> None:
        parsed = httptools.parse_url(self.url)
        raw = parsed.path or b"/"
        path = raw.decode("ascii")
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = raw
        self.scope["query_string"] = parsed.query or b""

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.phase == "body":
            self.phase = "answer"

    def on_response_complete(self) -> None:
        """Wait for the next request. Silence is the sweeper's, so there is no timer to set."""
        self.server_state.total_requests += 1
        if self.phase == "over" or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.phase == "answer":
            self.phase, self.since = "idle", self.loop.time()

    # ------------------------------------------------------------ the sweeper's part

    def sweep(self, now: float) -> None:
        """End the connection where it has taken longer than it may."""
        waited = now - self.since
        if self.flow.write_paused:
            if waited > self.limits.write_s:
                self.transport.abort()
        elif self.phase == "over":
            if waited > LINGER_S:
                self.transport.abort()
        elif self.phase == "head" and waited > self.limits.header_s:
            self.refuse(Problem(408, "slow", "The request's headers took too long."))
        elif self.phase == "body" and waited > self.limits.body_s:
            self.refuse(Problem(408, "slow", "The request's body took too long."))
        elif self.phase == "idle" and waited > self.limits.idle_s:
            self.transport.close()

    def unread(self) -> bool:
        """Tell whether a request, or a part of one, has come in."""
        if self.phase == "head" and self._head_bytes:
            return True
        handle = self.transport.get_extra_info("socket")
        try:
            with socket.socket(fileno=os.dup(handle.fileno())) as peek:
                peek.setblocking(False)
                return bool(peek.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def pause_writing(self) -> None:
        self.since = self.loop.time()
        super().pause_writing()


class Exchange(RequestResponseCycle):
    """One request and its answer. Head and body are written at once."""

    close: Callable[[], None]
    _head: bytes = b""

    async def send(self, message: Any) -> None:
        """Take the two messages of an answer; there are no answers in parts."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self.response_started = True
            headers = message["headers"]
            if (b"connection", b"close") in headers or (
                b"connection", b"close"
            ) in self.default_headers:  # fmt: skip
                self.keep_alive = False
            lines = [*self.default_headers, *headers]
            self._head = _head(STATUS_LINE[message["status"]], lines, close=not self.keep_alive)
            return
        body = b"" if self.scope["method"] == "HEAD" else message["body"]
        self.transport.write(self._head + body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            if self.more_body:  # the answer came before the request had ended
                self.close()
            else:
                self.transport.close()
        self.on_response()


class Stream(WebSocketsSansIOProtocol):
    """One WebSocket. Text that is no UTF-8 ends it without a word in the log."""

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(1007, "the text is no UTF-8")
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.close_sent = True
                self.transport.close()
                return
        super().send_receive_event_to_app()


async def sweep(state: ServerState, every_s: float = 0.5) -> None:
    """Look at all connections, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        now = loop.time()
        for connection in list(state.connections):
            if isinstance(connection, Connection):
                connection.sweep(now)


def _head(status: bytes, headers: Iterable[tuple[bytes, bytes]], close: bool) -> bytes:
    lines = [status]
    for name, value in headers:
        if name != b"connection":
            lines += (name, b": ", value, b"\r\n")
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines)


def _large_head(limits: Limits) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "large_head",
        f"Request line and headers are larger than {limits.header_bytes} bytes.",
    )  # fmt: skip
