"""What a caller is told when a request is refused: RFC 9457 problem details, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import orjson

Headers = Sequence[tuple[bytes, bytes]]
TYPE = b"application/problem+json"


class Problem(Exception):  # noqa: N818 - the standard's word
    """A request that is refused. `detail` says what was wrong and what was expected.

    code is stable; status is the HTTP status; headers go into the answer.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers

    def body(self) -> bytes:
        """Return the answer's body. "error" is what Open Inference Protocol clients look for."""
        detail = self.detail.encode(errors="replace").decode()
        return orjson.dumps(
            {
                "type": f"urn:ganglion:problem:{self.code}",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "code": self.code,
                "detail": detail,
                "error": detail,
            }
        )


def malformed(detail: str) -> Problem:
    """The body is no JSON at all, or what its headers say of it is not true."""
    return Problem(400, "malformed", detail)


def unfit(detail: str) -> Problem:
    """The body is JSON but does not fit the policy's signature."""
    return Problem(422, "unfit", detail)


def missing(detail: str) -> Problem:
    """There is nothing at this address."""
    return Problem(404, "not_found", detail)


def busy(detail: str, retry_s: int = 1) -> Problem:
    """The server has as much to do as it takes on."""
    return Problem(503, "busy", detail, [(b"retry-after", str(retry_s).encode())])


SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "error": {"type": "string"},
    },
}
