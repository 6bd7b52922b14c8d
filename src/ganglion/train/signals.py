"""Signals only set a flag; the loop saves and leaves at its next boundary. A second one exits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ganglion.core.errors import Preempted

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Stop:
    """Says which signal asked to stop, if any."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.at_once = False

    def __call__(self) -> str | None:
        """Return "Stopped by SIGTERM" or the like, or None."""
        return self.reason

    def interrupt(self) -> None:
        """From now on a signal raises KeyboardInterrupt: nothing is left that must be saved."""
        self.at_once = True
        if self.reason is not None:
            raise KeyboardInterrupt


@contextmanager
def watching() -> Iterator[Stop]:
    """Turn SIGTERM, SIGINT, SIGUSR1 and SIGHUP into a flag inside the block."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may install handlers
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.reason is not None:
            os._exit(Preempted.exit_code)
        stop.reason = f"Stopped by {signal.Signals(number).name}"
        if stop.at_once:
            raise KeyboardInterrupt

    before = {s: signal.signal(s, note) for s in _WATCHED}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
