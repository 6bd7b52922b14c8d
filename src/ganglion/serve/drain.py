"""Stop without losing a request: announce, shut the door, answer who is inside.

1. For a second every answer says "connection: close", so that clients open new connections.
2. The listening socket is closed, and what waits in its accept queue is accepted through a
   duplicate of it. Before that, a filter on the socket drops new connection attempts (the client's
   kernel repeats them, and then finds the next server or none); so the queue really runs empty,
   and no connection is reset between the last `accept` and the close.
3. Connections that are open get their answers; silent ones are closed after a moment.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ganglion.serve.protocol import Connection
from ganglion.serve.settings import DrainTimes

_SO_ATTACH_FILTER = 26  # Linux, asm-generic/socket.h; not in the socket module
# Classic BPF over a TCP segment (linux/filter.h): drop it where byte 13, the flags, has SYN set.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # A = byte at 13
    (0x45, 0, 1, 0x02),  # if A & SYN: go on, else skip one
    (0x06, 0, 0, 0),  # return 0: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # return all of it: keep
)


def drop_new_connections(listening: socket.socket) -> bool:
    """Let the kernel drop further connection attempts; False where it has no such filter."""
    program = b"".join(struct.pack("=HBBI", *step) for step in _DROP_SYN)
    buffer = ctypes.create_string_buffer(program)
    option = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(buffer))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
    except OSError:
        return False
    return True


async def accept_rest(listening: socket.socket, make: Callable[[], asyncio.Protocol]) -> int:
    """Accept every connection that waits in the queue; return how many."""
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    count = 0
    while True:
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError, OSError):
            return count
        accepted.setblocking(False)
        with suppress(OSError):
            await loop.connect_accepted_socket(make, accepted)
        count += 1


async def finish(
    connections: Callable[[], Iterable[Any]], times: DrainTimes, now: Callable[[], bool]
) -> int:
    """Wait until all connections have ended, or `now`; return how many had to be cut off."""
    loop = asyncio.get_running_loop()
    end = loop.time() + times.most_s
    while left := list(connections()):
        if now() or loop.time() > end:
            for connection in left:
                connection.transport.abort()
            return len(left)
        for connection in left:
            if isinstance(connection, Connection) and connection.phase in ("idle", "head"):
                silent = loop.time() - connection.since > times.idle_s
                if silent and not connection.unread():
                    connection.transport.close()
        await asyncio.sleep(0.02)
    return 0
