"""PostgreSQL databases, migrated once and copied for each test."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from perpetuo.adapters.sql import Database, SqlEventStore, migrate
from perpetuo.adapters.sql.rollups import TABLES
from tests import servers
from tests.stores import own_database


@pytest.fixture
def migrated_url(_shared_postgres: str, _migrated: str) -> Iterator[str]:
    """A migrated, empty database of this test's own."""
    with own_database(_shared_postgres, like=_migrated) as url:
        yield url


@pytest.fixture(scope="session")
def _emptied(_shared_postgres: str) -> Iterator[str]:
    url = servers.new_database(_shared_postgres)
    migrate.upgrade(url)
    yield url
    servers.drop_database(_shared_postgres, url)


@pytest.fixture
def emptied_url(_emptied: str) -> str:
    """A migrated database that is emptied before each test; ten times quicker than one of its own."""
    tables = ("events", "refusals", "events_rejected", *(table.name for table in TABLES))
    servers.sql(_emptied, *(f"delete from {table}" for table in tables))  # noqa: S608
    return _emptied


@pytest.fixture
async def store(migrated_url: str) -> AsyncIterator[SqlEventStore]:
    made = SqlEventStore(Database(migrated_url))
    yield made
    await made.close()


@pytest.fixture
async def empty_store(postgres_url: str) -> AsyncIterator[SqlEventStore]:
    made = SqlEventStore(Database(postgres_url))
    yield made
    await made.close()


@pytest.fixture
def new_database_url(_shared_postgres: str) -> Iterator[Callable[[], str]]:
    """A factory of further empty databases."""
    made: list[str] = []

    def make() -> str:
        made.append(servers.new_database(_shared_postgres))
        return made[-1]

    yield make
    for url in made:
        servers.drop_database(_shared_postgres, url)
