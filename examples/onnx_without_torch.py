"""Run an exported policy with ONNX Runtime and NumPy alone: no torch, no ganglion.

python examples/onnx_without_torch.py runs/control/demo-.../export/policy.onnx [CALLS]
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def main(path: str, calls: int = 1000) -> np.ndarray:
    """Answer one state `calls` times and print the latency; return the controls (1, N, m)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    steps = json.loads(about["ganglion.card"]).get("steps", {})  # e.g. {"cycles": 8}

    known = {"state": [[1.0, 0.5]], "target": [[0.0, 0.0]], "time_left_s": [[5.0]]}
    known |= {name: [count] for name, count in steps.items()}
    feeds = {i.name: np.array(known[i.name], TYPES[i.type]) for i in session.get_inputs()}
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        (controls,) = session.run(["controls"], feeds)
        times.append(1e6 * (time.perf_counter() - began))
    print(f"controls {controls.reshape(-1).round(3).tolist()}")
    print(f"median {statistics.median(times):.1f} us over {calls} calls on one thread")
    return controls


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:3]))
    assert "torch" not in sys.modules
