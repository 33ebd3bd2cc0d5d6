"""Stores for the gateways in this folder: a Redis and a database for a whole module, as a start takes seconds."""

from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="module")
def redis_here() -> Iterator[servers.RedisServer]:
    """A Redis of this module's own: tests may stop, freeze and fill it, if they mend it again."""
    server = servers.RedisServer("--maxmemory", "256mb", "--appendonly", "yes", "--appendfsync", "everysec")
    try:
        try:
            server.start()
        except servers.NoServerError as missing:
            pytest.skip(f"SERVER MISSING: {missing}")
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def database_here(_shared_postgres: str) -> Iterator[str]:
    """A database of this module's own."""
    url = servers.new_database(_shared_postgres)
    yield url
    servers.drop_database(_shared_postgres, url)
