"""A ledger on a real Redis, with the clock turned by hand."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.counters import RedisCounters
from perpetuo.adapters.redis.ledger import RedisLedger
from perpetuo.adapters.redis.room import Room
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.adapters.redis.stream import RedisEventStream
from perpetuo.domain.policy.windows import key_scope
from perpetuo.domain.ports import WindowSum
from tests.contract.ledger_world import Clock

_lives = itertools.count(1)


class RedisWorld:
    """`tests.contract.ledger_world.World` over Redis. Losing its data is FLUSHALL, whatever the clock says."""

    def __init__(self, store: RedisStore, clock: Clock | None = None) -> None:
        self.store = store
        self.clock = clock or Clock()
        self.room = Room()
        self.ledger = RedisLedger(store, room=lambda: self.room, now_us=self.clock)
        self.stream = RedisEventStream(store)
        self.counters = RedisCounters(store, self.clock)

    async def open_all(self) -> None:
        """What the first start on an empty pair of stores does."""
        for shard in range(keys.SHARDS):
            seal = await self.counters.seal(shard, [])
            assert seal is not None
            assert await self.counters.open(seal, {})

    async def lose_data(self) -> None:
        await self.store.execute(b"FLUSHALL")
        life = f"{self.store.epoch}-{next(_lives)}"
        for shard in range(keys.SHARDS):
            await self.store.execute(b"SET", keys.life(keys.shard_prefix(shard)), f"{life} - 0")

    async def seed(self, tenant: str, sums: Sequence[WindowSum]) -> None:
        spent: dict[tuple[str, str], int] = defaultdict(int)
        for one in sums:
            scope = tenant if one.key_name is None else key_scope(tenant, one.key_name)
            spent[scope, one.window] += one.spent
        seal = await self.counters.seal(keys.shard_of(tenant), list(spent))
        assert seal is not None
        assert await self.counters.open(seal, spent)  # type: ignore[arg-type]

    async def close(self) -> None:
        await self.stream.close()
        await self.store.close()
