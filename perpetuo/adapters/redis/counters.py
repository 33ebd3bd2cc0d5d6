"""
How do a shard's counters come back from SQL after Redis has lost them?

Sealed by one worker, drained, summed, opened; `perpetuo.domain.gateway.reseed` says in which order and why. A seal is a
lock with a time limit: whoever loses it can't open.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.each import run_each_in_life
from perpetuo.adapters.redis.resp import Bulks
from perpetuo.adapters.redis.scripts import Script, load
from perpetuo.adapters.redis.store import RedisStore, run, run_in_life
from perpetuo.adapters.redis.stream import GROUP, Entry, acknowledge, entries_of
from perpetuo.domain.model.money import Nano
from perpetuo.domain.ports import Seal, StreamedEvent

STATUS, SEAL, OPEN = load("status", "common"), load("seal", "common"), load("open", "common")
SEALED = load("sealed")
LOOK = [([Bulks.of(keys.life(p), keys.seeded(p))], ()) for p in map(keys.shard_prefix, range(keys.SHARDS))]
"""What is asked at every look, written down once."""
SEAL_MS = 5_000
BATCH = 1_000


class RedisCounters:
    """`perpetuo.domain.ports.Counters` in Redis."""

    def __init__(self, store: RedisStore, now_us: Callable[[], int] | None = None) -> None:
        self._store = store
        self._now_us = now_us
        self._token = secrets.token_hex(8)
        self._waiting: str | None = None
        self._seen_open = False

    def shard_of(self, tenant: str) -> int:
        return keys.shard_of(tenant)

    @property
    def is_first_life(self) -> bool:
        return not self._seen_open

    def waiting(self, why: str | None) -> None:
        self._waiting = why

    def problem(self) -> str | None:
        return self._waiting

    async def closed(self) -> Sequence[int]:
        states = await run_each_in_life(self._store, STATUS, self._now(), LOOK)
        self._seen_open = self._seen_open or any(states)
        return [shard for shard, is_open in enumerate(states) if not is_open]

    async def seal(self, shard: int, windows: Sequence[tuple[str, str]]) -> Seal | None:
        p = keys.shard_prefix(shard)
        names = [keys.life(p), keys.seeded(p), keys.seeding(p), keys.events(p)]
        names += [keys.budget(p, scope, window) for scope, window in windows]
        last = await self._run(SEAL, names, [self._token, SEAL_MS, GROUP])
        return None if last is None else Seal(shard, self._token, last)

    async def sealed_events(self, seal: Seal) -> Sequence[Entry] | None:
        p = keys.shard_prefix(seal.shard)
        arguments = [seal.token, SEAL_MS, seal.last, BATCH]
        found = await run(self._store, SEALED, [keys.seeding(p), keys.events(p)], arguments)
        return None if found is None else entries_of(seal.shard, found)

    async def forget(self, events: Sequence[StreamedEvent]) -> None:
        await acknowledge(self._store, events)

    async def open(self, seal: Seal, spent: Mapping[tuple[str, str], Nano]) -> bool:
        p = keys.shard_prefix(seal.shard)
        names = [keys.life(p), keys.seeded(p), keys.seeding(p), *(keys.budget(p, *window) for window in spent)]
        opened = bool(await self._run(OPEN, names, [seal.token, *spent.values()]))
        self._seen_open = self._seen_open or opened
        return opened

    async def _run(self, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await run_in_life(self._store, script, self._now(), [names], [arguments])

    def _now(self) -> Any:
        """For the scripts; empty: Redis's own clock."""
        return self._now_us() if self._now_us else b""
