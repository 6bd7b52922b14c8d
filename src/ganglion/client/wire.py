"""What goes over the wire, for the sync and the async client alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import numpy as np
import orjson

from ganglion.core.contracts import Array, Signature
from ganglion.core.errors import DataError, GanglionError, ServiceError, SettingsError, unknown
from ganglion.export.external import MOST_BYTES, answer_of
from ganglion.export.inputs import batch_of, check


@dataclass(frozen=True)
class Address:
    """Where a server is, and which of its policies is meant (None: the one it chooses)."""

    parts: SplitResult
    name: str | None
    headers: Mapping[str, str]

    @property
    def host(self) -> str:
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        return self.parts.port or (443 if self.secure else 80)

    @property
    def secure(self) -> bool:
        return self.parts.scheme == "https"

    def path(self, what: str) -> str:
        """Return the path of `act`, `signature` or `stream`."""
        base = self.parts.path.rstrip("/")
        return f"{base}/{what}" + (f"/{quote(self.name, safe='')}" if self.name else "")

    def websocket(self) -> str:
        """Return the URL of the stream."""
        scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{self.parts.netloc}{self.path('stream')}"


@dataclass(frozen=True)
class About:
    """What a server says of a policy."""

    name: str
    version: str
    digest: str
    signature: Signature


def address(url: str, name: str | None, token: str | None) -> Address:
    """Read a server's URL, that of its /act included; SettingsError where it is none."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or any(c <= " " for c in url) or parts.query:
        raise SettingsError(f"{url!r} is no URL of a server; expected http://HOST:PORT.")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    root = parts._replace(path=parts.path.rstrip("/").removesuffix("/act"))
    return Address(root, name, headers)


def about(body: bytes) -> About:
    """Read what `GET /signature` answered."""
    try:
        raw = orjson.loads(body)
        return About(raw["name"], raw["version"], raw["digest"], Signature.from_json(raw))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServiceError("The server gave no signature; is it `ganglion serve`?") from None


def question(
    given: Mapping[str, Any], signature: Signature, seed: int | None, ranges: bool
) -> tuple[bytes, int | None]:
    """Check the inputs that are given and return a body and its number of rows.

    Inputs that are not data (noise, state, steps) may be left out. SettingsError in one sentence.
    """
    arrays = checked(given, signature, ranges)
    named = Signature({k: signature.inputs[k] for k in arrays}, {})
    document: dict[str, Any] = {"inputs": arrays}
    if seed is not None:
        document["seed"] = seed
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return body, batch_of(arrays, named)


def checked(given: Mapping[str, Any], signature: Signature, ranges: bool) -> dict[str, Array]:
    """Return the given inputs as arrays; SettingsError where they do not fit the signature."""
    for name in given:
        if name not in signature.inputs:
            raise SettingsError(unknown("input", name, signature.inputs))
    wanted = {k: s for k, s in signature.inputs.items() if s.role == "data" or k in given}
    return check(given, Signature(wanted, {}), ranges=ranges)


def row_question(given: Mapping[str, Any], signature: Signature, ranges: bool) -> bytes:
    """Return the message of one row for a stream; values come without a batch axis."""
    batch = {
        name: np.asarray(value)[None]
        if name in signature.inputs and signature.inputs[name].batched
        else value
        for name, value in given.items()
    }
    state = {n for n, s in signature.inputs.items() if s.role == "state"} - given.keys()
    needed = Signature({k: s for k, s in signature.inputs.items() if k not in state}, {})
    arrays = checked(batch, needed, ranges)
    row = {k: a[0] if signature.inputs[k].batched else a for k, a in arrays.items()}
    plain = {k: a if a.ndim else a.item() for k, a in row.items()}
    return orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)


def outputs(status: int, body: bytes, signature: Signature, rows: int | None) -> dict[str, Array]:
    """Read an answer's outputs; the server's own words where it refused."""
    accepted(status, body)
    try:
        return answer_of(body, signature, rows)
    except DataError as problem:
        raise ServiceError(f"The server gave a bad answer. {problem}") from None


def row_outputs(message: str | bytes, signature: Signature) -> dict[str, Array]:
    """Read one row's outputs from a stream."""
    try:
        raw = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise ServiceError("The server gave an answer that is no JSON.") from None
    if isinstance(raw, dict) and {"status", "code", "detail"} <= raw.keys():
        raise refusal(int(raw["status"]), str(raw["detail"]))
    batch = {
        name: [raw[name]] if spec.batched else raw[name]
        for name, spec in signature.outputs.items()
        if isinstance(raw, dict) and name in raw
    }
    found = outputs(200, orjson.dumps({"outputs": batch}), signature, 1)
    return {k: a[0] if signature.outputs[k].batched else a for k, a in found.items()}


def accepted(status: int, body: bytes) -> None:
    """Raise the server's refusal where the status is not 200."""
    if status == 200:
        return
    try:
        raw = orjson.loads(body)
        detail = str(raw["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"The server answered {status}: {body[:200].decode(errors='replace').strip()}"
    raise refusal(status, detail)


def refusal(status: int, detail: str) -> GanglionError:
    """Return the error of a refused request: SettingsError where the caller can mend it."""
    return SettingsError(detail) if status < 500 else ServiceError(detail)


def too_large() -> ServiceError:
    """Return the error of an answer that has no end."""
    return ServiceError(f"The server answered more than {MOST_BYTES} bytes.")
