"""
The process behind `tests.journal_upstream`: answers like OpenAI, misbehaves to order, and writes down what it did.

``python tests/journal_process.py PORT JOURNAL BEHAVIOURS SEED``. ``PUT /control`` with ``{model: behaviour}`` changes
behaviours; any request to ``/control`` is answered with the calls it is working on.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import msgspec
import uvloop

TOKENS = 32
"""Most tokens of an answer when nothing else limits it."""


@attrs.frozen
class Behaviour:
    """
    How a model answers; written as ``status=500,chance=0.1``.

    Seconds for times. ``end``: ``reset`` (RST), ``truncate`` (an orderly close too early), ``stall`` (silence until
    the model behaves otherwise), each after ``after`` events of a stream, else instead of the answer.
    """

    wait: bool = False
    """Answer nothing until the model behaves otherwise; then answer as it does then."""
    delay: float = 0.0
    """Before the first byte."""
    gap: float = 0.0
    """Between two events of a stream."""
    tokens: int = 0
    """Output tokens, if the limit allows; 0: some number that depends on the call."""
    status: int = 200
    retry_after: int = 0
    usage: bool = True
    end: str = "complete"
    after: int = 0
    chance: float = 1.0
    """Of behaving so at all; else like a model without faults."""

    @classmethod
    def parse(cls, text: str) -> Self:
        kinds = {field.name: type(field.default) for field in attrs.fields(cls)}
        given = dict(part.split("=", 1) for part in text.split(",") if part)
        return cls(**{name: _value(kinds[name], value) for name, value in given.items()})


def _value(kind: type, text: str) -> Any:
    return text in {"1", "true", "yes"} if kind is bool else kind(text)


class Entry(msgspec.Struct, frozen=True):
    """One request in the journal. Times are seconds since the epoch."""

    call: str
    """``x-perpetuo-call``, the id of the call's row; empty for who does not send it."""
    number: int
    """Counts this upstream's requests."""
    model: str
    started: float
    ended: float
    status: int
    stream: bool
    outcome: str
    """``complete``, ``error``, ``reset``, ``truncate``, or ``left``: the client went first."""
    input_tokens: int
    output_tokens: int
    """Made until it ended: what a provider would charge for."""
    reported: bool
    """Did a complete answer say what it used?"""
    authorization: str
    bytes_in: int


class _Ask(msgspec.Struct):
    model: str = ""
    messages: list[Any] = []
    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: dict[str, Any] | None = None


@attrs.define(eq=False)
class _Work:
    """One request being answered."""

    number: int
    call: str
    ask: _Ask
    authorization: str
    bytes_in: int
    started: float
    output_tokens: int = 0
    status: int = 0
    reported: bool = False
    outcome: str = "left"

    @property
    def input_tokens(self) -> int:
        """A token for every four bytes: below what anybody may bound them by."""
        return max(1, self.bytes_in // 4)

    def wanted(self, behaviour: Behaviour) -> int:
        limits = [n for n in (self.ask.max_tokens, self.ask.max_completion_tokens) if n is not None]
        made = behaviour.tokens or 1 + self.number % TOKENS
        return min([made, *limits])

    @property
    def text(self) -> str:
        last = self.ask.messages[-1].get("content", "") if self.ask.messages else ""
        return f"{self.call} {last}"

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


class _Upstream:
    """The state of the process."""

    def __init__(self, journal: Path, behaviours: dict[str, str], seed: int) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._behaviours: dict[str, Behaviour] = {m: Behaviour.parse(text) for m, text in behaviours.items()}
        self._changed: dict[str, asyncio.Event] = {}
        self._random = random.Random(seed)
        self._count = 0
        self.working: dict[int, _Work] = {}

    def begin(self, call: str, ask: _Ask, authorization: str, bytes_in: int) -> _Work:
        self._count += 1
        work = _Work(self._count, call, ask, authorization, bytes_in, time.time())
        self.working[work.number] = work
        return work

    def end(self, work: _Work) -> None:
        """Once, however often it is said."""
        if self.working.pop(work.number, None) is None:
            return
        entry = Entry(
            call=work.call, number=work.number, model=work.ask.model, started=work.started, ended=time.time(),
            status=work.status, stream=work.ask.stream, outcome=work.outcome, input_tokens=work.input_tokens,
            output_tokens=work.output_tokens, reported=work.reported, authorization=work.authorization,
            bytes_in=work.bytes_in,
        )  # fmt: skip
        os.write(self._journal, msgspec.json.encode(entry) + b"\n")

    def change(self, behaviours: dict[str, str]) -> None:
        for model, text in behaviours.items():
            self._behaviours[model] = Behaviour.parse(text)
            self._changed.pop(model, asyncio.Event()).set()

    async def behaviour(self, model: str) -> Behaviour:
        """As it is now, or will be when it no longer says to wait."""
        while (found := self._behaviours.get(model) or _BY_DEFAULT).wait:
            await self.changed(model)
        return found if found.chance >= 1 or self._random.random() < found.chance else _BY_DEFAULT

    async def changed(self, model: str) -> None:
        await self._changed.setdefault(model, asyncio.Event()).wait()


_BY_DEFAULT = Behaviour()
_decode = msgspec.json.Decoder(_Ask).decode


class _Connection(asyncio.Protocol):
    """HTTP/1.1, one request after the other."""

    def __init__(self, upstream: _Upstream) -> None:
        self._upstream = upstream
        self._pending = b""
        self._task: asyncio.Task[None] | None = None
        self._work: _Work | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(self._left)

    def _left(self, _: object) -> None:
        """Also if it had not begun: then it could not say so itself."""
        if self._work is not None:
            self._upstream.end(self._work)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        if self._task is None:
            self._next()

    def _next(self) -> None:
        head, found, rest = self._pending.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._pending = rest[length:]
        if first.split(" ")[1] == "/control":
            self._control(first, rest[:length])
            return self._next()
        body = rest[:length]
        call = headers.get("x-perpetuo-call", "")
        work = self._work = self._upstream.begin(call, _decode(body), headers.get("authorization", ""), length)
        self._task = asyncio.get_running_loop().create_task(self._serve(work))
        return None

    def _control(self, first: str, body: bytes) -> None:
        if first.startswith("PUT "):
            self._upstream.change(json.loads(body))
        self._answer(200, json.dumps([[work.call, work.ask.model] for work in self._upstream.working.values()]))

    async def _serve(self, work: _Work) -> None:
        try:
            behaviour = await self._upstream.behaviour(work.ask.model)
            if behaviour.delay:
                await asyncio.sleep(behaviour.delay)
            await self._act(work, behaviour)
        finally:
            self._upstream.end(work)
        self._task = None
        self._next()

    async def _act(self, work: _Work, behaviour: Behaviour) -> None:
        if behaviour.status != 200:
            work.status, work.outcome = behaviour.status, "error"
            error = {"message": "as ordered", "type": "error", "param": None, "code": f"ordered_{behaviour.status}"}
            more = f"retry-after: {behaviour.retry_after}\r\n" if behaviour.retry_after else ""
            return self._answer(behaviour.status, json.dumps({"error": error}), more)
        if work.ask.stream:
            return await self._stream(work, behaviour)
        if behaviour.end == "complete" or not await self._end(work, behaviour.end, b""):
            work.output_tokens = work.wanted(behaviour)
            return self._whole(work, behaviour)
        return None

    def _whole(self, work: _Work, behaviour: Behaviour) -> None:
        work.status, work.outcome, work.reported = 200, "complete", behaviour.usage
        message = {"role": "assistant", "content": work.text}
        answer: dict[str, Any] = {
            "id": f"chatcmpl-{work.number}",
            "object": "chat.completion",
            "created": int(work.started),
            "model": work.ask.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if behaviour.usage:
            answer["usage"] = work.usage()
        self._answer(200, msgspec.json.encode(answer).decode())

    async def _stream(self, work: _Work, behaviour: Behaviour) -> None:
        """The text in the first event, then a word for every further token."""
        work.status = 200
        data = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        for made in range(work.wanted(behaviour)):
            if behaviour.end != "complete" and made == behaviour.after and await self._end(work, behaviour.end, data):
                return
            if made == behaviour.after and behaviour.end == "stall":
                data = b""
            work.output_tokens += 1
            data += self._event(work, {"content": work.text if made == 0 else f" word{made}"})
            if behaviour.gap:
                self._transport.write(data)
                data = b""
                await asyncio.sleep(behaviour.gap)
        data += self._event(work, {}, finish="stop")
        options = work.ask.stream_options or {}
        if behaviour.usage and options.get("include_usage"):
            work.reported = True
            data += _chunk({**_base(work), "choices": [], "usage": work.usage()})
        work.outcome = "complete"
        self._transport.write(data + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _event(self, work: _Work, delta: dict[str, str], finish: str | None = None) -> bytes:
        return _chunk({**_base(work), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    async def _end(self, work: _Work, how: str, data: bytes) -> bool:
        """End badly; False: it was only a pause."""
        if data:
            self._transport.write(data)
        if how == "stall":
            await self._upstream.changed(work.ask.model)
            return False
        work.outcome = how
        if how == "reset":
            self._transport.abort()
        else:
            self._transport.write(b"" if work.ask.stream else b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
            self._transport.close()
        return True

    def _answer(self, status: int, body: str, more: str = "") -> None:
        data = body.encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n{more}\r\n"
        self._transport.write(head.encode() + data)


def _base(work: _Work) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{work.number}",
        "object": "chat.completion.chunk",
        "created": int(work.started),
        "model": work.ask.model,
    }


def _chunk(event: dict[str, Any]) -> bytes:
    data = b"data: " + msgspec.json.encode(event) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(port: int, upstream: _Upstream) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: _Connection(upstream), "127.0.0.1", port, backlog=2048)
    async with server:
        await ended.wait()


def main(arguments: Sequence[str]) -> None:
    port, journal, behaviours, seed = arguments
    uvloop.run(_serve(int(port), _Upstream(Path(journal), json.loads(behaviours), int(seed))))


if __name__ == "__main__":
    main(sys.argv[1:])
