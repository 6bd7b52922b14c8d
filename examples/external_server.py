"""A controller behind a URL joins a comparison: each batch is one POST of JSON.

python examples/external_server.py 8901 --sequence &
ganglion compare RUN oracle --policy-url http://127.0.0.1:8901/act

Question and answer are those of external_controller.py, whose PD controller answers here, too.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from external_controller import NUM_STEPS, plan

GAINS = [1.2, 1.8]


class Handler(BaseHTTPRequestHandler):
    """Answers every POST, whatever its path, with `steps` controls a row."""

    protocol_version = "HTTP/1.1"  # one connection for the whole comparison
    steps = 1

    def do_POST(self) -> None:
        """Read {"inputs": ...}, write {"outputs": ...}."""
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pairs = zip(question["inputs"]["state"], question["inputs"]["target"], strict=True)
        controls = [plan(state, target, GAINS, self.steps) for state, target in pairs]
        body = json.dumps({"outputs": {"controls": controls}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Handler.steps = NUM_STEPS if "--sequence" in sys.argv else 1  # beside e.g. model=trc
    with HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/act", flush=True)
        server.serve_forever()
