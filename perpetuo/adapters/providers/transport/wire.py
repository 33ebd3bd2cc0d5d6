"""
What does a provider adapter say to an HTTP transport, and what can it hear back?

Rule 1: one request, one response, bytes on both sides; no redirects, no cookies, no decoding, no retries.
Rule 2: every failure is an `UpstreamFailure`; ``sent`` is False only if the server can't have read a byte of it.
Rule 3: firing the call's `Abort` closes the connection at once, in every phase; the waiter gets `Fault.ABORTED`.
Rule 4: a cancelled task leaves nothing behind: no busy connection, no timer, no task.
"""

from typing import Protocol

import attrs

from perpetuo.domain.model.records import record
from perpetuo.domain.model.upstream import Abort

Headers = tuple[tuple[bytes, bytes], ...]

HEAD_BYTES = 64 * 1024
"""Largest response head (status line, headers, or trailers) we read."""
HEADER_COUNT = 128
"""Most headers of one response."""
IDLE_S = 15.0
"""How long an unused connection is kept: well below the 60 s of common load balancers."""
BUFFER_BYTES = 256 * 1024
"""How much of a body waits for a slow reader before reading from the socket stops."""


@record
class UpstreamRequest:
    """
    One request as it goes out. The transport adds ``host``, ``content-length`` and ``accept-encoding``.

    ``path`` is the request target (``/v1/chat/completions?x=y``); the origin is the transport's own. ``headers`` are
    the same for many requests, so they are checked and written down once; ``further`` are this one's own.
    """

    method: bytes
    path: bytes
    headers: Headers
    body: bytes
    further: Headers = ()


@record
class Phases:
    """How long each phase may last, in seconds; ``deadline`` is monotonic (the event loop's clock) and bounds all."""

    connect: float
    """Getting a connection: waiting for a free one, DNS, TCP and TLS."""
    head: float | None
    """From sending the request until the response head; ``None``: only the deadline."""
    idle: float | None
    """Between two arrivals of body bytes; ``None``: only the deadline."""
    deadline: float


@attrs.frozen
class PoolStats:
    """Connections of one transport: kept for reuse, and in use (connecting ones too)."""

    idle: int
    busy: int


class Exchange(Protocol):
    """
    A response whose head has arrived; header names are lower case. For one reader.

    It must be read to its end, or aborted: until then it occupies a connection.
    """

    status: int
    headers: Headers

    async def read(self, limit: int) -> bytes:
        """The whole body; `Fault.PROTOCOL` as soon as it is longer than ``limit``."""
        ...

    async def chunk(self) -> bytes | None:
        """What has arrived since the last call, waiting for the first byte; ``None`` at the clean end."""
        ...

    def is_ready(self) -> bool:
        """Does `chunk` surely return at once?"""
        ...

    def abort(self) -> None:
        """Close the connection now if the body has not ended yet; no error, may be called twice."""
        ...


class Upstream(Protocol):
    """An origin (scheme, host, port) that requests can be sent to."""

    async def open(self, request: UpstreamRequest, phases: Phases, abort: Abort) -> Exchange:
        """Send, and return once the response head has arrived. Raises nothing but `UpstreamFailure`."""
        ...

    async def close(self) -> None:
        """Close every connection; calls in flight end with `Fault.ABORTED`."""
        ...

    def stats(self) -> PoolStats: ...
