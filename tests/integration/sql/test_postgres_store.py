"""The event store on a real Postgres: the contract, partitions, and what only Postgres can refuse."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from perpetuo.adapters.sql import Database, SqlEventStore, database
from perpetuo.adapters.sql.partitions import partition_day
from perpetuo.adapters.sql.tables import events_rejected
from perpetuo.domain.model.events import EventFilter
from perpetuo.domain.ports.events import Found
from tests import servers
from tests.contract.event_store_contract import (
    DAY_US,
    NOON,
    NOON_US,
    EventStoreContract,
    Sent,
    event,
    refusal,
    sent,
    spoilt,
)
from tests.contract.rollups_contract import RollupsContract
from tests.contract.search_contract import SearchContract
from tests.patience import PATIENCE, best_of

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers take their turns; on a busy machine the last one's comes later than a relay would wait."""
    patient = database.Patience(lock=PATIENCE, statement=PATIENCE, total=2 * PATIENCE)
    for name in ("store.WRITING", "store.MAINTAINING", "partitions.WRITING", "partitions.MAINTAINING"):
        monkeypatch.setattr(f"perpetuo.adapters.sql.{name}", patient)
    monkeypatch.setattr("perpetuo.adapters.sql.rollups.MAINTAINING", patient)


class TestPostgresStore(EventStoreContract):
    @pytest.fixture
    async def store(self, emptied_url: str) -> AsyncIterator[SqlEventStore]:
        made = SqlEventStore(Database(emptied_url))
        yield made
        await made.close()

    async def rejected(self, store: SqlEventStore) -> int:
        async with store._database.transaction(database.READING) as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(events_rejected)) or 0


class TestPostgresSearch(SearchContract):
    @pytest.fixture
    async def store(self, emptied_url: str) -> AsyncIterator[SqlEventStore]:
        made = SqlEventStore(Database(emptied_url))
        await made._partitions.drop_before(date(2100, 1, 1))  # of other tests: a search goes back to the oldest
        yield made
        await made.close()


class TestPostgresRollups(RollupsContract):
    @pytest.fixture
    async def store(self, emptied_url: str) -> AsyncIterator[SqlEventStore]:
        made = SqlEventStore(Database(emptied_url))
        yield made
        await made.close()

    async def test_two_workers_sum_up_and_write_at_once(self, store: SqlEventStore, emptied_url: str) -> None:
        """Whoever is first: nothing is left out, nothing counted twice."""
        other = SqlEventStore(Database(emptied_url))
        batches = [[sent(event(NOON_US + n)) for n in range(20)] for _ in range(12)]
        later = NOON_US + 3_600_000_000
        for writer, batch in zip([store, other] * 6, batches, strict=True):
            await asyncio.gather(writer.write(batch), store.roll(later), other.roll(later))
        await store.roll(later)
        await other.roll(later)
        seen = await store.activity(NOON_US - 60_000_000, later, 1)
        assert (seen.total.tally.calls, seen.total.latency.total, seen.behind) == (240, 240, 0)
        await other.close()


def partitions(url: str) -> set[date | str]:
    names = servers.sql(url, "select inhrelid::regclass::text from pg_inherits where inhparent = 'events'::regclass")
    return {partition_day(name) or name for (name,) in names}


def rows_of(url: str, table: str) -> int:
    return int(servers.sql(url, f"select count(*) from {table}")[0][0])  # noqa: S608


# --- poison --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        lambda: spoilt(event(), upstream_model="gpt\0"),
        lambda: sent(event(decision={"text": "\0"})),
        lambda: spoilt(event(), id="no-uuid"),
        lambda: sent(event(request_id="é" * 100_000 + "".join(map(chr, range(0x4E00, 0x9FFF))))),
    ],
    ids=["NUL in text", "NUL in a document", "no UUID", "too long for an index"],
)
async def test_a2_what_only_postgres_refuses_is_set_aside(store: SqlEventStore, migrated_url: str, bad: object) -> None:
    """Postgres has no NUL and bounded index entries: such rows are kept in ``events_rejected`` with its own words."""
    good = [event() for _ in range(20)]
    poison: Sent = bad()  # type: ignore[operator]

    async def written() -> float:
        started = time.monotonic()
        assert await store.write([*map(sent, good[:7]), poison, *map(sent, good[7:])]) == 1
        return time.monotonic() - started

    await best_of(5, written, rounds=1)
    assert rows_of(migrated_url, "events") == 20
    ((error, row),) = servers.sql(migrated_url, "select error, row from events_rejected")
    assert len(error) > 10
    assert row.encode() == poison.row


@pytest.mark.alone
@pytest.mark.parametrize(
    ("spoil", "every"), [({"upstream_model": "\0"}, 2), ({"status": "fine"}, 50)], ids=["NUL", "type"]
)
async def test_a2_many_bad_rows_delay_no_other_by_5_s(
    store: SqlEventStore, migrated_url: str, spoil: dict[str, Any], every: int
) -> None:
    """At the relay's batch size: every second row with a client's NUL, every 50th with something only SQL finds."""

    async def written() -> float:
        before = rows_of(migrated_url, "events")
        batch = [spoilt(event(), **spoil) if n % every == 0 else sent(event()) for n in range(500)]
        started = time.monotonic()
        assert await store.write(batch) == 500 // every
        took = time.monotonic() - started
        assert rows_of(migrated_url, "events") == before + 500 - 500 // every
        return took

    await best_of(5, written)


async def test_a1_a_backslash_before_u0000_is_no_nul(store: SqlEventStore) -> None:
    """Text that merely looks like the escape is a row like any other."""
    looks = [event(upstream_model="\\u0000"), event(decision={"path": "C:\\\\u0000\\u0000"})]
    assert await store.write(list(map(sent, looks))) == 0
    assert [await store.by_request_id("acme", one.request_id) for one in looks] == looks


async def test_a1_a_time_is_the_one_that_was_sent(store: SqlEventStore, migrated_url: str) -> None:
    """``occurred_at`` is a timestamptz of the very µs."""
    await store.write([sent(event(NOON_US + 123_457))])
    ((at,),) = servers.sql(migrated_url, "select occurred_at from events")
    assert at == NOON + timedelta(microseconds=123_457)


async def test_a1_workers_writing_the_same_rows_at_once_make_one_row_each(migrated_url: str) -> None:
    """Batches that overlap, in different orders, from four pools: no deadlock, no duplicate."""
    stores = [SqlEventStore(Database(migrated_url)) for _ in range(4)]
    calls = [event() for _ in range(200)]
    orders = [calls, calls[::-1], calls[100:] + calls[:100], calls[::2] + calls[1::2]]
    await asyncio.gather(*(s.write(list(map(sent, o))) for s, o in zip(stores, orders, strict=True) for _ in range(3)))
    assert rows_of(migrated_url, "events") == 200
    for each in stores:
        await each.close()


async def test_refusals_from_workers_at_once_add_up(migrated_url: str) -> None:
    """Each adds to the same minutes."""
    stores = [SqlEventStore(Database(migrated_url)) for _ in range(4)]
    notes = [refusal(NOON_US + n * 1_000_000, key_name=f"k{n % 9}") for n in range(90)]
    await asyncio.gather(*(s.write_refusals(o) for s in stores for o in (notes, notes[::-1])))
    assert sum(row.count for row in await stores[0].refusals(NOON_US)) == 720
    for each in stores:
        await each.close()


# --- partitions ----------------------------------------------------------------------------------


async def test_the_writer_makes_a_missing_day(store: SqlEventStore, migrated_url: str) -> None:
    """Rows don't end up in DEFAULT because nobody has made their partition yet."""
    await store.write([sent(event(NOON_US)), sent(event(NOON_US + DAY_US))])
    assert partitions(migrated_url) == {"events_default", NOON.date(), NOON.date() + timedelta(days=1)}
    assert rows_of(migrated_url, "events_default") == 0


async def test_days_are_made_ahead(store: SqlEventStore, migrated_url: str) -> None:
    """A week ahead, so that nothing has to be made at midnight."""
    await store.maintain(NOON_US, 90 * DAY_US)
    assert partitions(migrated_url) == {"events_default", *(NOON.date() + timedelta(days=n) for n in range(8))}


async def test_a_day_ends_where_the_next_begins(store: SqlEventStore, migrated_url: str) -> None:
    """The first and last millisecond of a day are in its partition."""
    midnight = NOON_US - DAY_US // 2
    await store.write([sent(event(midnight)), sent(event(midnight + DAY_US - 1_000)), sent(event(midnight + DAY_US))])
    assert rows_of(migrated_url, "events_20261123") == 2
    assert rows_of(migrated_url, "events_20261124") == 1


async def test_partitions_have_the_indexes_of_their_table(store: SqlEventStore, migrated_url: str) -> None:
    """Attached, not copied once more: each parent index has exactly one child in each partition."""
    await store.write([sent(event())])
    counts = "select count(*) from pg_index where indrelid = '{}'::regclass"
    ((parent,),) = servers.sql(migrated_url, counts.format("events"))
    ((child,),) = servers.sql(migrated_url, counts.format("events_20261123"))
    assert parent == child == 6


async def test_retention_drops_whole_partitions(store: SqlEventStore, migrated_url: str) -> None:
    """Old days go as tables, rows of old days in DEFAULT are deleted."""
    old = NOON_US - 91 * DAY_US
    await store.write([sent(event(old)), sent(event(NOON_US))])
    await store.maintain(NOON_US, 90 * DAY_US)
    assert NOON.date() - timedelta(days=91) not in partitions(migrated_url)
    assert rows_of(migrated_url, "events") == 1


async def test_an_id_without_a_day_goes_to_default(store: SqlEventStore, migrated_url: str) -> None:
    """Any UUID is taken; only a UUIDv7 names a day."""
    strange = spoilt(event(), id="7f1c0a52-61c5-4d9f-9e3e-0b0a3c7a1d11")
    assert await store.write([strange]) == 0
    assert rows_of(migrated_url, "events_default") == 1


async def test_a_day_that_default_already_holds_stays_there(store: SqlEventStore, migrated_url: str) -> None:
    """Such a partition can't be made any more; its rows are taken all the same, and old ones deleted."""
    day = NOON_US - 91 * DAY_US
    await store.write([sent(event(day))])
    name = f"events_{(NOON.date() - timedelta(days=91)):%Y%m%d}"
    servers.sql(
        migrated_url,
        f"alter table events detach partition {name}",
        f"insert into events select * from {name}",  # noqa: S608
        f"drop table {name}",
    )
    again = SqlEventStore(Database(migrated_url))
    assert await again.write([sent(event(day))]) == 0
    assert rows_of(migrated_url, "events_default") == 2
    await again.maintain(NOON_US, 90 * DAY_US)
    assert rows_of(migrated_url, "events_default") == 0
    await again.close()


async def test_a_role_that_may_not_create_tables_can_still_write(store: SqlEventStore, migrated_url: str) -> None:
    """Least privilege: rows then go to DEFAULT."""
    role = "perpetuo_writer_" + migrated_url[-8:]
    servers.sql(
        migrated_url,
        f"create role {role} login",
        f"grant select, insert, update, delete on all tables in schema public to {role}",
    )
    try:
        lesser = SqlEventStore(Database(migrated_url.replace("postgres@", f"{role}@")))
        assert await lesser.write([sent(event())]) == 0
        assert rows_of(migrated_url, "events_default") == 1
        await lesser.close()
    finally:
        servers.sql(migrated_url, f"drop owned by {role}", f"drop role {role}")


async def test_two_workers_make_the_same_day_at_once(migrated_url: str) -> None:
    """One makes it, the other finds it."""
    stores = [SqlEventStore(Database(migrated_url)) for _ in range(6)]
    await asyncio.gather(*(s.write([sent(event())]) for s in stores))
    assert rows_of(migrated_url, "events_20261123") == 6
    for each in stores:
        await each.close()


async def test_sums_are_read_from_the_index_alone(store: SqlEventStore, migrated_url: str) -> None:
    """Re-seeding after Redis lost its data has 2 s, so it must not fetch every row of a month."""
    await store.write([sent(event(tenant_id=f"t{n % 20}")) for n in range(2_000)])
    plan = "\n".join(
        line
        for (line,) in servers.sql(
            migrated_url,
            "vacuum analyze events",
            "explain select tenant_id, key_name, budget_day, sum(cost_nano_usd) from events"
            " where budget_day in ('2026-11-23', '2026-11-24') and tenant_id = 't1' group by 1, 2, 3",
        )
    )
    assert "Index Only Scan" in plan


@pytest.mark.alone
async def test_a3_drains_5000_events_a_second(store: SqlEventStore, migrated_url: str) -> None:
    """In batches of the relay's size, committed each, indexes and all."""
    attempt = {"provider": "openai", "model": "gpt-4o", "outcome": "success", "status": 200, "ms": 812.3}
    decision = {"candidates": ["openai", "azure"], "limits": {"rate": [{"scope": "acme", "left": 99}]}, "split": [1, 2]}
    rows = [
        sent(event(NOON_US + n * 1_000, attempts=(attempt,), decision=decision, trace_id=f"{n:032x}"))
        for n in range(10_000)
    ]
    await store.write(rows[:500])
    batches = iter(range(500, len(rows), 500))

    async def written() -> float:
        started, count = time.monotonic(), 0
        for n in itertools.islice(batches, 4):
            assert await store.write(rows[n : n + 500]) == 0
            count += 500
        took = time.monotonic() - started
        print(f"{count / took:,.0f} events/s of {len(rows[0].row)} bytes")
        return took

    await best_of(2_000 / 5_000, written)
    rest = [n for n in batches if await store.write(rows[n : n + 500]) == 0]
    assert len(await store.latest(EventFilter(), limit=20_000)) == len(rows), rest


async def test_a_span_that_takes_longer_than_expected_is_given_up(store: SqlEventStore, migrated_url: str) -> None:
    """Here a day is locked: the search ends in its time, says that it came to the day before, and nothing is wrong."""
    await store.write([sent(event(NOON_US - days * DAY_US)) for days in (0, 3)])
    connection = await asyncpg.connect(migrated_url)
    try:
        await connection.execute("begin; lock table events_20261120 in access exclusive mode")

        async def given_up() -> float:
            started = time.monotonic()
            answers.append(await store.search(EventFilter(tag="none"), now_us=NOON_US, seconds=1.0))
            return time.monotonic() - started

        answers: list[Found] = []
        await best_of(1.9, given_up)  # the lock itself would be waited for for 2 s
    finally:
        await connection.close()
    found = answers[-1]
    assert found.events == []
    assert found.back_to_us is not None
    assert NOON_US - 3 * DAY_US < found.back_to_us < NOON_US
    assert store.problem() is None
    rest = await store.search(EventFilter(tag="none"), now_us=NOON_US, before=found.next, seconds=PATIENCE)
    assert rest.next is None
