"""
Many clients at once, cheaply: hundreds of concurrent calls from a test that shares two cores with what it tests.

    replies = swarm(cluster.urls, [Ask(key, {"model": "m", …}) for _ in range(500)], clients=500)

Each of ``clients`` takes the next `Ask` when it is done with one, over a new connection to the next URL, so that the
kernel deals the calls out to all workers. Replies come in the order of the asks. A call that goes wrong on the
wire (a killed worker) is a `Reply` with an ``error``, not an exception.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs

from tests.live import KEY

SECONDS = 60.0


@attrs.frozen
class Ask:
    """One chat call. ``leave_after``: so many seconds after the request was sent the client goes."""

    key: str = KEY
    body: Mapping[str, Any] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    leave_after: float | None = None

    def render(self, host: str) -> bytes:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **self.body}).encode()
        head = [f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {self.key}"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*head, f"content-length: {len(body)}", "connection: close", "", ""]).encode() + body


@attrs.define
class Reply:
    """What a client has seen. ``began`` and ``ended`` on the clock of `time.time`."""

    began: float = 0.0
    ended: float = 0.0
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    complete: bool = False
    error: str = ""

    @property
    def code(self) -> str:
        """Of an error; empty for none."""
        return str(json.loads(self.body)["error"]["code"]) if self.status >= 400 else ""

    @property
    def text(self) -> str:
        """What the model said, not streamed."""
        return str(json.loads(self.body)["choices"][0]["message"]["content"])


def swarm(
    urls: Sequence[str],
    asks: Sequence[Ask],
    clients: int = 64,
    *,
    into: list[Reply] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> list[Reply]:
    """
    Make these calls. ``meanwhile`` runs in a thread of its own, and must end too; it may look at ``into``, which has
    a `Reply` for each ask and is filled as the calls go on.
    """
    replies = [Reply() for _ in asks] if into is None else into

    async def run() -> list[Reply]:
        work, addresses = iter(zip(asks, replies, strict=True)), itertools.cycle([urlsplit(url).netloc for url in urls])
        beside = asyncio.to_thread(meanwhile) if meanwhile else asyncio.sleep(0)
        await asyncio.gather(beside, *(_client(work, addresses) for _ in range(min(clients, len(asks)))))
        return replies

    return asyncio.run(run())


async def _client(work: Iterator[tuple[Ask, Reply]], addresses: Iterator[str]) -> None:
    for ask, reply in work:
        reply.began = time.time()
        try:
            async with asyncio.timeout(SECONDS):
                await _call(ask, reply, next(addresses))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            reply.error = f"{type(error).__name__}: {error}"
        reply.ended = time.time()


async def _call(ask: Ask, reply: Reply, address: str) -> None:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(ask.render(address))
        if ask.leave_after is None:
            return await _read(reader, reply)
        async with asyncio.timeout(ask.leave_after):
            await _read(reader, reply)
    except TimeoutError:
        if ask.leave_after is None:
            raise
        reply.error = "left"
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, reply: Reply) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    reply.status = int(head[0].split(" ")[1])
    reply.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    if "content-length" in reply.headers:
        reply.body = await reader.readexactly(int(reply.headers["content-length"]))
    else:
        while size := int(await reader.readline(), 16):
            reply.body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    reply.complete = True
