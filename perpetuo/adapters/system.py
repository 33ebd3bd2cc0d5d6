"""The clock, randomness and ids: the only place below the entrypoints that touches them."""

import asyncio
import random
import time


class RealSystem:
    """`perpetuo.domain.ports.System` on the machine's own clock and randomness."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return random.random()  # noqa: S311 - jitter and weights, not secrets

    def new_id(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, random.getrandbits(74))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def uuid7(ms: int, rand: int) -> str:
    """UUIDv7 text from ms since the epoch and 74 random bits (RFC 9562, section 5.7)."""
    value = ms << 80 | 0x7 << 76 | (rand >> 62) << 64 | 0b10 << 62 | (rand & (1 << 62) - 1)
    h = f"{value:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
