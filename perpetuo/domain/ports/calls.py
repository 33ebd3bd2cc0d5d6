"""What does one call touch besides the ledger: providers, their breakers, its client, those who are told?"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol

from perpetuo.domain.model.admission import (
    Abandoned,
)
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.upstream import Abort, Answer, Ending, Fault, Outbound
from perpetuo.domain.model.usage import Usage
from perpetuo.domain.policy.breaker import BreakerView


class BreakerBoard(Protocol):
    """
    Breakers of all providers, shared by all workers; reading and recording cost no round trip.

    Store away: decisions go by this worker's own counts.
    """

    def view(self, provider: str) -> BreakerView:
        """Closed, open until, or half-open, as last seen here."""
        ...

    async def try_probe(self, provider: str, call: str) -> bool:
        """In half-open: take the cluster's one probe lease (one round trip)."""
        ...

    def record(self, provider: str, fault: Fault | None, *, generation: int, probe: str | None) -> None:
        """Count the result of an attempt (``None``: success) begun under ``generation``; ``probe``: its call id."""
        ...

    async def refresh(self) -> None:
        """Know by now what other workers have done; while they can't be asked, what was known stays."""
        ...

    async def force(self, provider: str, *, open_for_us: int | None) -> None:
        """Operator: open for so long, or close now (``None``)."""
        ...


class Stream(Protocol):
    """A provider's answer as it arrives, after its first event was seen. Not for concurrent use."""

    status: int
    headers: tuple[tuple[str, str], ...]
    upstream_request_id: str | None
    usage: Usage | None
    output_bytes: int
    """Bytes of generated text so far: a bound on output tokens when ``usage`` is missing."""
    is_over: bool
    """What `chunks` gave last is all there is: its terminal event has been read, so it will end `COMPLETE`."""
    ending: Ending | None
    """Set once `chunks` is exhausted."""

    def chunks(self) -> AsyncIterator[bytes]:
        """
        Whole events, ready for the client; never the terminal ``[DONE]`` (the caller adds it).

        Raises `UpstreamFailure` on a reset, a timeout or an abort; ends with ``ending`` set otherwise.
        """
        ...


class Provider(Protocol):
    """One configured provider. No retries of its own, no redirects."""

    async def send(self, out: Outbound, abort: Abort) -> Answer | Stream:
        """
        Make one attempt. A stream is returned once its first event has arrived.

        Raises `UpstreamFailure`; whatever a provider does, nothing else is raised.
        """
        ...


class Providers(Protocol):
    """The providers of the configuration in force."""

    def get(self, provider: str) -> Provider: ...


class Client(Protocol):
    """
    The application's end of one call. Writing to a client that has gone is no error.

    Exactly one of `answer`, `refuse`, or (`start`, `write`…, then `finish` or `fail`) is used.
    """

    abort: Abort
    """Fires when the client leaves (reason ``client_gone``) or the drain is over (``shutdown``)."""

    async def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None: ...

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def finish(self, data: bytes) -> None:
        """End a started stream with its last bytes."""
        ...

    async def refuse(self, refusal: Refusal, headers: Iterable[tuple[str, str]]) -> None:
        """Answer with the error envelope."""
        ...

    def status_of(self, refusal: Refusal) -> int:
        """The status `refuse` gives it."""
        ...

    async def fail(self, refusal: Refusal) -> None:
        """End a started stream with one error event and without ``[DONE]``."""
        ...


class Journal(Protocol):
    """
    Where finished calls and refusals are told to people: log, metrics, by-the-minute rows.

    In process, never blocks, never fails.
    """

    def finished(self, event: Event) -> None: ...

    def refused(self, note: RefusalNote) -> None: ...

    def attempted(self, provider: str, outcome: str) -> None: ...

    def hold_exceeded(self, event: Event) -> None: ...

    def in_flight(self, calls: int) -> None:
        """How many calls this worker has in flight now."""
        ...

    def store_error(self, store: str, text: str) -> None:
        """A step of a store failed; each is counted, people hear of the first and then now and then."""
        ...

    def store_back(self, store: str) -> None:
        """A step succeeded; said again and again. Told once, if the store had failed and has not for a while."""
        ...

    def abandoned(self, calls: Sequence[Abandoned]) -> None: ...

    def log(self, level: str, event: str, **fields: Any) -> None:
        """A line for the operator; ``event`` is a short stable name."""
        ...


class System(Protocol):
    """Clock, randomness and ids."""

    def now_us(self) -> int:
        """Wall clock, µs since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds, never backwards."""
        ...

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def new_id(self) -> str:
        """A fresh UUIDv7 as text."""
        ...

    async def sleep(self, seconds: float) -> None: ...
