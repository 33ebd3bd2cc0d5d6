"""
Fixtures for everybody: real servers, made and cleaned per test.

| fixture | gives |
|---|---|
| ``redis_url`` | an empty Redis of our own, as a URL |
| ``redis_server`` | the same as `servers.RedisServer`; don't stop or freeze it, others share it |
| ``new_redis_server(*arguments)`` | a fresh Redis for one test, to stop, kill, freeze |
| ``postgres_url`` | an empty database for this test |
| ``new_postgres_server()`` | a fresh PostgreSQL for one test |

A machine without a server skips these tests, loudly; with ``CI=true`` it fails them.
"""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests import mutants, servers
from tests.promises_ran import PromisesRan
from tests.stores import or_skip, own_database, running_redis
from tests.turns import pytest_collection_modifyitems, pytest_runtest_protocol, pytest_xdist_make_scheduler

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_protocol", "pytest_xdist_make_scheduler"]
T = TypeVar("T")

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # elsewhere as in CI: that an example takes long says something about the machine


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the controller of several processes hears of every test
        config.pluginmanager.register(PromisesRan(config), "promises-ran")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays to the end; the collector would look through it, half a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[servers.RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(_shared_redis: servers.RedisServer) -> servers.RedisServer:
    """A running, empty Redis that the whole run shares."""
    _shared_redis.start()
    _shared_redis.flush()
    return _shared_redis


@pytest.fixture
def redis_url(redis_server: servers.RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def new_redis_server() -> Iterator[Callable[..., servers.RedisServer]]:
    """A factory of running Redis servers for fault tests; arguments go to ``redis-server``."""
    made: list[servers.RedisServer] = []

    def make(*arguments: str) -> servers.RedisServer:
        server = servers.RedisServer(*arguments)
        made.append(server)
        or_skip(server.start)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture(scope="session")
def _postgres_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory made once by ``initdb`` (1 s) and copied for each server (0.1 s)."""
    template = or_skip(servers.PostgresServer)
    yield template.directory
    template.close()


@pytest.fixture(scope="session")
def _shared_postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    for url in (os.environ.get("DATABASE_URL", ""), "postgresql://postgres@127.0.0.1:5432/postgres"):
        if url.startswith("postgres") and servers.answers(url):
            yield url
            return
    server = servers.PostgresServer(request.getfixturevalue("_postgres_template"))
    try:
        or_skip(server.start)
        yield server.url
    finally:
        server.close()


@pytest.fixture
def postgres_url(_shared_postgres: str) -> Iterator[str]:
    """An empty database; dropped after the test, whoever is still connected."""
    with own_database(_shared_postgres) as url:
        yield url


@pytest.fixture
def new_postgres_server(_postgres_template: Path) -> Iterator[Callable[[], servers.PostgresServer]]:
    """A factory of running PostgreSQL servers for fault tests."""
    made: list[servers.PostgresServer] = []

    def make() -> servers.PostgresServer:
        server = servers.PostgresServer(_postgres_template)
        made.append(server)
        or_skip(server.start)
        return server

    yield make
    for server in made:
        server.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say last, where it is read, what caught the planted bugs and which servers were missing."""
    for line in mutants.table(r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])):
        terminalreporter.write_line(line)
    missing = [r for r in terminalreporter.stats.get("skipped", []) if "SERVER MISSING" in str(r.longrepr)]
    if missing:
        terminalreporter.write_line(f"{len(missing)} tests skipped: no Redis or PostgreSQL could be run", red=True)
