"""
A provider that misbehaves in one call of twenty: what does hours of that leave behind in a gateway?

A process of its own: ``python -m bench.soak.provider PORT SEED``. It answers chat, plain and streamed, and embeddings,
with usage; one call in twenty gets a 500, a reset, silence, or half an answer. ``GET /journal`` tells how many of each.
Kept-alive connections are good for two seconds, so that a gateway which is idle soon has none.
"""

import asyncio
import json
import random
import signal
import sys
from typing import cast

FAULTS = ("error", "reset", "stall", "truncated")
SHARE = 0.05
EVENTS = 12
GAP = 0.01
KEEP = b"keep-alive: timeout=2\r\n"
TEXT = "Nothing grows, and nothing stays. "
USAGE = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}


def _json(status: bytes, value: object) -> bytes:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (status, len(body), KEEP)
    return head + body


def _event(value: object) -> bytes:
    data = b"data: %b\n\n" % (value if isinstance(value, bytes) else json.dumps(value).encode())
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


ERROR = _json(b"500 Internal Server Error", {"error": {"message": "at random", "type": "server_error", "code": None}})
CHAT = _json(
    b"200 OK",
    {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT * 12}, "finish_reason": "stop"}],
    },
)  # fmt: skip
EMBEDDINGS = _json(
    b"200 OK",
    {
        "object": "list", "model": "m", "usage": {"prompt_tokens": 20, "total_tokens": 20},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5] * 256}],
    },
)  # fmt: skip
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n" + KEEP + b"\r\n"
STREAM = [
    STREAM_HEAD + _event(_chunk({"role": "assistant", "content": ""})),
    *(_event(_chunk({"content": TEXT})) for _ in range(EVENTS)),
    _event(_chunk({}, "stop")) + _event({**_chunk({}), "choices": [], "usage": USAGE}),
    _event(b"[DONE]") + b"0\r\n\r\n",
]


class Journal:
    """What was asked and what came of it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.counts: dict[str, int] = dict.fromkeys(("calls", "left", *FAULTS), 0)

    def draw(self) -> str | None:
        """The fault of the next call, most often none."""
        self.counts["calls"] += 1
        fault = self.dice.choice(FAULTS) if self.dice.random() < SHARE else None
        if fault is not None:
            self.counts[fault] += 1
        return fault


class Connection(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._buffer = b""
        self._answering: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering is not None and not self._answering.done():
            self._journal.counts["left"] += 1
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if len(rest) >= length:
            self._buffer = rest[length:]
            self._answering = asyncio.ensure_future(self._answer(head, rest[:length]))

    async def _answer(self, head: bytes, body: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if head.startswith(b"GET /journal"):
            transport.write(_json(b"200 OK", self._journal.counts))
            return
        fault = self._journal.draw()
        await asyncio.sleep(self._journal.dice.uniform(0.005, 0.05))
        if fault == "error":
            transport.write(ERROR)
        elif fault == "reset":
            transport.abort()
        elif fault == "stall":
            await asyncio.sleep(3600)
        else:
            await self._send(transport, _pieces(head, body), cut=fault == "truncated")

    async def _send(self, transport: asyncio.Transport, pieces: list[bytes], *, cut: bool) -> None:
        for number, piece in enumerate(pieces):
            if cut and number >= len(pieces) // 2:
                transport.write(piece[: len(piece) // 2])
                transport.close()
                return
            transport.write(piece)
            if len(pieces) > 1:
                await asyncio.sleep(GAP)


def _pieces(head: bytes, body: bytes) -> list[bytes]:
    if b"/embeddings " in head.partition(b"\r\n")[0]:
        return [EMBEDDINGS]
    return STREAM if b'"stream":true' in body else [CHAT]


async def main(port: int, seed: int) -> None:
    loop = asyncio.get_running_loop()
    journal = Journal(seed)
    server = await loop.create_server(lambda: Connection(journal), "127.0.0.1", port, backlog=1024)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    print("ready", flush=True)
    async with server:
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
