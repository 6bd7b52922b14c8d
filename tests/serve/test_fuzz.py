"""Five thousand requests that nobody would write: no traceback, no 5xx, no memory kept."""

from __future__ import annotations

import time

from .driver import Process, post
from .fuzzing import Fuzz

COUNT = 5000


def test_fuzzed_requests_get_plain_answers(server: Process) -> None:
    fuzz = Fuzz(server)
    fuzz.run(300)  # the first ones let buffers and caches grow
    before = server.resident_bytes()
    fuzz.run(COUNT)
    time.sleep(1.0)
    assert server.resident_bytes() < 1.1 * before
    assert sum(fuzz.statuses.values()) >= COUNT
    assert fuzz.statuses[200] > COUNT / 50  # some are valid, most are not
    assert fuzz.statuses[422] > COUNT / 10
    assert post(server.port, "/act", {"obs": [0, 0, 0]}).status == 200
    said = server.said()
    assert "Traceback" not in said
    assert "internal error" not in said
