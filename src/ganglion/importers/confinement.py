"""Runs one function of ours on what cannot be trusted, in a child with little memory and time.

The child inherits no variables, finds its modules where this process does, never in the current
folder, and works in an empty folder of its own: what a library logs there goes with it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ganglion.core.errors import DataError

_PATIENCE = 10  # s of waiting beside the time that is allowed: the machine may be busy
_REFUSED = 65  # exit code of a child that says what is wrong with its input


@dataclass(frozen=True)
class Limits:
    """What a child may use: seconds, bytes of memory, of input, of output, of a file it writes."""

    seconds: int = 30
    memory: int = 3 << 30
    given: int = 64 << 20
    answer: int = 256 << 20
    written: int = 0


def confined(
    function: str, data: bytes, limits: Limits | None = None, what: str = "The file"
) -> bytes:
    """Call FUNCTION ("package.module:name", bytes -> bytes) in a child; return its answer.

    DataError where the function refuses the data (a ValueError or DataError becomes its sentence),
    where it takes more than `limits`, or where it crashes. what begins those sentences.
    """
    limits = limits or Limits()
    if len(data) > limits.given:
        raise DataError(f"{what} has {len(data):,} bytes; at most {limits.given:,} are read.")
    own = "ganglion.importers.confinement"
    words = [sys.executable, "-P", "-m", own, function, json.dumps(asdict(limits))]
    paths = os.pathsep.join(p for p in sys.path if os.path.isabs(p))
    env = {"PYTHONPATH": paths, "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                words,
                input=data,
                capture_output=True,
                cwd=folder,
                env=env,
                timeout=_PATIENCE + 2 * limits.seconds,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{what} took more than {_PATIENCE + 2 * limits.seconds} s to read."
        ) from None
    if done.returncode == _REFUSED:
        raise DataError(f"{what}: {done.stderr.decode(errors='replace').strip()}")
    if done.returncode != 0:
        raise DataError(
            f"{what} could not be read within {limits.seconds} s and {limits.memory >> 20} MB; "
            "it is damaged, or made to do harm."
        )
    if len(done.stdout) > limits.answer:
        raise DataError(f"{what} unpacks to more than {limits.answer:,} bytes.")
    return done.stdout


# ---------------------------------------------------------------- in the child


def _main(function: str, limits: Limits) -> int:
    module, _, name = function.partition(":")
    own: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.written, limits.written))
    try:
        answer = own(sys.stdin.buffer.read())
    except (ValueError, DataError, RecursionError) as error:
        sys.stderr.write(" ".join(str(error).split()))
        return _REFUSED
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Limits(**json.loads(sys.argv[2]))))
