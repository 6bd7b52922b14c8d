"""Files of tensors from outside: what is read, and every way in which one can be hostile."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganglion.core.errors import DataError
from ganglion.importers.tensors import read_tensors

TENSORS = {"tokens": torch.arange(24).reshape(4, 6), "actions": torch.tensor([0, 3, 1, 2])}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    return read_tensors(path, "tokens", "actions")


def rewritten(path: Path, change: Callable[[dict[str, bytes]], Any], **how: Any) -> Path:
    """Save good tensors, change the members of the zip file, and write it again."""
    with zipfile.ZipFile(saved(path, TENSORS)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def with_pickle(path: Path, data: bytes) -> Path:
    name = next(n for n in zipfile.ZipFile(saved(path, TENSORS)).namelist() if "data.pkl" in n)
    return rewritten(path, lambda members: members.update({name: data}))


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8", "float32",
                                   "float64", "bool"])  # fmt: skip
def test_tensors_come_back_as_they_were_saved(dtype: str, tmp_path: Path) -> None:
    tensors = {name: t.to(getattr(torch, dtype)) for name, t in TENSORS.items()}
    found = read(saved(tmp_path / "a.pt", tensors))
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert (found[name] == tensor.numpy()).all()


def test_a_part_of_a_tensor_is_read_alone(tmp_path: Path) -> None:
    found = read(saved(tmp_path / "a.pt", {k: t[1:3] for k, t in TENSORS.items()}))
    assert found["tokens"].tolist() == TENSORS["tokens"][1:3].tolist()
    assert found["actions"].tolist() == [3, 1]


def test_the_reader_needs_no_torch(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", TENSORS)
    code = (
        "import sys; from pathlib import Path; from ganglion.importers import tensors\n"
        "tensors.read_tensors(Path(sys.argv[1]), 'tokens', 'actions')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([os.sys.executable, "-c", code, str(path)], check=False).returncode == 0


# ---------------------------------------------------------------- what is refused


class Runs:
    """A pickled object that runs a command when it is read."""

    def __init__(self, function: Callable[..., Any], *words: Any) -> None:
        self.call = (function, words)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "words", "named"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (eval, ("open({!r}, 'w')",), "builtins.eval|__builtin__.eval"),
        (open, ("{}", "w"), "io.open|_io.open"),
        (getattr, (OrderedDict, "__init__"), "builtins.getattr|__builtin__.getattr"),
        (subprocess.call, (["touch", "{}"],), "subprocess.call|commands.call"),
        (torch.load, ("{}",), "torch.serialization.load"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_that_a_file_asks_for_runs(
    function: Callable[..., Any], words: tuple[Any, ...], named: str, protocol: int, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    told = [w.format(str(mark)) if isinstance(w, str) else w for w in words]
    data = pickle.dumps({"tokens": Runs(function, *told), "actions": 1}, protocol=protocol)
    with pytest.raises(DataError, match=rf"it asks for ({named}), which no file of tensors needs"):
        read(with_pickle(tmp_path / "bad.pt", data))
    assert not mark.exists()


def rebuild(*arguments: Any, state: object = None) -> bytes:
    """The pickle of {tokens, actions}, both rebuilt by torch's function with these arguments."""

    class Asks:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, arguments, state

    class Pickler(pickle.Pickler):
        def persistent_id(self, given: object) -> object:
            return given.saved if isinstance(given, Saved) else None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"tokens": Asks(), "actions": Asks()})
    return out.getvalue()


class Saved:
    """Stands for a storage in a pickle."""

    def __init__(self, *saved: Any) -> None:
        self.saved = saved


GOOD = Saved("storage", torch.LongStorage, "0", "cpu", 24)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((GOOD, 0, (5, 6), (6, 1), False, OrderedDict()), "larger than its storage"),
        ((GOOD, 20, (5,), (1,), False, OrderedDict()), "larger than its storage"),
        ((GOOD, 0, (4, 6), (1, 4), False, OrderedDict()), "not contiguous"),
        ((GOOD, 0, (1 << 28,), (0,), False, OrderedDict()), "not contiguous"),
        ((GOOD, -8, (4,), (1,), False, OrderedDict()), "a tensor that is none"),
        ((GOOD, 0, (1 << 40, 1 << 40), (1, 1), False, OrderedDict()), "a tensor that is none"),
        ((GOOD, 0, (True,), (1,), False, OrderedDict()), "a tensor that is none"),
        ((GOOD, 0, [4], [1], False, OrderedDict()), "a tensor that is none"),
        ((3, 0, (4,), (1,), False, OrderedDict()), "a tensor that is none"),
        ((Saved("storage", "x", "0", "cpu", 24), 0, (4,), (1,)), "no storage of a tensor"),
        ((Saved("storage", torch.LongStorage, "../0", "cpu", 24), 0, (4,), (1,)), "no storage of"),
        ((Saved("storage", torch.LongStorage, "0", "cpu", -1), 0, (4,), (1,)), "no storage of"),
        (
            (
                Saved(
                    "module",
                ),
                0,
                (4,),
                (1,),
            ),
            "no storage of a tensor",
        ),
        (
            (Saved("storage", torch.LongStorage, "7", "cpu", 24), 0, (4,), (1,)),
            "missing or cut off",
        ),
        (
            (Saved("storage", torch.LongStorage, "0", "cpu", 25), 0, (4,), (1,)),
            "missing or cut off",
        ),
    ],
)
def test_a_tensor_that_is_none_is_refused(
    arguments: tuple[Any, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read(with_pickle(tmp_path / "bad.pt", rebuild(*arguments)))


@pytest.mark.parametrize(
    "state", [(None, {"offset": -8}), (None, {"shape": (1 << 60,)}), {"storage": 3}, 7]
)
def test_a_tensor_cannot_be_changed_once_it_is_made(state: object, tmp_path: Path) -> None:
    data = rebuild(GOOD, 0, (4,), (1,), False, OrderedDict(), state=state)
    with pytest.raises(DataError, match="it changes a tensor after it was made"):
        read(with_pickle(tmp_path / "bad.pt", data))


@pytest.mark.parametrize("name", ["_utils\n_rebuild_tensor_v2", "\nLongStorage"])
def test_what_stands_for_torch_cannot_be_changed(name: str, tmp_path: Path) -> None:
    module = "torch" + ("." if name[0] == "_" else "")
    state = pickle.dumps((None, {"name": "x", "__init__": 3}), protocol=2)[2:-1]
    data = b"\x80\x02c" + f"{module}{name}\n".encode() + state + b"b."
    with pytest.raises(DataError, match=r"after it was made|its data.pkl is damaged"):
        read(with_pickle(tmp_path / "bad.pt", data))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tokens": TENSORS["tokens"]}, "it holds tokens; exactly tokens, actions were expected"),
        ({**TENSORS, "more": TENSORS["actions"]}, "it holds actions, more, tokens; exactly"),
        ([TENSORS["tokens"]], "it holds no dictionary"),
        ({"tokens": 3, "actions": TENSORS["actions"]}, "its tokens is no tensor"),
        ({"tokens": TENSORS["tokens"].t(), "actions": TENSORS["actions"]}, "not contiguous"),
        ({"tokens": TENSORS["tokens"].half(), "actions": TENSORS["actions"]},
         "asks for torch.HalfStorage"),
        ({"tokens": torch.nn.Linear(2, 2), "actions": TENSORS["actions"]},
         "asks for torch.nn.modules.linear.Linear"),
    ],
)  # fmt: skip
def test_other_contents_are_named(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(saved(tmp_path / "bad.pt", content))


def members_of(change: Callable[[str, dict[str, bytes]], Any]) -> Callable[[dict[str, bytes]], Any]:
    return lambda members: change(next(iter(members)).split("/")[0], members)


@pytest.mark.parametrize(
    ("change", "how", "said"),
    [
        (members_of(lambda f, m: m.pop(f"{f}/data.pkl")), {}, "there is no data.pkl"),
        (members_of(lambda f, m: m.pop(f"{f}/data/1")), {}, "missing or cut off"),
        (members_of(lambda f, m: m.update({f"{f}/data/0": b"123"})), {}, "missing or cut off"),
        (members_of(lambda f, m: m.update({f"{f}/byteorder": b"big"})), {}, "not little-endian"),
        (members_of(lambda _, m: m.update({"../out": b"x"})), {}, "not laid out as torch"),
        (members_of(lambda f, m: m.update({f"{f}/data.pkl": b"\x80\x02" * 5})), {}, "is damaged"),
        (members_of(lambda f, m: m.update({f"{f}/data.pkl": b""})), {}, "damaged .EOFError"),
        (members_of(lambda f, m: m.update({f"{f}/data.pkl": b"(" * (2 << 20)})), {}, "over 1,0"),
        (members_of(lambda f, m: m.update({f"{f}/{i}": b"" for i in range(70)})), {}, "over 64 "),
        (lambda _: None, {"compression": zipfile.ZIP_DEFLATED}, "compressed or encrypted"),
        (members_of(lambda f, m: m.update({f"{f}/data/0": bytes(64 << 20)})),
         {"compression": zipfile.ZIP_DEFLATED}, "compressed or encrypted"),  # a zip bomb
    ],
)  # fmt: skip
def test_another_layout_is_named(
    change: Callable[[dict[str, bytes]], Any], how: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read(rewritten(tmp_path / "bad.pt", change, **how))


def test_a_pickle_that_grows_without_end_is_stopped(tmp_path: Path) -> None:
    # A list that holds the last one twice, a thousand deep, and a number of a million digits.
    doubled = b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x00" * 1_000 + b"."
    with pytest.raises(DataError, match="it holds no dictionary"):
        read(with_pickle(tmp_path / "bad.pt", doubled))
    claimed = b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"1."
    with pytest.raises(DataError, match=r"its data.pkl is damaged"):
        read(with_pickle(tmp_path / "bad.pt", claimed))
    many = b"\x80\x04" + b"\x8d" + struct.pack("<Q", 1 << 40) + b"."
    with pytest.raises(DataError, match=r"its data.pkl is damaged|could not be read within"):
        read(with_pickle(tmp_path / "bad.pt", many))


def test_a_damaged_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pt", TENSORS).read_bytes()
    path = tmp_path / "cut.pt"
    for size in range(0, len(whole), len(whole) // 6):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="no intact zip file"):
            read(path)


def test_flipped_bits_never_give_other_numbers(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pt", TENSORS).read_bytes()
    numbers = whole.index(TENSORS["tokens"].numpy().tobytes())
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.pt"
    refused = 0
    for at in [numbers + 8, *rng.integers(len(whole), size=12).tolist()]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            found = read(path)
        except DataError:
            refused += 1
            continue
        for name, tensor in TENSORS.items():  # the bit lay in what nobody reads
            assert (found[name] == tensor.numpy()).all()
    assert refused > 3


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"tokens": [1], "actions": [1]}))
    with pytest.raises(DataError, match=r"a.pt: it is no intact zip"):
        read(path)
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"torch before 1.6 wrote another layout: save it again"):
        read(path)
    with pytest.raises(DataError, match="There is no file"):
        read(tmp_path / "none.pt")
    path.write_bytes(b"")
    os.truncate(path, 1 << 30)
    with pytest.raises(DataError, match="has 1,073,741,824 bytes; at most 536,870,912"):
        read(path)
