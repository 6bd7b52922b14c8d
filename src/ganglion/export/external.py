"""Policies that are not ours: a command that answers lines of JSON, and recorded answers."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import orjson

from ganglion.core.contracts import Array, Arrays, Signature
from ganglion.core.errors import DataError, ServiceError
from ganglion.export.inputs import batch_of, check, check_outputs

MOST_BYTES = 256 * 2**20  # of one answer, and of a file of recorded answers


class CommandPolicy:
    """A child process that answers one line {"outputs": {...}} for each line {"inputs": {...}}.

    Arrays are nested lists, batch first. argv is run without a shell, in a process group of its
    own, which ends with `close`. A child that dies, stays silent for `timeout_s`, or gives a
    malformed, non-finite or wrongly shaped answer is ended, and ServiceError says why.
    """

    def __init__(self, argv: Sequence[str], signature: Signature, timeout_s: float = 10.0) -> None:
        self._signature = signature
        self._timeout_s = timeout_s
        self._name = argv[0] if argv else ""
        self._rest = b""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._child: subprocess.Popen[bytes] | None = None
        try:
            self._child = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as problem:
            self._log.close()
            reason = getattr(problem, "strerror", None) or str(problem)
            raise ServiceError(f"The command {self._name!r} cannot be started: {reason}.") from None
        for pipe in (self._child.stdin, self._child.stdout):
            os.set_blocking(_open(pipe).fileno(), False)

    @property
    def signature(self) -> Signature:
        return self._signature

    def act(self, inputs: Arrays) -> dict[str, Array]:
        """Ask the child one batch; raises SettingsError for bad inputs, else ServiceError."""
        arrays = check(inputs, self._signature, ranges=False)
        line = orjson.dumps({"inputs": arrays}, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        try:
            answer = self._exchange(line, time.monotonic() + self._timeout_s)
            return answer_of(answer, self._signature, batch_of(arrays, self._signature))
        except DataError as problem:
            self.close()
            raise ServiceError(f"The command {self._name!r} gave a bad answer. {problem}") from None
        except BaseException:
            # Whatever was half sent or half read, the next answer would belong to this question.
            self.close()
            raise

    def close(self) -> None:
        """End the child and all that it started; harmless when called again."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            _open(pipe).close()
        child.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, line: bytes, deadline: float) -> bytes:
        """Send `line` and return the line that comes back; reads while it still writes."""
        if self._child is None:
            raise ServiceError(f"The command {self._name!r} has been closed.")
        stdin, stdout = _open(self._child.stdin), _open(self._child.stdout)
        unsent, parts = memoryview(line), [self._rest]
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            selector.register(stdin, selectors.EVENT_WRITE)
            while b"\n" not in parts[-1] or unsent:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise ServiceError(
                        f"The command {self._name!r} gave no answer in {self._timeout_s:g} s."
                    )
                for key, _ in ready:
                    if key.fileobj is stdin:
                        unsent = unsent[self._send(stdin, unsent) :]
                        if not unsent:
                            selector.unregister(stdin)
                    else:
                        parts.append(self._receive(stdout, sum(map(len, parts))))
        answer, _, self._rest = b"".join(parts).partition(b"\n")
        if self._rest:
            raise ServiceError(f"The command {self._name!r} gave more than one line as its answer.")
        return answer

    def _send(self, stdin: IO[bytes], unsent: memoryview) -> int:
        try:
            return os.write(stdin.fileno(), unsent[: 2**16])
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise self._died() from None

    def _receive(self, stdout: IO[bytes], so_far: int) -> bytes:
        try:
            part = os.read(stdout.fileno(), 2**16)
        except BlockingIOError:
            return b""
        if not part:
            raise self._died()
        if so_far + len(part) > MOST_BYTES:
            raise ServiceError(f"The command {self._name!r} answered more than {MOST_BYTES} bytes.")
        return part

    def _died(self) -> ServiceError:
        child = self._child
        code: int | None = None
        if child is not None:
            try:
                code = child.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                return ServiceError(f"The command {self._name!r} closed its end of the pipe.")
        self._log.seek(0)
        said = self._log.read()[-2000:].decode(errors="replace").strip().splitlines()
        hint = f": {said[-1]}" if said else ""
        return ServiceError(f"The command {self._name!r} ended with code {code}{hint}")


class RecordedPolicy:
    """Answers from an .npz file: one array per output, (N, *shape).

    Where the file also holds the inputs, as `input.NAME`, a row is looked up by its inputs; else
    rows are given in the order of the file, and `rewind` starts again. Raises DataError where the
    file does not fit the signature or holds no answer (any more).
    """

    def __init__(self, path: Path | str, signature: Signature) -> None:
        self._path = Path(path)
        self._signature = signature
        self._next = 0
        arrays = _load(self._path)
        missing = [name for name in signature.outputs if name not in arrays]
        if missing:
            raise DataError(f"{path} holds no output {missing[0]!r}; it holds {_list(arrays)}.")
        outputs = {name: arrays[name] for name in signature.outputs}
        self._rows = len(next(iter(outputs.values()))) if outputs else 0
        try:
            check_outputs(outputs, signature, self._rows)
        except DataError as problem:
            raise DataError(f"{path}: {problem}") from None
        self._outputs = {
            name: outputs[name].astype(spec.dtype) for name, spec in signature.outputs.items()
        }
        self._index = self._make_index(arrays)

    @property
    def signature(self) -> Signature:
        return self._signature

    def act(self, inputs: Arrays) -> dict[str, Array]:
        """Return the recorded answer of each row."""
        arrays = check(inputs, self._signature, ranges=False)
        count = batch_of(arrays, self._signature) or 1
        if self._index is None:
            rows = list(range(self._next, self._next + count))
            if rows[-1] >= self._rows:
                raise DataError(
                    f"{self._path} holds {self._rows} answers; {rows[-1] + 1} were asked for."
                )
            self._next += count
        else:
            keys = _keys(arrays, self._signature)
            unknown = [row for row, key in enumerate(keys) if key not in self._index]
            if unknown:
                raise DataError(f"{self._path} holds no answer for row {unknown[0]} of the inputs.")
            rows = [self._index[key] for key in keys]
        return {name: array[rows] for name, array in self._outputs.items()}

    def rewind(self) -> None:
        """Start again at the first recorded row."""
        self._next = 0

    def _make_index(self, arrays: Mapping[str, Array]) -> dict[bytes, int] | None:
        names = [n for n, spec in self._signature.inputs.items() if spec.batched]
        if not names or not all(f"input.{name}" in arrays for name in names):
            return None
        held = {name: np.asarray(arrays[f"input.{name}"]) for name in names}
        wrong = [name for name in names if len(held[name]) != self._rows]
        if wrong:
            raise DataError(
                f"{self._path} holds {self._rows} answers for other inputs {wrong[0]!r}."
            )
        return {key: row for row, key in enumerate(_keys(held, self._signature))}


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:  # cannot be: the child was started with pipes
        raise ServiceError("The command has no pipe.")
    return pipe


def answer_of(answer: bytes, signature: Signature, batch: int | None) -> dict[str, Array]:
    """Read {"outputs": {...}} of `batch` rows; DataError where it is not what was asked for."""
    try:
        raw: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise DataError("It is not JSON with finite numbers.") from None
    found = raw.get("outputs") if isinstance(raw, dict) else None
    if not isinstance(found, dict):
        raise DataError('It has no "outputs".')
    arrays: dict[str, Array] = {}
    for name, spec in signature.outputs.items():
        if name in found:
            try:
                with np.errstate(over="ignore"):
                    arrays[name] = np.asarray(found[name], dtype=spec.dtype)
            except (ValueError, TypeError, OverflowError):
                raise DataError(f"Output {name!r} is no array of {spec.dtype}.") from None
    check_outputs(arrays, signature, batch)
    return arrays


def _keys(arrays: Arrays, signature: Signature) -> list[bytes]:
    batched = {n: s.dtype for n, s in signature.inputs.items() if s.batched}
    columns = [np.ascontiguousarray(arrays[name].astype(kind)) for name, kind in batched.items()]
    return [b"".join(column[row].tobytes() for column in columns) for row in range(len(columns[0]))]


def _load(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise DataError(f"{path} holds more than {MOST_BYTES} bytes.")
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Array] = {name: file[name] for name in file.files}
            return arrays
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, zlib.error) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise DataError(f"{path} cannot be read as .npz: {reason}.") from None


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
