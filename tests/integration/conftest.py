"""Stores for the gateways that a module shares: a start takes longer than most tests."""

from collections.abc import Iterator

import pytest

from perpetuo.adapters.sql import migrate
from tests import servers
from tests.stores import own_database, running_redis


@pytest.fixture(scope="module")
def redis_here() -> Iterator[servers.RedisServer]:
    """A Redis of this module's own: tests may stop, freeze and fill it, if they mend it again."""
    with running_redis("--maxmemory", "256mb", "--appendonly", "yes", "--appendfsync", "everysec") as server:
        yield server


@pytest.fixture(scope="session")
def _migrated(_shared_postgres: str) -> Iterator[str]:
    """What is copied for tests: a copy takes a tenth of the migrations' time."""
    with own_database(_shared_postgres) as url:
        migrate.upgrade(url)
        yield url


@pytest.fixture(scope="module")
def database_here(_shared_postgres: str, _migrated: str) -> Iterator[str]:
    """A database of this module's own, migrated."""
    with own_database(_shared_postgres, like=_migrated) as url:
        yield url
