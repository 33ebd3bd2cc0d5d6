"""
What does a process get from one Redis URL? Every port that Redis implements, over one `RedisStore`, and a watch that
looks once a second how the server is doing, and whether it is still the one that greeted.

Starting never fails because Redis is away. It fails, with the fix, on a server that would throw data away, or that
holds data of a layout this release can't read.
"""

import asyncio
from collections.abc import Callable

import attrs
from redis.exceptions import ResponseError

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.connection import parse_info
from perpetuo.adapters.redis.counters import RedisCounters
from perpetuo.adapters.redis.ledger import RedisLedger
from perpetuo.adapters.redis.logins import RedisLogins
from perpetuo.adapters.redis.refusals import RedisRecentRefusals
from perpetuo.adapters.redis.room import KEEPS, Room, UnfitRedisError, eviction_text
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.adapters.redis.stream import RedisEventStream
from perpetuo.adapters.system import RealSystem
from perpetuo.domain.ports import StoreUnavailable

LOOK_EVERY = 1.0


class Watch:
    """Looks at memory, settings and layout of the server; remembers what it saw last."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._layout_problem: str | None = None
        self.room = Room()
        self.version: str | None = None
        """What the server calls itself; ``None``: it has not said so."""

    async def look(self) -> None:
        """One look. `StoreUnavailable`: there is nothing to see, and what was seen before stands."""
        info, layout = await asyncio.gather(self._store.execute(b"INFO"), self._store.execute(b"GET", keys.FORMAT))
        facts = parse_info(info)
        self.room = Room.of(facts)
        self.version = facts.get("valkey_version") or facts.get("redis_version")
        self._store.seen(None if facts.get("role") == "slave" else facts.get("run_id", ""))
        if layout is None:
            layout = await self._marked()
        self._layout_problem = _layout_problem(layout.decode()) if layout else None

    async def _marked(self) -> bytes | None:
        """Put our mark on an empty Redis, if it takes it (not when it is full)."""
        try:
            await self._store.execute(b"SETNX", keys.FORMAT, keys.FORMAT_VERSION)
            found: bytes | None = await self._store.execute(b"GET", keys.FORMAT)
        except ResponseError:
            return None
        return found

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except (StoreUnavailable, ResponseError):
                continue  # whatever Redis says, the next look may see more

    def problem(self) -> str | None:
        return self._layout_problem or self.room.problem()

    def check(self) -> None:
        """Raise `UnfitRedisError` for what must stop the start."""
        if self.room.policy != KEEPS:
            raise UnfitRedisError(eviction_text(self.room.policy))
        if self._layout_problem:
            raise UnfitRedisError(self._layout_problem)


def _layout_problem(found: str) -> str | None:
    if found == keys.FORMAT_VERSION:
        return None
    return (
        f"Redis holds data of another release (layout {found}, this release knows {keys.FORMAT_VERSION}). "
        "Run the release that wrote it, or use an empty Redis database."
    )


@attrs.define(eq=False)
class ConnectedRedis:
    """Close it when done."""

    store: RedisStore
    ledger: RedisLedger
    stream: RedisEventStream
    counters: RedisCounters
    refusals: RedisRecentRefusals
    logins: RedisLogins
    watch: Watch
    _task: "asyncio.Task[None]"

    @classmethod
    async def connect(
        cls, url: str, *, timeout: float = 0.1, on_problem: Callable[[str], None] | None = None
    ) -> "ConnectedRedis":
        """Never fails because Redis is away; `UnfitRedisError` when it is there but must not be used."""
        store = await RedisStore.connect(url, timeout=timeout, on_problem=on_problem)
        watch = Watch(store)
        try:
            await watch.look()
        except StoreUnavailable:
            pass  # it may come later; until then every call says so
        try:
            watch.check()
        except UnfitRedisError:
            await store.close()
            raise
        counters = RedisCounters(store)
        return cls(
            store=store,
            ledger=RedisLedger(store, room=lambda: watch.room, problem=lambda: watch.problem() or counters.problem()),
            stream=RedisEventStream(store),
            counters=counters,
            refusals=RedisRecentRefusals(store, RealSystem().now_us, room=lambda: watch.room),
            logins=RedisLogins(store),
            watch=watch,
            task=asyncio.create_task(watch.run(), name="redis-watch"),
        )

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.stream.close()
        await self.store.close()
