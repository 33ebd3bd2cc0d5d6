"""Do events wait in Redis for SQL, whatever happens to the workers that carry them?"""

import asyncio
import itertools
import time

import pytest

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.adapters.redis.stream import GROUP, Entry, RedisEventStream
from tests.contract.ledger_world import KEEPING, TENANT, hold, request, settlement
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE, best_of
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio


async def settle(world: RedisWorld, *names: str, tenant: str = TENANT) -> None:
    for name in names:
        one = await hold(world, request(name, tenant=tenant))
        await world.ledger.settle(settlement(one), KEEPING)


async def test_a1_what_a_dead_worker_read_is_taken_over_after_a_second(world: RedisWorld) -> None:
    """Read and never acknowledged: another worker gets it, not before 1 s, not after 3."""
    other, numbers = RedisEventStream(world.store), itertools.count()

    async def taken_over() -> float:
        await settle(world, f"c{next(numbers)}")
        before = time.monotonic()
        (read,) = await world.stream.read(10, 0)
        begun = time.monotonic()
        (again,) = await other.read(10, 0) or await other.read(10, PATIENCE)
        took_over = time.monotonic()
        assert again == read
        assert took_over - before > 0.99
        await other.ack([again])
        assert await world.stream.backlog() == 0
        return took_over - begun

    await best_of(3.0, taken_over)
    await other.close()


@pytest.mark.alone
async def test_a4_a_waiting_reader_gets_an_event_at_once(world: RedisWorld) -> None:
    """The read blocks in Redis, on a connection of its own; calls go on meanwhile."""
    numbers = itertools.count()

    async def arrived() -> float:
        reading = asyncio.create_task(world.stream.read(10, PATIENCE))
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await settle(world, f"c{next(numbers)}")
        (entry,) = await reading
        await world.stream.ack([entry])
        return time.monotonic() - begun

    await best_of(0.5, arrived)


async def test_a1_groups_that_vanish_are_made_again(world: RedisWorld) -> None:
    """FLUSHALL while a reader waits: it goes on, and finds what is settled afterwards."""
    reading = asyncio.create_task(world.stream.read(10, PATIENCE))
    await asyncio.sleep(0.1)
    await world.store.execute(b"FLUSHALL")
    await settle(world, "c0")
    (entry,) = await reading
    await world.stream.ack([entry])
    await world.stream.ack([entry])
    assert await world.stream.backlog() == 0


async def test_a1_a_batch_is_never_larger_than_asked_for(world: RedisWorld) -> None:
    """Full streams of many shards: what was read too much comes with the next read."""
    tenants = [f"t{n}" for n in range(40)]
    for tenant in tenants:
        await settle(world, f"a-{tenant}", f"b-{tenant}", tenant=tenant)
    assert len({keys.shard_of(tenant) for tenant in tenants}) > 10
    found: list[Entry] = []
    while batch := await world.stream.read(16, 0):
        assert len(batch) <= 16
        found += batch
    assert len({one.row for one in found}) == 80
    await world.stream.ack(found)
    assert await world.stream.backlog() == 0


async def test_a_reader_leaves_only_with_nothing_pending(redis_server: RedisServer, world: RedisWorld) -> None:
    """Deleting a consumer would lose what it has not acknowledged."""
    for acknowledge, left in ((False, 1), (True, 0)):
        reader = RedisEventStream(await RedisStore.connect(redis_server.url, timeout=PATIENCE))
        await settle(world, f"c-{acknowledge}")
        batch = await reader.read(10, 0)
        if acknowledge:
            await reader.ack(batch)
        await reader.close()
        with redis_server.client() as client:
            stream = keys.events(keys.prefix_of(TENANT))
            assert len(client.xinfo_consumers(stream, GROUP)) == left
            client.delete(stream)


async def test_c10_a_cancelled_read_leaves_a_usable_stream(world: RedisWorld) -> None:
    """A relay that is stopped in the middle of a blocking read can start again."""
    for _ in range(3):
        reading = asyncio.create_task(world.stream.read(10, PATIENCE))
        await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await settle(world, "c0")
    assert len(await world.stream.read(10, PATIENCE)) == 1
