"""
How fast is Python on this machine, right now? A fixed piece of work for each request, asked by the same load.

A process of its own: ``python -m bench.yardstick PORT``, on the gateway's core. What it does is made of what a call is
made of: JSON in and out, a hash, dictionaries, a generator, asyncio's reads and writes on sockets. Only the standard
library, and nothing of the gateway, so that no change there changes it. A loop with nobody asking was tried first: it
does not feel what a busy other core does to this one.
"""

import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from typing import cast

from bench.upstream import completion

ANSWER = completion()
TURNS = 4
"""Of the same work for each request, so that it takes about as long as a call."""


def fields(head: bytes) -> Iterator[tuple[str, str]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.decode("latin-1").lower(), value.strip().decode("latin-1")


def work(head: bytes, body: bytes, counts: dict[str, int]) -> bytes:
    """The whole answer."""
    digest = ""
    for _ in range(TURNS):
        names = dict(fields(head))
        request = json.loads(body)
        digest = hashlib.sha256(body).hexdigest()
        counts[digest[:2]] = counts.get(digest[:2], 0) + len(names)
        json.dumps({**request, "id": digest, "spent": [round(n * 0.5) for n in range(10)]})
    answer = ANSWER.replace(b"chatcmpl-bench", b"chatcmpl-" + digest[:5].encode())
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)


class Connection(asyncio.Protocol):
    """One caller; requests one after the other, each with a content-length."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(dict(fields(head)).get("content-length", "0")) if end else 0
        if end and len(rest) >= length:
            self._buffer = rest[length:]
            self._transport.write(work(head, rest[:length], self._counts))


async def main(port: int) -> None:
    loop, counts = asyncio.get_running_loop(), dict[str, int]()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    async with await loop.create_server(lambda: Connection(counts), "127.0.0.1", port, backlog=1024):
        print("ready", flush=True)
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
