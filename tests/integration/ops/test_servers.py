"""Do the servers the other tests stand on behave as their names say?"""

from collections.abc import Callable

import pytest
import redis

from tests import servers


def test_redis_is_empty_and_keeps_everything(redis_url: str) -> None:
    """Each test starts with no keys and a server that evicts nothing."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_redis_can_be_frozen_killed_and_started_again(new_redis_server: Callable[..., servers.RedisServer]) -> None:
    """The faults of the chaos tests are real ones, on the same port before and after."""
    server = new_redis_server("--maxmemory", "50mb")
    server.pause()
    with pytest.raises(redis.TimeoutError), redis.Redis.from_url(server.url, socket_timeout=0.05) as client:
        client.ping()
    server.resume()
    assert server.answers()
    url = server.url
    server.kill()
    assert not server.answers()
    server.start()
    assert server.answers()
    assert server.url == url


def test_postgres_database_is_empty(postgres_url: str) -> None:
    """Each test gets a database of its own."""
    assert servers.sql(postgres_url, "select 1 from pg_tables where schemaname = 'public'") == []


def test_postgres_survives_its_crash(new_postgres_server: Callable[[], servers.PostgresServer]) -> None:
    """What was committed before an immediate stop is there afterwards."""
    server = new_postgres_server()
    servers.sql(server.url, "create table kept (n int)", "insert into kept values (1)")
    server.pause()
    server.resume()
    server.kill()
    assert not server.answers()
    server.start()
    assert servers.sql(server.url, "select n from kept") == [(1,)]


@pytest.mark.parametrize("binary", ["redis-server", "postgres"])
def test_servers_come_from_wheels_when_the_path_has_none(
    binary: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A machine with nothing but Python can run the whole suite."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    monkeypatch.setattr(servers, "DEBIAN_POSTGRES", tmp_path_factory.mktemp("none"))
    server: servers.Server = servers.RedisServer() if binary == "redis-server" else servers.PostgresServer()
    try:
        server.start()
        assert server.answers()
    finally:
        server.close()
