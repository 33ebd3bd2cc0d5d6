"""Does the ledger lose nothing and charge nothing twice when Redis fails under it?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.connected import Watch
from perpetuo.adapters.redis.room import Room
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.domain.model.admission import AdmitRefused, Admitted, ClaimRefused, Keep, Replay
from perpetuo.domain.model.money import Nano
from perpetuo.domain.ports import StoreUnavailable, WindowSum
from tests.contract.ledger_world import (
    KEEPING,
    TENANT,
    Clock,
    admitted,
    answer,
    at_once,
    claim,
    day,
    hold,
    money,
    month,
    rate,
    request,
    rows,
    settlement,
)
from tests.integration.redis.proxy import lossy_proxy, switching_proxy
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]


@asynccontextmanager
async def world_on(url: str, timeout: float = PATIENCE, clock: Clock | None = None) -> AsyncIterator[RedisWorld]:
    world = RedisWorld(await RedisStore.connect(url, timeout=timeout), clock)
    try:
        yield world
    finally:
        await world.close()


@pytest.mark.parametrize("silently", [False, True])
async def test_r5_a_lost_reply_changes_nothing(redis_server: RedisServer, silently: bool) -> None:
    """Admitted, extended and settled once each, though each reply got lost once."""
    limits = (rate(5), at_once(5), day(100))
    timeout = 3.0 if silently else PATIENCE  # it is waited for; the repetition has a third of it
    async with lossy_proxy(redis_server.port) as proxy, world_on(proxy.url, timeout) as world:
        await world.open_all()
        warm = await hold(world, request("warm", *limits, hold=1, claim=claim("warm")))
        await world.ledger.extend(warm, Nano(0))
        await world.ledger.settle(settlement(warm, 1), KEEPING)
        proxy.silently = silently
        proxy.lose = 1
        one = await hold(world, request("c0", *limits, hold=40, claim=claim()))
        assert await money(world, day(100)) == [(1, 40)]
        proxy.lose = 1
        await world.ledger.extend(one, Nano(10))
        assert await money(world, day(100)) == [(1, 50)]
        proxy.lose = 1
        settled = await world.ledger.settle(settlement(one, 30, Keep.STORE, answer()), KEEPING)
        assert (settled.stored, settled.repeated) == (True, True)
        assert await money(world, day(100)) == [(31, 0)]
        assert (await world.ledger.read_usage(TENANT, [TENANT]))[0].admitted_last_minute == 2
        assert {name: row.cost for name, row in (await rows(world)).items()} == {"warm": 1, "c0": 30}


async def test_a1_flushall_between_admission_and_settlement_loses_no_event(world: RedisWorld) -> None:
    """Redis forgets everything under the same run id: budgets close, the call is charged and recorded all the same."""
    one = await hold(world, request("c0", day(100), hold=40))
    world.clock.advance(1)
    await world.store.execute(b"FLUSHALL")
    assert await world.ledger.admit(request("c1", day(100), hold=1)) is AdmitRefused.UNSEEDED
    await admitted(world, request("c2", rate(1), day(None)))  # nothing to protect: runs on
    settled = await world.ledger.settle(settlement(one, 30), KEEPING)
    assert not settled.repeated
    assert (await rows(world))["c0"].cost == 30
    assert (await world.ledger.settle(settlement(one, 30), KEEPING)).repeated
    await world.seed(TENANT, [WindowSum(TENANT, None, "2025-11-24", Nano(30))])
    assert await money(world, day(100)) == [(30, 0)]


async def test_b7_restarted_empty_puts_holds_back_and_stays_closed(new_redis_server: NewServer) -> None:
    """A new process of Redis: closed for budgets, calls in flight are put back by their worker's renewal."""
    server = new_redis_server()
    async with world_on(server.url) as world:
        await world.open_all()
        one = await hold(world, request("c0", rate(9), at_once(1), day(100), hold=40, claim=claim()))
        await anyio.to_thread.run_sync(restart, server)
        assert await world.ledger.admit(request("c1", day(100), hold=1)) is AdmitRefused.UNSEEDED
        await world.ledger.renew([one])
        assert await world.ledger.admit(request("c2", claim=claim())) is ClaimRefused.IN_PROGRESS
        await world.seed(TENANT, [WindowSum(TENANT, None, "2025-11-24", Nano(50))])
        assert await money(world, day(100)) == [(50, 40)]
        assert await world.ledger.admit(request("c3", day(100), hold=11)) != AdmitRefused.UNSEEDED
        settled = await world.ledger.settle(settlement(one, 30, Keep.STORE, answer()), KEEPING)
        assert settled.stored
        assert await money(world, day(100)) == [(80, 0)]
        assert isinstance(await world.ledger.admit(request("c4", claim=claim())), Replay)


async def test_b7_a_restart_with_its_data_is_another_life_too(new_redis_server: NewServer) -> None:
    """The append-only file may miss the last second: counters are read from SQL again before budgets open."""
    server = new_redis_server("--appendonly", "yes", "--appendfsync", "always")
    async with world_on(server.url) as world:
        await world.open_all()
        one = await hold(world, request("c0", day(100), hold=40))
        await anyio.to_thread.run_sync(restart, server)
        assert await world.ledger.admit(request("c1", day(100), hold=1)) is AdmitRefused.UNSEEDED
        assert (await world.ledger.settle(settlement(one, 30), KEEPING)).repeated is False
        assert (await rows(world))["c0"].cost == 30


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def fill(server: RedisServer) -> None:
    """Leave no room for anything."""
    with server.client() as client:
        client.config_set("maxmemory", str(client.info("memory")["used_memory"] - 100_000))


async def test_a3_a_full_redis_admits_nothing_but_ends_every_call(new_redis_server: NewServer) -> None:
    """Out of memory: admission says so, without a trace; renewing, settling, cancelling, reaping, acking go on."""
    server = new_redis_server()
    async with world_on(server.url) as world:
        await world.open_all()
        limits = (rate(9), at_once(9), day(100))
        one = await hold(world, request("c0", *limits, hold=40, claim=claim()))
        two = await hold(world, request("c1", *limits, hold=10))
        await hold(world, request("c2", *limits, hold=10))
        with server.client() as client:
            client.set("ballast", "x" * 3_000_000)
        await anyio.to_thread.run_sync(fill, server)
        before = await world.store.execute(b"DBSIZE")
        assert await world.ledger.admit(request("d0", *limits, hold=1, claim=claim("x"))) is AdmitRefused.NO_ROOM
        assert await world.ledger.admit(request("d1")) is AdmitRefused.NO_ROOM
        assert (await world.ledger.read_usage(TENANT, [TENANT]))[0].admitted_last_minute == 3
        assert await world.store.execute(b"DBSIZE") == before
        settled = await world.ledger.settle(settlement(one, 30, Keep.STORE, answer()), KEEPING)
        assert settled.stored
        await world.ledger.cancel(two)
        for _ in range(7):
            world.clock.advance(9_000_000)
            assert await world.ledger.renew([]) == frozenset()
        assert [abandoned.call for abandoned in await world.ledger.reap()] == ["c2"]
        assert await money(world, day(100)) == [(40, 0)]
        assert set(await rows(world)) == {"c0", "c2"}
        assert await world.stream.backlog() == 0


TAMPERED = ["spent", "9223372036854775800"], ["held", "money"], ["spent", "1.5"]


@pytest.mark.parametrize(("field", "value"), TAMPERED)
async def test_b4_a_counter_that_can_not_move_loses_no_hold(world: RedisWorld, field: str, value: str) -> None:
    """Settling, cancelling, reaping fail as a whole, again and again; once it is mended every call ends, once."""
    limits = (at_once(9), day(None), month(1000))
    for _ in range(4):
        world.clock.advance(9_000_000)
        await world.ledger.renew([])
    one, two, _ = [await hold(world, request(f"c{n}", *limits, hold=10)) for n in range(3)]
    other = await hold(world, request("other", day(None, "other"), hold=10, tenant="other"))
    name = keys.budget(keys.prefix_of(TENANT), TENANT, "2025-11")  # the second window of a call
    good = await world.store.execute(b"HGET", name, field)
    await world.store.execute(b"HSET", name, field, value)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="Redis failed at settle"):
            await world.ledger.settle(settlement(one, 9), KEEPING)
        if not value.isdigit():  # nothing is added to what was spent
            with pytest.raises(StoreUnavailable, match="Redis failed at cancel"):
                await world.ledger.cancel(two)
    assert await money(world, day(None)) == [(0, 30)]
    for _ in range(4):
        world.clock.advance(9_000_000)
        await world.ledger.renew([])
    assert [reaped.call for reaped in await world.ledger.reap()] == [other.call]  # it does not wait for the others
    assert "3 calls" in (world.ledger.problem() or "")
    if good is None:
        await world.store.execute(b"HDEL", name, field)
    else:
        await world.store.execute(b"HSET", name, field, good)
    assert not (await world.ledger.settle(settlement(one, 9), KEEPING)).repeated
    await world.ledger.cancel(two)
    assert [reaped.call for reaped in await world.ledger.reap()] == ["c2"]
    assert world.ledger.problem() is None
    assert await money(world, day(None), month(1000)) == [(19, 0), (19, 0)]
    assert {call: row.cost for call, row in (await rows(world)).items()} == {"c0": 9, "c2": 10, "other": 10}


async def test_a3_admission_stops_at_85_percent_and_answers_at_70(world: RedisWorld) -> None:
    """Known in this process: settlements always find room."""
    world.room = Room(used=69, maximum=100)
    assert world.ledger.accepts_answers()
    one = await hold(world, request("c0", claim=claim()))
    world.room = Room(used=70, maximum=100)
    assert not (await world.ledger.settle(settlement(one, 0, Keep.STORE, answer()), KEEPING)).stored
    assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.NOT_STORED
    world.room = Room(used=84, maximum=100)
    again = request("c2")
    first = await admitted(world, again)
    world.room = Room(used=85, maximum=100)
    assert await world.ledger.admit(request("c3")) is AdmitRefused.NO_ROOM
    assert await world.ledger.admit(again) == first  # admitted before: its reply was lost
    assert "full" in (world.room.problem() or "")


async def test_o2_memory_without_a_limit_is_reported(new_redis_server: NewServer) -> None:
    """What an operator should know, seen by the watch; and nothing to say once it is set."""
    server = new_redis_server()
    async with world_on(server.url) as world:
        watch = Watch(world.store)
        await watch.look()
        assert "no maxmemory" in (watch.problem() or "")
        with server.client() as client:
            client.config_set("maxmemory", "1gb")
            await watch.look()
            assert watch.problem() is None
            client.config_set("maxmemory-policy", "volatile-lru")
            await watch.look()
            assert "noeviction" in (watch.problem() or "")
            assert client.get("perpetuo:format") == "1"


async def test_b7_a_failover_that_keeps_connections_open_is_noticed(new_redis_server: NewServer) -> None:
    """Another server answers on the same connections: the next look says so, and budgets close until seeded."""
    old, new = new_redis_server(), new_redis_server()
    async with switching_proxy(old.port) as proxy, world_on(proxy.url) as world:
        await world.open_all()
        watch = Watch(world.store)
        await watch.look()
        one = await hold(world, request("c0", day(100), hold=40))
        first_life, connections = world.store.epoch, proxy.clients
        proxy.switch(new.port)
        await world.store.execute(b"PING")
        assert (world.store.epoch, proxy.clients) == (first_life, connections)  # nobody noticed
        await watch.look()
        await world.ledger.renew([one])
        assert world.store.epoch not in {"", first_life}
        assert await world.ledger.admit(request("c1", day(100), hold=1)) is AdmitRefused.UNSEEDED
        assert await money(world, day(100)) == [(0, 40)]
        answering = asyncio.gather(*(world.ledger.read_usage(TENANT, [TENANT]) for _ in range(50)))
        await watch.look()  # the same server: nothing is dropped
        assert len(await answering) == 50


async def test_b7_a_server_that_became_a_replica_is_left(new_redis_server: NewServer) -> None:
    """It keeps its connections and its name; reads alone would never tell."""
    master, other = new_redis_server(), new_redis_server()
    async with world_on(master.url) as world:
        watch = Watch(world.store)
        await watch.look()
        with master.client() as client:
            client.replicaof("127.0.0.1", other.port)
        await watch.look()
        with pytest.raises(StoreUnavailable, match="replica"):
            await world.store.execute(b"PING")


async def test_a3_the_watch_outlives_a_redis_that_is_full(new_redis_server: NewServer) -> None:
    """It sees that Redis is full, also one without our mark, and when there is room again."""
    server = new_redis_server()
    async with world_on(server.url) as world:
        watch = Watch(world.store)
        with server.client() as client:
            client.set("ballast", "x" * 3_000_000)
            client.config_set("maxmemory", str(client.info("memory")["used_memory"] - 100_000))
            await watch.look()
            assert "full" in (watch.problem() or "")
            client.delete("ballast")
            client.config_set("maxmemory", "1gb")
            await watch.look()
            assert watch.problem() is None
            assert client.get("perpetuo:format") == "1"


async def test_r1_b3_i5_two_workers_at_once_share_every_limit(redis_server: RedisServer) -> None:
    """100 calls through two stores at once: exactly the limit of each kind gets through, one run per key."""
    async with world_on(redis_server.url) as one, world_on(redis_server.url) as two:
        await one.open_all()

        async def count(name: str, *limits: object, **options: object) -> int:
            asked = (
                world.ledger.admit(request(f"{name}-{n}", *limits, **options))  # type: ignore[arg-type]
                for n in range(50)
                for world in (one, two)
            )
            decisions = await asyncio.gather(*(step for step in asked))
            return sum(isinstance(decision, Admitted) for decision in decisions)

        # Each id is asked for by both workers: a repeated admission is the same call, admitted once.
        assert await count("rate", rate(7)) == 14
        assert (await one.ledger.read_usage(TENANT, [TENANT]))[0].admitted_last_minute == 7
        assert await count("money", day(100), hold=9) == 22
        assert await money(two, day(100)) == [(0, 99)]
        assert await count("key", claim=claim()) == 2


async def test_s2_tenants_and_keys_of_any_name_never_share_a_key(world: RedisWorld) -> None:
    """Names are encoded, so that ``a/b`` of one tenant is no key ``b`` of another, and braces move no shard."""
    for name in ("a", "a/b", "a%2Fb", "{s01}", "ü", "a b", "a:b", "*"):
        await admitted(world, request(f"c-{name!a}".replace(" ", "_"), rate(1, name), tenant=name))


async def test_r5_away_raises_for_every_step(new_redis_server: NewServer) -> None:
    """Nothing but `StoreUnavailable` comes out of the ledger while Redis is away."""
    server = new_redis_server()
    async with world_on(server.url) as world:
        await world.open_all()
        one = await hold(world, request("c0"))
        await anyio.to_thread.run_sync(server.kill)
        steps = [
            world.ledger.admit(request("c1")),
            world.ledger.extend(one, Nano(1)),
            world.ledger.settle(settlement(one), KEEPING),
            world.ledger.cancel(one),
            world.ledger.renew([one]),
            world.ledger.reap(),
            world.ledger.read_budgets([day(1)], TENANT),
            world.ledger.read_usage(TENANT, [TENANT]),
            world.ledger.in_flight(TENANT, "c0"),
            world.counters.closed(),
            world.stream.read(1, 0),
            world.stream.backlog(),
        ]
        for step in steps:
            with pytest.raises(StoreUnavailable):
                await step
        assert "can't be used" in (world.ledger.problem() or "")
