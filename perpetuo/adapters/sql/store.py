"""
`perpetuo.domain.ports.EventStore` and `EventHistory` on Postgres or SQLite.

Everything here is a transaction around a statement of `writing`, `refusals` or `queries`.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perpetuo.adapters.sql import queries, refusals, searching, writing
from perpetuo.adapters.sql.database import MAINTAINING, READING, UNMIGRATED, WRITING, Database, Unacceptable
from perpetuo.adapters.sql.ids import day_range
from perpetuo.adapters.sql.partitions import Partitions
from perpetuo.adapters.sql.rollups import Rollups, mark, minute_of
from perpetuo.adapters.sql.tables import HEAD, events, events_rejected
from perpetuo.adapters.sql.tables import refusals as refusals_table
from perpetuo.adapters.sql.values import moment
from perpetuo.domain.model.activity import EVERYTHING, MINUTE_US, Activity, Scope, Tally
from perpetuo.domain.model.events import Event, EventFilter, RefusalMinute, RefusalNote
from perpetuo.domain.model.settings import BUDGET_MONTH_US
from perpetuo.domain.ports import Admission, Found, ProviderCall, StoreUnavailable, StreamedEvent, WindowSum

DAYS_AHEAD = 7
ROLLUPS_KEPT_US = 90 * 86_400_000_000
"""Sums are small: they stay when the rows they were made of are gone."""
BUDGET_MONTH = timedelta(microseconds=BUDGET_MONTH_US)
"""Counters are re-seeded from these rows: a month that is still open is kept, whatever the retention says."""


class SqlEventStore:
    """The table ``events`` and its neighbours."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions = Partitions(database)
        self._rollups = Rollups(database)
        self._insert: Any = postgresql.insert if database.postgres else sqlite.insert

    async def close(self) -> None:
        await self._database.close()

    # --- EventStore ------------------------------------------------------------------------------

    async def write(self, streamed: Sequence[StreamedEvent]) -> int:
        rows, rejected = writing.read(streamed)
        if self._database.postgres:
            rows, nul = writing.without_nul(rows)
            rejected += nul
            await self._partitions.ensure(row.id for row in rows)
        rejected += await writing.write_folded(rows, self._upsert)
        if rejected:
            await self._set_aside(rejected)
        return len(rejected)

    async def write_refusals(self, notes: Sequence[RefusalNote]) -> None:
        if notes:
            async with self._database.transaction(WRITING) as connection:
                await connection.execute(refusals.upsert(connection.dialect.name), refusals.fold(notes))
                await mark(connection, (note.at_us // MINUTE_US for note in notes))

    async def sums(self, tenant: str, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        return await self._sums(tenant, days, months)

    async def by_request_id(self, tenant: str, request_id: str) -> Event | None:
        rows = await self._read(queries.by_request_id(tenant, request_id))
        return queries.event_from(rows[0]) if rows else None

    # --- EventHistory ----------------------------------------------------------------------------

    async def latest(self, where: EventFilter, *, before: str | None = None, limit: int = 50) -> Sequence[Event]:
        return [queries.event_from(row) for row in await self._read(queries.latest(where, before, limit))]

    async def search(
        self, where: EventFilter, *, now_us: int, before: str | None = None, limit: int = 50, seconds: float = 0.2
    ) -> Found:
        return await searching.search(self._database, where, now_us=now_us, before=before, limit=limit, seconds=seconds)

    async def count(self, where: EventFilter) -> int:
        rows = await self._read(queries.count(where))
        return int(rows[0]["rows"]) if rows else 0

    async def refusals(
        self, since_us: int, tenant: str | None = None, *, until_us: int | None = None, reason: str | None = None,
        request_id: str | None = None, limit: int = 1_000,
    ) -> Sequence[RefusalMinute]:  # fmt: skip
        wanted = {"tenant_id": tenant, "reason": reason}
        until = None if until_us is None else moment(until_us)
        rows = await self._read(queries.refusal_minutes(moment(since_us), until, wanted, request_id, limit))
        return [refusals.minute_from(row) for row in rows]

    async def spending(self, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        return await self._sums(None, days, months)

    async def provider_calls(self, provider: str, since_us: int, *, limit: int = 1_000) -> Sequence[ProviderCall]:
        rows = await self._read(queries.provider_calls(provider, since_us, limit))
        return [queries.provider_call_from(row) for row in rows]

    async def recent_admissions(self, since_us: int) -> Sequence[Admission]:
        return [queries.admission_from(row) for row in await self._read(queries.recent_admissions(since_us))]

    async def roll(self, now_us: int) -> int:
        return await self._rollups.roll(now_us)

    async def activity(self, since_us: int, until_us: int, step: int, scope: Scope = EVERYTHING) -> Activity:
        return await self._rollups.activity(since_us, until_us, step, scope)

    async def parts(self, since_us: int, until_us: int, scope: Scope) -> Mapping[str, Tally]:
        return await self._rollups.parts(since_us, until_us, scope)

    async def maintain(self, now_us: int, retention_us: int) -> None:
        now = moment(now_us)
        cutoff = now - max(timedelta(microseconds=retention_us), BUDGET_MONTH)
        if self._database.postgres:
            today = now.date()
            await self._partitions.make([today + timedelta(days=n) for n in range(DAYS_AHEAD + 1)])
            await self._partitions.drop_before(cutoff.date())
        else:
            await self._forget(sa.delete(events).where(events.c.id < day_range(cutoff.date())[0]))
        await self._forget(sa.delete(refusals_table).where(refusals_table.c.minute < cutoff))
        await self._forget(sa.delete(events_rejected).where(events_rejected.c.rejected_at < cutoff))
        await self._rollups.forget(now_us // MINUTE_US, max(retention_us, ROLLUPS_KEPT_US) // MINUTE_US)

    async def ping(self) -> None:
        rows = await self._read(sa.select(sa.column("version_num")).select_from(sa.table("alembic_version")))
        if not any(row["version_num"] >= HEAD for row in rows):
            self._database.problem = UNMIGRATED
            raise StoreUnavailable(UNMIGRATED)

    async def version(self) -> str:
        """Of the database's own software; raises `StoreUnavailable`."""
        said = "current_setting('server_version')" if self._database.postgres else "sqlite_version()"
        rows = await self._read(sa.select(sa.literal_column(said, sa.Text).label("version")))
        return str(rows[0]["version"])

    def problem(self) -> str | None:
        return self._database.problem

    # --- how -------------------------------------------------------------------------------------

    async def _upsert(self, rows: Sequence[writing.Row]) -> None:
        statement: Any = writing.POSTGRES_UPSERT if self._database.postgres else writing.SQLITE_UPSERT
        parameters: Any = (
            {"rows": writing.postgres_document(rows)} if self._database.postgres else writing.sqlite_rows(rows)
        )
        async with self._database.transaction(WRITING) as connection:
            await connection.execute(statement, parameters)
            await mark(connection, (minute_of(row.id) for row in rows))

    async def _set_aside(self, rejected: Sequence[writing.Rejected]) -> None:
        statement = queries.set_aside(self._insert)
        async with self._database.transaction(WRITING) as connection:
            await connection.execute(statement, [queries.rejected_row(row) for row in rejected])

    async def _read(self, statement: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        try:
            async with self._database.transaction(READING) as connection:
                rows: Sequence[sa.RowMapping] = (await connection.execute(statement)).mappings().all()
        except Unacceptable:  # such as a NUL in a request id: a value no row can hold is found in none
            return []
        return rows

    async def _sums(self, tenant: str | None, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        costs = await self._read(queries.daily_costs(tenant, days, months))
        return queries.windows(costs, days, months)

    async def _forget(self, statement: sa.Delete) -> None:
        async with self._database.transaction(MAINTAINING) as connection:
            await connection.execute(statement)
