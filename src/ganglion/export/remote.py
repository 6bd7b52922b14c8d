"""A policy behind a URL: each batch is one POST of JSON, as a command gets it on a line."""

from __future__ import annotations

import http.client
import time
from urllib.parse import SplitResult, urlsplit

import orjson

from ganglion.core.contracts import Array, Arrays, Signature
from ganglion.core.errors import DataError, ServiceError, SettingsError
from ganglion.export.external import MOST_BYTES, answer_of
from ganglion.export.inputs import batch_of, check

_CHUNK = 2**16


class UrlPolicy:
    """Posts {"inputs": {...}} to a URL and reads {"outputs": {...}}; arrays as nested lists.

    The connection is kept between calls and made anew where the server has closed it. Redirects
    are not followed. SettingsError where `url` is no http or https URL, or for bad inputs;
    ServiceError where the server cannot be reached, takes longer than `timeout_s` for an answer,
    or gives another status than 200 or a malformed, non-finite or wrongly shaped answer.
    """

    def __init__(self, url: str, signature: Signature, timeout_s: float = 10.0) -> None:
        self._parts, self._target = _parse(url)
        self._signature, self._timeout_s = signature, timeout_s
        self._connection: http.client.HTTPConnection | None = None

    @property
    def signature(self) -> Signature:
        return self._signature

    def act(self, inputs: Arrays) -> dict[str, Array]:
        """Ask the server one batch."""
        arrays = check(inputs, self._signature, ranges=False)
        body = orjson.dumps({"inputs": arrays}, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            answer = self._ask(body)
            return answer_of(answer, self._signature, batch_of(arrays, self._signature))
        except DataError as problem:
            self.close()
            raise ServiceError(f"{self._name} gave a bad answer. {problem}") from None
        except BaseException:
            self.close()  # what is half read would be taken for the next answer
            raise

    def close(self) -> None:
        """Close the connection; harmless when called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def _name(self) -> str:
        return f"The server {self._parts.hostname}"

    def _ask(self, body: bytes) -> bytes:
        kept = self._connection is not None
        try:
            return self._exchange(body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as problem:
            self.close()
            if not kept:  # a kept connection may have been closed while it was idle
                raise self._unreachable(problem) from None
        except TimeoutError:
            raise ServiceError(f"{self._name} gave no answer in {self._timeout_s:g} s.") from None
        except (OSError, http.client.HTTPException) as problem:
            raise self._unreachable(problem) from None
        return self._ask(body)

    def _exchange(self, body: bytes) -> bytes:
        """Send and read, each wait no longer than what is left of the time."""
        deadline = time.monotonic() + self._timeout_s
        if self._connection is None:
            secure = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            host = self._parts.hostname or ""
            self._connection = kind(host, self._parts.port, timeout=self._timeout_s)
        connection = self._connection
        connection.request("POST", self._target, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            said = answer.read(200).decode(errors="replace").strip().splitlines()
            hint = f": {said[0]}" if said else ""
            raise ServiceError(f"{self._name} answered {answer.status} {answer.reason}{hint}")
        parts, size = [], 0
        while part := answer.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise ServiceError(f"{self._name} answered more than {MOST_BYTES} bytes.")
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise TimeoutError
            if connection.sock is not None:
                connection.sock.settimeout(left)
        answer.close()  # read to its end, so that the connection can be used again
        return b"".join(parts)

    def _unreachable(self, problem: Exception) -> ServiceError:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return ServiceError(f"{self._name} cannot be reached: {reason}.")


def _parse(url: str) -> tuple[SplitResult, str]:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or any(c <= " " for c in url):
        raise SettingsError(f"{url!r} is no URL of a policy; expected http://HOST:PORT/PATH.")
    query = f"?{parts.query}" if parts.query else ""
    return parts, (parts.path or "/") + query
