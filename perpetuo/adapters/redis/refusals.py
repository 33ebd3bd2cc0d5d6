"""
Where does ``GET /v1/requests/{id}`` find a call that was refused?

In a hash a shard and minute, kept for ten minutes; written in bulk by a worker's flusher.

A flood fills nothing: at most 1,000 notes at a time, at most 2,000 a hash (400 to 600 bytes each: 13 MB a shard), and
none at all while Redis is half full. Who asks for one that was not kept hears that the request is not known.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.room import NOTES_BELOW, Room
from perpetuo.adapters.redis.scripts import load
from perpetuo.adapters.redis.store import RedisStore, run
from perpetuo.domain.model.events import RefusalNote

MINUTE_US = 60_000_000
KEPT_MINUTES = 10
MOST = 1_000
MOST_IN_A_MINUTE = 2_000
"""Of one shard, from all workers."""
NOTE = load("note")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RefusalNote).decode


class RedisRecentRefusals:
    """`perpetuo.domain.ports.RecentRefusals` in Redis. ``now_us`` is the wall clock, ``room`` how full Redis was."""

    def __init__(self, store: RedisStore, now_us: Callable[[], int], room: Callable[[], Room] = Room) -> None:
        self._store = store
        self._now_us = now_us
        self._room = room

    async def note_refusals(self, notes: Sequence[RefusalNote]) -> None:
        if not self._room().below(NOTES_BELOW):
            return
        minute = self._now_us() // MINUTE_US
        hashes: dict[str, list[bytes]] = defaultdict(list)
        for note in notes[:MOST]:
            if note.tenant_id:
                fields = hashes[keys.refusals(keys.prefix_of(note.tenant_id), minute)]
                fields += [_field(note.tenant_id, note.request_id), _encode(note)]
        limits = (KEPT_MINUTES * 60 + 60, MOST_IN_A_MINUTE)
        await asyncio.gather(*(run(self._store, NOTE, [name], [*limits, *fields]) for name, fields in hashes.items()))

    async def find_refusal(self, tenant: str, request_id: str) -> RefusalNote | None:
        minute, p, field = self._now_us() // MINUTE_US, keys.prefix_of(tenant), _field(tenant, request_id)
        names = [keys.refusals(p, minute - ago) for ago in range(KEPT_MINUTES + 1)]
        found = await asyncio.gather(*(self._store.execute(b"HGET", name, field) for name in names))
        return next((_decode(raw) for raw in found if raw is not None), None)


def _field(tenant: str, request_id: str) -> bytes:
    return f"{tenant}\n{request_id}".encode()
