"""
Which partitions does ``events`` have on Postgres?

Rule 1: one a UTC day, by range of the UUIDv7. A batch never waits in DEFAULT for its day: the writer
makes a missing one first, for DEFAULT may hold no row of a partition that is made later.
Rule 2: a partition is built aside and attached, which doesn't keep anybody from reading or writing other days.
Rule 3: where a day can't be made (rows of it in DEFAULT already, or no right to), DEFAULT takes its rows.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from perpetuo.adapters.sql.database import MAINTAINING, WRITING, Database, Unacceptable
from perpetuo.adapters.sql.ids import day_range, days_of

PARTITION = re.compile(r"events_(\d{4})(\d{2})(\d{2})")
ADVISORY_LOCK = 0x70657270657475  # "perpetu"
LOCK = sa.text("SELECT pg_advisory_xact_lock(:key)")
CHILDREN = sa.text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass"
)
MAY_CREATE = sa.text(
    "SELECT pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE')"
    " FROM pg_class WHERE oid = 'events'::regclass"
)


class Partitions:
    """The days that have a partition, as far as this process knows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[date] = set()

    async def ensure(self, event_ids: Iterable[str]) -> None:
        """Make the days of these ids where they are missing."""
        await self.make(sorted(days_of(event_ids) - self._known))

    async def make(self, days: Sequence[date]) -> None:
        """Make these days, each in a transaction of its own."""
        for day in days:
            try:
                async with self._database.transaction(WRITING) as connection:
                    await _make_day(connection, day)
            except Unacceptable:  # DEFAULT holds rows of this day and goes on doing so
                pass
            self._known.add(day)

    async def drop_before(self, cutoff: date) -> None:
        """Drop the partitions of the days before ``cutoff``, and delete such rows from DEFAULT."""
        async with self._database.transaction(MAINTAINING) as connection:
            names = (await connection.execute(CHILDREN)).scalars().all()
        for name in names:
            day = partition_day(name)
            if day is not None and day < cutoff:
                async with self._database.transaction(MAINTAINING) as connection:
                    await connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))
                self._known.discard(day)
        async with self._database.transaction(MAINTAINING) as connection:
            oldest = day_range(cutoff)[0]
            await connection.execute(sa.text("DELETE FROM events_default WHERE id < CAST(:id AS uuid)"), {"id": oldest})


def partition_day(name: str) -> date | None:
    """The day of ``events_20261123``; ``None``: it is no partition of a day."""
    match = PARTITION.fullmatch(name)
    return date(int(match[1]), int(match[2]), int(match[3])) if match else None


async def _make_day(connection: AsyncConnection, day: date) -> None:
    name, (start, end) = f"events_{day:%Y%m%d}", day_range(day)
    await connection.execute(LOCK, {"key": ADVISORY_LOCK})
    exists = await connection.scalar(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name})
    if exists or not await connection.scalar(MAY_CREATE):
        return
    await connection.execute(sa.text(f"CREATE TABLE {name} (LIKE events INCLUDING ALL)"))
    await connection.execute(
        sa.text(f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')")
    )
