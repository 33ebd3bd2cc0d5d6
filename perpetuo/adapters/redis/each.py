"""
How does one script run for every shard at once?

As many commands in one write, and one future for all of them (`RedisStore.ask_each`). A worker without calls does
little else than look at its shards several times a second.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from perpetuo.adapters.redis.resp import Blocks, pack_call
from perpetuo.adapters.redis.scripts import Script
from perpetuo.adapters.redis.store import AnotherLifeError, RedisStore, refusal

Each = Sequence[tuple[Blocks, Blocks]]
"""Keys and arguments, once for each time the script runs."""


async def run_each_in_life(store: RedisStore, script: Script, now: Any, each: Each) -> list[Any]:
    """As `run_in_life`, with several keys and arguments of one script: all replies, or the first failure."""
    try:
        return await _run(store, script, (now, store.epoch), each)
    except AnotherLifeError:
        return await _run(store, script, (now, store.epoch), each)


async def _run(store: RedisStore, script: Script, life: tuple[Any, str], each: Each) -> list[Any]:
    told = [(names, (life, *arguments)) for names, arguments in each]
    packed = [pack_call(b"EVALSHA", script.sha, names, arguments) for names, arguments in told]

    async def settled(reply: Any, names: Blocks, arguments: Blocks) -> Any:
        return await store.once_more(reply, script, names, arguments, life[1])

    replies = await store.ask_each(packed, life[1])
    try:
        again = {n: settled(r, *told[n]) for n, r in enumerate(replies) if isinstance(r, ResponseError)}
        for n, reply in zip(again, await asyncio.gather(*again.values()), strict=True):
            replies[n] = reply
    except ResponseError as error:
        raise refusal(error, script) from error
    return replies
