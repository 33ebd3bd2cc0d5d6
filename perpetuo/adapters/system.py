"""The clock, randomness, ids and this process: the only place below the entrypoints that touches them."""

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from threading import Lock

GIVES_WAY_SECONDS = 0.0002


class RealSystem:
    """`perpetuo.domain.ports.System` on the machine's own clock and randomness."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    def new_id(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, random.getrandbits(74))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; ``None`` where there is no Linux to tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def open_files() -> int | None:
    """Open descriptors of this process, but for the one that is needed to count them."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    except OSError:
        return None


class _GivingWay:
    """
    For long work in a thread beside the calls: it lets go of the interpreter 25 times as often as usual.

    Each turn of the loop may wait for that, and a call has a dozen of them. In an imitation, while 10,000 tenants were
    read, twice as many rounds of a dozen turns went through (170, 122, 108 became 315, 257, 261); the longest round and
    the time of the reading stayed within the noise.

    Several threads may be at it: the first changes the interpreter's interval, the last puts it back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._threads = 0
        self._usual = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(GIVES_WAY_SECONDS)
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                sys.setswitchinterval(self._usual)


giving_way = _GivingWay()


def uuid7(ms: int, rand: int) -> str:
    """UUIDv7 text from ms since the epoch and 74 random bits (RFC 9562, section 5.7)."""
    value = ms << 80 | 0x7 << 76 | (rand >> 62) << 64 | 0b10 << 62 | (rand & (1 << 62) - 1)
    h = f"{value:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
