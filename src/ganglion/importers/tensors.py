"""Files of tensors of other systems (`.pt`): torch's zip layout, read without torch.

Such a file is a pickle that describes the tensors, and one member of raw numbers for each storage.
The pickle may ask for what rebuilds a plain tensor and for nothing else (`_ALLOWED`), and each of
these is a stand-in that only notes its arguments: no code of torch, or of the file's choosing,
runs. The parent takes nothing that the child says on trust.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganglion.core.errors import DataError
from ganglion.importers.confinement import Limits, confined

if TYPE_CHECKING:
    from ganglion.core.contracts import Array

_PICKLE = 1 << 20  # bytes of a pickle that describes a few tensors: a few hundred are usual
_TOTAL = 1 << 29  # bytes of all members
_MEMBERS = 64
_PIECE = 1 << 20
_DTYPES = {  # torch's storage classes -> dtype and bytes a number
    "LongStorage": ("int64", 8), "IntStorage": ("int32", 4), "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1), "BoolStorage": ("bool", 1),
    "FloatStorage": ("float32", 4), "DoubleStorage": ("float64", 8),
}  # fmt: skip
_LIMITS = Limits(seconds=20, memory=4 * _TOTAL, answer=_TOTAL + _PICKLE)


def read_tensors(path: Path, *names: str) -> dict[str, Array]:
    """Return the tensors `names` of a `.pt` file that holds exactly these, as arrays.

    DataError where the file is damaged, too large, or asks for anything but plain tensors.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.stat().st_size > _TOTAL:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes; at most {_TOTAL:,} are read.")
    asked = json.dumps({"path": str(path.resolve()), "names": names}).encode()
    answer = confined("ganglion.importers.tensors:packed", asked, _LIMITS, str(path))
    head, _, body = answer.partition(b"\n")
    return _arrays(json.loads(head), body, str(path))


def _arrays(entries: list[Any], body: bytes, where: str) -> dict[str, Array]:
    import numpy as np  # the child needs none

    found, at = {}, 0
    for entry in entries:
        dtype, shape = np.dtype(entry["dtype"]).newbyteorder("<"), tuple(entry["shape"])
        count = math.prod(shape)
        if at + count * dtype.itemsize > len(body):
            raise DataError(f"{where}: its reader broke off.")
        found[entry["name"]] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    if at != len(body):
        raise DataError(f"{where}: its reader broke off.")
    return found


# ---------------------------------------------------------------- in the child


def packed(asked: bytes) -> bytes:
    """Return a line of JSON, [{name, dtype, shape}], and the numbers of each, little-endian."""
    said = json.loads(asked)
    names = tuple(said["names"])
    try:
        with zipfile.ZipFile(said["path"]) as archive:
            members = _members(archive)
            tensors = _described(archive, members, names)
            head = [_header(name, t, archive, members) for name, t in tensors.items()]
            parts = [_numbers(archive, members, t) for t in tensors.values()]
    except zipfile.BadZipFile:
        raise Refused(
            "it is no intact zip file; torch before 1.6 wrote another layout: save it again"
        ) from None
    except OSError as error:
        raise Refused(f"it cannot be read: {error.strerror}") from None
    return b"".join([json.dumps(head).encode() + b"\n", *parts])


class Refused(ValueError):  # noqa: N818 - becomes the one sentence that the user reads
    """The file is not what is asked for."""


class StandIn:
    """What a file may ask for: it cannot be changed once it is made."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a tensor after it was made")


class Storage(StandIn):
    """A member of raw numbers, by its key."""

    __slots__ = ("count", "key", "kind")

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count


class Tensor(StandIn):
    """A contiguous part of a storage."""

    __slots__ = ("offset", "shape", "storage")

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> None:
        numbers = (offset, *shape, *stride) if _are_tuples(shape, stride) else (None,)
        if not isinstance(storage, Storage) or not all(_is_count(n) for n in numbers):
            raise Refused("it describes a tensor that is none")
        expected = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        if len(shape) != len(stride) or any(
            s != e for s, e, n in zip(stride, expected, shape, strict=True) if n > 1
        ):
            raise Refused("a tensor in it is not contiguous; save it with .contiguous()")
        if offset + math.prod(shape) > storage.count:
            raise Refused("a tensor in it is larger than its storage")
        self.storage, self.offset, self.shape = storage, offset, shape


def _are_tuples(*values: Any) -> bool:
    return all(type(v) is tuple and len(v) <= 8 for v in values)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _TOTAL


class StorageClass(StandIn):
    """Stands for one of torch's storage classes."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): StorageClass(name) for name in _DTYPES},
}


class Reader(pickle.Unpickler):
    """Finds the names of `_ALLOWED` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise Refused(f"it asks for {module}.{name}, which no file of tensors needs")
        return found

    def persistent_load(self, saved: Any) -> Storage:
        if (
            type(saved) is not tuple or len(saved) != 5 or saved[0] != "storage"
            or not isinstance(saved[1], StorageClass) or type(saved[2]) is not str
            or not saved[2].isdecimal() or not _is_count(saved[4])
        ):  # fmt: skip
            raise Refused("it refers to something that is no storage of a tensor")
        return Storage(saved[1].name, saved[2], saved[4])


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name below the one folder; Refused where the layout is another."""
    infos = archive.infolist()
    if len(infos) > _MEMBERS or sum(i.file_size for i in infos) > _TOTAL:
        raise Refused(f"it has over {_MEMBERS} members or {_TOTAL:,} bytes")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        folder, slash, name = info.filename.partition("/")
        if not slash or folder != infos[0].filename.partition("/")[0] or name in found:
            raise Refused("it is not laid out as torch lays out a file")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused("it is compressed or encrypted, as torch's files never are")
        found[name] = info
    if "data.pkl" not in found:
        raise Refused("it is not laid out as torch lays out a file: there is no data.pkl")
    if found["data.pkl"].file_size > _PICKLE:
        raise Refused(f"its data.pkl has over {_PICKLE:,} bytes")
    order = found.get("byteorder")
    if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
        raise Refused("its numbers are not little-endian")
    return found


def _described(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], names: tuple[str, ...]
) -> dict[str, Tensor]:
    data = archive.read(members["data.pkl"])
    try:
        found = Reader(io.BytesIO(data)).load()
    except (Refused, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything at all
        raise Refused(f"its data.pkl is damaged ({type(error).__name__})") from None
    if type(found) is not dict or set(found) != set(names):
        held = ", ".join(sorted(map(str, found))[:8]) if type(found) is dict else "no dictionary"
        raise Refused(f"it holds {held}; exactly {', '.join(names)} were expected")
    for name in names:
        if not isinstance(found[name], Tensor):
            raise Refused(f"its {name} is no tensor")
    return {name: found[name] for name in names}


def _header(
    name: str, tensor: Tensor, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> dict[str, Any]:
    storage = tensor.storage
    dtype, size = _DTYPES[storage.kind]
    info = members.get(f"data/{storage.key}")
    if info is None or info.file_size != storage.count * size:
        raise Refused(f"the numbers of {name} are missing or cut off")
    with archive.open(info) as file:  # to the end, where the checksum is compared
        while file.read(_PIECE):
            pass
    return {"name": name, "dtype": dtype, "shape": list(tensor.shape)}


def _numbers(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], tensor: Tensor
) -> bytes:
    size = _DTYPES[tensor.storage.kind][1]
    with archive.open(members[f"data/{tensor.storage.key}"]) as file:
        file.seek(tensor.offset * size)
        return file.read(math.prod(tensor.shape) * size)
