"""
How do finished events and refusals get into SQL?

Rule 1: an event is acknowledged after SQL has committed it, so each arrives at least once; rows are
told apart by their id, so twice is once.
Rule 2: SQL away: the batch in hand is tried again until SQL takes it, and nothing more is read, so that the
stream keeps it all for whoever comes first. Calls do not notice.
Rule 3: each failure and each round without one is told to the journal, which makes one outage of them.
Rule 4: refusals are counts for people. They are folded by the minute before they travel, and what
does not fit in memory while SQL is away is dropped and said so. Of the first thousand of a second, the first
fifty of each tenant are also kept by request id, for the caller who asks.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import attrs

from perpetuo.domain.model.events import RefusalNote
from perpetuo.domain.ports import (
    EventHistory,
    EventStore,
    EventStream,
    Journal,
    RecentRefusals,
    StoreUnavailable,
    StreamedEvent,
    System,
)

BATCH = 500
"""Events a statement. A batch with a row that SQL refuses is halved nine times: well below 5 s."""
READ_WAIT = 0.5
FLUSH_EVERY = 1.0
MAINTAIN_EVERY = 3600.0
ROLL_EVERY = 15.0
MANY_MINUTES = 60
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
MINUTE_US = 60_000_000
MOST_ROWS = 10_000
MOST_ADDRESSES = 256
OTHER_ADDRESSES = "*"
MOST_RECENT = 1_000
"""Refusals per flush that are remembered by request id."""
MOST_RECENT_OF_TENANT = 50
"""Of these, of one tenant: its flood must not fill the ledger, nor take the room of the others."""
SQL = "sql"
STREAM = "stream"


async def drain_once(stream: EventStream, store: EventStore, journal: Journal) -> int:
    """Take one batch from the stream to SQL; how many events it had. Waits up to `READ_WAIT` for the first."""
    batch = await stream.read(BATCH, READ_WAIT)
    if batch:
        await _write(batch, store, journal)
        await stream.ack(batch)
    return len(batch)


async def _write(batch: Sequence[StreamedEvent], store: EventStore, journal: Journal) -> None:
    rejected = await store.write(batch)
    if rejected:
        journal.log("error", "events_rejected", count=rejected, see="table events_rejected")


async def relay(stream: EventStream, store: EventStore, journal: Journal, system: System) -> None:
    """Drain for ever. Cancelling it is safe at any point: what was not acknowledged is read again."""
    reading, writing = Outage(STREAM, journal, system), Outage(SQL, journal, system)
    while True:
        try:
            batch = await stream.read(BATCH, READ_WAIT)
            if batch:
                await _insist(batch, store, journal, writing)
                await stream.ack(batch)
            reading.over()
            journal.store_back(STREAM)
            if store.problem() is None:
                journal.store_back(SQL)
        except Exception as error:  # noqa: BLE001 - whatever it is, events must not pile up because of it
            await reading.pause(error)


async def _insist(batch: Sequence[StreamedEvent], store: EventStore, journal: Journal, outage: "Outage") -> None:
    while True:
        try:
            await _write(batch, store, journal)
        except Exception as error:  # noqa: BLE001 - as above
            await outage.pause(error)
        else:
            return outage.over()


@attrs.define
class Outage:
    """A store that fails now and then: pauses between attempts."""

    store: str
    journal: Journal
    system: System
    failures: int = 0

    async def pause(self, error: Exception) -> None:
        """Note a failure and wait before the next attempt, longer each time, up to a second."""
        text = str(error) if isinstance(error, StoreUnavailable) else repr(error)
        self.journal.store_error(self.store, text)
        span = min(FIRST_PAUSE * 2 ** min(self.failures, 10), LONGEST_PAUSE)
        self.failures += 1
        await self.system.sleep(span * (0.5 + self.system.random() / 2))

    def over(self) -> None:
        """Note a success."""
        self.failures = 0


# --- refusals ------------------------------------------------------------------------------------

_Key = tuple[int, str, str, str, str]


class Refusals:
    """
    Refusals on their way to SQL, folded by the minute: a flood costs one addition each.

    Failed authentications go by client address, of which a minute keeps `MOST_ADDRESSES`; the
    others share the address ``*``.
    """

    def __init__(self) -> None:
        self._rows: dict[_Key, RefusalNote] = {}
        self._recent: list[RefusalNote] = []
        self._recent_of: Counter[str] = Counter()
        self._addresses: set[str] = set()
        self._minute = 0
        self.dropped = 0
        """Refusals that found no room since the last `take`."""

    def add(self, note: RefusalNote) -> None:
        """Count a refusal, and remember it by its request id."""
        tenant = note.tenant_id
        if tenant and len(self._recent) < MOST_RECENT and self._recent_of[tenant] < MOST_RECENT_OF_TENANT:
            self._recent.append(note)
            self._recent_of[tenant] += 1
        self.count(note)

    def count(self, note: RefusalNote) -> None:
        minute = note.at_us // MINUTE_US
        address = "" if note.tenant_id else self._address(minute, note.client_ip or "")
        key = (minute, note.tenant_id, note.key_name, note.reason, address)
        known = self._rows.get(key)
        if known is not None:
            self._rows[key] = _joined(known, note)
        elif len(self._rows) < MOST_ROWS:
            self._rows[key] = attrs.evolve(note, client_ip=address or None)
        else:
            self.dropped += note.count

    def take(self) -> list[RefusalNote]:
        """The minutes so far; they are the caller's now."""
        rows, self._rows = self._rows, {}
        return list(rows.values())

    def take_recent(self) -> list[RefusalNote]:
        """The latest refusals one by one; they are the caller's now."""
        recent, self._recent, self._recent_of = self._recent, [], Counter()
        return recent

    def _address(self, minute: int, address: str) -> str:
        if minute > self._minute:
            self._minute, self._addresses = minute, set()
        if address in self._addresses or len(self._addresses) < MOST_ADDRESSES:
            self._addresses.add(address)
            return address
        return OTHER_ADDRESSES


def _joined(known: RefusalNote, note: RefusalNote) -> RefusalNote:
    last = max(known.last_us or known.at_us, note.last_us or note.at_us)
    return attrs.evolve(known, at_us=min(known.at_us, note.at_us), count=known.count + note.count, last_us=last)


async def flush_once(pending: Refusals, store: EventStore, journal: Journal) -> None:
    """Write what has been noted; when SQL is away it is noted again, for the next time."""
    notes = pending.take()
    try:
        await store.write_refusals(notes)
    except StoreUnavailable:
        for note in notes:
            pending.count(note)
        raise
    if pending.dropped:
        journal.log("warning", "refusals_dropped", count=pending.dropped)
        pending.dropped = 0


async def flush_refusals(
    pending: Refusals, store: EventStore, recent: RecentRefusals, journal: Journal, system: System
) -> None:
    """Write refusals for ever, every `FLUSH_EVERY` seconds. The relay tells about outages, this does not."""
    while True:
        await system.sleep(FLUSH_EVERY)
        await _count_failure(STREAM, recent.note_refusals(pending.take_recent()), journal)
        await _count_failure(SQL, flush_once(pending, store, journal), journal)


async def _count_failure(store: str, step: Awaitable[None], journal: Journal) -> None:
    try:
        await step
    except StoreUnavailable as error:
        journal.store_error(store, str(error))
    except Exception as error:  # noqa: BLE001 - a bug must not end the loop
        journal.log("error", "refusals_lost", problem=repr(error))


# --- maintenance ---------------------------------------------------------------------------------


async def maintain(history: EventHistory, retention_us: Callable[[], int], journal: Journal, system: System) -> None:
    """Make partitions ahead and drop old rows, at once and then hourly, by the retention in force at that time."""
    outage = Outage(SQL, journal, system)
    while True:
        try:
            await history.maintain(system.now_us(), retention_us())
            outage.over()
            await system.sleep(MAINTAIN_EVERY * (0.75 + system.random() / 2))
        except Exception as error:  # noqa: BLE001 - locked, away, not migrated yet: try again
            await outage.pause(error)


async def roll(history: EventHistory, journal: Journal, system: System) -> None:
    """Sum up minutes for ever. With much to do (after an upgrade) a round follows the one before soon."""
    outage = Outage(SQL, journal, system)
    while True:
        try:
            done = await history.roll(system.now_us())
            outage.over()
            await system.sleep(FIRST_PAUSE if done > MANY_MINUTES else ROLL_EVERY * (0.75 + system.random() / 2))
        except Exception as error:  # noqa: BLE001 - as above
            await outage.pause(error)
