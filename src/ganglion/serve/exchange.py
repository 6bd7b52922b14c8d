"""One HTTP request as the endpoints see it: what is let in, the body, JSON without surprises."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from ganglion.serve.problems import Headers, Problem, malformed, unfit
from ganglion.serve.settings import Limits

JSON = b"application/json"
OCTETS = b"application/octet-stream"
Receive = Callable[[], Awaitable[Any]]
_ONCE = (b"host", b"content-length", b"content-type", b"authorization", b"origin")


class Gone(Exception):  # noqa: N818 - nobody is left who could be told
    """The client went away before its request was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. headers do not repeat type and length."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()


class Request:
    """Method, path, headers and body of one request."""

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        pairs = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(pairs)
        if len(self.headers) < len(pairs):
            names = [name for name, _ in pairs]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise malformed(f"The header {name.decode()!r} is given more than once.")
        self.body = b""

    async def read(self, receive: Receive, limits: Limits) -> None:
        """Read the whole body; a Problem where it is larger than allowed, Gone where it ends."""
        length = self.headers.get(b"content-length", b"")
        if length and (len(length) > 12 or int(length) > limits.body_bytes):
            raise _large(limits)
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        self.body = message["body"]
        if message["more_body"] or len(self.body) > limits.body_bytes:
            self.body = await _rest(receive, self.body, limits)

    def json(self, silent: bytes = b"") -> Any:
        """Return the body's JSON; a Problem where it is none, or holds a name twice.

        silent is the content type of a request that names none.
        """
        kind = self.headers.get(b"content-type", silent)
        if kind != JSON and kind.partition(b";")[0].strip().lower() != JSON:
            raise Problem(
                415, "not_json",
                f"The content type is {kind.decode('latin-1')!r:.60}; expected application/json.",
            )  # fmt: skip
        self.check_encoding()
        return loads(self.body)

    def check_encoding(self) -> None:
        """Refuse a compressed body: it could be any size."""
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Problem(415, "encoded", "Bodies are taken uncompressed only.")

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the query, None where it is not there."""
        if not self.query:
            return None
        try:
            found = parse_qs(self.query.decode("ascii"), keep_blank_values=True, max_num_fields=20)
        except ValueError:
            raise malformed("The query cannot be read.") from None
        return found[name][-1] if name in found else None

    @property
    def id(self) -> str | None:
        """Return the caller's id of this request."""
        raw = self.headers.get(b"x-request-id")
        if raw is None:
            return None
        if not raw or len(raw) > 128 or not raw.isascii() or any(c < 33 or c > 126 for c in raw):
            raise malformed("x-request-id has 1 to 128 visible ASCII characters.")
        return raw.decode()


async def _rest(receive: Receive, first: bytes, limits: Limits) -> bytes:
    parts, size, more = [first], len(first), True
    while more:
        if size > limits.body_bytes:
            raise _large(limits)
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        parts.append(message["body"])
        size += len(parts[-1])
        more = message["more_body"]
    if size > limits.body_bytes:
        raise _large(limits)
    return b"".join(parts)


def _large(limits: Limits) -> Problem:
    return Problem(
        413, "large", f"The body is larger than {limits.body_bytes} bytes.",
        [(b"connection", b"close")],
    )  # fmt: skip


# ---------------------------------------------------------------- JSON


def loads(body: bytes | memoryview) -> Any:
    """Read JSON; a Problem with status 400 where it is none, 422 where a name comes twice."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise malformed(f"The body is not JSON with finite numbers: {problem}.") from None
    # Each name is followed by one colon; a text that holds one only costs a closer look.
    raw = bytes(body)
    flat = isinstance(document, dict) and raw.count(b"{") == 1
    if raw.count(b":") != (len(document) if flat else _names(document)):
        _check_names(raw)
    return document


def has_booleans(body: bytes) -> bool:
    """Tell whether there may be a boolean in a JSON text."""
    return b"true" in body or b"false" in body


def _names(document: Any) -> int:
    count, stack = 0, [document]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            count += len(item)
            stack.extend(item.values())
        elif isinstance(item, list) and any(isinstance(inner, dict) for inner in item):
            stack.extend(item)
    return count


def _check_names(body: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise unfit(f"The name {twice!r:.60} is given twice.")
        return found

    try:
        json.loads(body, object_pairs_hook=once)
    except (RecursionError, ValueError):
        raise malformed("The body is nested too deeply.") from None


# ---------------------------------------------------------------- who may ask


class Guard:
    """Host, origin and token. A Problem says which of them is wrong."""

    def __init__(self, hosts: tuple[str, ...], tokens: tuple[bytes, ...]) -> None:
        self._hosts = frozenset(host.lower().encode() for host in hosts)
        self._known: dict[bytes, bool] = {}  # Host headers that were let in, as they were sent
        self._tokens = tokens

    def check(self, headers: Mapping[bytes, bytes], open_to_all: bool = False) -> None:
        """Check a request's headers; `open_to_all` needs no token."""
        host = headers.get(b"host", b"")
        if host not in self._known:
            name = _host_name(host)
            if name not in self._hosts:
                raise Problem(
                    421, "host",
                    f"This server is not {host.decode('latin-1')!r:.80}; see --allow-host.",
                )  # fmt: skip
            if len(self._known) < 100:
                self._known[host] = True
        origin = headers.get(b"origin")
        if origin is not None and not self._same(origin):
            raise Problem(
                403, "origin", f"Pages of {origin.decode('latin-1')!r:.80} may not ask here."
            )
        if self._tokens and not open_to_all:
            self._check_token(headers.get(b"authorization", b""))

    def _same(self, origin: bytes) -> bool:
        try:
            name = urlsplit(origin.decode("ascii")).hostname
        except ValueError:
            return False
        return name is not None and name.encode() in self._hosts

    def _check_token(self, given: bytes) -> None:
        scheme, _, token = given.partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        found = [hmac.compare_digest(digest, known) for known in self._tokens]
        if scheme.lower() != b"bearer" or not any(found):
            raise Problem(
                401, "token", "A valid token is needed: Authorization: Bearer TOKEN.",
                [(b"www-authenticate", b'Bearer realm="ganglion"')],
            )  # fmt: skip


def _host_name(host: bytes) -> bytes:
    """Return a Host header without its port."""
    if host.startswith(b"["):
        return host.partition(b"]")[0][1:].lower()
    return host.partition(b":")[0].lower()
