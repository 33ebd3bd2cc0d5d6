"""
What is happening on one HTTP/1.1 connection right now?

    idle --send--> awaiting the head --head--> reading the body --end--> idle, or closed
                          |                          |
                          +--- failure, abort, cancel: closed at once ---+

Rule 1: a connection serves one exchange at a time and goes back to its pool the moment the response is complete,
even if nobody has read it yet; in any doubt it is closed instead.
Rule 2: one timer per connection, for whatever is due next. It is moved lazily (a deadline that moves away costs an
assignment), because a request would otherwise pay for making and cancelling four.
Rule 3: a slow reader stops the reading from the socket, a slow server the writing: no buffer without a bound.
"""

import asyncio
import select
import socket
from collections.abc import Callable
from typing import cast

from perpetuo.adapters.providers.transport.response import Cut, Malformed, ResponseReader
from perpetuo.adapters.providers.transport.wire import BUFFER_BYTES, Headers, Phases
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure

_ONE_WRITE = 64 * 1024
"""Bodies up to here go out in the same write as the head; larger ones in pieces of this size."""
_NEVER = float("inf")
# Answers may take ten minutes without a byte; without probes a NAT in between forgets the connection after one to five.
_PROBES = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


class _NotYet(asyncio.Transport):
    """Stands for the transport until there is one."""

    __slots__ = ()

    def abort(self) -> None:
        """There is nothing to close."""


_NOT_YET = _NotYet()


class Connection(asyncio.Protocol):
    """One TCP or TLS connection, and the exchange that is using it, if any."""

    __slots__ = (
        "_due",
        "_exchange",
        "_loop",
        "_on_free",
        "_paused",
        "_peek",
        "_timer",
        "_timer_at",
        "_transport",
        "_unsent",
        "_writable",
        "closed",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, on_free: Callable[["Connection", float], None]) -> None:
        """``on_free(connection, keep_s)`` is called when an exchange is over; 0 when the connection is closed."""
        self._loop = loop
        self._on_free = on_free
        self._transport: asyncio.Transport = _NOT_YET
        self._exchange: Http1Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._due = _NEVER
        self._unsent: memoryview | None = None
        self._writable = True
        self._paused = False
        self._peek: select.poll | None = None
        self.closed = False

    def secure(self, transport: asyncio.Transport) -> None:
        """From now on we speak TLS: ``transport`` stands in front of the one we had."""
        self._transport = transport

    def is_lost(self) -> bool:
        """It has ended, even if the loop tells us only in its next turn."""
        return self.closed or self._transport.is_closing()

    def is_fresh(self) -> bool:
        """Nothing has arrived that the loop hasn't told us of yet: not the server's goodbye, for one."""
        return not self.is_lost() and not (self._peek and self._peek.poll(0))

    def send(self, exchange: "Http1Exchange", head: bytes, body: bytes) -> None:
        """Begin an exchange."""
        transport = self._transport
        self._exchange = exchange
        if len(body) <= _ONE_WRITE:
            transport.write(head + body)
            return
        self._unsent = memoryview(body)
        transport.write(head)
        self._write_on()

    def free(self, keep_s: float) -> None:
        """The exchange is over: keep the connection for so many seconds, or close it."""
        self._exchange = None
        if self._unsent is not None or self._transport.get_write_buffer_size():
            keep_s = 0.0  # Answered before we had said everything: the server would take the rest for a request.
        if keep_s > 0.0 and not self.closed:
            self.resume()
            self.watch(self._loop.time() + keep_s)
        else:
            self.drop()
            keep_s = 0.0
        self._on_free(self, keep_s)

    def drop(self) -> None:
        """Close without a goodbye: nothing that is still buffered matters to anybody."""
        self.closed = True
        self._unsent = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Not at once: we may be in a callback of uvloop's TLS, which goes on to write to the closed handle.
        self._loop.call_soon(self._transport.abort)

    def shut(self, text: str) -> None:
        """Close, and tell whoever is using it why."""
        if self._exchange is not None:
            self._exchange.fail(Fault.ABORTED, text)
        else:
            self._leave_pool()

    def pause(self) -> None:
        """Stop reading until `resume`: the reader is slower than the server."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    def watch(self, due: float) -> None:
        """Look again at ``due`` (and perhaps once before, when it moved away)."""
        self._due = due
        if self._timer is None or due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._look)
            self._timer_at = due

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now < self._due:
            self.watch(self._due)
        elif self._exchange is not None:
            self._exchange.on_due(now)
        else:
            self._leave_pool()

    def _leave_pool(self) -> None:
        self.drop()
        self._on_free(self, 0.0)

    def _write_on(self) -> None:
        transport = self._transport
        while self._unsent is not None and self._writable and not transport.is_closing():
            piece, rest = self._unsent[:_ONE_WRITE], self._unsent[_ONE_WRITE:]
            self._unsent = rest if len(rest) else None
            transport.write(piece)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._loop.call_soon(self._transport.abort)
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _PROBES:
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if sock is not None and hasattr(select, "poll"):
            self._peek = select.poll()
            self._peek.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self._leave_pool()  # It speaks without being asked.
        else:
            self._exchange.on_data(data)

    def eof_received(self) -> None:
        self.connection_lost(None)
        self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._exchange is not None:
            self._exchange.on_lost(error)
        else:
            self._leave_pool()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._write_on()


class Http1Exchange:
    """One request and its response on a `Connection`. Implements `wire.Exchange`."""

    __slots__ = ("_abort", "_connection", "_loop", "_phases", "_reader", "_waiter", "failure", "headers", "status")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        method: bytes,
        phases: Phases,
        abort: Abort,
    ) -> None:
        self._loop = loop
        self._connection: Connection | None = connection
        self._reader = ResponseReader(method)
        self._phases = phases
        self._abort = abort
        self._waiter: asyncio.Future[None] | None = None
        self.failure: UpstreamFailure | None = None
        self.status = 0
        self.headers: Headers = ()

    async def begin(self, head: bytes, body: bytes) -> None:
        """Send the request and wait for the response head."""
        if self._connection is not None:
            self._connection.send(self, head, body)
        self._abort.attach(self._aborted)
        reader = self._reader
        if not reader.head_complete and self.failure is None:
            await self._wait(self._phases.head)
        if self.failure is not None:
            raise self.failure.again()
        self.headers = tuple(reader.headers)
        self.status = reader.status

    async def chunk(self) -> bytes | None:
        reader = self._reader
        if not reader.pieces and not reader.complete and self.failure is None:
            await self._wait(self._phases.idle)
        if reader.pieces and (self.failure is None or self.failure.fault is not Fault.ABORTED):
            return reader.take()
        if self.failure is not None:
            raise self.failure.again()
        return None

    def is_ready(self) -> bool:
        return bool(self._reader.pieces) or self._reader.complete or self.failure is not None

    async def read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (part := await self.chunk()) is not None:
            size += len(part)
            if size > limit:
                self.abort()
                raise UpstreamFailure(Fault.PROTOCOL, True, f"a body of more than {limit} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self) -> None:
        self.fail(Fault.ABORTED, "aborted by its reader")

    async def _wait(self, seconds: float | None) -> None:
        """Until there is something new, for at most ``seconds``."""
        connection = self._connection
        if connection is None:
            return
        connection.resume()
        deadline = self._phases.deadline
        connection.watch(deadline if seconds is None else min(deadline, self._loop.time() + seconds))
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        except BaseException:  # Our task was cancelled: leave nothing behind.
            self.abort()
            raise
        finally:
            self._waiter = None

    # What the connection calls.

    def on_data(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
        except Malformed as error:
            self.fail(Fault.PROTOCOL, str(error))
            return
        if reader.complete:
            self._leave(reader.keep_s)
        elif reader.size > BUFFER_BYTES and self._connection is not None:
            self._connection.pause()
        if reader.pieces or reader.complete or (reader.head_complete and not self.status):
            self._wake()

    def on_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.fail(Fault.RESET, f"connection lost: {error}")
            return
        try:
            self._reader.end()
        except Cut as cut:
            self.fail(Fault.RESET, str(cut))
        else:
            self._leave(0.0)
            self._wake()

    def on_due(self, now: float) -> None:
        """The connection's timer: only a wait can be too long, or the whole call."""
        connection = self._connection
        if now >= self._phases.deadline:
            self.fail(Fault.TIMEOUT, "the deadline of the call has passed")
        elif self._waiter is not None:
            phase = "next bytes" if self.status else "response head"
            self.fail(Fault.TIMEOUT, f"waited too long for the {phase}")
        elif connection is not None:
            connection.watch(self._phases.deadline)

    def _aborted(self) -> None:
        self.fail(Fault.ABORTED, f"aborted: {self._abort.reason}")

    def fail(self, fault: Fault, text: str) -> None:
        """End the exchange, unless the response is complete already."""
        if self._connection is not None:
            self.failure = UpstreamFailure(fault, True, text)
            self._leave(0.0)
            self._wake()

    def _leave(self, keep_s: float) -> None:
        connection, self._connection = self._connection, None
        self._reader.release()
        self._abort.detach(self._aborted)
        if connection is not None:
            connection.free(keep_s)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
