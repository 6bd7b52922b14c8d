"""The last 85 bytes of an exported file: the SHA-256 of all bytes before them.

They are one more ONNX metadata entry (serialised protobuf messages may be concatenated), so any
ONNX tool reads the file, and a flipped bit anywhere is found before the file is parsed.
"""

from __future__ import annotations

import hashlib

import onnx

SIGNATURE = "ganglion.signature"
CARD = "ganglion.card"
MADE = "ganglion.export"
DIGEST = "ganglion.digest"


def seal(model: onnx.ModelProto) -> bytes:
    """Serialise `model` and append the digest of its bytes; metadata must be set before."""
    body: bytes = model.SerializeToString(deterministic=True)
    return body + _tail(body)


def sealed(data: bytes) -> bool:
    """Tell whether `data` ends with the digest of what comes before."""
    size = len(_tail(b""))
    return len(data) > size and data[-size:] == _tail(data[:-size])


def _tail(body: bytes) -> bytes:
    entry = onnx.StringStringEntryProto(key=DIGEST, value=hashlib.sha256(body).hexdigest())
    tail: bytes = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    return tail
