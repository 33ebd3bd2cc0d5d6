"""
How does every worker know of raised budgets without a round trip per call?

Rule 1: the truth is one hash a shard. A worker keeps a mirror, which a loop compares with the hash's version every
0.4 s; `of` and `all` touch only the mirror. Nothing changed: 16 small reads in one write, and calls notice nothing.
Rule 2: a raise and its event are one step in the tenant's shard, so SQL gets to know of each.
Rule 3: a hash without a version, or with that of another run of Redis, may have lost some: what SQL and this worker
know is put back first. While SQL is away, what this worker knows stays in force beside what is in the hash.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
from redis.exceptions import ResponseError

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.resp import pack
from perpetuo.adapters.redis.scripts import load
from perpetuo.adapters.redis.store import RedisStore, run
from perpetuo.domain.model.budgets import PastRaises, Raise
from perpetuo.domain.model.events import Event
from perpetuo.domain.ports import StoreUnavailable

PUT, BACK = load("raise"), load("raises_back")
LOOK_SECONDS = 0.4
ASK_SQL_SECONDS = 2.0
"""Between two attempts to ask SQL while it is away."""
VERSION = b"v"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Raise).decode


@attrs.frozen
class _Shard:
    """What is in one hash: raises by id, and ids of those that were ended."""

    version: bytes | None
    live: Mapping[str, Raise]
    ended: frozenset[str] = frozenset()


NOTHING = _Shard(None, {})


class RedisRaises:
    """`perpetuo.domain.ports.Raises`. ``past`` asks SQL; ``on_change`` is called when the mirror has changed."""

    def __init__(self, store: RedisStore, past: Callable[[], Awaitable[PastRaises]]) -> None:
        self._store = store
        self._past = past
        self._shards: dict[int, _Shard] = {}
        self._by_tenant: dict[str, tuple[Raise, ...]] = {}
        self._ask_sql_at = 0.0
        self.on_change: Callable[[], None] = lambda: None

    # --- the port --------------------------------------------------------------------------------

    def of(self, tenant: str) -> tuple[Raise, ...]:
        return self._by_tenant.get(tenant, ())

    def all(self) -> tuple[Raise, ...]:
        return tuple(one for raises in self._by_tenant.values() for one in raises)

    async def put(self, raised: Raise, event: Event) -> bool:
        return await self._change(raised, event, _live(raised))

    async def end(self, raised: Raise, event: Event) -> bool:
        return await self._change(raised, event, _ended(raised.until_us))

    async def _change(self, raised: Raise, event: Event, value: bytes) -> bool:
        p = keys.prefix_of(raised.tenant)
        done = await run(self._store, PUT, [keys.raises(p), keys.events(p)], [raised.id, value, _encode(event)])
        await self.refresh()
        return bool(done)

    # --- in the background -----------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the mirror fresh for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.refresh()
            except StoreUnavailable:
                continue  # what is known goes on; the ledger says that Redis is away

    async def refresh(self) -> None:
        """Make the mirror what the hashes say; raises `StoreUnavailable`."""
        found = [_told(reply, b"HGET") for reply in await self._store.ask_each(LOOK)]
        epoch = self._store.epoch
        changed = {n: version for n, version in enumerate(found) if version != self._known(n) or _lost(version, epoch)}
        if not changed:
            return
        lost = [n for n, version in changed.items() if _lost(version, epoch)]
        if lost:
            await self._put_back(lost, epoch)
        read = await self._store.ask_each([pack((b"HGETALL", _name(n))) for n in changed])
        for shard, reply in zip(changed, read, strict=True):
            now = _read(_told(reply, b"HGETALL"))
            self._take(shard, now, whole=not _lost(now.version, epoch))
        self._index()

    def _known(self, shard: int) -> bytes | None:
        return self._shards.get(shard, NOTHING).version

    async def _put_back(self, shards: Iterable[int], epoch: str) -> None:
        """What SQL and this worker know; not while SQL is away."""
        now = asyncio.get_running_loop().time()
        if now < self._ask_sql_at:
            return
        try:
            past = await self._past()
        except StoreUnavailable:
            self._ask_sql_at = now + ASK_SQL_SECONDS
            return
        values: dict[int, dict[str, bytes]] = {shard: {} for shard in shards}
        for one in (*past.made, *self.all()):
            if (shard := keys.shard_of(one.tenant)) in values:
                values[shard][one.id] = _live(one)
        for tenant, name, until_us in past.ended:
            if (shard := keys.shard_of(tenant)) in values:
                values[shard][name] = _ended(until_us)
        pairs = {shard: [part for pair in those.items() for part in pair] for shard, those in values.items()}
        await asyncio.gather(*(run(self._store, BACK, [_name(n)], [epoch, *those]) for n, those in pairs.items()))

    def _take(self, shard: int, now: _Shard, *, whole: bool) -> None:
        if not whole:
            before = self._shards.get(shard, NOTHING).live
            known = {name: one for name, one in before.items() if name not in now.ended}
            now = attrs.evolve(now, live={**known, **now.live})
        self._shards[shard] = now

    def _index(self) -> None:
        found: dict[str, tuple[Raise, ...]] = {}
        for shard in self._shards.values():
            for one in shard.live.values():
                found[one.tenant] = (*found.get(one.tenant, ()), one)
        if found != self._by_tenant:
            self._by_tenant = found
            self.on_change()


def _told(reply: Any, verb: bytes) -> Any:
    if isinstance(reply, ResponseError):
        raise StoreUnavailable(f"Redis refused {verb.decode()}: {reply}") from reply
    return reply


def _read(flat: Sequence[bytes]) -> _Shard:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    version = fields.pop(VERSION, None)
    live, ended = {}, set()
    for name, value in fields.items():
        _, _, text = value.partition(b" ")
        if text == b"-":
            ended.add(name.decode())
        else:
            live[name.decode()] = _decode(text)
    return _Shard(version, live, frozenset(ended))


def _lost(version: bytes | None, epoch: str) -> bool:
    return version is None or version.partition(b" ")[0].decode() != epoch


def _name(shard: int) -> str:
    return keys.raises(keys.shard_prefix(shard))


def _live(one: Raise) -> bytes:
    return b"%d %b" % (one.until_us, _encode(one))


def _ended(until_us: int) -> bytes:
    return b"%d -" % until_us


LOOK = [pack((b"HGET", _name(shard), VERSION)) for shard in range(keys.SHARDS)]
"""What is asked at every look, written down once."""
