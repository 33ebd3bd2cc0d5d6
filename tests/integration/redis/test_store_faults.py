"""Does a process keep its promises about time and repetition while Redis is away, frozen, lossy or new?"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from perpetuo.adapters.redis.connected import ConnectedRedis
from perpetuo.adapters.redis.connection import Endpoint
from perpetuo.adapters.redis.room import UnfitRedisError
from perpetuo.adapters.redis.scripts import Script, load
from perpetuo.adapters.redis.store import LANES, RedisStore, run_in_life
from perpetuo.domain.ports import NeverSent, StoreUnavailable
from tests.evil import Nobody
from tests.integration.redis.proxy import lossy_proxy
from tests.patience import PATIENCE, best_of
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
COUNT = Script("count", b"return redis.call('INCR', KEYS[1])", b"61636018f4e6b5817b89791bbed242f93fa089e3")


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


@asynccontextmanager
async def connected(url: str, timeout: float = 0.1) -> AsyncIterator[RedisStore]:
    store = await RedisStore.connect(url, timeout=timeout)
    try:
        yield store
    finally:
        await store.close()


async def refused_after(store: RedisStore) -> float:
    """Seconds until a command is refused; an error if it is not."""
    begun = time.perf_counter()
    with pytest.raises(StoreUnavailable):
        await store.execute(b"PING")
    return time.perf_counter() - begun


async def back_after(store: RedisStore) -> float:
    begun = time.perf_counter()
    while True:
        try:
            assert await store.execute(b"PING") == b"PONG"
        except StoreUnavailable:
            await asyncio.sleep(0.005)
        else:
            return time.perf_counter() - begun


@pytest.mark.alone
async def test_r5_killed_refuses_at_once_and_is_back_within_two_seconds(new_redis_server: NewServer) -> None:
    """A refused connection is known in milliseconds; a restarted Redis is found again."""
    server = new_redis_server()
    async with connected(server.url) as store:

        async def first() -> float:
            await anyio.to_thread.run_sync(server.start)
            await back_after(store)
            await anyio.to_thread.run_sync(server.kill)
            return await refused_after(store)

        async def back() -> float:
            await anyio.to_thread.run_sync(server.kill)
            with pytest.raises(StoreUnavailable):
                await store.execute(b"PING")
            await asyncio.sleep(1.5)  # long enough for the longest pause between attempts
            await anyio.to_thread.run_sync(server.start)
            return await back_after(store)

        first_life = store.epoch
        await best_of(0.150, first)
        await best_of(0.005, lambda: refused_after(store))
        assert "can't be used" in (store.problem() or "")
        await best_of(2.0, back)
        assert store.problem() is None
        assert store.epoch not in {"", first_life}


@pytest.mark.alone
async def test_r5_frozen_decides_within_150_ms_then_within_5(new_redis_server: NewServer) -> None:
    """A Redis that accepts connections and answers nothing costs one timeout and a third, once."""
    server = new_redis_server()
    async with connected(server.url) as store:

        async def first() -> float:
            server.resume()
            await back_after(store)
            server.pause()
            return max(await asyncio.gather(*(refused_after(store) for _ in range(50))))

        async def back() -> float:
            server.pause()
            with pytest.raises(StoreUnavailable):
                await store.execute(b"PING")
            server.resume()
            return await back_after(store)

        await best_of(0.150 + 0.020, first)  # the machine that runs the tests is shared
        await best_of(0.005, lambda: refused_after(store))
        await best_of(2.0, back)


async def test_r5_restarted_between_two_calls_is_not_noticed(new_redis_server: NewServer) -> None:
    """Connections that broke while idle are replaced within the same decision."""
    server = new_redis_server()
    async with connected(server.url, timeout=PATIENCE) as store:  # not about how long that takes
        await anyio.to_thread.run_sync(restart, server)
        assert await store.execute(b"PING") == b"PONG"


@pytest.mark.alone
async def test_o2_starts_while_redis_is_away() -> None:
    """Connecting to nothing returns at once, with a problem in plain words."""
    with Nobody() as nobody:
        async with connected(f"redis://127.0.0.1:{nobody.port}") as store:
            assert "can't be used" in (store.problem() or "")
            await best_of(0.005, lambda: refused_after(store))


async def test_r5_what_was_never_sent_says_so(new_redis_server: NewServer) -> None:
    """Refused at once, or gone while still waiting for a connection: it surely has not run. Sent: nobody knows."""
    with Nobody() as nobody:
        async with connected(f"redis://127.0.0.1:{nobody.port}") as store:
            with pytest.raises(NeverSent):
                await store.run(COUNT, [["n"]], [])
    server = new_redis_server()
    async with connected(server.url, timeout=4.0) as store:  # all have to be on their way before it is over
        with anyio.fail_after(PATIENCE):
            while store.lanes_up < LANES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        server.pause()
        sent = [asyncio.create_task(store.execute(b"INCR", "n")) for _ in range(2)]
        await asyncio.sleep(0.01)  # they are on their way, over one lane
        blocked = [asyncio.create_task(store.execute(b"INCR", "n")) for _ in range(2)]
        await asyncio.sleep(0.01)  # and these over the other
        waiting = [asyncio.create_task(store.execute(b"INCR", "n")) for _ in range(5)]
        failed = await asyncio.gather(*sent, *blocked, *waiting, return_exceptions=True)
        assert [type(error) for error in failed] == [StoreUnavailable] * 4 + [NeverSent] * 5
        server.resume()
        await back_after(store)
        assert int(await store.execute(b"GET", "n") or 0) <= 4


async def test_r5_a_script_that_was_sent_in_vain_never_claims_it_was_not(new_redis_server: NewServer) -> None:
    """It ran, its reply got lost, and then Redis was gone: "never sent" would leave its hold behind."""
    server = new_redis_server()
    async with lossy_proxy(server.port) as proxy, connected(proxy.url, timeout=PATIENCE) as store:
        await run_in_life(store, COUNT, b"", [["n"]], [])
        proxy.lose = 100
        with pytest.raises(StoreUnavailable) as failed:
            await run_in_life(store, COUNT, b"", [["n"]], [])
        assert not isinstance(failed.value, NeverSent)


@pytest.mark.parametrize("silently", [False, True])
async def test_t4_a_lost_reply_repeats_the_command_once(redis_server: RedisServer, silently: bool) -> None:
    """Cut off or silent: sent a second time, and never a third."""
    async with lossy_proxy(redis_server.port) as proxy, connected(proxy.url, timeout=3.0) as store:
        assert await store.run(COUNT, [["n"]], []) == 1
        proxy.lose, proxy.silently = 1, silently
        assert await store.run(COUNT, [["n"]], []) == 3
        proxy.lose = 10
        with pytest.raises(StoreUnavailable):
            await store.run(COUNT, [["n"]], [])
        proxy.lose = 0
        await back_after(store)
        with redis_server.client() as client:
            assert client.get("n") in {"4", "5"}


async def test_scripts_forgotten_by_redis_are_sent_again(redis_server: RedisServer) -> None:
    """SCRIPT FLUSH between two calls changes nothing for the caller."""
    async with connected(redis_server.url, timeout=PATIENCE) as store:
        for expected in (1, 2):
            assert await store.run(COUNT, [["n"]], []) == expected
            await store.execute(b"SCRIPT", b"FLUSH")


async def test_c10_cancelled_callers_never_disturb_the_connection(redis_server: RedisServer) -> None:
    """Each reply goes to whoever asked for it, however many callers went away meanwhile."""

    async def echo(store: RedisStore, number: int) -> None:
        assert await store.execute(b"ECHO", str(number)) == str(number).encode()

    async with connected(redis_server.url, timeout=PATIENCE) as store:
        tasks = [asyncio.create_task(echo(store, number)) for number in range(2000)]
        for number, task in enumerate(tasks):
            if number % 3 == 0:
                task.cancel()
            if number % 50 == 0:
                await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(r) for r in results} <= {asyncio.CancelledError, type(None)}, {repr(r) for r in results}
        with redis_server.client() as client:
            assert len(client.client_list()) <= 3  # two lanes, and this one


async def test_calls_of_one_turn_share_a_write(redis_server: RedisServer) -> None:
    """100 commands at once are a handful of reads for the server, not 100."""
    async with connected(redis_server.url, timeout=PATIENCE) as store:
        with redis_server.client() as client:
            before = int(client.info("stats")["total_reads_processed"])
            await asyncio.gather(*(store.execute(b"PING") for _ in range(100)))
            assert int(client.info("stats")["total_reads_processed"]) - before <= 6


async def test_a_replica_is_not_used(new_redis_server: NewServer) -> None:
    """After a failover the old master must not take calls; it says what it is."""
    master, replica = new_redis_server(), new_redis_server()
    with replica.client() as client:
        client.replicaof("127.0.0.1", master.port)
    async with connected(replica.url, timeout=PATIENCE) as store:
        assert "replica" in (store.problem() or "")


async def test_o2_a_redis_that_evicts_stops_the_start_with_the_fix(new_redis_server: NewServer) -> None:
    """Holds must not be thrown away; the text says what to set."""
    server = new_redis_server("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(UnfitRedisError, match="CONFIG SET maxmemory-policy noeviction"):
        await ConnectedRedis.connect(server.url, timeout=PATIENCE)


async def test_a_layout_of_another_release_stops_the_start(redis_server: RedisServer) -> None:
    """Data that would be misread is not touched."""
    with redis_server.client() as client:
        client.set("perpetuo:format", "7")
    with pytest.raises(UnfitRedisError, match="layout 7"):
        await ConnectedRedis.connect(redis_server.url, timeout=PATIENCE)


def test_urls_of_every_kind_are_understood() -> None:
    """TLS, credentials, database numbers and sockets; no URL can turn retries or pools on."""
    tls = Endpoint.parse("rediss://user:secret@cache.example:6380/2?ssl_cert_reqs=none&retry_on_timeout=true")
    assert (tls.kind.__name__, tls.options["host"], tls.options["port"], tls.options["db"]) == (
        "SSLConnection",
        "cache.example",
        6380,
        2,
    )
    assert "retry_on_timeout" not in tls.options
    assert "secret" not in repr(tls)
    assert Endpoint.parse("redis://").address == "redis://localhost:6379"
    assert Endpoint.parse("unix:///run/redis.sock").address == "/run/redis.sock"
    with pytest.raises(ValueError, match="must specify one of"):
        Endpoint.parse("http://localhost")


def test_scripts_travel_with_the_package() -> None:
    """Every script is found beside the code, shared functions first."""
    assert load("admit", "common").body.startswith(b"-- Shared by all scripts")
