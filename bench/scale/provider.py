"""
A provider whose streams stay open: each gets its first event at once, and then as many as it is told to send.

A process of its own: ``python -m bench.scale.provider PORT``. ``GET /pace/N``: N events a second from now on, shared by
all open streams in turn; 0 is silence.
"""

import asyncio
import signal
import sys
from typing import cast

from bench.upstream import stream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST, MORE = (part + b"\n\n" for part in stream().split(b"\n\n")[:2])
TURN = 0.001


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Provider:
    """The streams that are open, and their pace."""

    def __init__(self) -> None:
        self.open: dict[asyncio.Transport, None] = {}
        self.pace = 0

    async def run(self) -> None:
        """Each stream in its turn, so that a thousand get as much together as one alone."""
        loop, owed = asyncio.get_running_loop(), 0.0
        last = loop.time()
        while True:
            await asyncio.sleep(TURN)
            now = loop.time()
            owed = owed + (now - last) * self.pace if self.open else 0.0
            last = now
            while owed >= 1 and self.open:
                transport = next(iter(self.open))
                self.open[transport] = self.open.pop(transport)
                transport.write(chunk(MORE))
                owed -= 1


class Connection(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._provider.open.pop(cast("asyncio.Transport", self._transport), None)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        transport = self._transport
        assert transport is not None
        if self._seen.startswith(b"GET /pace/"):
            self._provider.pace = int(self._seen.split(b" ")[1].rpartition(b"/")[2])
            transport.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            transport.close()
        elif self._seen.endswith(b"}"):
            self._seen = b""
            transport.write(HEAD + chunk(FIRST))
            self._provider.open[transport] = None


async def main(port: int) -> None:
    loop, provider = asyncio.get_running_loop(), Provider()
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", port, backlog=4096)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    pacing = asyncio.create_task(provider.run())
    print("ready", flush=True)
    async with server:
        await over.wait()
    pacing.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
