"""
How does a request get to an HTTP/1.1 origin, over a connection that is likely to be alive?

One pool per origin, last in, first out, so that a quiet hour leaves few connections open. A connection is taken from
the pool only if the loop has seen no end of it and the socket has nothing to say; idle ones are dropped after 15 s
(or what the server announced, less a second). That makes writing to a dying connection rare. It can't be made
impossible: a reset after our write counts as sent, whatever the connection was used for before, because nobody
can tell whether the server had read the request.
"""

import asyncio
import ssl
from functools import cache
from typing import Any

from perpetuo.adapters.providers.transport.connection import Connection, Http1Exchange
from perpetuo.adapters.providers.transport.request import Origin, render
from perpetuo.adapters.providers.transport.run import Run
from perpetuo.adapters.providers.transport.slots import Slots, connect_due, unsent
from perpetuo.adapters.providers.transport.wire import Phases, PoolStats, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault


@cache
def default_tls() -> ssl.SSLContext:
    """Certificates and names are checked; one context for all origins (it takes 20 ms to make)."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class LlhttpUpstream:
    """HTTP/1.1 over asyncio and llhttp. Implements `wire.Upstream`."""

    def __init__(self, origin: str, *, tls: ssl.SSLContext | None = None, max_connections: int = 1000) -> None:
        """``origin`` is ``scheme://host[:port]``; ``tls`` overrides the checks of an https origin."""
        self._origin = Origin.parse(origin)
        self._tls = (tls or default_tls()) if self._origin.secure else None
        self._slots = Slots(max_connections)
        self._idle: dict[Connection, None] = {}
        self._busy: set[Connection] = set()
        self._dials: set[Run[Any]] = set()
        self._closed = False

    async def open(self, request: UpstreamRequest, phases: Phases, abort: Abort) -> Http1Exchange:
        head = render(request, self._origin.authority)
        if self._closed:
            raise unsent(Fault.ABORTED, "the transport is closed")
        if not self._slots.take(abort):
            await self._slots.wait(phases, abort)
        loop = asyncio.get_running_loop()
        connection = self._take() or await self._connect(loop, phases, abort)
        exchange = Http1Exchange(loop, connection, request.method, phases, abort)
        await exchange.begin(head, request.body)
        return exchange

    async def close(self) -> None:
        self._closed = True
        self._slots.dismiss(unsent(Fault.ABORTED, "the transport was closed"))
        for dial in self._dials:
            dial.stop(unsent(Fault.ABORTED, "the transport was closed"))
        for connection in (*self._idle, *self._busy):
            connection.shut("the transport was closed")

    def stats(self) -> PoolStats:
        return PoolStats(idle=len(self._idle), busy=self._slots.busy)

    def _take(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_fresh():
                self._busy.add(connection)
                return connection
            connection.drop()
        return None

    def _freed(self, connection: Connection, keep_s: float) -> None:
        """An exchange is over, or a connection has gone; told at least once."""
        if keep_s > 0.0 and not self._closed:
            self._idle[connection] = None
        else:
            self._idle.pop(connection, None)
        if connection in self._busy:
            self._busy.remove(connection)
            self._slots.release()

    async def _connect(self, loop: asyncio.AbstractEventLoop, phases: Phases, abort: Abort) -> Connection:
        """A new connection in the slot we hold; whatever else happens, the slot is given back."""
        connection = Connection(loop, self._freed)
        self._busy.add(connection)
        try:
            await self._dial(loop, connection, phases, abort)
            if abort.fired:
                raise unsent(Fault.ABORTED, f"aborted while connecting: {abort.reason}")
            if connection.is_lost():
                raise unsent(Fault.RESET, "the server closed the new connection, or spoke before it was asked")
        except BaseException:
            connection.drop()
            self._freed(connection, 0.0)
            raise
        return connection

    async def _dial(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, phases: Phases, abort: Abort
    ) -> None:
        dial = Run(loop, self._establish(loop, connection))
        dial.stop_at(*connect_due(phases, loop.time()))

        def aborted() -> None:
            dial.stop(unsent(Fault.ABORTED, f"aborted while connecting: {abort.reason}"))

        abort.attach(aborted)
        self._dials.add(dial)
        try:
            await dial.result()
        except (OSError, ValueError, RuntimeError) as error:
            raise unsent(Fault.CONNECT, f"{self._origin.host}:{self._origin.port}: {error}") from None
        finally:
            abort.detach(aborted)
            self._dials.discard(dial)

    async def _establish(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        """TCP, then TLS: in one step, uvloop loses track of a connection that is cancelled between the two."""
        transport, _ = await loop.create_connection(lambda: connection, self._origin.host, self._origin.port)
        if self._tls is not None and not connection.closed:
            secure = await loop.start_tls(transport, connection, self._tls, server_hostname=self._origin.host)
            if secure is None:
                raise ConnectionResetError("closed while agreeing on TLS")
            connection.secure(secure)
