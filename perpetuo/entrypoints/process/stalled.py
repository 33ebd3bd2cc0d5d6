"""
What ends a connection whose client takes nothing more?

A call is given up after 20 s without a byte taken (`AsgiClient`). That frees its hold and its upstream, but not the
connection: nobody writes to it any more, and the server has no time limit for what it still has to send. So it would
stay, with its buffers, for as long as the client likes. The kernel can end it (``TCP_USER_TIMEOUT``, tcp(7)): when data
has waited so long for a client's window, or for its acknowledgement.

Rule 1: listeners get the option, and connections inherit it. Granian makes listeners itself, after the application's
start; they are found among the process's own descriptors.
Rule 2: it is longer than the 20 s, so that such a call is settled as one whose client left.
Rule 3: nothing but sockets is duplicated. Closing any descriptor of a file drops all locks that this process has on
it (fcntl(2)): SQLite's were gone, the next reader that left took the write-ahead log with it, and rows were lost.
"""

import asyncio
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

STALLED_SECONDS = 30
LOOK_EVERY, MOST_LOOKS = 0.05, 600
INTERNET = (socket.AF_INET, socket.AF_INET6)
DESCRIPTORS = Path("/proc/self/fd")
OPTION: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
"""Only Linux has it."""


async def cut_stalled(ports: Collection[int], seconds: float = STALLED_SECONDS) -> None:
    """Wait for this process's listeners on ``ports``; connections to them are cut when they stall for ``seconds``."""
    missing = set(ports)
    for _ in range(MOST_LOOKS):
        missing -= _limit(missing, seconds)
        if not missing:
            return
        await asyncio.sleep(LOOK_EVERY)


def _limit(ports: Collection[int], seconds: float) -> set[int]:
    """Those of ``ports`` that have the option now."""
    if OPTION is None or not DESCRIPTORS.exists():
        return set(ports)
    found = set()
    for listener in _listeners():
        with listener:
            port = listener.getsockname()[1]
            if port in ports:
                listener.setsockopt(socket.IPPROTO_TCP, OPTION, round(seconds * 1_000))
                found.add(port)
    return found


def _listeners() -> Iterator[socket.socket]:
    """A handle of its own for each listening TCP socket."""
    for entry in DESCRIPTORS.iterdir():
        handle = _socket(int(entry.name))
        if handle is None:
            continue
        if handle.family in INTERNET and handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield handle
        else:
            handle.close()


def _socket(descriptor: int) -> socket.socket | None:
    """A second handle of this descriptor, if it is a socket and still open."""
    try:
        if not (DESCRIPTORS / str(descriptor)).readlink().name.startswith("socket:"):
            return None
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
