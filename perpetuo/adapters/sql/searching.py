"""
How far back does a search look before it says what it has?

Rule 1: it looks at one span of time after the other, newest first, each longer than the one before. What happened
        lately is found without opening the partitions of months.
Rule 2: it ends when it has its rows, when nothing is left, or when its time is over; then it says where to go on. A
        span is as long as the one before lets expect that there is time for.
Rule 3: no expectation is trusted: Postgres stops a statement when the time is over. Only the first span has as long as
        any question has, so that each search gets on, however short its time.
"""

import asyncio
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from perpetuo.adapters.sql import queries
from perpetuo.adapters.sql.database import READING, SET_STATEMENT_TIMEOUT, Database, OutOfTimeError, Unacceptable
from perpetuo.adapters.sql.ids import day_range, floor_id, ms_of
from perpetuo.adapters.sql.partitions import CHILDREN, partition_day
from perpetuo.adapters.sql.queries import CLOCKS_APART_MS
from perpetuo.adapters.sql.tables import events
from perpetuo.domain.model.events import EventFilter
from perpetuo.domain.ports import Found

FIRST_MS = 3_600_000
GROWTH = 64
"""At most so many times longer than the span before: what is quick because it is empty tells little of what comes."""
SPARE = 0.75
"""So much of the time that is left is planned for; spans of equal length differ."""
LEAST_SECONDS = 0.01


@attrs.define
class _Standing:
    """All from ``upper`` on has been looked at."""

    where: EventFilter
    upper: str | None
    upper_ms: int
    limit: int
    rows: list[sa.RowMapping] = attrs.field(factory=list)
    span_ms: int = FIRST_MS
    oldest_ms: int = 0
    """Of the rows there are, or before it."""
    begun: bool = False
    ended: bool = False
    """Nothing older can match."""

    @property
    def enough(self) -> bool:
        """One more than asked for, so that it is known whether there are older ones."""
        return len(self.rows) > self.limit

    def lower_ms(self) -> int:
        """Where the next span begins; 0: it is the last."""
        since_ms = 0 if self.where.since_us is None else self.where.since_us // 1000 - CLOCKS_APART_MS
        lower = self.upper_ms - self.span_ms
        return lower if lower > max(0, since_ms, self.oldest_ms) else 0

    def widen(self, took: float, left: float) -> None:
        growth = min(GROWTH, SPARE * left / max(took, 0.001))
        self.span_ms = max(1, int(self.span_ms * growth))

    def found(self) -> Found:
        rows = [queries.event_from(row) for row in self.rows[: self.limit]]
        if self.enough:
            return Found(rows, rows[-1].id)
        return Found(rows, None) if self.ended else Found(rows, self.upper, self.upper_ms * 1000)


async def search(
    database: Database, where: EventFilter, *, now_us: int, before: str | None, limit: int, seconds: float
) -> Found:
    """See `perpetuo.domain.ports.EventHistory.search`."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    newest = [now_us // 1000, *(ms for ms in (ms_of(before), _until_ms(where)) if ms is not None)]
    at = _Standing(where, before, min(newest), limit)
    try:
        async with database.transaction(READING) as connection:
            left = seconds
            while not (at.ended or at.enough) and (left > LEAST_SECONDS or not at.begun):
                if at.begun and database.postgres:
                    await connection.execute(SET_STATEMENT_TIMEOUT, {"statement": f"{int(left * 1000)}ms"})
                if (at.begun or before) and not at.oldest_ms:  # one that goes on has to know when it is at the end
                    at.oldest_ms = await _oldest_ms(connection)
                began = clock()
                await _look(connection, at)
                left = until - clock()
                at.widen(clock() - began, left)
    except Unacceptable:  # such as a NUL in a tag: a value no row can hold is found in none
        return Found([], None)
    except OutOfTimeError:
        if not at.begun:
            raise
        database.problem = None  # it was us who ended it
    return at.found()


def _until_ms(where: EventFilter) -> int | None:
    return None if where.until_us is None else where.until_us // 1000 + CLOCKS_APART_MS


async def _oldest_ms(connection: AsyncConnection) -> int:
    """On Postgres the oldest day's beginning: to look for the oldest row opens every partition, which takes longer."""
    if connection.dialect.name != "postgresql":
        return ms_of(await connection.scalar(sa.select(sa.func.min(events.c.id)))) or 0
    names = (await connection.execute(CHILDREN)).scalars().all()
    days = [day for name in names if (day := partition_day(name))]
    return ms_of(day_range(min(days))[0]) or 0 if days else 0


async def _look(connection: AsyncConnection, at: _Standing) -> None:
    lower_ms = at.lower_ms()
    lower = floor_id(lower_ms) if lower_ms else None
    wanted: sa.Select[Any] = queries.latest(at.where, at.upper, at.limit + 1 - len(at.rows), lower)
    at.rows += (await connection.execute(wanted)).mappings().all()
    at.begun, at.ended = True, lower is None
    if lower is not None:
        at.upper, at.upper_ms = lower, lower_ms
