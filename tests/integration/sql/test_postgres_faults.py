"""Postgres goes away, freezes, is locked: each step fails in bounded time, and works again afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from perpetuo.adapters.sql import Database, SqlEventStore, database, migrate
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.ports import StoreUnavailable
from tests import servers
from tests.contract.event_store_contract import event, refusal, sent

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(new_postgres_server: Callable[[], servers.PostgresServer]) -> servers.PostgresServer:
    """A Postgres of this test's own, migrated."""
    made = new_postgres_server()
    await anyio.to_thread.run_sync(migrate.upgrade, made.url)
    return made


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Somebody holds an exclusive lock."""
    other = await asyncpg.connect(url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(f"lock table {table} in access exclusive mode")
    try:
        yield
    finally:
        await transaction.rollback()
        await other.close()


async def test_a3_a_crashed_server_is_unavailable_and_then_back(server: servers.PostgresServer) -> None:
    """``pg_ctl stop -m immediate``: `StoreUnavailable` at once, and the next batch after its return works."""
    store = SqlEventStore(Database(server.url))
    one = event()
    await store.write([sent(one)])
    await anyio.to_thread.run_sync(server.kill)
    steps = (store.write([sent(event())]), store.sums("acme", ["2026-11-23"], []), store.write_refusals([refusal()]))
    for step in steps:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await step
        assert time.monotonic() - started < 6  # what is frozen would take 8 s
    assert store.problem()
    await anyio.to_thread.run_sync(server.start)
    await store.ping()
    assert await store.write([sent(one), sent(event())]) == 0
    assert len(await store.latest(EventFilter())) == 2
    assert store.problem() is None
    await store.close()


async def test_a3_a_crash_during_writes_loses_nothing_acknowledged(server: servers.PostgresServer) -> None:
    """Every batch that `write` returned from is there after recovery, and sending all again adds none."""
    store = SqlEventStore(Database(server.url))
    acknowledged: list[str] = []
    enough = asyncio.Event()
    calls: list[list[Event]] = []

    async def write_all() -> None:
        while True:
            calls.append(batch := [event() for _ in range(20)])
            await store.write(list(map(sent, batch)))
            acknowledged.extend(one.id for one in batch)
            if len(acknowledged) >= 200:
                enough.set()

    writing = asyncio.create_task(write_all())
    await enough.wait()
    await anyio.to_thread.run_sync(server.kill)
    with pytest.raises(StoreUnavailable):
        await writing
    await anyio.to_thread.run_sync(server.start)
    kept = {one.id for one in await store.latest(EventFilter(), limit=1_000_000)}
    assert kept >= set(acknowledged)
    for batch in calls[:50]:
        await store.write(list(map(sent, batch)))
    sent_twice = {one.id for batch in calls[:50] for one in batch}
    found = [one.id for one in await store.latest(EventFilter(), limit=1_000_000)]
    assert len(found) == len(set(found)) == len(kept | sent_twice)
    await store.close()


async def test_a3_a_frozen_server_is_unavailable_in_bounded_time(
    server: servers.PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections stay open and nothing is answered: this side gives up, and recovers when the server thaws."""
    impatient = database.Patience(lock=2, statement=5, total=0.5)
    store = SqlEventStore(Database(server.url))
    await store.write([sent(event())])
    server.pause()
    try:
        monkeypatch.setattr("perpetuo.adapters.sql.store.WRITING", impatient)
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                await store.write([sent(event())])
        assert time.monotonic() - started < 8  # a statement's own limit would be 5 s, twice
    finally:
        server.resume()
        monkeypatch.undo()
    await store.write([sent(event())])
    await store.close()


async def test_a2_a_locked_table_is_unavailable_not_waited_for(store: SqlEventStore, migrated_url: str) -> None:
    """``LOCK TABLE events``: the writer gives up after its lock timeout, and works once the lock is gone."""
    await store.write([sent(event())])
    async with locked(migrated_url, "events"):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await store.write([sent(event())])
        assert time.monotonic() - started < 8
    assert await store.write([sent(event())]) == 0


async def test_a_locked_default_partition_does_not_stop_known_days(store: SqlEventStore, migrated_url: str) -> None:
    """Only days that have to be made need it."""
    await store.write([sent(event())])
    async with locked(migrated_url, "events_default"):
        assert await store.write([sent(event())]) == 0


async def test_o2_a_wrong_address_or_password_says_what_is_wrong(migrated_url: str) -> None:
    """The text is for an operator and has no password in it."""
    for url in ("postgres://u:s3cr3t@127.0.0.1:1/x", migrated_url.rpartition("/")[0] + "/nowhere"):
        store = SqlEventStore(Database(url))
        with pytest.raises(StoreUnavailable) as raised:
            await store.ping()
        assert "s3cr3t" not in str(raised.value)
        assert raised.value.args[0]
        print(raised.value)
        await store.close()


async def test_c10_a_cancelled_step_leaves_its_connection_usable(store: SqlEventStore) -> None:
    """Cancelling the relay at any point loses no connection of the pool."""
    for n in range(30):
        await store.ping()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.write([sent(event()) for _ in range(50)]))
            await asyncio.sleep(n * 0.001)
            task.cancel()
    assert await store.write([sent(event())]) == 0
    assert store._database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
