"""PostgreSQL databases, migrated once and copied for each test."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from perpetuo.adapters.sql import Database, SqlEventStore, migrate
from tests import servers


@pytest.fixture(scope="session")
def _migrated(_shared_postgres: str) -> Iterator[str]:
    url = servers.new_database(_shared_postgres)
    migrate.upgrade(url)
    yield url
    servers.drop_database(_shared_postgres, url)


@pytest.fixture
def migrated_url(_shared_postgres: str, postgres_url: str, _migrated: str) -> str:
    """A migrated, empty database of this test's own."""
    name, template = (url.rpartition("/")[2] for url in (postgres_url, _migrated))
    servers.sql(_shared_postgres, f'drop database "{name}"', f'create database "{name}" template "{template}"')
    return postgres_url


@pytest.fixture(scope="session")
def _emptied(_shared_postgres: str) -> Iterator[str]:
    url = servers.new_database(_shared_postgres)
    migrate.upgrade(url)
    yield url
    servers.drop_database(_shared_postgres, url)


@pytest.fixture
def emptied_url(_emptied: str) -> str:
    """A migrated database that is emptied before each test; ten times quicker than one of its own."""
    tables = ("events", "refusals", "events_rejected", "rollups", "rollup_spans", "rollups_due")
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
