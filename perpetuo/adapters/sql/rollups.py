"""
How do a million events become a chart in milliseconds?

Rule 1: whoever writes an event or a refusal leaves a mark for its minute, in the same transaction. Marks are only ever
        added, so writers do not wait for each other.
Rule 2: a marked minute that is over is summed up anew from ``events`` and ``refusals``, whole, and replaces what was
        there. So late rows, corrections, crashes and repetitions all end in the same figures.
Rule 3: marks are deleted before the rows are read. A mark that was not visible then stays for the next round.
Rule 4: one worker of all sums up at a time (an advisory lock; SQLite has one writer anyway), else an older sum could
        replace a newer one.
Rule 5: a minute is a range of ids (see `ids`), so that it is read from the primary key.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from perpetuo.adapters.sql.database import MAINTAINING, READING, Database
from perpetuo.adapters.sql.ids import floor_id
from perpetuo.adapters.sql.tables import events, refusals, rollup_spans, rollups, rollups_due
from perpetuo.adapters.sql.values import moment
from perpetuo.domain.model.activity import FIGURES, MINUTE_US, Activity, Scope, Slice, Tally, added
from perpetuo.domain.model.histogram import BOUNDS, Histogram

MINUTE_MS = 60_000
LAST_MINUTE = 253_402_300_800 // 60
ROUND = 120
"""Minutes summed up in one round; after an upgrade there may be many to do."""
READ_DIRECTLY = 15
"""Newest minutes that are read from ``events`` when nobody has summed them up yet."""
LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:key)").bindparams(key=0x726F6C6C757073)  # "rollups"
OUTCOMES = ("completed", "failed", "cancelled", "truncated", "abandoned")
SUMMED = ("cost_nano_usd", "input_tokens", "output_tokens", "cached_tokens")
CUTS: dict[str, tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]] = {
    "all": (sa.literal(""), sa.literal("")),
    "provider": (sa.func.coalesce(events.c.provider, sa.literal_column("''")), sa.literal("")),
    "tenant": (events.c.tenant_id, events.c.model),
}
"""What a row is of: name and model."""
MEASURES = {"latency": events.c.latency_ms, "first_token": events.c.first_token_ms}
MEASURED = ("all", "provider")


# --- marks ---------------------------------------------------------------------------------------


def minute_of(event_id: str) -> int | None:
    """The minute that an id's first 48 bits name; ``None``: none of a calendar."""
    try:
        minute = int(event_id.replace("-", "")[:12], 16) // MINUTE_MS
    except ValueError:
        return None
    return minute if minute < LAST_MINUTE else None


async def mark(connection: AsyncConnection, minutes: Iterable[int | None]) -> None:
    """Say that these minutes have to be summed up."""
    rows = [{"minute": minute} for minute in sorted({m for m in minutes if m is not None})]
    if rows:
        await connection.execute(sa.insert(rollups_due), rows)


# --- sums of one minute --------------------------------------------------------------------------


def _of_minute(minute: int) -> list[sa.ColumnElement[bool]]:
    first, end = floor_id(minute * MINUTE_MS), floor_id((minute + 1) * MINUTE_MS)
    return [events.c.id >= first, events.c.id < end, events.c.kind != "admin"]


def _grouped(cut: str) -> list[sa.ColumnElement[Any]]:
    return [part for part in CUTS[cut] if not isinstance(part, sa.BindParameter)]


def tallies(minute: int, cut: str) -> sa.Select[Any]:
    name, model = CUTS[cut]
    ended = [sa.func.count().filter(events.c.outcome == outcome).label(outcome) for outcome in OUTCOMES]
    sums = [sa.cast(sa.func.sum(events.c[column]), sa.BigInteger).label(column) for column in SUMMED]
    columns = (
        sa.literal(cut).label("cut"), name.label("name"), model.label("model"), sa.literal(minute).label("minute"),
        sa.func.count().label("calls"), *ended, sa.literal(0).label("refused"), *sums,
    )  # fmt: skip
    return sa.select(*columns).where(*_of_minute(minute)).group_by(*_grouped(cut)).having(sa.func.count() > 0)


def _refused(minute: int, cut: str) -> sa.Select[Any]:
    name: sa.ColumnElement[Any] = refusals.c.tenant_id if cut == "tenant" else sa.literal("")
    nothing = [sa.literal(0).label(column) for column in FIGURES if column != "refused"]
    count = sa.cast(sa.func.sum(refusals.c["count"]), sa.BigInteger).label("refused")
    columns = (
        sa.literal(cut).label("cut"), name.label("name"), sa.literal("").label("model"),
        sa.literal(minute).label("minute"), count, *nothing,
    )  # fmt: skip
    found = sa.select(*columns).where(refusals.c.minute == moment(minute * MINUTE_US))
    if cut == "tenant":
        found = found.where(refusals.c.tenant_id != "").group_by(refusals.c.tenant_id)
    return found.having(sa.func.count() > 0)


@cache
def _bucket(measure: str) -> sa.ColumnElement[Any]:
    """`bucket_of` as a column."""
    whens = " ".join(f"WHEN {MEASURES[measure].name} < {bound!r} THEN {n}" for n, bound in enumerate(BOUNDS))
    return sa.literal_column(f"CASE {whens} ELSE {len(BOUNDS)} END", sa.Integer)


def times(minute: int, cut: str, measure: str) -> sa.Select[Any]:
    name, _ = CUTS[cut]
    bucket = _bucket(measure)
    columns = (
        sa.literal(cut).label("cut"), name.label("name"), sa.literal(measure).label("measure"),
        sa.literal(minute).label("minute"), bucket.label("bucket"), sa.func.count().label("count"),
    )  # fmt: skip
    known = MEASURES[measure].is_not(None)
    return sa.select(*columns).where(*_of_minute(minute), known).group_by(*_grouped(cut), bucket)


# --- summing up ----------------------------------------------------------------------------------


class Rollups:
    """The tables ``rollups``, ``rollup_spans`` and ``rollups_due``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert: Any = postgresql.insert if database.postgres else sqlite.insert

    async def roll(self, now_us: int) -> int:
        """Sum up marked minutes that are over, newest first; how many."""
        due = (
            sa.select(rollups_due.c.minute)
            .where(rollups_due.c.minute < now_us // MINUTE_US)
            .distinct()
            .order_by(rollups_due.c.minute.desc())
            .limit(ROUND)
        )
        async with self._database.transaction(READING) as connection:
            minutes = (await connection.execute(due)).scalars().all()
        done = 0
        for minute in minutes:
            async with self._database.transaction(MAINTAINING) as connection:
                if self._database.postgres and not await connection.scalar(LOCK):
                    return done
                await self._roll_minute(connection, minute)
            done += 1
        return done

    async def _roll_minute(self, connection: AsyncConnection, minute: int) -> None:
        for table in (rollups_due, rollups, rollup_spans):
            await connection.execute(sa.delete(table).where(table.c.minute == minute))
        names = [column.name for column in rollups.c]
        for cut in CUTS:
            chosen = tallies(minute, cut).subquery()
            await connection.execute(
                self._insert(rollups).from_select(names, sa.select(*(chosen.c[name] for name in names)))
            )
        for cut in ("all", "tenant"):
            await connection.execute(self._add_refusals(minute, cut, names))
        for cut in MEASURED:
            for measure in MEASURES:
                columns = [column.name for column in rollup_spans.c]
                await connection.execute(self._insert(rollup_spans).from_select(columns, times(minute, cut, measure)))

    def _add_refusals(self, minute: int, cut: str, names: list[str]) -> Any:
        chosen = _refused(minute, cut).subquery()
        rows = sa.select(*(chosen.c[name] for name in names)).where(sa.true())  # SQLite: else ON would be a join's
        insert = self._insert(rollups).from_select(names, rows)
        return insert.on_conflict_do_update(
            index_elements=["cut", "name", "model", "minute"], set_={"refused": insert.excluded.refused}
        )

    async def forget_before(self, minute: int) -> None:
        for table in (rollups_due, rollups, rollup_spans):
            async with self._database.transaction(MAINTAINING) as connection:
                await connection.execute(sa.delete(table).where(table.c.minute < minute))

    # --- reading ---------------------------------------------------------------------------------

    async def activity(self, since_us: int, until_us: int, step: int, scope: Scope) -> Activity:
        """Both ends of the span are cut to whole steps of ``step`` minutes; its last one may not be over."""
        first, end = since_us // MINUTE_US // step * step, -(-until_us // MINUTE_US)
        async with self._database.transaction(READING) as connection:
            newest = await connection.scalar(sa.select(sa.func.max(rollups.c.minute)).where(rollups.c.cut == "all"))
            direct = max(first, end - READ_DIRECTLY, (newest or 0) + 1)
            figures = [_summed(row) for row in await connection.execute(_read_tallies(first, direct, step, scope))]
            spans = [tuple(row) for row in await connection.execute(_read_spans(first, direct, step, scope))]
            for minute in range(direct, end):
                await _directly(connection, minute, step, scope, figures, spans)
            behind = await connection.scalar(_behind(first, min(direct, end - 2)))
        return Activity(slices=list(_slices(figures, spans)), behind=behind or 0)


def _slot(table: sa.Table, step: int) -> sa.ColumnElement[Any]:
    """Where a step begins; the division is one of whole numbers on both databases."""
    return sa.literal_column(f"{table.name}.minute / {int(step)} * {int(step)}", sa.BigInteger)


def _within(table: sa.Table, first: int, end: int, scope: Scope) -> list[sa.ColumnElement[bool]]:
    return [table.c.cut == scope.cut, table.c.name == scope.name, table.c.minute >= first, table.c.minute < end]


def _read_tallies(first: int, end: int, step: int, scope: Scope) -> sa.Select[Any]:
    slot = _slot(rollups, step)
    sums = [sa.func.sum(rollups.c[name]).label(name) for name in FIGURES]
    return sa.select(slot.label("slot"), *sums).where(*_within(rollups, first, end, scope)).group_by(slot)


def _read_spans(first: int, end: int, step: int, scope: Scope) -> sa.Select[Any]:
    slot, spans = _slot(rollup_spans, step), rollup_spans.c
    columns = (slot.label("slot"), spans.measure, spans.bucket)
    chosen = sa.select(*columns, sa.func.sum(spans["count"]))
    return chosen.where(*_within(rollup_spans, first, end, scope)).group_by(slot, spans.measure, spans.bucket)


def _behind(first: int, end: int) -> sa.Select[Any]:
    due = rollups_due.c.minute
    return sa.select(sa.func.count(due.distinct())).where(due >= first, due < end)


def _summed(row: sa.Row[Any]) -> tuple[int, Tally]:
    values = row._mapping
    return int(values["slot"]), Tally(**{name: int(values[name]) for name in FIGURES})


async def _directly(
    connection: AsyncConnection, minute: int, step: int, scope: Scope, figures: list[Any], spans: list[Any]
) -> None:
    """A minute that nobody has summed up yet."""
    slot = minute // step * step
    statements = [tallies(minute, scope.cut), *([_refused(minute, scope.cut)] if scope.cut != "provider" else [])]
    for statement in statements:
        rows = (await connection.execute(statement)).mappings()
        figures += [
            (slot, Tally(**{name: int(row[name]) for name in FIGURES})) for row in rows if row["name"] == scope.name
        ]
    for measure in MEASURES if scope.cut in MEASURED else ():
        rows = (await connection.execute(times(minute, scope.cut, measure))).mappings()
        spans += [(slot, measure, row["bucket"], row["count"]) for row in rows if row["name"] == scope.name]


def _slices(figures: Sequence[tuple[int, Tally]], spans: Sequence[Any]) -> Iterator[Slice]:
    tally_of: dict[int, list[Tally]] = {}
    for slot, tally in figures:
        tally_of.setdefault(slot, []).append(tally)
    counts: dict[tuple[int, str], dict[int, int]] = {}
    for slot, measure, bucket, count in spans:
        into = counts.setdefault((int(slot), measure), {})
        into[int(bucket)] = into.get(int(bucket), 0) + int(count)
    for slot in sorted(tally_of):
        yield Slice(
            minute=slot,
            tally=added(tally_of[slot]),
            latency=Histogram(counts.get((slot, "latency"), {})),
            first_token=Histogram(counts.get((slot, "first_token"), {})),
        )
