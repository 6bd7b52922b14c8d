"""What a request costs: ours beside FastAPI and Flask on the same model, machine and minute.

python benchmarks/serving.py [--seconds 4] [--repeats 3] [--realtime]

All servers run at the same time, one process each; load goes to one after the other, in turns, so
that a busy machine hurts them alike. The client is benchmarks/load.py, a process of its own. With
--realtime (root), servers and client run before everything else on the machine (`chrt -f`): what an
idle pair of cores would show, on one that is not.
Prints Markdown for RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import header, table, verdict
from onnx import TensorProto, helper, numpy_helper

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.export.sealing import CARD, MADE, SIGNATURE, seal

HERE = Path(__file__).parent
LAYERS = (16, 256, 352, 17)  # 100,817 parameters
CLOSED = (1, 16, 64)  # connections that ask again as soon as they are answered
REALTIME = ["chrt", "-f", "10"]
RATES = ((1000, 1), (4000, 16))  # requests a second, in bursts of

FASTAPI = """
import sys
import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
app = FastAPI()
class Inputs(BaseModel):
    obs: list[float]
def answer(inputs):
    out = session.run(None, {"obs": np.array([inputs.obs], np.float32)})[0]
    return {"action": out[0].tolist()}
if "async" in sys.argv:
    @app.post("/act")
    async def act(inputs: Inputs):
        return answer(inputs)
else:
    @app.post("/act")
    def act(inputs: Inputs):
        return answer(inputs)
import uvicorn
uvicorn.run(app, port=int(sys.argv[2]), log_level="critical", loop="uvloop", http="httptools")
"""
FLASK = '''
import os
import numpy as np
import onnxruntime
from flask import Flask, request
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
app = Flask(__name__)
@app.post("/act")
def act():
    obs = np.array([request.get_json()["obs"]], np.float32)
    return {"action": session.run(None, {"obs": obs})[0][0].tolist()}
'''  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--realtime", action="store_true")
    args = parser.parse_args()
    print(header("Serving"))
    first = REALTIME if args.realtime else []
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        servers = {
            name: stack.enter_context(running([*first, *command], folder))
            for name, command in commands(folder).items()
        }
        found = measured(servers, folder, args.seconds, args.repeats, first)
        resident = {name: server.resident() for name, server in servers.items()}
    report(found, resident)


# ---------------------------------------------------------------- servers


def commands(folder: Path) -> dict[str, list[str]]:
    """Return how each server is started; PORT stands for its port."""
    model = folder / "mlp.onnx"
    model.write_bytes(mlp())
    (folder / "fast.py").write_text(FASTAPI)
    (folder / "flask_app.py").write_text(FLASK)
    python = [sys.executable]
    fast = [*python, str(folder / "fast.py"), str(model), "PORT"]
    return {
        "ganglion": [*python, "-m", "ganglion", "serve", str(model), "--port", "PORT", "--quiet"],
        "FastAPI def": fast,
        "FastAPI async def": [*fast, "async"],
        "Flask + gunicorn": [
            *python, "-m", "gunicorn", "flask_app:app", "--bind", "127.0.0.1:PORT", "--workers",
            "1", "--worker-class", "gthread", "--threads", "4", "--log-level", "critical",
        ],
    }  # fmt: skip


def mlp() -> bytes:
    """Return a sealed multilayer perceptron with tanh between its layers."""
    rng = np.random.default_rng(0)
    signature = Signature(
        {"obs": TensorSpec((LAYERS[0],), low=-10.0, high=10.0)},
        {"action": TensorSpec((LAYERS[-1],))},
    )
    nodes, weights, before = [], [], "obs"
    for number, (wide, out) in enumerate(pairwise(LAYERS)):
        last = number == len(LAYERS) - 2
        weight = (rng.standard_normal((wide, out)) / np.sqrt(wide)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        weights.append(numpy_helper.from_array(np.zeros(out, np.float32), f"b{number}"))
        after = "action" if last else f"h{number}"
        names = [before, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Gemm", names, [after if last else f"z{number}"]))
        if not last:
            nodes.append(helper.make_node("Tanh", [f"z{number}"], [after]))
        before = after
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("obs", LAYERS[0]), ("action", LAYERS[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    about = {SIGNATURE: signature.to_json(), CARD: {}, MADE: {}}
    for key, value in about.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return seal(model)


class Server:
    """A running server and its children."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    def _all(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the processor time so far."""
        return sum(sum(p.cpu_times()[:2]) for p in self._all())

    def resident(self) -> float:
        """Return the resident memory in MB (10^6 bytes)."""
        return sum(p.memory_info().rss for p in self._all()) / 1e6


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Server]:
    """Start a server, wait until it answers, and end it."""
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in command]
    environment = {**os.environ, "MODEL": str(folder / "mlp.onnx"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, cwd=folder, env=environment) as process:
        try:
            wait_for(port)
            yield Server(process, port)
        finally:
            process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def body() -> bytes:
    """Return one request's body."""
    obs = np.random.default_rng(1).uniform(-1, 1, LAYERS[0]).round(6)
    return json.dumps({"obs": obs.tolist()}).encode()


def wait_for(port: int) -> None:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/act", body(), {"content-type": "application/json"}
    )
    for _ in range(200):
        try:
            with urllib.request.urlopen(asked, timeout=5) as reply:
                answer = json.loads(reply.read())
            if len(answer["action"]) != LAYERS[-1]:
                raise SystemExit(f"a wrong answer: {answer}")
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nobody answers on port {port}")


# ---------------------------------------------------------------- measuring


def measured(
    servers: dict[str, Server], folder: Path, seconds: float, repeats: int, first: list[str]
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the runs of each server under each load."""
    (folder / "body.json").write_bytes(body())
    loads: dict[str, list[str]] = {f"c={c}": ["--connections", str(c)] for c in CLOSED}
    for rate, burst in RATES:
        words = ["--connections", "64", "--rate", str(rate), "--burst", str(burst)]
        loads[f"{rate}/s"] = words
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for load, words in loads.items():
            for name, server in servers.items():
                if load == "4000/s" and name != "ganglion":
                    continue  # beyond what the others can do: a queue without an end
                before = server.cpu_s()
                words_s = [*words, "--seconds", str(seconds)]
                one = ask(server.port, folder / "body.json", words_s, first)
                one["cpu_us"] = 1e6 * (server.cpu_s() - before) / max(1, one["all"])
                found.setdefault((name, load), []).append(one)
                print(f"... {name} {load}: {one}", file=sys.stderr)
    return found


def ask(port: int, path: Path, words: list[str], first: list[str]) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "load.py"), f"http://127.0.0.1:{port}/act", str(path)]
    done = subprocess.run([*first, *command, *words], capture_output=True, check=True, text=True)
    return dict(json.loads(done.stdout))


# ---------------------------------------------------------------- telling


def report(found: dict[tuple[str, str], list[dict[str, Any]]], resident: dict[str, float]) -> None:
    """Print the table and what was to be reached."""

    def middle(name: str, load: str, what: str) -> float:
        return statistics.median(run[what] for run in found[name, load])

    rows = []
    for name in resident:
        cells = [
            f"{middle(name, f'c={c}', 'per_s'):,.0f}, {middle(name, f'c={c}', 'p50_ms'):.2f} ms"
            for c in CLOSED
        ]
        rates = [
            f"{middle(name, f'{rate}/s', 'p99_ms'):.1f} ms" if (name, f"{rate}/s") in found else "-"
            for rate, _ in RATES
        ]
        cpu = f"{middle(name, 'c=16', 'cpu_us'):.0f} us"
        rows.append([name, *cells, *rates, cpu, f"{resident[name]:.0f} MB"])
    head = ["server", *(f"c={c}: req/s, p50" for c in CLOSED),
            *(f"p99 at {rate:,}/s in bursts of {burst}" for rate, burst in RATES),
            "CPU a request, c=16", "resident"]  # fmt: skip
    print(table(head, rows))
    errors = sum(run["errors"] + run["late"] for runs in found.values() for run in runs)
    ratio = middle("ganglion", "c=16", "per_s") / middle("FastAPI def", "c=16", "per_s")
    cpu = middle("FastAPI def", "c=16", "cpu_us") / middle("ganglion", "c=16", "cpu_us")
    ours, theirs = (middle(n, "1000/s", "p99_ms") for n in ("ganglion", "FastAPI def"))
    bursts = middle("ganglion", "4000/s", "p99_ms")
    single = middle("ganglion", "c=1", "p50_ms")
    goals = [
        ("requests/s against FastAPI def, c=16", f"{ratio:.1f}x", ">= 5x", ratio >= 5),
        ("CPU a request against FastAPI def, c=16", f"1/{cpu:.1f}", "-", None),
        ("p99 at 1,000/s against FastAPI def", f"{ours:.1f} / {theirs:.1f} ms", "lower",
         ours < theirs),
        ("p99 at 1,000/s", f"{ours:.1f} ms", "<= 3 ms", ours <= 3),
        ("p99 at 4,000/s in bursts of 16", f"{bursts:.1f} ms", "<= 4 ms", bursts <= 4),
        ("p50, one client", f"{single:.2f} ms", "<= 0.25 ms", single <= 0.25),
        ("resident memory", f"{resident['ganglion']:.0f} MB", "<= 120 MB",
         resident["ganglion"] <= 120),
        ("errors and late answers, all servers", str(errors), "0", errors == 0),
    ]  # fmt: skip
    told = [[w, m, g, "-" if met is None else verdict(met)] for w, m, g, met in goals]
    print(table(["what", "measured", "goal", ""], told))


if __name__ == "__main__":
    main()
