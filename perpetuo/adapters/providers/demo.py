"""
What does a provider answer when there is no provider? And how does an operator rehearse its failures?

`DemoUpstream` is a provider inside this process, below `OpenAIProvider` where a transport would be: same bytes, same
limits and time-outs, nothing sent anywhere. Answers depend on the request alone. A target whose *model* is named
below misbehaves; any other name just answers.
"""

import asyncio
import base64
import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec

from perpetuo.adapters.providers.transport.wire import Headers, Phases, PoolStats, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure


@attrs.frozen
class Behaviour:
    """How a demo model misbehaves. ``error`` is status, type, code and message of an answer."""

    says: str
    error: tuple[int, str, str | None, str] | None = None
    retry_after: str | None = None
    refused: bool = False
    reset: bool = False
    silent: bool = False
    cut: bool = False
    stall: bool = False
    usage: bool = True
    malformed: bool = False
    flaky: bool = False
    first_after: float = 0.0
    pace: float = 1.0


def _error(status: int, kind: str, code: str | None, message: str, retry_after: str | None = None) -> Behaviour:
    return Behaviour(f"answers {status} {code or kind}", (status, kind, code, message), retry_after)


_BROKEN = (500, "server_error", "internal_error", "The demo provider fails on purpose.")
_TOO_LONG = "This model's maximum context length is 8192 tokens. The demo provider says so on purpose."

BEHAVIOURS: dict[str, Behaviour] = {
    "demo-error-500": Behaviour("answers 500", _BROKEN),
    "demo-error-503": _error(503, "server_error", "overloaded", "The demo provider is overloaded on purpose."),
    "demo-flaky": Behaviour("every second call: 500", _BROKEN, flaky=True),
    "demo-400": _error(400, "invalid_request_error", "bad_request", "The demo provider refuses on purpose."),
    "demo-context": _error(400, "invalid_request_error", "context_length_exceeded", _TOO_LONG),
    "demo-401": _error(401, "authentication_error", "invalid_api_key", "Incorrect API key provided."),
    "demo-quota": _error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "demo-429": _error(429, "rate_limit_error", "rate_limit_exceeded", "Too many requests, on purpose.", "2"),
    "demo-refused": Behaviour("can't be connected to; nothing is sent", refused=True),
    "demo-reset": Behaviour("takes the request and closes the connection", reset=True),
    "demo-timeout": Behaviour("takes the request and never answers", silent=True),
    "demo-slow": Behaviour("first token after 3 s, then a tenth of the pace", first_after=3.0, pace=10.0),
    "demo-stall": Behaviour("goes silent in the middle of its answer", stall=True),
    "demo-cut": Behaviour("stops in the middle of its answer, without a terminal event", cut=True),
    "demo-malformed": Behaviour("sends something that is not JSON in the middle", malformed=True),
    "demo-no-usage": Behaviour("does not say what was used", usage=False),
}
"""What an operator can rehearse, by the name of the target's model."""

_GOOD = Behaviour("answers")
_UNREADABLE = _error(400, "invalid_request_error", None, "The demo provider can't read a body as deep or odd as this.")
_PIECE = re.compile(r"\s*\S{1,6}|\s+$")
_JSON: Headers = ((b"content-type", b"application/json"),)
_SSE: Headers = ((b"content-type", b"text/event-stream"),)
_encode = msgspec.json.Encoder().encode

Step = tuple[float, bytes]
"""Seconds to wait, then bytes."""


class DemoUpstream:
    """Implements `transport.wire.Upstream` in this process. ``pace``: seconds a streamed token takes."""

    def __init__(self, now_us: Callable[[], int], pace: float = 0.02) -> None:
        self._now_us = now_us
        self._pace = pace
        self._open: set[DemoExchange] = set()
        self._flaky_calls = 0

    async def open(self, request: UpstreamRequest, phases: Phases, abort: Abort) -> "DemoExchange":
        body = _decode(request.body)
        how = BEHAVIOURS.get(body["model"], _GOOD) if body else _UNREADABLE
        if how.refused:
            raise UpstreamFailure(Fault.CONNECT, False, "demo-refused: connection refused")
        if abort.fired:
            raise UpstreamFailure(Fault.ABORTED, False, f"aborted: {abort.reason}")
        self._flaky_calls += how.flaky
        failing = how.error is not None and (not how.flaky or self._flaky_calls % 2 == 1)
        exchange = DemoExchange(phases, abort, how, self._open.discard)
        self._open.add(exchange)
        if how.reset:
            raise exchange.fail(Fault.RESET, "demo-reset: the server closed the connection without an answer")
        if how.silent or how.first_after:
            await exchange.wait(math.inf if how.silent else how.first_after, phases.head, "response head")
        if failing:
            exchange.answer(*_refusal(how))
        elif b"/embeddings" in request.path:
            exchange.answer(200, _JSON, [(0.0, _embeddings(body))])
        elif body.get("stream"):
            exchange.answer(200, _SSE, list(_stream(body, how, self._seconds(), self._pace * how.pace)))
        else:
            exchange.answer(200, _JSON, list(_whole(body, how, self._seconds())))
        return exchange

    async def close(self) -> None:
        for exchange in tuple(self._open):
            exchange.stop()

    def stats(self) -> PoolStats:
        return PoolStats(idle=0, busy=len(self._open))

    def _seconds(self) -> int:
        return self._now_us() // 1_000_000


class DemoExchange:
    """Implements `transport.wire.Exchange`: steps in time, and an ending of the behaviour's choice."""

    def __init__(self, phases: Phases, abort: Abort, how: Behaviour, over: Callable[["DemoExchange"], None]) -> None:
        self.status = 0
        self.headers: Headers = ()
        self._steps: Iterator[Step] = iter(())
        self._phases = phases
        self._abort = abort
        self._how = how
        self._over = over
        self._stopped = asyncio.Event()
        abort.attach(self.stop)

    def answer(self, status: int, headers: Headers, steps: list[Step]) -> None:
        self.status, self.headers = status, headers
        if self._how.cut or self._how.stall:
            steps = steps[: len(steps) // 2]
        self._steps = iter(steps)

    async def read(self, limit: int) -> bytes:
        parts = []
        while (part := await self.chunk()) is not None:
            parts.append(part)
        body = b"".join(parts)
        if len(body) > limit:
            raise self.fail(Fault.PROTOCOL, f"a body of more than {limit} bytes")
        return body

    async def chunk(self) -> bytes | None:
        step = next(self._steps, None)
        if step is not None:
            delay, data = step
            if delay or self._stopped.is_set():
                await self.wait(delay, self._phases.idle, "next bytes")
            return data
        if self._how.stall:
            await self.wait(math.inf, self._phases.idle, "next bytes")
        if self._how.cut and self.headers == _JSON:
            raise self.fail(Fault.RESET, "demo-cut: the server closed the connection in the middle")
        self._end()
        return None

    def is_ready(self) -> bool:
        return False

    def abort(self) -> None:
        self.stop()
        self._end()

    def stop(self) -> None:
        self._stopped.set()

    async def wait(self, seconds: float, limit: float | None, what: str) -> None:
        """Let time pass; raises when the call is stopped, or has no more time."""
        now = asyncio.get_running_loop().time()
        due = min(self._phases.deadline, math.inf if limit is None else now + limit)
        until = now + seconds
        try:
            async with asyncio.timeout_at(min(due, until)):
                await self._stopped.wait()
        except TimeoutError:
            if until <= due:
                return
            raise self.fail(Fault.TIMEOUT, f"waited too long for the {what}") from None
        except asyncio.CancelledError:
            self._end()
            raise
        raise self.fail(Fault.ABORTED, f"aborted: {self._abort.reason}")

    def fail(self, fault: Fault, text: str) -> UpstreamFailure:
        self._end()
        return UpstreamFailure(fault, True, text)

    def _end(self) -> None:
        self._abort.detach(self.stop)
        self._over(self)


# --- what it says --------------------------------------------------------------------------------


def _decode(raw: bytes) -> dict[str, Any]:
    """Empty when it is nested too deeply or has numbers out of range: the gateway reads less of it than we do."""
    try:
        body: dict[str, Any] = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return body


def _refusal(how: Behaviour) -> tuple[int, Headers, list[Step]]:
    status, kind, code, message = how.error or _BROKEN
    headers = (*_JSON, (b"retry-after", how.retry_after.encode())) if how.retry_after else _JSON
    return status, headers, [(0.0, _encode({"error": {"message": message, "type": kind, "param": None, "code": code}}))]


def _pieces(body: dict[str, Any]) -> tuple[list[str], str]:
    """The answer in tokens, and its finish reason."""
    users = [m for m in body["messages"] if m.get("role") == "user"] or body["messages"]
    said = _text(users[-1].get("content"))[:500]
    pieces = _PIECE.findall(f"You said: {said} – This is the demo provider; no model was asked.")
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    most = min(limits, default=len(pieces))
    return (pieces, "stop") if most >= len(pieces) else (pieces[:most], "length")


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _usage(body: dict[str, Any], output: int) -> dict[str, int]:
    size = sum(len(_text(message.get("content")).encode()) for message in body["messages"])
    prompt = size // 4 + 3 * len(body["messages"])
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _head(body: dict[str, Any], created: int, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(repr(body).encode()).hexdigest()[:24]
    return {"id": f"chatcmpl-{digest}", "object": kind, "created": created, "model": body["model"]}


def _whole(body: dict[str, Any], how: Behaviour, created: int) -> Iterator[Step]:
    pieces, finish = _pieces(body)
    choices = body.get("n") or 1
    message = {"role": "assistant", "content": "".join(pieces), "refusal": None}
    reply = _head(body, created, "chat.completion")
    reply["choices"] = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish} for index in range(choices)
    ]
    if how.usage:
        reply["usage"] = _usage(body, choices * len(pieces))
    data = _encode(reply)
    middle = len(data) // 2
    yield 0.0, data[:middle]
    yield 0.0, b"\0<<" + data[middle:] if how.malformed else data[middle:]


def _stream(body: dict[str, Any], how: Behaviour, created: int, pace: float) -> Iterator[Step]:
    pieces, finish = _pieces(body)
    choices = range(body.get("n") or 1)
    head = _head(body, created, "chat.completion.chunk")

    def event(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "choices": [choice]})

    yield 0.0, b"".join(event(index, {"role": "assistant", "content": ""}) for index in choices)
    for place, piece in enumerate(pieces):
        if how.malformed and place == len(pieces) // 2:
            yield pace, b'data: {"id":<<\n\n'
        yield pace, b"".join(event(index, {"content": piece}) for index in choices)
    yield 0.0, b"".join(event(index, {}, finish) for index in choices)
    if how.usage and (body.get("stream_options") or {}).get("include_usage"):
        yield 0.0, _event({**head, "choices": [], "usage": _usage(body, len(choices) * len(pieces))})
    yield 0.0, b"data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + _encode(data) + b"\n\n"


def _embeddings(body: dict[str, Any]) -> bytes:
    given = body["input"]
    single = isinstance(given, str) or isinstance(given[0], int)
    inputs = [given] if single else given
    wanted = body.get("dimensions")
    size = wanted if type(wanted) is int and 0 < wanted <= 4096 else 1536
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(_encode(item), size, packed)}
        for index, item in enumerate(inputs)
    ]
    tokens = sum(max(1, len(item.encode()) // 4) if isinstance(item, str) else len(item) for item in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode({"object": "list", "data": data, "model": body["model"], "usage": usage})


def _vector(seed: bytes, size: int, packed: bool) -> list[float] | str:
    """A unit vector that depends on ``seed`` alone."""
    raw = struct.unpack(f"<{size}h", hashlib.shake_256(seed).digest(2 * size))
    length = math.sqrt(sum(x * x for x in raw)) or 1.0
    vector = [x / length for x in raw]
    return base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector
