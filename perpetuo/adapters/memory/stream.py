"""
Where do finished events wait for SQL when there is no Redis?

In this process: an entry is unread, or being written by whoever read it, or acknowledged and gone. One that was read
more than 1 s ago and never acknowledged is handed out again, as Redis's consumer group does.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs
import msgspec

from perpetuo.domain.policy.admission import Appended
from perpetuo.domain.ports import StreamedEvent

TAKE_OVER_US = 1_000_000


class Clock(Protocol):
    """µs since the epoch."""

    def __call__(self) -> int: ...


@attrs.define
class Entry:
    """One event in the stream; see `StreamedEvent`."""

    entry: str
    row: bytes
    revision: int
    charged: int | None


class MemoryStream:
    """`perpetuo.domain.ports.EventStream` in this process."""

    def __init__(self, now_us: Clock) -> None:
        self._now_us = now_us
        self._count = 0
        self._unread: dict[str, Entry] = {}
        self._read: dict[str, tuple[int, Entry]] = {}
        """By entry, in the order of reading: when, and what."""
        self._arrived = asyncio.Event()
        self._acked: dict[str, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._unread) + len(self._read)

    def append(self, events: Iterable[Appended]) -> list[str]:
        """Add events; returns their entries."""
        added = [self._entry(one) for one in events]
        self._unread.update((entry.entry, entry) for entry in added)
        if added:
            self._arrived.set()
        return [entry.entry for entry in added]

    def _entry(self, one: Appended) -> Entry:
        self._count += 1
        return Entry(str(self._count), msgspec.json.encode(one.event), one.revision, one.charged)

    async def read(self, limit: int, wait: float) -> Sequence[Entry]:
        batch = self._take(limit)
        if batch or wait <= 0:
            return batch
        try:
            await asyncio.wait_for(self._arrived.wait(), wait)
        except TimeoutError:
            pass
        return self._take(limit)

    def _take(self, limit: int) -> list[Entry]:
        now = self._now_us()
        stale = [entry for at, entry in self._read.values() if now - at > TAKE_OVER_US]
        batch = [*stale, *self._unread.values()][:limit]
        for entry in batch:
            self._unread.pop(entry.entry, None)
            self._read.pop(entry.entry, None)
            self._read[entry.entry] = (now, entry)
        if not self._unread:
            self._arrived.clear()
        return batch

    async def ack(self, events: Sequence[StreamedEvent]) -> None:
        for event in events:
            self._read.pop(event.entry, None)
            self._unread.pop(event.entry, None)
            if waiting := self._acked.pop(event.entry, None):
                waiting.set()

    async def backlog(self) -> int:
        return len(self)

    async def acked(self, entry: str, seconds: float) -> bool:
        """Wait until SQL has ``entry``, at most so long."""
        if entry not in self._unread and entry not in self._read:
            return True
        waiting = self._acked.setdefault(entry, asyncio.Event())
        try:
            await asyncio.wait_for(waiting.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            self._acked.pop(entry, None)
        return True
