"""What all tests share: no folder of the person who runs them, and children that start fast."""

from __future__ import annotations

import multiprocessing
import os

import pytest

# Two threads on cores that others use too would wait for each other in busy loops.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Children of the fault tests fork from one process that has imported torch already.
multiprocessing.set_forkserver_preload(
    ["ganglion.pipeline", "ganglion.session", "ganglion.console", "ganglion.tasks.control.task",
     "ganglion.tasks.control.learning", "torch._dynamo"]  # which the optimizer imports
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the runs of the person who starts it."""
    monkeypatch.delenv("GANGLION_HOME", raising=False)
    monkeypatch.delenv("GANGLION_FAILPOINT", raising=False)
