"""What does the core need of the ledger: one method per atomic step, and the way back after a loss?"""

from collections.abc import Mapping, Sequence
from typing import Protocol

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
from perpetuo.domain.model.budgets import AdjustDecision, Adjustment
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.policy.nearness import Used, Watched


class StoreUnavailable(Exception):  # noqa: N818 - names the refusal it becomes
    """A store could not be reached in time. The step may or may not have happened; repeat it by call id."""


class NeverSent(StoreUnavailable):
    """The store was not even asked: the step surely did not happen, so there is nothing to undo."""


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

    async def adjust(self, adjustment: Adjustment) -> AdjustDecision:
        """Change what was spent and append the event: once per id, in all windows or in none."""
        ...

    async def read_budgets(self, limits: Sequence[BudgetLimit], tenant: str) -> Sequence[BudgetReading]:
        """Budgets as they stand."""
        ...

    async def read_usage(self, tenant: str, scopes: Sequence[str]) -> "Sequence[ScopeUsage]":
        """Admissions in the last 60 s and calls in flight of each scope."""
        ...

    async def read_used(self, watched: Sequence[Watched]) -> Sequence[Used]:
        """
        How much of their limits thousands of scopes use, in this order: in a few short steps, not as one instant.

        Calls may pass between two steps, so this holds up nobody.
        """
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


class RecentRefusals(Protocol):
    """
    Refusals of the last minutes by request id, so that a caller can ask what happened to a request.

    Off the call path, best effort: at most 1,000 a second are remembered, for 10 minutes.
    """

    async def note_refusals(self, notes: Sequence[RefusalNote]) -> None: ...

    async def find_refusal(self, tenant: str, request_id: str) -> RefusalNote | None: ...


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
class Seal:
    """
    A shard that one worker is seeding; others keep their hands off until its time limit.

    ``token`` says whose it is, ``last`` names the last event before it; both mean something to the ledger only.
    """

    shard: int
    token: str
    last: bytes


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
