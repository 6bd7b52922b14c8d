"""A served policy with plain calls."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from ganglion.client import wire
from ganglion.core.contracts import Array, Arrays, Signature
from ganglion.core.errors import ServiceError
from ganglion.export.external import MOST_BYTES

_CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


def policy(
    url: str,
    name: str | None = None,
    *,
    token: str | None = None,
    timeout_s: float = 10.0,
    ranges: bool = True,
) -> RemotePolicy:
    """Return a policy served at `url`; `name` where the server has several.

    ranges False leaves declared ranges to the server (which may clip). SettingsError where url is
    none or the server refuses; ServiceError where it cannot be reached.
    """
    return RemotePolicy(wire.address(url, name, token), timeout_s, ranges)


class RemotePolicy:
    """A policy whose `act` asks a server. The connection is kept, and made anew where it ended."""

    def __init__(self, address: wire.Address, timeout_s: float, ranges: bool) -> None:
        self._address, self._timeout_s, self._ranges = address, timeout_s, ranges
        self._connection: http.client.HTTPConnection | None = None
        try:
            status, body = self._ask("GET", "signature", None)
            wire.accepted(status, body)
            self.about = wire.about(body)
        except BaseException:
            self.close()
            raise

    @property
    def signature(self) -> Signature:
        return self.about.signature

    def act(self, inputs: Arrays | Mapping[str, Any], seed: int | None = None) -> dict[str, Array]:
        """Answer a batch. Noise (drawn from `seed`), state and steps may be left out.

        SettingsError where the inputs do not fit; ServiceError where there is no good answer.
        """
        body, rows = wire.question(inputs, self.signature, seed, self._ranges)
        status, answer = self._ask("POST", "act", body)
        return wire.outputs(status, answer, self.signature, rows)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Open a stream: one row in, one row out, carried state kept by the server."""
        address = self._address
        try:
            socket = connect(
                address.websocket(), additional_headers=dict(address.headers), compression=None,
                open_timeout=self._timeout_s, max_size=MOST_BYTES, proxy=None,
            )  # fmt: skip
        except (OSError, WebSocketException) as problem:
            raise ServiceError(f"No stream from {address.host}: {problem}.") from None
        with socket:
            yield Stream(socket, self.signature, self._timeout_s, self._ranges)

    def close(self) -> None:
        """Close the connection; harmless when called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, method: str, what: str, body: bytes | None) -> tuple[int, bytes]:
        kept = self._connection is not None
        try:
            return self._exchange(method, self._address.path(what), body)
        except _CLOSED as problem:
            self.close()
            if not kept:  # a kept connection may have ended while it was idle; acting is pure
                raise self._unreachable(problem) from None
        except TimeoutError:
            self.close()
            raise ServiceError(
                f"The server {self._address.host} gave no answer in {self._timeout_s:g} s."
            ) from None
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise self._unreachable(problem) from None
        except BaseException:
            self.close()  # what is half read would be taken for the next answer
            raise
        return self._ask(method, what, body)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._address.secure else (
                http.client.HTTPConnection
            )  # fmt: skip
            self._connection = kind(self._address.host, self._address.port, timeout=self._timeout_s)
        headers = dict(self._address.headers)
        if body is not None:
            headers["content-type"] = "application/json"
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        answer = reply.read(MOST_BYTES + 1)
        if len(answer) > MOST_BYTES:
            raise wire.too_large()
        if reply.will_close:
            self.close()
        return reply.status, answer

    def _unreachable(self, problem: Exception) -> ServiceError:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return ServiceError(f"The server {self._address.host} cannot be reached: {reason}.")


class Stream:
    """One open stream. Rows have no batch axis."""

    def __init__(
        self, socket: ClientConnection, signature: Signature, timeout_s: float, ranges: bool
    ) -> None:
        self._socket, self._signature = socket, signature
        self._timeout_s, self._ranges = timeout_s, ranges

    def act(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Answer one row; carried inputs that are left out are the last step's outputs."""
        message = wire.row_question(inputs, self._signature, self._ranges)
        return wire.row_outputs(self._exchange(message.decode()), self._signature)

    def reset(self) -> None:
        """Begin anew: carried inputs are zero again."""
        self._exchange('"reset"')

    def _exchange(self, message: str) -> str | bytes:
        try:
            self._socket.send(message)
            return self._socket.recv(self._timeout_s)
        except TimeoutError:
            raise ServiceError(f"The stream gave no answer in {self._timeout_s:g} s.") from None
        except (OSError, WebSocketException) as problem:
            raise ServiceError(f"The stream ended: {problem}.") from None
