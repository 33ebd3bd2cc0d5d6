"""
How does a request get to an origin that needs HTTP/2 or a proxy?

Over httpx's transport, with the same faults, phases and promises as the llhttp one.

Rule 1: one httpx transport is one connection and serves one call at a time. Aborting a call then means throwing its
transport away: httpcore doesn't reset a cancelled HTTP/2 stream (the provider would go on generating), loses slots of
its pool when it is cancelled while connecting, and takes time proportional to the size of its pool.
Rule 2: every time-out is ours, httpx's are off. Its trace says when the request's first byte leaves, which makes
``sent`` exact: an exception class can't tell.
Rule 3: httpcore would read bytes after the end of a response as the answer to the next call, so such a connection
is not used again.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

import httpx

from perpetuo.adapters.providers.transport.request import Origin, headers
from perpetuo.adapters.providers.transport.response import Malformed, announced_keep, check_head
from perpetuo.adapters.providers.transport.run import Run
from perpetuo.adapters.providers.transport.slots import Slots, connect_due, unsent
from perpetuo.adapters.providers.transport.wire import IDLE_S, Headers, Phases, PoolStats, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure

FAULTS: dict[type[Exception], Fault] = {
    httpx.ConnectError: Fault.CONNECT,
    httpx.ConnectTimeout: Fault.CONNECT,
    httpx.PoolTimeout: Fault.CONNECT,
    httpx.ProxyError: Fault.CONNECT,
    httpx.UnsupportedProtocol: Fault.CONNECT,
    httpx.ReadTimeout: Fault.TIMEOUT,
    httpx.WriteTimeout: Fault.TIMEOUT,
    httpx.TimeoutException: Fault.TIMEOUT,
    httpx.ReadError: Fault.RESET,
    httpx.WriteError: Fault.RESET,
    httpx.CloseError: Fault.RESET,
    httpx.NetworkError: Fault.RESET,
    httpx.TransportError: Fault.RESET,
    httpx.LocalProtocolError: Fault.PROTOCOL,
    httpx.RemoteProtocolError: Fault.PROTOCOL,
    httpx.ProtocolError: Fault.PROTOCOL,
}
"""What httpx's transport can raise. A failure before the first byte is `Fault.CONNECT`, whatever its class."""
# h11, h2 and httpcore say both "gone" and "gibberish" with RemoteProtocolError; the contract suite holds these texts.
_GONE = re.compile("disconnected|closed connection|ConnectionTerminated|StreamReset")
T = TypeVar("T")


def fault_of(error: Exception, sent: bool) -> Fault:
    """Which fault an exception from inside httpx stands for."""
    if not sent:
        return Fault.CONNECT
    if isinstance(error, httpx.RemoteProtocolError) and _GONE.search(str(error)):
        return Fault.RESET
    return FAULTS.get(type(error), Fault.PROTOCOL)


class HttpxUpstream:
    """HTTP/2 where the server speaks it, or HTTP/1.1 through a proxy. Implements `wire.Upstream`."""

    def __init__(
        self,
        origin: str,
        *,
        http2: bool = False,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        max_connections: int = 1000,
    ) -> None:
        self._origin = Origin.parse(origin)
        self._base = httpx.URL(origin)
        self._http2 = http2
        self._proxy = proxy
        # Never shared with other transports: httpcore writes its ALPN list into it.
        self._tls = tls or ssl.create_default_context()
        self._slots = Slots(max_connections)
        self._idle: dict[httpx.AsyncHTTPTransport, asyncio.TimerHandle] = {}
        self._busy: set[HttpxExchange] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, request: UpstreamRequest, phases: Phases, abort: Abort) -> "HttpxExchange":
        lines = [(b"host", self._origin.authority), *headers(request)]
        if self._closed:
            raise unsent(Fault.ABORTED, "the transport is closed")
        if not self._slots.take(abort):
            await self._slots.wait(phases, abort)
        exchange = HttpxExchange(self, self._take(), phases, abort)
        self._busy.add(exchange)
        await exchange.begin(
            httpx.Request(
                request.method.decode(),
                self._base.copy_with(raw_path=request.path),
                headers=lines,
                content=request.body,
                extensions={"trace": exchange.on_trace},
            )
        )
        return exchange

    async def close(self) -> None:
        self._closed = True
        self._slots.dismiss(unsent(Fault.ABORTED, "the transport was closed"))
        for exchange in tuple(self._busy):
            exchange.fail(Fault.ABORTED, "the transport was closed")
        for line in tuple(self._idle):
            self._expire(line)
        while self._closing:
            await asyncio.wait(self._closing)

    def stats(self) -> PoolStats:
        return PoolStats(idle=len(self._idle), busy=self._slots.busy)

    def free(self, exchange: "HttpxExchange", line: httpx.AsyncHTTPTransport, keep_s: float) -> None:
        """An exchange is over; ``keep_s`` is how long its connection may be kept."""
        self._busy.discard(exchange)
        if keep_s > 0.0 and not self._closed:
            self._idle[line] = asyncio.get_running_loop().call_later(keep_s, self._expire, line)
        else:
            self._discard(line, exchange)
        self._slots.release()

    def _take(self) -> httpx.AsyncHTTPTransport:
        if self._idle:
            line, timer = self._idle.popitem()
            timer.cancel()
            return line
        return httpx.AsyncHTTPTransport(
            verify=self._tls,
            trust_env=False,
            http2=self._http2,
            proxy=self._proxy,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S),
        )

    def _expire(self, line: httpx.AsyncHTTPTransport) -> None:
        self._idle.pop(line).cancel()
        self._discard(line, None)

    def _discard(self, line: httpx.AsyncHTTPTransport, exchange: "HttpxExchange | None") -> None:
        task = asyncio.get_running_loop().create_task(_close(line, exchange))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class HttpxExchange:
    """One request and its response. Implements `wire.Exchange`."""

    def __init__(self, upstream: HttpxUpstream, line: httpx.AsyncHTTPTransport, phases: Phases, abort: Abort) -> None:
        self._upstream = upstream
        self._line: httpx.AsyncHTTPTransport | None = line
        self._loop = asyncio.get_running_loop()
        self._phases = phases
        self._abort = abort
        self._run: Run[Any] | None = None
        self._failure: UpstreamFailure | None = None
        self._sent = False
        self._body: _Body | None = None
        self._sockets: list[Any] = []
        self.status = 0
        self.headers: Headers = ()
        abort.attach(self._aborted)

    async def begin(self, request: httpx.Request) -> None:
        """Send the request and wait for the response head."""
        if self._line is None:
            return
        due, late = connect_due(self._phases, self._loop.time())
        response = await self._until(due, late, self._line.handle_async_request(request))
        self._body = _Body(response)
        self.headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        try:
            check_head(response.status_code, self.headers)
        except Malformed as error:
            failure = UpstreamFailure(Fault.PROTOCOL, True, str(error))
            self._end(0.0, failure)
            raise failure.again() from None
        self.status = response.status_code

    async def on_trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore is about to do something, or has done it."""
        if event == "connection.connect_tcp.complete":
            self._sockets.append(info["return_value"])
        if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            self._sent = True
            if self._run is not None:
                self._run.stop_at(*self._wait_due(self._phases.head, "response head"))

    async def chunk(self) -> bytes | None:
        if self._failure is not None:
            raise self._failure.again()
        piece: bytes | None = b""
        while self._line is not None and self._body is not None and not piece:
            piece = await self._until(*self._wait_due(self._phases.idle, "next bytes"), self._body.next())
            if piece is None:
                self._end(announced_keep(self.headers) if _is_clean(self._line) else 0.0, None)
        return piece or None

    def is_ready(self) -> bool:
        return self._line is None or self._failure is not None

    async def read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (part := await self.chunk()) is not None:
            size += len(part)
            if size > limit:
                self.abort()
                raise UpstreamFailure(Fault.PROTOCOL, True, f"a body of more than {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    def closers(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """What must be closed of an exchange that was given up, beside its line."""
        if self._body is not None:
            yield self._body.close
        for sock in self._sockets:
            yield sock.aclose  # httpcore forgets it when it is cancelled in a TLS handshake.

    def abort(self) -> None:
        self.fail(Fault.ABORTED, "aborted by its reader")

    def fail(self, fault: Fault, text: str) -> None:
        """End the exchange, unless its end has been read already."""
        if self._line is None:
            return
        self._failure = UpstreamFailure(fault, self._sent, text)
        if self._run is not None:
            self._run.stop(self._failure)
        else:
            self._end(0.0, self._failure)

    def _aborted(self) -> None:
        self.fail(Fault.ABORTED, f"aborted: {self._abort.reason}")

    def _wait_due(self, seconds: float | None, what: str) -> tuple[float, UpstreamFailure]:
        deadline = self._phases.deadline
        due = deadline if seconds is None else self._loop.time() + seconds
        if due < deadline:
            return due, UpstreamFailure(Fault.TIMEOUT, True, f"waited too long for the {what}")
        return deadline, UpstreamFailure(Fault.TIMEOUT, True, "the deadline of the call has passed")

    async def _until(self, due: float, late: UpstreamFailure, step: Coroutine[Any, Any, T]) -> T:
        """One step of httpx. Whatever goes wrong in it ends the exchange."""
        run = Run(self._loop, step)
        self._run = run
        run.stop_at(due, late)
        try:
            result = await run.result()
            if self._failure is not None:  # Aborted in the very moment in which the step was done.
                raise self._failure.again()
        except (UpstreamFailure, asyncio.CancelledError) as error:
            self._end(0.0, error.again() if isinstance(error, UpstreamFailure) else _CANCELLED)
            raise
        except Exception as error:  # noqa: BLE001 - whatever httpx's parts let through, our caller sees one kind
            text = f"{type(error).__name__}: {error}"
            failure = UpstreamFailure(fault_of(error, self._sent), self._sent, text)
            self._end(0.0, failure)
            raise failure.again() from None
        finally:
            self._run = None
        return result

    def _end(self, keep_s: float, failure: UpstreamFailure | None) -> None:
        line, self._line = self._line, None
        self._failure = self._failure or failure
        self._abort.detach(self._aborted)
        if line is not None:
            self._upstream.free(self, line, keep_s)


_CANCELLED = UpstreamFailure(Fault.ABORTED, True, "its reader was cancelled")


async def _close(line: httpx.AsyncHTTPTransport, exchange: HttpxExchange | None) -> None:
    for close in (*(exchange.closers() if exchange is not None else ()), line.aclose):
        with contextlib.suppress(Exception):
            await close()


class _Body:
    """What httpx hands out as a body, to be read step by step."""

    def __init__(self, response: httpx.Response) -> None:
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._pieces = cast("AsyncGenerator[bytes, None]", aiter(self._stream))

    async def next(self) -> bytes | None:
        piece = await anext(self._pieces, None)
        if piece is None:
            await self._stream.aclose()  # Only this gives the connection back to its pool.
        return piece

    async def close(self) -> None:
        await self._pieces.aclose()
        await self._stream.aclose()


def _is_clean(line: httpx.AsyncHTTPTransport) -> bool:
    """
    Is the connection still open, with no byte beyond the end of its response?

    Neither httpx nor httpcore tells, so this looks at their private parts; where they have changed it says no.
    """
    connections = getattr(getattr(line, "_pool", None), "connections", [])
    part: Any = connections[0] if len(connections) == 1 else None
    while part is not None:
        if hasattr(part, "_h2_state"):
            return True
        if hasattr(part, "_h11_state"):
            return bool(part._h11_state.trailing_data == (b"", False))
        part = getattr(part, "_connection", None)
    return False
