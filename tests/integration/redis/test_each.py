"""May a command for each of the 16 shards be waited for at once, whatever happens to Redis meanwhile?"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest
from redis.exceptions import ResponseError

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.breakers import RedisBreakerBoard
from perpetuo.adapters.redis.each import run_each_in_life
from perpetuo.adapters.redis.raises import RedisRaises
from perpetuo.adapters.redis.resp import pack
from perpetuo.adapters.redis.scripts import Script
from perpetuo.adapters.redis.store import FailedError, RedisStore
from perpetuo.domain.model.budgets import PastRaises
from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.ports import NeverSent, StoreUnavailable
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

TOLD = Script(
    "told", b"return {KEYS[1], ARGV[2], redis.call('INCR', KEYS[1])}", b"9b3fd48b0a41c447c4b6233cfc83cd7216873c18"
)
"""Answers its key, the run that it was told of, and how often it ran."""
EACH = [([[f"key-{n}"]], ()) for n in range(3)]


@pytest.fixture
async def server(new_redis_server: Callable[[], RedisServer]) -> RedisServer:
    return new_redis_server()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    made = await RedisStore.connect(server.url, timeout=PATIENCE)
    yield made
    await made.close()


async def test_replies_are_in_order_with_errors_among_them(store: RedisStore) -> None:
    """One that Redis refuses keeps nobody from the others' replies."""
    await store.execute(b"SET", b"text", b"x")
    commands = [(b"GET", b"text"), (b"INCR", b"text"), (b"GET", b"nothing"), (b"ECHO", b"end")]
    text, refused, nothing, end = await store.ask_each([pack(command) for command in commands])
    assert (text, nothing, end) == (b"x", None, b"end")
    assert isinstance(refused, ResponseError)
    assert await store.ask_each([]) == []


async def test_more_than_one_write_can_take(store: RedisStore) -> None:
    """A thousand go out in several batches, over several connections."""
    names = [b"%d" % n for n in range(1_000)]
    assert await store.ask_each([pack((b"ECHO", name)) for name in names]) == names


async def test_a_script_that_redis_does_not_know_runs_once_for_each(store: RedisStore) -> None:
    """At the first start, and after SCRIPT FLUSH; told of the run that it is meant for."""
    for times in (1, 2):
        found = await run_each_in_life(store, TOLD, b"", EACH)
        assert found == [[b"key-%d" % n, store.epoch.encode(), times] for n in range(3)]
        await store.execute(b"SCRIPT", b"FLUSH")


async def test_one_that_fails_fails_them_all(store: RedisStore) -> None:
    """As the failure of the store that it is."""
    await store.execute(b"RPUSH", b"key-1", b"no number")
    with pytest.raises(FailedError):
        await run_each_in_life(store, TOLD, b"", EACH)


async def told_each(store: RedisStore) -> list[Any] | None:
    """``None``: Redis is away."""
    with suppress(StoreUnavailable):
        return await run_each_in_life(store, TOLD, b"", EACH)
    return None


async def test_after_a_restart_scripts_are_told_of_the_new_run(server: RedisServer, store: RedisStore) -> None:
    """Whether the restart is noticed before or by them."""
    before = store.epoch
    await run_each_in_life(store, TOLD, b"", EACH)
    await anyio.to_thread.run_sync(server.kill)
    await anyio.to_thread.run_sync(server.start)
    with anyio.fail_after(PATIENCE):
        while (found := await told_each(store)) is None:  # noqa: ASYNC110 - nobody tells when Redis is back
            await asyncio.sleep(0.01)
    assert store.epoch != before
    assert {told for _, told, _ in found} == {store.epoch.encode()}


async def test_with_redis_away_all_fail_and_nobody_is_told_that_nothing_ran(
    server: RedisServer, store: RedisStore
) -> None:
    """Those that were sent may have run, whatever became of the others."""
    await anyio.to_thread.run_sync(server.kill)
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as failed:
            await store.ask_each([pack((b"PING",))] * 3)
        assert not isinstance(failed.value, NeverSent)


async def test_who_waits_may_leave(store: RedisStore) -> None:
    """The connection never notices."""
    leaving = store.ask_each([pack((b"PING",))] * 3)
    staying = store.ask_each([pack((b"PING",))] * 3)
    leaving.cancel()
    assert await staying == [b"PONG"] * 3
    assert await store.execute(b"PING") == b"PONG"


@contextmanager
def counted_tasks() -> Iterator[list[str]]:
    """The tasks that are made meanwhile."""
    loop, made = asyncio.get_running_loop(), []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        made.append(str(coroutine))
        return asyncio.Task(coroutine, loop=loop, **more)

    loop.set_task_factory(make)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        loop.set_task_factory(None)


async def test_a_worker_without_calls_looks_at_its_shards_without_a_task_for_each(world: RedisWorld) -> None:
    """Raises, budgets that are closed, leases, events left behind, breakers: what goes on many times a second."""
    providers = {f"p{n}": BreakerPolicy() for n in range(5)}
    raises, breakers = RedisRaises(world.store, past), RedisBreakerBoard(world.store, providers)
    for first in (True, False):
        with counted_tasks() as made:
            await raises.refresh()
            await world.counters.closed()
            await world.ledger.renew([])
            await world.ledger.reap()
            await world.stream.backlog()
            await breakers.refresh()
        assert first or made == []


async def past() -> PastRaises:
    return PastRaises((), ())


async def test_b7_a_hash_that_is_none_is_a_store_that_can_not_be_used(world: RedisWorld) -> None:
    """Somebody's own key in the place of raises: said as the store's failure, and the next look finds it mended."""
    raises, name = RedisRaises(world.store, past), keys.raises(keys.shard_prefix(3))
    await world.store.execute(b"SET", name, b"somebody's own")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await raises.refresh()
    await world.store.execute(b"DEL", name)
    await raises.refresh()
    assert raises.all() == ()
