"""May somebody at this address try to log in to the dashboard once more? At most five attempts in any minute."""

from collections.abc import Callable

from perpetuo.domain.model.admission import RateLimit
from perpetuo.domain.policy import rate

LIMIT = RateLimit("login", 5)
MOST_ADDRESSES = 10_000


class MemoryLogins:
    """Attempts by address, in this process: the same exact log as a tenant's rate."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._logs: dict[str, rate.RateLog] = {}

    async def login_attempt(self, address: str) -> int:
        """Count an attempt; 0: go ahead, else µs until the next one is allowed (and this one does not count)."""
        now = self._now_us()
        log = self._logs.pop(address, rate.EMPTY)
        wait = rate.wait_us(log, LIMIT, now, now)
        self._logs[address] = log if wait else rate.enter(log, LIMIT, now)
        if len(self._logs) > MOST_ADDRESSES:
            del self._logs[next(iter(self._logs))]
        return wait

    async def forget(self, address: str) -> None:
        """Somebody at this address got in: what they mistyped before no longer counts."""
        self._logs.pop(address, None)
