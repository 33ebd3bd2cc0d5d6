"""
What does the core need from outside?

One method per atomic step. Each says what happens when the thing behind it is down.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from perpetuo.domain.model.admission import (
    Abandoned,
    AdmitDecision,
    AdmitRequest,
    BudgetLimit,
    BudgetReading,
    ExtendDecision,
    Hold,
    Settled,
    Settlement,
)
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.model.events import Event, EventFilter, RefusalMinute, RefusalNote
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.model.upstream import Abort, Answer, Ending, Fault, Outbound
from perpetuo.domain.model.usage import Usage
from perpetuo.domain.policy.breaker import BreakerView


class StoreUnavailable(Exception):  # noqa: N818 - names the refusal it becomes
    """A store could not be reached in time. The step may or may not have happened; repeat it by call id."""


class Ledger(Protocol):
    """
    Counters, holds, idempotency keys and the stream of finished events, one atomic step per method.

    Every step is idempotent by call id: repeating it after a lost reply changes nothing. When the
    store is away each raises `StoreUnavailable` within 150 ms, then within 5 ms until it is back.
    """

    async def admit(self, request: AdmitRequest) -> AdmitDecision:
        """Idempotency claim → rate → concurrency → budget hold, all or nothing; a refusal leaves no trace."""
        ...

    async def extend(self, hold: Hold, extra: Nano) -> ExtendDecision:
        """Grow a hold by ``extra`` if every budget still allows it; refused: unchanged. Also renews its lease."""
        ...

    async def settle(self, settlement: Settlement, keeping: IdempotencySettings) -> Settled:
        """
        Release the hold, charge, keep the answer, append the event: once per call.

        After the reaper was quicker: corrects the counters by the difference, revision 2, stores nothing.
        """
        ...

    async def cancel(self, hold_or_request: Hold | AdmitRequest) -> None:
        """Undo an admission nothing was sent for: charge 0, rate slot back; an unknown call leaves a tombstone."""
        ...

    async def renew(self, holds: Sequence[Hold]) -> frozenset[str]:
        """
        Renew leases in bulk and stamp every shard; re-creates holds the store has lost.

        Returns ids of calls that were reaped meanwhile (their worker may still settle, never store).
        """
        ...

    async def reap(self) -> Sequence[Abandoned]:
        """Settle calls whose lease has ended, at their hold; nothing until a lease after the store was away."""
        ...

    async def read_budgets(self, limits: Sequence[BudgetLimit], tenant: str) -> Sequence[BudgetReading]:
        """Budgets as they stand."""
        ...

    async def read_usage(self, tenant: str, scopes: Sequence[str]) -> "Sequence[ScopeUsage]":
        """Admissions in the last 60 s and calls in flight of each scope."""
        ...

    async def in_flight(self, tenant: str, call: str) -> Event | None:
        """The row an unfinished call would leave if abandoned, or ``None`` when no such call is in flight."""
        ...

    def accepts_answers(self) -> bool:
        """Is there memory for further stored answers (below 70 %)? Known locally, no round trip."""
        ...

    def problem(self) -> str | None:
        """What is wrong with the store right now, in an operator's words; ``None``: nothing."""
        ...


class ScopeUsage(Protocol):
    """Current use of one scope."""

    @property
    def scope(self) -> str: ...

    @property
    def admitted_last_minute(self) -> int: ...

    @property
    def oldest_leaves_us(self) -> int:
        """µs until the oldest of those admissions leaves the window; 0 when there is none."""
        ...

    @property
    def in_flight(self) -> int: ...


class RecentRefusals(Protocol):
    """
    Refusals of the last minutes by request id, so that a caller can ask what happened to a request.

    Off the call path, best effort: at most 1,000 a second are remembered, for 10 minutes.
    """

    async def note_refusals(self, notes: Sequence[RefusalNote]) -> None: ...

    async def find_refusal(self, tenant: str, request_id: str) -> RefusalNote | None: ...


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

    async def finish(self) -> None: ...

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

    def store_error(self, store: str, text: str) -> None: ...

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


class StreamedEvent(Protocol):
    """A finished event on its way from the ledger's stream to SQL."""

    @property
    def entry(self) -> str:
        """Where it stands in the stream; opaque, for `EventStream.ack`."""
        ...

    @property
    def row(self) -> bytes:
        """The `Event` as JSON: keys are its field names."""
        ...

    @property
    def revision(self) -> int: ...

    @property
    def charged(self) -> int | None:
        """Set on abandoned calls: overrides the row's ``hold_nano_usd`` and ``cost_nano_usd``."""
        ...


class EventStream(Protocol):
    """Finished events, kept by the ledger until SQL has them. At least once, in no particular order."""

    async def read(self, limit: int, wait: float) -> Sequence[StreamedEvent]:
        """
        Up to ``limit`` events nobody else is draining; waits up to ``wait`` seconds for the first.

        Also takes over events another worker read more than 1 s ago and never acknowledged.
        """
        ...

    async def ack(self, events: Sequence[StreamedEvent]) -> None:
        """SQL has them: forget them."""
        ...

    async def backlog(self) -> int:
        """How many events SQL does not have yet."""
        ...


@attrs.frozen
class WindowSum:
    """Spending of one scope in one window according to SQL."""

    tenant: str
    key_name: str | None
    """``None``: the whole tenant."""
    window: str
    spent: Nano


class EventStore(Protocol):
    """
    The table ``events`` and what can be asked of it.

    Not on the path of any call. Away: each method raises `StoreUnavailable`; callers wait and retry.
    """

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        """
        Upsert a batch by id, higher revisions win; returns how many were set aside in ``events_rejected``.

        A row SQL can't take delays no other: the batch is bisected.
        """
        ...

    async def write_refusals(self, notes: Sequence[RefusalNote]) -> None:
        """Add to the by-the-minute rows of ``refusals``."""
        ...

    async def sums(self, tenant: str, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        """Σ cost of ``tenant`` and of each of its keys per window (``2026-11-23``, ``2026-11``), by ``budget_day``."""
        ...

    async def by_request_id(self, tenant: str, request_id: str) -> Event | None:
        """The caller's own call, newest first when an id was used twice."""
        ...


class Seal(Protocol):
    """A shard that one worker is seeding; others keep their hands off until its time limit."""

    @property
    def shard(self) -> int: ...


class Counters(Protocol):
    """
    The ledger's counters by shards of tenants: closed for budgets after a loss, until SQL has told what was spent.

    `perpetuo.domain.gateway.reseed` says how. Away: each method raises `StoreUnavailable`.
    """

    @property
    def is_first_life(self) -> bool:
        """Has this process never seen an open shard? Then no call of its own can be in flight."""
        ...

    def shard_of(self, tenant: str) -> int: ...

    async def closed(self) -> Sequence[int]:
        """Shards whose counters are not those of the store's present life."""
        ...

    async def seal(self, shard: int, windows: Sequence[tuple[str, str]]) -> Seal | None:
        """
        The counters of ``windows`` (scope, window) hold only what is settled from here on, and events of the
        shard go to SQL by nobody else. ``None``: open already, or somebody else's.
        """
        ...

    async def sealed_events(self, seal: Seal) -> Sequence[StreamedEvent] | None:
        """Some of the events settled before the seal, none when there are no more; ``None``: the seal is lost."""
        ...

    async def forget(self, events: Sequence[StreamedEvent]) -> None:
        """SQL has them."""
        ...

    async def open(self, seal: Seal, spent: Mapping[tuple[str, str], Nano]) -> bool:
        """Add what was spent before the seal to the counters, and open the shard; False: the seal is lost."""
        ...

    def waiting(self, why: str | None) -> None:
        """What opening waits for, in an operator's words."""
        ...


@attrs.frozen
class Admission:
    """An admission as SQL remembers it, to seed a rate log with."""

    tenant: str
    key_name: str
    at_us: int


class EventHistory(Protocol):
    """
    What operators ask of SQL, and how it is kept in order. Not on the path of any call.

    Away: each method raises `StoreUnavailable`, within seconds also when a table is locked.
    """

    async def latest(self, where: EventFilter, *, before: str | None = None, limit: int = 50) -> Sequence[Event]:
        """Newest first; ``before`` is the id of the last row of the page before."""
        ...

    async def refusals(self, since_us: int, tenant: str | None = None) -> Sequence[RefusalMinute]:
        """Refusals by the minute, newest first."""
        ...

    async def spending(self, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        """`EventStore.sums` of every tenant at once."""
        ...

    async def recent_admissions(self, since_us: int) -> Sequence[Admission]:
        """Calls admitted since then, oldest first."""
        ...

    async def maintain(self, now_us: int, retention_us: int) -> None:
        """Make the coming days' partitions; drop what is older than ``retention_us``."""
        ...

    async def ping(self) -> None:
        """Is SQL there, and migrated? `StoreUnavailable` says what is wrong."""
        ...

    def problem(self) -> str | None:
        """What was wrong when SQL was last asked, in an operator's words; ``None``: nothing. No round trip."""
        ...
