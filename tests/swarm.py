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

SECONDS = 120.0


@attrs.frozen
class Ask:
    """One chat call. The client leaves ``leave_after`` so many seconds, or as soon as ``leave_when`` says so."""

    key: str = KEY
    body: Mapping[str, Any] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    leave_after: float | None = None
    leave_when: Callable[["Reply"], bool] | None = None

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
    stop: bool = False,
) -> list[Reply]:
    """
    Make these calls. ``meanwhile`` runs in a thread of its own, and must end too; it may look at ``into``, which has
    a `Reply` for each ask and is filled as the calls go on. ``stop``: when it has ended nothing more is asked, and
    only replies to what was asked are returned.
    """
    replies = [Reply() for _ in asks] if into is None else into

    async def run() -> list[Reply]:
        work, addresses = iter(zip(asks, replies, strict=True)), itertools.cycle([urlsplit(url).netloc for url in urls])
        over = asyncio.Event()

        async def beside() -> None:
            try:
                await asyncio.to_thread(meanwhile or (lambda: None))
            finally:
                over.set()

        still = (one for one in work if not (stop and over.is_set()))
        await asyncio.gather(beside(), *(_client(still, addresses) for _ in range(min(clients, len(asks)))))
        return [reply for reply in replies if reply.began] if stop else replies

    return asyncio.run(run())


async def _client(work: Iterator[tuple[Ask, Reply]], addresses: Iterator[str]) -> None:
    for ask, reply in work:
        reply.began = time.time()
        try:
            async with asyncio.timeout(SECONDS):
                await _call(ask, reply, next(addresses))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            reply.error = f"{type(error).__name__}: {error}"
            await asyncio.sleep(0.05)  # nobody listens, perhaps: not every call should find that out
        reply.ended = time.time()


async def _call(ask: Ask, reply: Reply, address: str) -> None:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(ask.render(address))
        if ask.leave_after is None and ask.leave_when is None:
            return await _read(reader, reply)
        reading, going = asyncio.ensure_future(_read(reader, reply)), asyncio.ensure_future(_leave(ask, reply))
        await asyncio.wait({reading, going}, return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        if reading.done():
            return await reading
        reading.cancel()
        reply.error = "left"
    finally:
        writer.transport.abort()
    return None


async def _leave(ask: Ask, reply: Reply) -> None:
    """Until this client goes."""
    if ask.leave_after is not None:
        return await asyncio.sleep(ask.leave_after)
    while ask.leave_when is not None and not ask.leave_when(reply):  # noqa: ASYNC110 - what it looks at is elsewhere
        await asyncio.sleep(0.02)
    return None


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
