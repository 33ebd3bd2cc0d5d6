"""Stores that tests start for themselves, or are skipped without; with ``CI=true`` they fail."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from tests import servers

T = TypeVar("T")


def or_skip(make: Callable[[], T]) -> T:
    try:
        return make()
    except servers.NoServerError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"SERVER MISSING: {missing}")


@contextmanager
def running_redis(*arguments: str) -> Iterator[servers.RedisServer]:
    """A Redis of one's own; ``arguments`` go to ``redis-server``."""
    server = or_skip(lambda: servers.RedisServer(*arguments))
    try:
        or_skip(server.start)
        yield server
    finally:
        server.close()


@contextmanager
def own_database(postgres_url: str, like: str | None = None) -> Iterator[str]:
    """A database that is empty, or a copy of another; dropped at the end, whoever is still connected."""
    url = servers.new_database(postgres_url, like)
    try:
        yield url
    finally:
        servers.drop_database(postgres_url, url)
