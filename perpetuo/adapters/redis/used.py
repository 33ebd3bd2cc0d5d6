"""
How much of their limits do thousands of scopes use?

Rule 1: scopes of one shard are read together, `AT_ONCE` of them by one script: Redis does nothing else meanwhile, and
        calls must not wait long.
Rule 2: one script at a time, so that calls of other workers and of this one pass in between.
Rule 3: what uses nothing costs one look at its keys, and nothing in the answer.
Rule 4: whose window it is was decided by the clock of whoever asks: for an order of tenants that is near enough.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.resp import Bulks
from perpetuo.adapters.redis.scripts import load
from perpetuo.adapters.redis.store import RedisStore, run
from perpetuo.domain.model.admission import MINUTE_US
from perpetuo.domain.policy.nearness import NOTHING, Used, Watched

USED = load("used", "common", "window")
AT_ONCE = 200
KEYS, NUMBERS = 4, 5
"""Of each scope: keys in a call, and in an answer its place and `Used`."""


async def read_used(store: RedisStore, watched: Sequence[Watched], now: Any) -> Sequence[Used]:
    """In the order of ``watched``."""
    shards: dict[int, list[int]] = {}
    for place, one in enumerate(watched):
        shards.setdefault(keys.shard_of(one.tenant), []).append(place)
    found = [NOTHING] * len(watched)
    for places in shards.values():
        for start in range(0, len(places), AT_ONCE):
            piece = places[start : start + AT_ONCE]
            asked = [watched[place] for place in piece]
            names = [_keys(one.tenant, one.scope, one.day.current, one.month.current) for one in asked]
            reply = await run(store, USED, Bulks(KEYS * len(piece), b"".join(names)), [now, MINUTE_US])
            for place, used in _read(reply):
                found[piece[place]] = used
    return found


def _read(reply: bytes) -> Iterator[tuple[int, Used]]:
    numbers = list(map(int, reply.split()))
    for at in range(0, len(numbers), NUMBERS):
        yield numbers[at], Used(*numbers[at + 1 : at + NUMBERS])


@lru_cache(maxsize=16_384)
def _keys(tenant: str, scope: str, day: str, month: str) -> bytes:
    """Written down once a day; the names are ASCII, so a character is a byte."""
    p = keys.prefix_of(tenant)
    names = (keys.budget(p, scope, day), keys.budget(p, scope, month), keys.rate(p, scope), keys.in_flight(p, scope))
    return "".join([f"${len(name)}\r\n{name}\r\n" for name in names]).encode("ascii")
