"""Tests run on one thread, as training does by default."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the runs of the person who starts it."""
    monkeypatch.delenv("GANGLION_HOME", raising=False)
    monkeypatch.delenv("GANGLION_FAILPOINT", raising=False)
