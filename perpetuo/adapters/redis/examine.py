"""
What does a Redis say of itself, and what of ours does it hold?

For `perpetuo doctor`: one look on one connection, which changes nothing. ``INFO`` and not ``CONFIG``, which managed
Redis blocks; what an ACL forbids is left out.
"""

import asyncio
from collections.abc import Mapping
from statistics import median
from typing import Any

import attrs
from redis.exceptions import ResponseError

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.connection import BROKEN, Endpoint, Link, NotReadyError, parse_info
from perpetuo.adapters.redis.resp import pack
from perpetuo.adapters.system import RealSystem
from perpetuo.domain.ports import StoreUnavailable

PINGS = 5


@attrs.frozen
class RedisSeen:
    """``facts`` are the lines of INFO; ``ahead_us`` is its clock less this machine's."""

    facts: Mapping[str, str]
    ahead_us: int
    ping_ms: float
    layout: str | None
    backlog: int
    """Finished events that wait for SQL."""
    unread: int
    """Shards in which events wait and nobody has ever begun to read."""


async def examine(url: str, timeout: float) -> RedisSeen:
    """Raises `StoreUnavailable` with what kept us out."""
    try:
        link = await Endpoint.parse(url).open(timeout)
    except (NotReadyError, ValueError, *BROKEN) as error:
        text = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        raise StoreUnavailable(text or type(error).__name__) from error
    try:
        async with asyncio.timeout(timeout):
            return await _look(link)
    except BROKEN as error:
        raise StoreUnavailable(str(error) or "no answer in time") from error
    finally:
        await link.close()


async def _look(link: Link) -> RedisSeen:
    system = RealSystem()
    took = []
    for _ in range(PINGS):
        before = system.monotonic()
        await link.exchange([pack((b"PING",))])
        took.append((system.monotonic() - before) * 1000)
    before_us = system.now_us()
    (time,) = await link.exchange([pack((b"TIME",))])
    here_us = (before_us + system.now_us()) // 2
    info, layout = await link.exchange([pack((b"INFO",)), pack((b"GET", keys.FORMAT))])
    lengths, groups = await _streams(link)
    return RedisSeen(
        facts={} if isinstance(info, ResponseError) else parse_info(info),
        ahead_us=0 if isinstance(time, ResponseError) else int(time[0]) * 1_000_000 + int(time[1]) - here_us,
        ping_ms=median(took),
        layout=layout.decode() if isinstance(layout, bytes) else None,
        backlog=sum(lengths),
        unread=sum(1 for length, read in zip(lengths, groups, strict=True) if length and not read),
    )


async def _streams(link: Link) -> tuple[list[int], list[bool]]:
    names = [keys.events(keys.shard_prefix(shard)) for shard in range(keys.SHARDS)]
    replies: list[Any] = await link.exchange(
        [*(pack((b"XLEN", name)) for name in names), *(pack((b"XINFO", b"GROUPS", name)) for name in names)]
    )
    lengths = [0 if isinstance(reply, ResponseError) else int(reply) for reply in replies[: keys.SHARDS]]
    return lengths, [isinstance(reply, list) and bool(reply) for reply in replies[keys.SHARDS :]]
