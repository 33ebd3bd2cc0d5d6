"""
Applications that ask, wait, lose patience and come again.

Each client has one connection at a time, and leaves a fifth of its calls: with half of the body sent, right after it,
after some milliseconds, or in the middle of the answer. What it hears to the end has to be right.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence

import attrs

LEAVES = 0.2
THINK = 0.08
PATIENCE = 60.0
KINDS = (("plain", 45), ("streamed", 35), ("with a key", 10), ("embeddings", 10))
FINE = frozenset({200, 409, 502, 504})
"""409: the first call with this key has not ended yet. 502, 504: every attempt met a fault."""


class LeftError(Exception):
    """The client has hung up."""


@attrs.define
class Heard:
    """What all clients heard. ``delays``: second of the end and milliseconds, of plain calls answered with 200."""

    statuses: Counter[str] = attrs.field(factory=Counter)
    delays: list[tuple[float, float]] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    left: int = 0

    @property
    def enough(self) -> bool:
        """A slow machine gets nowhere in a second or two."""
        return self.statuses["200"] > 10 and self.left > 0

    def calls(self) -> int:
        return self.statuses.total() + self.left


@attrs.define
class Client:
    """One application. ``keys`` are those it used last, with the bodies they belong to."""

    port: int
    keys_of: Sequence[str]
    """API keys to choose from."""
    dice: random.Random
    heard: Heard
    number: int
    began: float
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    _used: list[tuple[str, bytes]] = attrs.field(factory=list)
    _made: int = 0

    async def ask_until(self, end: float) -> None:
        """One call after the other, with pauses, until the clock says ``end``; longer where nothing came of that."""
        while (now := time.monotonic()) < end or (not self.heard.enough and now < end + PATIENCE):
            await asyncio.sleep(self.dice.expovariate(1 / THINK))
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._call()
            except LeftError:
                self.heard.left += 1
                self._hang_up()
            except (OSError, EOFError, ValueError) as error:
                self.heard.wrong.append(f"{type(error).__name__}: {error}")
                self._hang_up()
        self._hang_up()

    async def _call(self) -> None:
        kind = self.dice.choices([name for name, _ in KINDS], [share for _, share in KINDS])[0]
        request, body = self._request(kind)
        leaving = self.dice.random() < LEAVES
        began = time.monotonic()
        reader, writer = self._streams or await self._connect()
        await self._send(writer, request, body, leaving=leaving)
        try:
            async with asyncio.timeout(self.dice.uniform(0.0, 0.15) if leaving else None):
                status, text = await _answer(reader)
        except TimeoutError:
            raise LeftError from None
        if leaving:
            raise LeftError
        self._judge(kind, status, text, began)

    async def _send(self, writer: asyncio.StreamWriter, request: bytes, body: bytes, *, leaving: bool) -> None:
        half = leaving and self.dice.random() < 0.25
        writer.write(request + (body[: len(body) // 2] if half else body))
        await writer.drain()
        if half or (leaving and self.dice.random() < 0.2):
            raise LeftError

    def _judge(self, kind: str, status: int, text: bytes, began: float) -> None:
        now = time.monotonic()
        self.heard.statuses[f"{status}"] += 1
        if status == 200 and kind == "plain":
            self.heard.delays.append((now - self.began, (now - began) * 1_000))
        whole = status != 200 or kind != "streamed" or text.endswith(b"data: [DONE]\n\n") or b'"error"' in text
        if status not in FINE or not whole:
            self.heard.wrong.append(f"{kind}: {status} {text[:200]!r}")

    def _request(self, kind: str) -> tuple[bytes, bytes]:
        path, lines = "/v1/embeddings" if kind == "embeddings" else "/v1/chat/completions", []
        body = self._body(kind)
        if kind == "with a key":
            key, body = self._idempotency_key(body)
            lines.append(f"x-idempotency-key: {key}")
        head = [f"POST {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {self.dice.choice(self.keys_of)}"]
        head += ["content-type: application/json", f"content-length: {len(body)}", *lines]
        return "\r\n".join([*head, "", ""]).encode(), body

    def _body(self, kind: str) -> bytes:
        text = "word " * self.dice.randrange(1, 400)
        if kind == "embeddings":
            return json.dumps({"model": "m", "input": text}, separators=(",", ":")).encode()
        value = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 50}
        return json.dumps({**value, **({"stream": True} if kind == "streamed" else {})}, separators=(",", ":")).encode()

    def _idempotency_key(self, body: bytes) -> tuple[str, bytes]:
        """A new one with this body, or one of the last with its own."""
        if self._used and self.dice.random() < 0.5:
            return self.dice.choice(self._used)
        self._made += 1
        self._used = [*self._used[-5:], (f"{self.number}-{self._made}-{self.dice.random()}", body)]
        return self._used[-1]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        return self._streams

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    status = int(lines[0].split()[1])
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
    if length is not None:
        return status, await reader.readexactly(length)
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return status, b"".join(parts)


async def traffic(port: int, keys: Sequence[str], clients: int, seconds: float, seed: int, heard: Heard) -> None:
    """So many applications for so long."""
    began = time.monotonic()
    asking = [
        Client(port, keys, random.Random(f"{seed}.{number}"), heard, number, began).ask_until(began + seconds)
        for number in range(clients)
    ]
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*asking)
