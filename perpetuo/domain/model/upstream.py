"""What goes to a provider, and what can come back?"""

from collections.abc import Callable
from enum import Enum

from perpetuo.domain.model.chat import Ask
from perpetuo.domain.model.models import Target
from perpetuo.domain.model.records import record
from perpetuo.domain.model.usage import Usage


class Ending(Enum):
    """How a provider's stream ended."""

    COMPLETE = "complete"
    """``[DONE]``, or a finish reason and then a clean end."""
    TRUNCATED = "truncated"
    """It stopped without its terminal event."""
    MALFORMED = "malformed"
    """An event that is not valid JSON."""


class Fault(Enum):
    """
    What went wrong with an attempt; the value is the ``outcome`` label of the attempts metric.

    The provider answered: CLIENT_ERROR (400, 404, 413, 422), CONTEXT_LENGTH (a 400 that says the
    input is too long), CREDENTIAL (401, 403, 429 ``insufficient_quota``), RATE_LIMITED (429),
    SERVER_ERROR (5xx, 408, 409 and anything else unusable). It did not: CONNECT (never sent), TIMEOUT,
    RESET, PROTOCOL (an answer that is no HTTP, too large, or lies about its length). ABORTED: we stopped it.
    """

    CLIENT_ERROR = "client_error"
    CONTEXT_LENGTH = "context_length"
    CREDENTIAL = "credential_rejected"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CONNECT = "connect"
    TIMEOUT = "timeout"
    RESET = "reset"
    PROTOCOL = "protocol"
    ABORTED = "aborted"


class Abort:
    """
    A one-shot signal that a call must stop: its client left, or the server is going down.

    Not an exception and not a task cancellation: whoever waits on the network attaches a callback
    that closes the connection, and the waiter then sees `Fault.ABORTED`.
    """

    __slots__ = ("_callbacks", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def fired(self) -> bool:
        return self.reason is not None

    def attach(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when fired; at once if it has been already."""
        if self.reason is not None:
            callback()
        else:
            self._callbacks.append(callback)

    def detach(self, callback: Callable[[], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def fire(self, reason: str) -> None:
        """Stop the call; only the first reason counts."""
        if self.reason is None:
            self.reason = reason
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()


@record
class Outbound:
    """One attempt: the ask as it goes to one target."""

    ask: Ask
    target: Target
    call: str
    limit_field: str | None
    """Name under which the output limit is sent; ``None``: leave the client's members alone."""
    limit: int | None
    deadline: float
    """Monotonic seconds at which the whole call must be over."""
    traceparent: str | None = None
    """For this attempt alone: its span is a child of the call's."""
    tracestate: str | None = None


@record
class Answer:
    """
    A complete answer of a provider, good or bad. ``body`` is what the client gets.

    ``fault`` is ``None`` for a usable 2xx. ``headers`` are those allowed through to the client.
    """

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    usage: Usage | None
    output_bytes: int
    """Bytes that could be output tokens, for a bound when ``usage`` is missing."""
    fault: Fault | None = None
    retry_after_us: int | None = None
    upstream_request_id: str | None = None
    error_code: str | None = None


class UpstreamFailure(Exception):  # noqa: N818 - a failure, not an error of ours
    """
    An attempt without an answer. ``sent`` is exact: False only if not one byte of it can have been read.

    ``text`` is for logs and operators; it may name hosts and is never shown to a client.
    """

    def __init__(self, fault: Fault, sent: bool, text: str) -> None:
        super().__init__(text)
        self.fault = fault
        self.sent = sent
        self.text = text

    def again(self) -> "UpstreamFailure":
        """
        The same without the frames it went through.

        One that was raised keeps them alive, and with them whatever they hold. If that is the failure itself, nothing
        of the call is freed before Python's collector comes by: so what is kept is never raised, and what was
        raised is never kept.
        """
        return UpstreamFailure(self.fault, self.sent, self.text)
