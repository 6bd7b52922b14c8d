"""What an exported file costs: parameters, bytes, memory of a fresh process, latency.

`python -m ganglion.export.efficiency FILE` measures the process it runs in and prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganglion.core.errors import DataError, ServiceError
from ganglion.export.latency import Latency, latency, typical
from ganglion.export.onnx_policy import OnnxPolicy

ACTS = 100


@dataclass(frozen=True)
class Efficiency:
    """peak_bytes is the largest resident memory of a fresh process after loading and 100 acts."""

    parameters: int
    file_bytes: int
    peak_bytes: int
    latency: Latency

    def to_json(self) -> dict[str, Any]:
        """Return the efficiency block of report.json and `compare --json`."""
        return {
            "parameters": self.parameters,
            "file_bytes": self.file_bytes,
            "peak_memory_bytes": self.peak_bytes,
            "latency_us": {"p50": self.latency.p50_us, "p99": self.latency.p99_us},
        }


def efficiency(
    path: Path | str, *, sizes: Mapping[str, int] | None = None, timeout_s: float = 300.0
) -> Efficiency:
    """Measure `path` in a fresh process, without torch.

    sizes gives the named axes. Raises DataError where the file is not in order, ServiceError
    where the process does not answer.
    """
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "ganglion.export.efficiency", str(path)]
    command += [f"{axis}={size}" for axis, size in (sizes or {}).items()]
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": paths},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(f"Measuring {path} took longer than {timeout_s:g} s.") from None
    said = child.stderr.decode(errors="replace").strip()
    if child.returncode == DataError.exit_code:
        raise DataError(said)
    if child.returncode != 0:
        last = said.splitlines()[-1] if said else f"exit code {child.returncode}"
        raise ServiceError(f"The process that measures {path} failed: {last}")
    raw = json.loads(child.stdout)
    return Efficiency(**{**raw, "latency": Latency(**raw["latency"])})


def measure(path: Path | str, sizes: Mapping[str, int] | None = None) -> Efficiency:
    """Measure in this process; peak_bytes is then this process' own peak."""
    policy = OnnxPolicy(path)
    inputs = typical(policy, 1, sizes)
    for _ in range(ACTS):
        policy.act(inputs)
    peak = _peak_bytes()
    held = policy.inspection
    return Efficiency(held.parameters, held.file_bytes, peak, latency(policy, inputs=inputs))


def _peak_bytes() -> int:
    """Return the largest resident size so far.

    VmHWM is preferred: ru_maxrss counts what the parent held before the process was started.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main(arguments: Sequence[str]) -> int:
    path, *pairs = arguments
    try:
        sizes = {axis: int(size) for axis, size in (pair.split("=", 1) for pair in pairs)}
        sys.stdout.write(json.dumps(asdict(measure(path, sizes))))
    except DataError as problem:
        sys.stderr.write(str(problem))
        return DataError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
