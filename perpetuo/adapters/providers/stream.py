"""
How does a provider's stream go on after its first event, and how does it end?

Rule 1: whole events only, each checked; the terminal ``[DONE]`` stays here.
Rule 2: after the terminal event the response is read to its end, so that its connection can be used again; not for
        longer than a moment, because the client is waiting for its own end.
Rule 3: a consumer that stops early closes the connection.
"""

import asyncio
from collections.abc import AsyncIterator

from perpetuo.adapters.dialects.sse import ChatStreamReader, Verdict
from perpetuo.adapters.providers.transport.wire import Exchange, Headers
from perpetuo.domain.model.upstream import Ending, Fault, UpstreamFailure
from perpetuo.domain.model.usage import Usage

LINGER_S = 0.1
"""How long the end of a response may take to follow its ``[DONE]``."""


class EventStream:
    """Implements `perpetuo.domain.ports.Stream`. ``ready`` are events that have been read already."""

    def __init__(
        self,
        exchange: Exchange,
        reader: ChatStreamReader,
        ready: bytes,
        headers: tuple[tuple[str, str], ...],
        upstream_request_id: str | None,
    ) -> None:
        self.status = exchange.status
        self.headers = headers
        self.upstream_request_id = upstream_request_id
        self.usage: Usage | None = reader.usage
        self.output_bytes = reader.output_bytes
        self.ending: Ending | None = None
        self.is_over = False
        self._exchange = exchange
        self._reader = reader
        self._ready = ready

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises `UpstreamFailure` on a reset, a time-out, an abort, or an error event."""
        reader = self._reader
        try:
            self.is_over = reader.verdict is Verdict.DONE
            if self._ready:
                yield self._ready
            while reader.verdict is None:
                data = await self._exchange.chunk()
                if data is None:
                    break
                ready = reader.feed(data)
                self.usage, self.output_bytes = reader.usage, reader.output_bytes
                self.is_over = reader.verdict is Verdict.DONE
                if ready:
                    yield ready
            failure = mid_stream_failure(reader)
            if failure is not None:
                raise failure
            self.ending = reader.end()
            if reader.verdict is Verdict.DONE:
                await _drain(self._exchange)
        finally:
            self._exchange.abort()


def mid_stream_failure(reader: ChatStreamReader) -> UpstreamFailure | None:
    """What broke the stream, if it was the provider's own doing and no malformed event."""
    match reader.verdict:
        case Verdict.ERROR:
            return UpstreamFailure(Fault.SERVER_ERROR, True, "the provider sent an error in its stream")
        case Verdict.TOO_LARGE:
            return UpstreamFailure(Fault.PROTOCOL, True, "the provider sent an event beyond the size limit")
        case _:
            return None


async def _drain(exchange: Exchange) -> None:
    """Read past the terminal event; whatever happens now changes nothing for the client."""
    try:
        while exchange.is_ready():  # its end has arrived already: no timer for that
            if await exchange.chunk() is None:
                return
        async with asyncio.timeout(LINGER_S):
            while await exchange.chunk() is not None:
                pass
    except (TimeoutError, UpstreamFailure):
        pass


class Whole:
    """A body that is there already, as an `Exchange`."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.headers: Headers = ()
        self._body: bytes | None = body

    async def chunk(self) -> bytes | None:
        body, self._body = self._body, None
        return body

    async def read(self, limit: int) -> bytes:
        body = await self.chunk() or b""
        if len(body) > limit:
            raise UpstreamFailure(Fault.PROTOCOL, True, f"a body of more than {limit} bytes")
        return body

    def is_ready(self) -> bool:
        return True

    def abort(self) -> None:
        self._body = None
