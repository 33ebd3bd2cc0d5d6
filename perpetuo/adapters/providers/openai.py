"""
How is one attempt made at a provider that speaks OpenAI's dialect?

Rule 1: headers go by allow-lists both ways; the body is what `dialects.openai.render` makes of the client's.
Rule 2: an answer that came is an `Answer` or a stream, also when it is bad; an answer that did not is an
        `UpstreamFailure`. What arrived but can't be understood is `Fault.PROTOCOL`: nothing of it goes on.
Rule 3: a stream begins with its first event. Until then whatever goes wrong is a failed attempt, so it may be
        made again elsewhere.
Rule 4: no redirects, no retries, no decoding of content: we ask for ``identity`` and take nothing else.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from perpetuo import __version__
from perpetuo.adapters.dialects.openai import render
from perpetuo.adapters.dialects.openai_answers import as_events, error_status, read_error, read_reply, secret
from perpetuo.adapters.dialects.sse import ChatStreamReader, Verdict
from perpetuo.adapters.providers.stream import EventStream, Whole
from perpetuo.adapters.providers.transport.wire import Exchange, Headers, Phases, Upstream, UpstreamRequest
from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.models import ProviderSpec
from perpetuo.domain.model.upstream import Abort, Answer, Fault, Outbound, UpstreamFailure

ANSWER_BYTES = 64 * 1024 * 1024
"""Longest answer we take that is not a stream."""
ERROR_BYTES = 1024 * 1024
PASSED_ON = ("openai-processing-ms", "openai-version")
"""Headers of a provider that its client may see."""

_READ = frozenset((b"content-type", b"content-encoding", b"retry-after", b"retry-after-ms", b"x-request-id")) | {
    name.encode() for name in PASSED_ON
}
_PATHS = {Kind.CHAT: "/chat/completions", Kind.EMBEDDINGS: "/embeddings"}
_SANE = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,255}")
_JSON = "application/json"


class OpenAIProvider:
    """Implements `perpetuo.domain.ports.Provider` over a transport."""

    def __init__(self, spec: ProviderSpec, upstream: Upstream, now_us: Callable[[], int]) -> None:
        self._upstream = upstream
        self._now_us = now_us
        self._loopback = spec.loopback
        self._targets = {kind: request_target(spec.base_url, path) for kind, path in _PATHS.items()}
        key = spec.api_key.strip() if spec.api_key else ""
        self._secret = secret(key) if key else None
        usual: Headers = (
            (b"content-type", b"application/json"),
            (b"user-agent", b"perpetuo/" + __version__.encode()),
            *(((b"authorization", b"Bearer " + key.encode()),) if key else ()),
        )
        self._headers: Headers = (*usual, (b"accept", b"application/json"))
        self._headers_of_streams: Headers = (*usual, (b"accept", b"text/event-stream"))

    async def send(self, out: Outbound, abort: Abort) -> Answer | EventStream:
        """Make one attempt. Raises nothing but `UpstreamFailure`."""
        begun = asyncio.get_running_loop().time()
        timeouts = out.target.timeouts
        stream = out.ask.stream
        phases = Phases(
            connect=timeouts.connect,
            head=timeouts.first_token if stream else None,
            idle=timeouts.idle if stream else None,
            deadline=min(out.deadline, begun + timeouts.total),
        )
        exchange = await self._upstream.open(self._request(out), phases, abort)
        try:
            return await self._receive(out, exchange, min(begun + timeouts.first_token, phases.deadline))
        except BaseException:
            exchange.abort()
            raise

    def _request(self, out: Outbound) -> UpstreamRequest:
        further: Headers = ()
        if out.traceparent is not None:
            further = ((b"traceparent", out.traceparent.encode()),)
            if out.tracestate is not None:
                further = (*further, (b"tracestate", out.tracestate.encode()))
        if self._loopback:
            further = (*further, (b"x-perpetuo-call", out.call.encode()))
        usual = self._headers_of_streams if out.ask.stream else self._headers
        return UpstreamRequest(b"POST", self._targets[out.ask.kind], usual, render(out), further)

    async def _receive(self, out: Outbound, exchange: Exchange, first_event_by: float) -> Answer | EventStream:
        status = exchange.status
        if not 200 <= status <= 599:
            raise _unusable(f"status {status}")
        headers = _headers(exchange.headers)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _unusable("a content-encoding we did not ask for")
        if status >= 300:
            return self._refused(out, status, await exchange.read(ERROR_BYTES), headers)
        if out.ask.stream and _is_sse(headers):
            return await self._begin(out, exchange, headers, first_event_by)
        return await self._whole(out, exchange, headers)

    async def _whole(self, out: Outbound, exchange: Exchange, headers: Mapping[str, str]) -> Answer | EventStream:
        """A 2xx that is one JSON object."""
        body = await exchange.read(ANSWER_BYTES)
        reading = read_reply(body)
        if reading is None:
            raise _unusable(f"a 2xx that is not a JSON object but {headers.get('content-type', 'of no type')[:80]}")
        if reading.error:
            return self._refused(out, error_status(body), body, headers)
        if out.ask.stream:
            events = as_events(body)
            if events is None:
                raise _unusable("a 2xx without choices")
            return await self._begin(out, Whole(exchange.status, events), headers, None)
        return Answer(
            status=exchange.status,
            content_type=_JSON,
            headers=_passed_on(headers),
            body=body,
            usage=reading.usage,
            output_bytes=reading.output_bytes if out.ask.kind is Kind.CHAT else 0,
            upstream_request_id=_request_id(headers),
        )

    def _refused(self, out: Outbound, status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
        error = read_error(status, body, headers, self._now_us(), self._secret, out.ask.model)
        return Answer(
            status=error.status,
            content_type=_JSON,
            headers=_passed_on(headers),
            body=error.body,
            usage=None,
            output_bytes=0,
            fault=error.fault,
            retry_after_us=error.retry_after_us,
            upstream_request_id=_request_id(headers),
            error_code=error.code,
        )

    async def _begin(
        self, out: Outbound, exchange: Exchange, headers: Mapping[str, str], by: float | None
    ) -> Answer | EventStream:
        """Wait for the first event of a stream. Comments keep a stream alive, but they are none."""
        reader = ChatStreamReader(choices=out.ask.choices, wants_usage=out.ask.include_usage)
        ready = await _first_event(exchange, reader, by)
        if not ready:
            if reader.error:
                return self._refused(out, error_status(reader.error), reader.error, headers)
            if not reader.started or reader.verdict in (Verdict.MALFORMED, Verdict.TOO_LARGE):
                raise _unusable("a stream without one good event")
        return EventStream(exchange, reader, ready, _passed_on(headers), _request_id(headers))


async def _first_event(exchange: Exchange, reader: ChatStreamReader, by: float | None) -> bytes:
    """The bytes of the first events; empty when the stream ended or broke before one, or it was not for the client."""
    ready = b""
    try:
        while not reader.started and reader.verdict is None:
            data = await _chunk_by(exchange, by)
            if data is None:
                break
            ready = reader.feed(data)
    except TimeoutError:
        raise UpstreamFailure(Fault.TIMEOUT, True, "waited too long for the first token") from None
    return ready if reader.started else b""


async def _chunk_by(exchange: Exchange, by: float | None) -> bytes | None:
    """What comes next; a timer only where there is something to wait for."""
    if exchange.is_ready():
        return await exchange.chunk()
    async with asyncio.timeout_at(by):
        return await exchange.chunk()


def _unusable(text: str) -> UpstreamFailure:
    return UpstreamFailure(Fault.PROTOCOL, True, f"the provider sent {text}")


def request_target(base_url: str, path: str) -> bytes:
    """The request target below ``base_url``, which may bring a query of its own (``?api-version=…``)."""
    parts = urlsplit(base_url)
    target = parts.path.rstrip("/") + path
    return (f"{target}?{parts.query}" if parts.query else target).encode()


def _headers(raw: Headers) -> dict[str, str]:
    """Those we look at; the names arrive in lower case."""
    return {name.decode(): value.decode("latin-1").strip() for name, value in raw if name in _READ}


def _is_sse(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def _passed_on(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, headers[name]) for name in PASSED_ON if name in headers and _SANE.fullmatch(headers[name]))


def _request_id(headers: Mapping[str, str]) -> str | None:
    given = headers.get("x-request-id", "")
    return given if _SANE.fullmatch(given) else None
