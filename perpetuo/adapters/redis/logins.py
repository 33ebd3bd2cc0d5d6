"""
May somebody at this address try to log in to the dashboard once more?

At most five attempts in any minute, over all workers: the same exact log as a tenant's rate.
"""

from collections.abc import Callable

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.scripts import load
from perpetuo.adapters.redis.store import RedisStore, run

ATTEMPTS, WINDOW_US = 5, 60_000_000
LOGIN = load("login", "common")


class RedisLogins:
    """Attempts by address; ``now_us`` is for tests."""

    def __init__(self, store: RedisStore, now_us: Callable[[], int] | None = None) -> None:
        self._store = store
        self._now_us = now_us

    async def login_attempt(self, address: str) -> int:
        """Count an attempt; 0: go ahead, else µs until the next one is allowed (and this one does not count)."""
        now = self._now_us() if self._now_us else b""
        return int(await run(self._store, LOGIN, [keys.login(address)], [now, ATTEMPTS, WINDOW_US]))

    async def forget(self, address: str) -> None:
        """Somebody at this address got in: what they mistyped before no longer counts."""
        await self._store.execute(b"DEL", keys.login(address))
