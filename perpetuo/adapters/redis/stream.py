"""
Where do finished events wait for SQL? In one stream a shard, drained by one consumer group over all workers.

Rule 1: an event is acknowledged and deleted in one step, once SQL has it; so a stream's length is its backlog.
Rule 2: what somebody read more than 1 s ago and never acknowledged is taken over: at least once, SQL folds by id.
Rule 3: blocking reads have a connection of their own.
Rule 4: streams and groups may vanish at any time (FLUSHALL, a shard sealed for seeding): they are made again, except
while their shard is sealed.
Rule 5: what trickles in is gathered: after a read that emptied the streams there is a pause. A transaction for every
handful of events costs far more for each than one for a batch.
"""

import asyncio
import os
import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import attrs
from redis.exceptions import ResponseError

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.connection import BROKEN, Link, NotReadyError
from perpetuo.adapters.redis.resp import pack
from perpetuo.adapters.redis.scripts import load
from perpetuo.adapters.redis.store import RedisStore, run
from perpetuo.domain.ports import StoreUnavailable, StreamedEvent

GROUP = "relay"
TAKE_OVER_MS = 1_000
LOOK_FOR_STALE = 0.5
"""Seconds between looks for what others have left behind."""
SEALED_PAUSE = 0.05
GATHER = 0.2
"""Seconds. Events are to be in SQL within 2 s (A4)."""
GONE_MS = 3_600_000
"""A consumer with nothing pending that was idle so long belongs to a dead process."""
OPEN_TIMEOUT = 1.0
ANSWER_TIMEOUT = 2.0
"""How long a blocking read may take beyond its own wait."""
GROUP_SCRIPT, ACK, LEAVE = load("group"), load("ack"), load("leave")


@attrs.frozen
class Entry:
    """`perpetuo.domain.ports.StreamedEvent`. ``entry`` is ``<shard>/<id in its stream>``."""

    entry: str
    row: bytes
    revision: int
    charged: int | None


def entries_of(shard: int, replies: Sequence[Any]) -> list[Entry]:
    """Entries as Redis gives them; one deleted meanwhile is nil (6.2) or has no fields."""
    return [_entry(shard, reply[0], reply[1]) for reply in replies if reply and reply[1]]


def _entry(shard: int, name: bytes, fields: Sequence[bytes]) -> Entry:
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    charged = pairs.get(b"h")
    return Entry(f"{shard}/{name.decode()}", pairs[b"e"], int(pairs[b"r"]), None if charged is None else int(charged))


def by_shard(events: Sequence[StreamedEvent]) -> dict[int, list[str]]:
    """The stream ids of events, by their shard."""
    shards: dict[int, list[str]] = defaultdict(list)
    for event in events:
        shard, _, name = event.entry.partition("/")
        shards[int(shard)].append(name)
    return shards


class RedisEventStream:
    """`perpetuo.domain.ports.EventStream`. One reader at a time; `close` when done."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._consumer = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._link: Link | None = None
        self._epoch = ""
        self._open: list[int] = []
        """Shards that have their group."""
        self._lost = False
        """A group has gone: look again before saying that there is nothing."""
        self._carried: list[Entry] = []
        """Read, but more than was asked for."""
        self._look_at = 0.0
        self._gather_until = 0.0

    async def read(self, limit: int, wait: float) -> Sequence[Entry]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while not self._carried:
            await self._make_groups()
            if loop.time() >= self._look_at:
                self._look_at = loop.time() + LOOK_FOR_STALE
                self._carried = await self._take_over(limit)
            if not self._carried:
                pause = min(until - loop.time(), LOOK_FOR_STALE)
                self._carried = await self._read_new(limit, max(pause, 0.0))
            if loop.time() >= until and not self._lost:
                break
        batch, self._carried = self._carried[:limit], self._carried[limit:]
        return batch

    async def ack(self, events: Sequence[StreamedEvent]) -> None:
        await acknowledge(self._store, events)

    async def backlog(self) -> int:
        lengths = await self._store.ask_each([pack((b"XLEN", _events(shard))) for shard in range(keys.SHARDS)])
        for wrong in (length for length in lengths if isinstance(length, ResponseError)):
            raise wrong
        return sum(lengths)

    async def close(self) -> None:
        """Give the connection back and leave the group."""
        await self._drop_link()
        for shard in self._open:
            try:
                await run(self._store, LEAVE, [_events(shard)], [GROUP, self._consumer])
            except StoreUnavailable:
                return

    # --- groups ----------------------------------------------------------------------------------

    async def _make_groups(self) -> None:
        """Where one is missing: lost, or not made because its shard was sealed."""
        if len(self._open) == keys.SHARDS and self._epoch == self._store.epoch:
            return
        if self._epoch != self._store.epoch:
            await self._drop_link()  # it may lead to the life before
        self._epoch, self._lost = self._store.epoch, False
        made = await asyncio.gather(*(self._make_group(shard) for shard in range(keys.SHARDS)))
        self._open = [shard for shard, there in enumerate(made) if there]

    async def _make_group(self, shard: int) -> bool:
        p = keys.shard_prefix(shard)
        return bool(await run(self._store, GROUP_SCRIPT, [keys.events(p), keys.seeding(p)], [GROUP, GONE_MS]))

    # --- reading ---------------------------------------------------------------------------------

    async def _take_over(self, limit: int) -> list[Entry]:
        shards, own = self._open, (GROUP, self._consumer, TAKE_OVER_MS, b"0-0", b"COUNT", limit)
        taken = await self._store.ask_each([pack((b"XAUTOCLAIM", _events(shard), *own)) for shard in shards])
        found: list[Entry] = []
        for shard, reply in zip(shards, taken, strict=True):
            if isinstance(reply, ResponseError):
                self._open, self._lost = [], True
            else:
                found += entries_of(shard, reply[1])
        return found

    async def _read_new(self, limit: int, wait: float) -> list[Entry]:
        """At most a quarter of ``limit`` from each stream: 16 full ones must not bring 16 times as many."""
        if not self._open:
            await asyncio.sleep(SEALED_PAUSE)
            return []
        await asyncio.sleep(max(0.0, self._gather_until - asyncio.get_running_loop().time()))
        most = max(1, limit // 4)
        blocking = (b"BLOCK", max(1, int(wait * 1000))) if wait > 0 else ()
        command = [b"XREADGROUP", b"GROUP", GROUP, self._consumer, b"COUNT", most, *blocking, b"STREAMS"]
        command += [*(_events(shard) for shard in self._open), *[b">"] * len(self._open)]
        reply = await self._ask(command, wait + ANSWER_TIMEOUT)
        if isinstance(reply, ResponseError):
            self._open, self._lost = [], True
            await self._drop_link()  # a server that became a replica would say so for ever
            return []
        shards = {_events(shard).encode(): shard for shard in self._open}
        if reply and all(len(found) < most for _, found in reply):
            self._gather_until = asyncio.get_running_loop().time() + GATHER
        return [entry for name, found in reply or () for entry in entries_of(shards[name], found)]

    async def _ask(self, command: Sequence[Any], timeout: float) -> Any:
        try:
            if self._link is None:
                self._link = await self._store.endpoint.open(OPEN_TIMEOUT)
            async with asyncio.timeout(timeout):
                (reply,) = await self._link.exchange([pack(command)])
        except (NotReadyError, *BROKEN) as error:
            await self._drop_link()
            raise StoreUnavailable(f"Redis went away: {error}") from error
        except BaseException:
            await self._drop_link()
            raise
        return reply

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


async def acknowledge(store: RedisStore, events: Sequence[StreamedEvent]) -> None:
    """Acknowledge and delete, in one step a shard."""
    shards = by_shard(events).items()
    await asyncio.gather(*(run(store, ACK, [_events(shard)], [GROUP, *names]) for shard, names in shards))


def _events(shard: int) -> str:
    return keys.events(keys.shard_prefix(shard))
