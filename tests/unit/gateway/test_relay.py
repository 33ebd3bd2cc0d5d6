"""The relay between the ledger's stream and SQL, over memory twins and a clock that only moves when asked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import attrs
import msgspec
import pytest

from perpetuo.adapters.memory.refusals import MemoryRecentRefusals
from perpetuo.adapters.memory.stream import MemoryStream
from perpetuo.adapters.system import uuid7
from perpetuo.domain.gateway import relay
from perpetuo.domain.gateway.relay import Refusals
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.policy.admission import Appended
from perpetuo.domain.ports import StoreUnavailable, StreamedEvent, WindowSum
from tests.unit.gateway.world import Clock, Notes

pytestmark = pytest.mark.anyio
_serial = count(1)


class MemoryStore:
    """`EventStore` in a dictionary, which can be away."""

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.attempts = 0
        self.asked_in_vain = False
        self.rows: dict[str, tuple[int, Event]] = {}
        self.refusals: list[RefusalNote] = []

    def ask(self) -> None:
        self.attempts += 1
        self.asked_in_vain = self.away is not None
        if self.away is not None:
            raise self.away

    def problem(self) -> str | None:
        return "away" if self.asked_in_vain else None

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        self.ask()
        rejected = 0
        for streamed in events:
            try:
                event = msgspec.json.decode(streamed.row, type=Event)
            except msgspec.DecodeError:
                rejected += 1
                continue
            if self.rows.get(event.id, (0, event))[0] < streamed.revision:
                self.rows[event.id] = (streamed.revision, event)
        return rejected

    async def write_refusals(self, notes: Sequence[RefusalNote]) -> None:
        self.ask()
        self.refusals += notes

    async def sums(self, tenant: str, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        return []

    async def by_request_id(self, tenant: str, request_id: str) -> Event | None:
        return None


@attrs.define
class Setting:
    """A relay and what it stands between."""

    clock: Clock = attrs.field(factory=Clock)
    notes: Notes = attrs.field(factory=Notes)
    store: MemoryStore = attrs.field(factory=MemoryStore)
    stream: MemoryStream = attrs.field(init=False)

    @stream.default
    def _stream(self) -> MemoryStream:
        return MemoryStream(self.clock.now_us)

    def finish(self, calls: int, revision: int = 1) -> list[Event]:
        events = [finished() for _ in range(calls)]
        self.stream.append(Appended(one, revision, None) for one in events)
        return events

    async def drain_once(self) -> int:
        return await relay.drain_once(self.stream, self.store, self.notes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.create_task(relay.relay(self.stream, self.store, self.notes, self.clock))
        yield
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [fields for _, line, fields in self.notes.lines if line == name]


def finished() -> Event:
    serial = next(_serial)
    fields: dict[str, Any] = {"tenant_id": "acme", "key_name": "k", "kind": "chat", "model": "m", "status": 200}
    return Event(id=uuid7(1, serial), occurred_at_us=1, request_id=f"r{serial}", outcome="completed", **fields)


def refusal(at_us: int = 0, **fields: Any) -> RefusalNote:
    given = {"tenant_id": "acme", "key_name": "k", "reason": "rate_limit_exceeded", "client_ip": None, **fields}
    return RefusalNote(at_us=at_us, request_id=f"r{next(_serial)}", status=429, model="m", **given)


async def until(condition: Any) -> None:
    """Let the loop run until it is so; the clock of the test stands still meanwhile."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the condition is about objects without events
            await asyncio.sleep(0)


@pytest.fixture
def setting() -> Setting:
    return Setting()


# --- events --------------------------------------------------------------------------------------


async def test_a1_what_was_finished_is_in_sql_and_forgotten_by_the_stream(setting: Setting) -> None:
    """One round takes a batch over; an acknowledged event is gone from the stream."""
    events = setting.finish(3)
    assert await setting.drain_once() == 3
    assert [setting.store.rows[one.id] for one in events] == [(1, one) for one in events]
    assert await setting.stream.backlog() == 0


async def test_a1_nothing_is_acknowledged_that_sql_did_not_take(setting: Setting) -> None:
    """SQL fails between reading and writing: the events are handed out again."""
    setting.finish(2)
    setting.store.away = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await setting.drain_once()
    assert await setting.stream.backlog() == 2
    setting.store.away = None
    setting.clock.us += 1_500_000
    assert await setting.drain_once() == 2
    assert await setting.stream.backlog() == 0


async def test_a3_an_outage_is_survived_and_both_its_ends_are_told(setting: Setting) -> None:
    """However long SQL is away: the journal hears of every failure, of the end once there is one; nothing is lost."""
    setting.store.away = StoreUnavailable("connection refused")
    async with setting.running():
        setting.finish(5)
        await until(lambda: setting.store.attempts >= 20)
        assert setting.lines("sql") == [{"text": "connection refused"}] * setting.store.attempts
        assert not setting.lines("store_back")
        assert not setting.store.rows
        setting.store.away = None
        await until(lambda: len(setting.store.rows) == 5)
        setting.finish(1)
        await until(lambda: len(setting.store.rows) == 6)
        await until(lambda: setting.lines("store_back"))
    assert setting.notes.lines[-1] == ("info", "store_back", {"store": "sql"})


async def test_a4_the_relay_is_back_within_a_second_of_sql(setting: Setting) -> None:
    """Pauses grow, but never beyond a second, so that events are visible within two after an outage."""
    setting.store.away = StoreUnavailable("gone")
    async with setting.running():
        setting.finish(1)
        await until(lambda: setting.store.attempts >= 1)
        last = setting.clock.us
        for n in range(2, 30):
            await until(lambda n=n: setting.store.attempts >= n)
            assert setting.clock.us - last <= 1_000_000
            last = setting.clock.us


async def test_a3_while_sql_is_away_the_stream_keeps_what_comes(setting: Setting) -> None:
    """Only the batch in hand is out of the stream's queue; a second relay can take the rest."""
    setting.store.away = StoreUnavailable("gone")
    async with setting.running():
        setting.finish(1)
        await until(lambda: setting.store.attempts >= 3)
        late = setting.finish(4)
        await until(lambda: setting.store.attempts >= 6)
        unread = await setting.stream.read(100, 0)
        assert {one.id for one in late} <= {msgspec.json.decode(each.row)["id"] for each in unread}


async def test_a1_a_bug_does_not_end_the_relay(setting: Setting) -> None:
    """Whatever a store raises, events must not pile up for ever after."""
    setting.store.away = KeyError("unexpected")
    async with setting.running():
        setting.finish(1)
        await until(lambda: setting.store.attempts >= 3)
        setting.store.away = None
        await until(lambda: len(setting.store.rows) == 1)
    assert "unexpected" in setting.lines("sql")[0]["text"]


async def test_a2_set_aside_events_are_said(setting: Setting) -> None:
    """An operator reads where the rejected rows are."""
    setting.finish(1)
    (one,) = setting.stream._unread.values()
    one.row = b"{}"
    assert await setting.drain_once() == 1
    assert setting.lines("events_rejected") == [{"count": 1, "see": "table events_rejected"}]
    assert await setting.stream.backlog() == 0


async def test_a3_a_backlog_is_drained_batch_after_batch(setting: Setting) -> None:
    """Without a pause in between."""
    setting.finish(3 * relay.BATCH + 1)
    began = setting.clock.us
    async with setting.running():
        await until(lambda: len(setting.store.rows) == 3 * relay.BATCH + 1)
    assert setting.store.attempts == 4
    assert setting.clock.us == began


# --- refusals ------------------------------------------------------------------------------------


async def test_r4_a_flood_of_refusals_is_one_row_a_minute(setting: Setting) -> None:
    """100,000 refusals take the memory of one, and one row."""
    pending = Refusals()
    for n in range(10_000):
        pending.add(refusal(n))
    await relay.flush_once(pending, setting.store, setting.notes)
    (row,) = setting.store.refusals
    assert (row.count, row.at_us, row.last_us) == (10_000, 0, 9_999)
    assert pending.take() == []


async def test_refusals_wait_while_sql_is_away(setting: Setting) -> None:
    """They are counted on, and written when it is back."""
    pending = Refusals()
    pending.add(refusal(1))
    setting.store.away = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await relay.flush_once(pending, setting.store, setting.notes)
    pending.add(refusal(2))
    setting.store.away = None
    await relay.flush_once(pending, setting.store, setting.notes)
    assert [(row.count, row.at_us, row.last_us) for row in setting.store.refusals] == [(2, 1, 2)]


async def test_o4_refusals_in_memory_are_bounded_and_what_is_dropped_is_said(setting: Setting) -> None:
    """Thousands of tenants, and SQL away for long: a bounded number of rows."""
    pending = Refusals()
    for n in range(relay.MOST_ROWS + 7):
        pending.add(refusal(tenant_id=f"t{n}"))
    assert len(pending.take_recent()) == relay.MOST_RECENT
    await relay.flush_once(pending, setting.store, setting.notes)
    assert len(setting.store.refusals) == relay.MOST_ROWS
    assert setting.lines("refusals_dropped") == [{"count": 7}]


def test_a3_a_tenant_in_a_loop_of_429s_takes_no_room_from_the_others() -> None:
    """Fifty of its refusals a second are remembered one by one; the other tenants' still are, and all are counted."""
    pending = Refusals()
    for _ in range(5_000):
        pending.add(refusal(tenant_id="loop"))
    pending.add(refusal(tenant_id="calm"))
    assert Counter(note.tenant_id for note in pending.take_recent()) == {"loop": 50, "calm": 1}
    assert {row.tenant_id: row.count for row in pending.take()} == {"loop": 5_000, "calm": 1}
    pending.add(refusal(tenant_id="loop"))
    assert len(pending.take_recent()) == 1


async def test_a_spray_of_addresses_can_not_fill_the_table(setting: Setting) -> None:
    """Failed authentications from more addresses than a minute may name share one row."""
    pending = Refusals()
    for n in range(relay.MOST_ADDRESSES + 100):
        pending.add(refusal(tenant_id="", key_name="", reason="invalid_api_key", client_ip=f"2001:db8::{n:x}"))
    rows = {row.client_ip: row.count for row in pending.take()}
    assert len(rows) == relay.MOST_ADDRESSES + 1
    assert rows[relay.OTHER_ADDRESSES] == 100


async def test_the_flusher_goes_on_for_ever(setting: Setting) -> None:
    """Every second: by request id to the recent ones, by the minute to SQL; an outage ends neither."""
    pending, recent = Refusals(), MemoryRecentRefusals()
    setting.store.away = StoreUnavailable("gone")
    loop = asyncio.create_task(relay.flush_refusals(pending, setting.store, recent, setting.notes, setting.clock))
    first = refusal(1)
    pending.add(first)
    await until(lambda: setting.store.attempts >= 3)
    setting.store.away = None
    await until(lambda: len(setting.store.refusals) == 1)
    assert await recent.find_refusal("acme", first.request_id) == first
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
