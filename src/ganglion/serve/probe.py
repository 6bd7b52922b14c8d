"""Try an exported file in a child process before the server touches it.

The child has limits on memory, processor time and files; it parses the file, loads it and runs it
on drawn inputs. A file that crashes, hangs or fills the memory does so there, and is refused.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ganglion.core.contracts import Array, Signature
from ganglion.core.errors import DataError, GanglionError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export import inputs
from ganglion.export.inspection import Inspection, inspect_bytes
from ganglion.export.inspection import Limits as FileLimits
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.serve.settings import ProbeLimits

ROWS = 64  # of the run that shows what a row costs
AXIS = 8  # size of run-time axes in the child's runs


@dataclass(frozen=True)
class Probed:
    """A file that was tried. call_s is one row's time, row_s what each further row adds."""

    inspection: Inspection
    call_s: float
    row_s: float


def probe(data: bytes, name: str, limits: ProbeLimits | None = None) -> Probed:
    """Try the bytes of a file; DataError with one sentence where it is refused."""
    most = limits or ProbeLimits()
    question = orjson.dumps({"name": name, "limits": asdict(most)}) + b"\n"
    # `-P`: the child's folder is no place to import from; it is empty, so nothing lies beside it.
    words = [sys.executable, "-P", "-m", "ganglion.serve.probe"]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="ganglion-probe-") as folder:
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            answer, _ = child.communicate(question + data, timeout=most.wall_s)
        except subprocess.TimeoutExpired:
            raise DataError(
                f"{name} took longer than {most.wall_s:g} s to load and run; it is not served."
            ) from None
        finally:
            _end(child)
    if child.returncode != 0 or not answer:
        raise DataError(f"{name} {_death(child.returncode)}; it is not served.")
    return _read(answer, name)


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    child.wait()


def _death(code: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "took too much processor time or memory when it was tried"
    if code < 0:
        return f"crashed ONNX Runtime when it was tried ({signal.Signals(-code).name})"
    return f"failed when it was tried (exit code {code})"


def _read(answer: bytes, name: str) -> Probed:
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise DataError(f"{name} gave no answer when it was tried.") from None
    if "refused" in found:
        raise DataError(found["refused"])
    raw = found["inspection"]
    inspection = Inspection(
        **{
            **raw,
            "signature": Signature.from_json(raw["signature"]),
            "operators": tuple(raw["operators"]),
        }
    )
    return Probed(inspection, found["call_s"], found["row_s"])


# ---------------------------------------------------------------- in the child


def main() -> int:
    """Read a question and a file from standard input, write one line of JSON."""
    question = orjson.loads(sys.stdin.buffer.readline())
    raw = question["limits"]
    limits = ProbeLimits(**{**raw, "file": FileLimits(**raw["file"])})
    _confine(limits)
    try:
        answer = _try(sys.stdin.buffer.read(), question["name"], limits)
    except GanglionError as refused:
        answer = {"refused": str(refused)}
    except MemoryError:
        answer = {"refused": f"{question['name']} needs too much memory; it is not served."}
    except RecursionError:
        answer = {"refused": f"{question['name']} is nested too deeply; it is not served."}
    line = orjson.dumps(answer)
    if len(line) > limits.answer_bytes:
        said = f"{question['name']} has metadata of {len(line)} bytes; it is not served."
        line = orjson.dumps({"refused": said})
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    return 0


def _confine(limits: ProbeLimits) -> None:
    """Limit this process; memory counts from what it takes already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + limits.memory_bytes
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (most, most))


def _try(data: bytes, name: str, limits: ProbeLimits) -> dict[str, Any]:
    if not data:
        raise DataError(f"{name} is empty.")
    policy = OnnxPolicy.inspected(data, name, inspect_bytes(data, name, limits.file))
    signature = policy.signature
    for key, spec in signature.inputs.items():
        if spec.role == "steps" and spec.high is None:
            raise DataError(f"{name} has steps {key!r} without a high; it is not served.")
    _check_carried(signature, name)
    try:
        call_s, row_s = _run(policy, name, limits)
    except SettingsError as problem:  # e.g. a range without a value in it
        raise DataError(f"{name} cannot be tried: {problem}") from None
    found = policy.inspection
    inspection = {
        field: getattr(found, field)
        for field in ("card", "made", "digest", "file_bytes", "nodes", "parameters", "operators")
    }
    inspection["signature"] = signature.to_json()
    return {"inspection": inspection, "call_s": call_s, "row_s": row_s}


def _check_carried(signature: Signature, name: str) -> None:
    for output, fed in signature.carried.items():
        if output not in signature.outputs or fed not in signature.inputs:
            raise DataError(f"{name} carries {output!r} to {fed!r}, which it does not have.")
        if signature.outputs[output].shape != signature.inputs[fed].shape:
            raise DataError(f"{name} carries {output!r} to {fed!r}, which has another shape.")


def _run(policy: OnnxPolicy, name: str, limits: ProbeLimits) -> tuple[float, float]:
    """Run drawn inputs, check the answers, and return what a call and a further row take."""
    signature = policy.signature
    sizes = {a: AXIS for s in signature.inputs.values() for a in s.shape if isinstance(a, str)}
    one = _drawn(signature, 1, sizes)
    began = time.perf_counter()
    policy.run(one)
    slowest = time.perf_counter() - began
    if slowest > limits.one_run_s:
        raise DataError(
            f"{name} takes {slowest:.1f} s for one row; at most {limits.one_run_s:g} s are served."
        )
    for rows in (1, 3):
        drawn = inputs.draw(signature, rows, rng(0, "probe", rows), sizes)
        try:
            inputs.check_outputs(policy.run(drawn), signature, inputs.batch_of(drawn, signature))
        except DataError as problem:
            raise DataError(f"{name} gives a bad answer. {problem}") from None
    call_s = _timed(policy, one, 5)
    if inputs.batch_of(one, signature) is None:
        return call_s, 0.0
    rows = int(np.clip(limits.one_run_s / max(call_s, 1e-6), 2, ROWS))
    many_s = _timed(policy, _drawn(signature, rows, sizes), 1 if call_s > 0.01 else 3)
    return call_s, max(0.0, (many_s - call_s) / (rows - 1))


def _drawn(signature: Signature, rows: int, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Return drawn inputs with every number of steps at its high: the slowest there is."""
    drawn = inputs.draw(signature, rows, rng(0, "probe"), sizes)
    for key, spec in signature.inputs.items():
        if spec.role == "steps" and spec.high is not None:
            drawn[key] = np.full_like(drawn[key], int(spec.high))
    return drawn


def _timed(policy: OnnxPolicy, feeds: dict[str, Array], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        policy.run(feeds)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    sys.exit(main())
