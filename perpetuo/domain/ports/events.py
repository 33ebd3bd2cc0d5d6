"""What does the core need of SQL? Nothing on the path of a call."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from perpetuo.domain.model.activity import EVERYTHING, Activity, Scope, Tally
from perpetuo.domain.model.events import Event, EventFilter, RefusalMinute, RefusalNote
from perpetuo.domain.model.money import Nano
from perpetuo.domain.ports.ledger import StreamedEvent


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

    def problem(self) -> str | None:
        """What was wrong when SQL was last asked, in an operator's words; ``None``: nothing. No round trip."""
        ...


@attrs.frozen
class Admission:
    """An admission as SQL remembers it, to seed a rate log with."""

    tenant: str
    key_name: str
    at_us: int


@attrs.frozen
class ProviderCall:
    """What a finished call says of the provider that it ended at. Milliseconds."""

    outcome: str
    error_code: str | None
    latency_ms: float
    first_token_ms: float | None


@attrs.frozen
class Found:
    """What a search found, newest first."""

    events: Sequence[Event]
    next: str | None
    """The ``before`` that the search goes on with; ``None``: there is nothing older."""
    back_to_us: int | None = None
    """Its time was over: what is older was not looked at. There may be fewer events than asked for, or none."""


class EventHistory(Protocol):
    """
    What operators ask of SQL, and how it is kept in order. Not on the path of any call.

    Away: each method raises `StoreUnavailable`, within seconds also when a table is locked.
    """

    async def latest(self, where: EventFilter, *, before: str | None = None, limit: int = 50) -> Sequence[Event]:
        """Newest first; ``before`` is the id of the last row of the page before."""
        ...

    async def search(
        self, where: EventFilter, *, now_us: int, before: str | None = None, limit: int = 50, seconds: float = 0.2
    ) -> Found:
        """`latest`, as far back as it gets in about so many seconds, however many rows there are."""
        ...

    async def count(self, where: EventFilter) -> int:
        """How many events there are of these."""
        ...

    async def refusals(
        self, since_us: int, tenant: str | None = None, *, until_us: int | None = None, reason: str | None = None,
        request_id: str | None = None, limit: int = 1_000,
    ) -> Sequence[RefusalMinute]:  # fmt: skip
        """
        Refusals of the minutes that begin in this time, newest first.

        ``request_id``: those whose sample it is; others are not kept.
        """
        ...

    async def spending(self, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        """`EventStore.sums` of every tenant at once."""
        ...

    async def provider_calls(self, provider: str, since_us: int, *, limit: int = 1_000) -> Sequence[ProviderCall]:
        """Calls that ended at this provider, newest first."""
        ...

    async def recent_admissions(self, since_us: int) -> Sequence[Admission]:
        """Calls admitted since then, oldest first."""
        ...

    async def roll(self, now_us: int) -> int:
        """
        Sum up minutes that are over and got rows since they were; how many were.

        Whole minutes are counted anew, so repeating it, or another worker doing it, changes nothing.
        """
        ...

    async def activity(self, since_us: int, until_us: int, step: int, scope: Scope = EVERYTHING) -> Activity:
        """Sums of a span in steps of ``step`` minutes, cut to whole steps at its beginning."""
        ...

    async def parts(self, since_us: int, until_us: int, scope: Scope) -> Mapping[str, Tally]:
        """Sums by the models or the keys of a tenant since the beginning of the hour of ``since_us``."""
        ...

    async def maintain(self, now_us: int, retention_us: int) -> None:
        """Make the coming days' partitions; drop what is older than ``retention_us``."""
        ...

    async def ping(self) -> None:
        """Is SQL there, and migrated? `StoreUnavailable` says what is wrong."""
        ...
