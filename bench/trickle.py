"""
A provider that writes one event at a time: what do 102 small writes cost that one big one does not?

A process of its own: ``python -m bench.trickle PORT``. Every request gets the events of `upstream.stream`, each in a
chunk and a write of its own, 5 ms apart, as a fast model would send tokens. With 64 callers that is 12,000 events a
second, of which this server is busy for a sixth of the time (measured): events are not run together on the way.
"""

import asyncio
import signal
import sys
from typing import cast

import uvloop

from bench.upstream import stream

PAUSE = 0.004
"""uvloop counts whole milliseconds and makes it 5."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks() -> list[bytes]:
    """The head with the first event, then each event; the last one with the end of the answer."""
    events = [b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event) for event in stream().split(b"\n\n") if event]
    events[0] = HEAD + events[0]
    events[-1] += b"0\r\n\r\n"
    return events


CHUNKS = chunks()


class Connection(asyncio.Protocol):
    """One caller; requests one after the other, each with a content-length."""

    def __init__(self) -> None:
        self._buffer = b""
        self._next: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if end and len(rest) >= length:
            self._buffer = rest[length:]
            self._send(0)

    def _send(self, number: int) -> None:
        self._transport.write(CHUNKS[number])
        if number + 1 < len(CHUNKS):
            self._next = self._loop.call_later(PAUSE, self._send, number + 1)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    async with await loop.create_server(Connection, "127.0.0.1", port, backlog=1024):
        print("ready", flush=True)
        await over.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
