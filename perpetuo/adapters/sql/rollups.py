"""
How do a million events become a chart in milliseconds?

Rule 1: whoever writes an event or a refusal leaves a mark for its minute, in the same transaction. Marks are only ever
        added, so writers do not wait for each other.
Rule 2: a marked minute that is over is summed up anew from ``events`` and ``refusals``, whole, and replaces what was
        there. So late rows, corrections, crashes and repetitions all end in the same figures.
Rule 3: marks are deleted before the rows are read. A mark that was not visible then stays for the next round.
Rule 4: one worker of all sums up at a time (an advisory lock; SQLite has one writer anyway), else an older sum could
        replace a newer one.
Rule 5: an hour that is over is the sum of its minutes: summed up when the first round after its end comes, and anew
        with each of its minutes that is. The hour that is not over has no sum. So every hour up to the newest that has
        one is whole, and what comes after it is read by the minute.
Rule 6: minutes are kept for three days: no chart shows older ones. A mark older than that sums up its whole hour, and
        only the hour.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from perpetuo.adapters.sql.database import MAINTAINING, READING, Database
from perpetuo.adapters.sql.ids import ms_of
from perpetuo.adapters.sql.summing import (
    CUTS,
    HOUR,
    MEASURED,
    MEASURES,
    MINUTE_MS,
    REFUSED,
    Span,
    refused,
    tallies,
    times,
)
from perpetuo.adapters.sql.tables import rollup_hour_spans, rollup_hours, rollup_spans, rollups, rollups_due
from perpetuo.domain.model.activity import FIGURES, MINUTE_US, Activity, Scope, Slice, Tally, added
from perpetuo.domain.model.histogram import Histogram
from perpetuo.domain.ports import StoreUnavailable

LAST_MINUTE = 253_402_300_800 // 60
DAY = 1_440
ROUND = DAY
"""Most minutes summed up in one round; after an upgrade there may be many to do."""
FIRST_PIECE, CALLS_AT_ONCE = 10, 20_000
"""How many minutes one transaction sums up: as many as had so many calls lately."""
MINUTES_KEPT = 3 * DAY
READ_DIRECTLY = 15
"""Newest minutes that are read from ``events`` when nobody has summed them up yet."""
LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:key)").bindparams(key=0x726F6C6C757073)  # "rollups"
TABLES = (rollups, rollup_spans, rollup_hours, rollup_hour_spans, rollups_due)
MINUTES, HOURS = (rollups, rollup_spans), (rollup_hours, rollup_hour_spans)
Figures = Sequence[tuple[int, str, Tally]]
"""Minute, part and sums."""
Spans = Sequence[sa.Row[Any]]


# --- marks ---------------------------------------------------------------------------------------


def minute_of(event_id: str) -> int | None:
    """The minute that an id's first 48 bits name; ``None``: none of a calendar."""
    ms = ms_of(event_id)
    return ms // MINUTE_MS if ms is not None and ms < LAST_MINUTE * MINUTE_MS else None


async def mark(connection: AsyncConnection, minutes: Iterable[int | None]) -> None:
    """Say that these minutes have to be summed up."""
    rows = [{"minute": minute} for minute in sorted({m for m in minutes if m is not None})]
    if rows:
        await connection.execute(sa.insert(rollups_due), rows)


# --- summing up ----------------------------------------------------------------------------------


class Rollups:
    """The tables ``rollups``, ``rollup_spans``, the same by the hour, and ``rollups_due``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert: Any = postgresql.insert if database.postgres else sqlite.insert
        self._piece = FIRST_PIECE

    def _span(self, first: int, end: int, step: int = 1) -> Span:
        return Span("postgresql" if self._database.postgres else "sqlite", first, end, step)

    async def roll(self, now_us: int) -> int:
        """Sum up marked minutes that are over, newest first; how many."""
        now = now_us // MINUTE_US
        due = sa.select(rollups_due.c.minute).where(rollups_due.c.minute < now).distinct()
        async with self._database.transaction(READING) as connection:
            ordered = due.order_by(rollups_due.c.minute.desc()).limit(ROUND)
            minutes = list((await connection.execute(ordered)).scalars())
        if not await self._locked(self._close_hours, now):
            return 0
        done, edge = 0, _edge(now)
        while done < len(minutes):
            first, end = _run(minutes, done, self._piece, edge)
            try:
                if not await self._locked(self._roll, first, end, now):
                    break
            except StoreUnavailable:  # perhaps it was too much for one transaction
                self._piece = max(1, self._piece // 8)
                raise
            while done < len(minutes) and minutes[done] >= first:
                done += 1
        return done

    async def _locked(self, step: Any, *arguments: int) -> bool:
        """One transaction, if nobody else is at it."""
        async with self._database.transaction(MAINTAINING) as connection:
            if self._database.postgres and not await connection.scalar(LOCK):
                return False
            await step(connection, *arguments)
        return True

    async def _roll(self, connection: AsyncConnection, first: int, end: int, now: int) -> None:
        is_old = end <= _edge(now)
        await _clear(connection, rollups_due, first, end)
        await self._sum_up(connection, HOURS if is_old else MINUTES, self._span(first, end, HOUR if is_old else 1))
        if not is_old:
            await self._sum_hours(connection, first // HOUR * HOUR, min(_up(end), now // HOUR * HOUR))
        calls = await connection.scalar(_calls_of((HOURS if is_old else MINUTES)[0], first, end)) or 0
        self._piece = max(1, min(ROUND, 2 * self._piece, CALLS_AT_ONCE * (end - first) // max(1, calls)))

    async def _sum_up(self, connection: AsyncConnection, tables: tuple[sa.Table, sa.Table], span: Span) -> None:
        """From the rows."""
        sums, spans = tables
        for table in tables:
            await _clear(connection, table, span.first, span.end)
        for cut in CUTS:
            await connection.execute(_into(self._insert(sums), sums, tallies(span, cut)))
        for cut in REFUSED:
            await connection.execute(self._add_refusals(sums, span, cut))
        for cut in MEASURED:
            for measure in MEASURES:
                await connection.execute(_into(self._insert(spans), spans, times(span, cut, measure)))

    def _add_refusals(self, table: sa.Table, span: Span, cut: str) -> Any:
        chosen = refused(span, cut).subquery()
        names = [column.name for column in table.c]
        rows = sa.select(*(chosen.c[name] for name in names)).where(sa.true())  # SQLite: else ON would be a join's
        insert = self._insert(table).from_select(names, rows)
        return insert.on_conflict_do_update(
            index_elements=[column.name for column in table.primary_key], set_={"refused": insert.excluded.refused}
        )

    async def _close_hours(self, connection: AsyncConnection, now: int) -> None:
        """Sum up the hours that have ended since the last was."""
        closed = await _closed(connection)
        oldest = sa.select(sa.func.min(rollups.c.minute)).where(*_everything(rollups), rollups.c.minute >= closed)
        minute = await connection.scalar(oldest)
        if minute is not None:
            await self._sum_hours(connection, minute // HOUR * HOUR, now // HOUR * HOUR)

    async def _sum_hours(self, connection: AsyncConnection, first: int, end: int) -> None:
        for minutes, hours in zip(MINUTES, HOURS, strict=True):
            if first < end:
                await _clear(connection, hours, first, end)
                await connection.execute(_into(self._insert(hours), hours, _by_the_hour(minutes, first, end)))

    async def forget(self, now: int, kept: int) -> None:
        """What is older than ``kept`` minutes; of minutes that have become hours, what is older than three days."""
        for table in TABLES:
            while await self._forget_a_day(table, now, kept):
                pass

    async def _forget_a_day(self, table: sa.Table, now: int, kept: int) -> bool:
        """The oldest day that is too old, if there is one: after an upgrade there may be millions of rows to forget."""
        async with self._database.transaction(MAINTAINING) as connection:
            before = now - kept
            if table in MINUTES:
                before = max(before, min(_edge(now), await _closed(connection)))
            oldest = await connection.scalar(sa.select(sa.func.min(table.c.minute)).where(table.c.minute < before))
            if oldest is not None:
                await _clear(connection, table, 0, min(before, oldest + DAY))
        return oldest is not None

    # --- reading ---------------------------------------------------------------------------------

    async def activity(self, since_us: int, until_us: int, step: int, scope: Scope) -> Activity:
        """Both ends of the span are cut to whole steps of ``step`` minutes; its last one may not be over."""
        first, end = since_us // MINUTE_US // step * step, -(-until_us // MINUTE_US)
        async with self._database.transaction(READING) as connection:
            hours, direct = await _summed_until(connection, first, end, step)
            figures, spans = await self._read(connection, self._span(first, end, step), hours, direct, scope)
            behind = await connection.scalar(_behind(first, min(direct, end - 2)))
        return Activity(slices=list(_slices(figures, spans)), behind=behind or 0)

    async def parts(self, since_us: int, until_us: int, scope: Scope) -> Mapping[str, Tally]:
        """The span begins with a whole hour."""
        first, end = since_us // MINUTE_US // HOUR * HOUR, -(-until_us // MINUTE_US)
        async with self._database.transaction(READING) as connection:
            hours, direct = await _summed_until(connection, first, end, HOUR)
            figures, _ = await self._read(connection, self._span(first, end, HOUR), hours, direct, scope)
        found: dict[str, list[Tally]] = {}
        for _, part, tally in figures:
            found.setdefault(part, []).append(tally)
        return {part: added(tallies) for part, tallies in found.items()}

    async def _read(
        self, connection: AsyncConnection, span: Span, hours: int, direct: int, scope: Scope
    ) -> tuple[Figures, Spans]:
        """Sums of hours up to ``hours``, of minutes up to ``direct``, then rows."""
        found: list[sa.Row[Any]] = []
        times_found: list[sa.Row[Any]] = []
        for (sums, spans), low, high in ((HOURS, span.first, hours), (MINUTES, hours, direct)):
            if low < high:
                piece = attrs.evolve(span, first=low, end=high)
                found += await connection.execute(_read_tallies(sums, piece, scope))
                if scope.cut in MEASURED:
                    times_found += await connection.execute(_read_spans(spans, piece, scope))
        if direct < span.end:
            piece = attrs.evolve(span, first=direct)
            found += await connection.execute(tallies(piece, scope.cut, scope.name))
            if scope.cut in REFUSED:
                found += await connection.execute(refused(piece, scope.cut, scope.name))
            for measure in MEASURES if scope.cut in MEASURED else ():
                times_found += await connection.execute(times(piece, scope.cut, measure, scope.name))
        return [_figures(row) for row in found], times_found


def _edge(now: int) -> int:
    """What is older is only kept by the hour."""
    return (now - MINUTES_KEPT) // HOUR * HOUR


def _up(minute: int) -> int:
    """To the end of its hour."""
    return -(-minute // HOUR) * HOUR


def _run(minutes: Sequence[int], start: int, most: int, edge: int) -> tuple[int, int]:
    """The next minutes without a gap, of those listed newest first: from, and up to; of old ones whole hours."""
    stop = start + 1
    while stop < len(minutes) and stop - start < most and minutes[stop] == minutes[stop - 1] - 1 != edge - 1:
        stop += 1
    first, end = minutes[stop - 1], minutes[start] + 1
    return (first, end) if end > edge else (first // HOUR * HOUR, _up(end))


async def _clear(connection: AsyncConnection, table: sa.Table, first: int, end: int) -> None:
    await connection.execute(sa.delete(table).where(table.c.minute >= first, table.c.minute < end))


async def _closed(connection: AsyncConnection) -> int:
    """Up to where hours have been summed up."""
    newest = await connection.scalar(_newest(rollup_hours))
    return 0 if newest is None else int(newest) + HOUR


async def _summed_until(connection: AsyncConnection, first: int, end: int, step: int) -> tuple[int, int]:
    """Up to where sums of hours are read, and from where rows are read themselves."""
    newest = await connection.scalar(_newest(rollups))
    closed = await _closed(connection)
    direct = max(first, min(end, max(end - READ_DIRECTLY, (newest or 0) + 1, closed)))
    hours = min(closed, direct // HOUR * HOUR) if step % HOUR == 0 else first
    return max(first, hours), direct


def _into(insert: Any, table: sa.Table, chosen: sa.Select[Any]) -> Any:
    names, rows = [column.name for column in table.c], chosen.subquery()
    return insert.from_select(names, sa.select(*(rows.c[name] for name in names)))


def _everything(table: sa.Table) -> list[sa.ColumnElement[bool]]:
    return [table.c.cut == "all", table.c.name == ""]


def _newest(table: sa.Table) -> sa.Select[Any]:
    return sa.select(sa.func.max(table.c.minute)).where(*_everything(table))


def _calls_of(table: sa.Table, first: int, end: int) -> sa.Select[Any]:
    calls = sa.cast(sa.func.sum(table.c.calls), sa.BigInteger)
    return sa.select(calls).where(*_everything(table), table.c.minute >= first, table.c.minute < end)


def _by_the_hour(table: sa.Table, first: int, end: int) -> sa.Select[Any]:
    """Sums of whole hours from those of their minutes."""
    slot = sa.literal_column(f"{table.name}.minute / {HOUR} * {HOUR}", sa.BigInteger)
    same = [column for column in table.primary_key if column.name != "minute"]
    sums = [
        sa.cast(sa.func.sum(column), sa.BigInteger).label(column.name) for column in table.c if not column.primary_key
    ]
    chosen = sa.select(*same, slot.label("minute"), *sums)
    return chosen.where(table.c.minute >= first, table.c.minute < end).group_by(*same, slot)


def _within(table: sa.Table, span: Span, scope: Scope) -> list[sa.ColumnElement[bool]]:
    return [
        table.c.cut == scope.cut, table.c.name == scope.name, table.c.minute >= span.first, table.c.minute < span.end,
    ]  # fmt: skip


def _read_tallies(table: sa.Table, span: Span, scope: Scope) -> sa.Select[Any]:
    slot = span.slot(f"{table.name}.minute")
    sums = [sa.func.sum(table.c[name]).label(name) for name in FIGURES]
    chosen = sa.select(slot.label("minute"), table.c.model, *sums).where(*_within(table, span, scope))
    return chosen.group_by(slot, table.c.model)


def _read_spans(table: sa.Table, span: Span, scope: Scope) -> sa.Select[Any]:
    slot = span.slot(f"{table.name}.minute")
    same = (table.c.measure, table.c.bucket)
    chosen = sa.select(slot.label("minute"), *same, sa.func.sum(table.c["count"]).label("count"))
    return chosen.where(*_within(table, span, scope)).group_by(slot, *same)


def _behind(first: int, end: int) -> sa.Select[Any]:
    due = rollups_due.c.minute
    return sa.select(sa.func.count(due.distinct())).where(due >= first, due < end)


def _figures(row: sa.Row[Any]) -> tuple[int, str, Tally]:
    values = row._mapping
    return int(values["minute"]), values["model"], Tally(**{name: int(values[name]) for name in FIGURES})


def _slices(figures: Figures, spans: Spans) -> Iterator[Slice]:
    tally_of: dict[int, list[Tally]] = {}
    for slot, _, tally in figures:
        tally_of.setdefault(slot, []).append(tally)
    counts: dict[tuple[int, str], dict[int, int]] = {}
    for row in spans:
        values = row._mapping
        into = counts.setdefault((int(values["minute"]), values["measure"]), {})
        into[int(values["bucket"])] = into.get(int(values["bucket"]), 0) + int(values["count"])
    for slot in sorted(tally_of):
        yield Slice(
            minute=slot,
            tally=added(tally_of[slot]),
            latency=Histogram(counts.get((slot, "latency"), {})),
            first_token=Histogram(counts.get((slot, "first_token"), {})),
        )
