"""The event store on SQLite, and what only SQLite can get wrong."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from perpetuo.adapters.sql import Database, SqlEventStore, database
from perpetuo.adapters.sql.tables import events_rejected
from perpetuo.domain.model.events import EventFilter
from perpetuo.domain.ports import StoreUnavailable
from tests.contract.event_store_contract import EventStoreContract, event, refusal, sent
from tests.contract.rollups_contract import RollupsContract
from tests.contract.search_contract import SearchContract

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqlEventStore]:
    made = SqlEventStore(Database(sqlite_url))
    yield made
    await made.close()


@pytest.fixture
async def empty_store(tmp_path: Path) -> AsyncIterator[SqlEventStore]:
    made = SqlEventStore(Database(f"sqlite:///{tmp_path}/empty.db"))
    yield made
    await made.close()


class TestSqliteStore(EventStoreContract):
    async def rejected(self, store: SqlEventStore) -> int:
        async with store._database.transaction(database.READING) as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(events_rejected)) or 0


class TestSqliteSearch(SearchContract):
    pass


class TestSqliteRollups(RollupsContract):
    pass


async def test_o2_a_database_locked_by_another_is_unavailable_not_waited_for(
    store: SqlEventStore, sqlite_url: str
) -> None:
    """Somebody holds the write lock: `StoreUnavailable` within seconds, and reading goes on."""
    await store.write([sent(event())])
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.write([sent(event())])
    assert len(await store.latest(EventFilter())) == 1
    other.execute("ROLLBACK")
    other.close()
    await store.write([sent(event())])
    await store.write_refusals([refusal()])
    assert store.problem() is None


async def test_a1_a_committed_event_survives_the_process(sqlite_url: str) -> None:
    """What `write` returned from is on disk for the next process."""
    first = SqlEventStore(Database(sqlite_url))
    one = event()
    await first.write([sent(one)])
    second = SqlEventStore(Database(sqlite_url))
    assert await second.by_request_id("acme", one.request_id) == one
    await first.close()
    await second.close()
