"""
What do the rows of some minutes sum up to, as one statement each?

Rule 1: the rows are read once for each kind of sum, however many minutes it is of. To ask for each minute by itself
        took 8 ms a minute: 17 minutes for the million rows of an upgrade.
Rule 2: a minute is that of the id (see `ids`), and a span of minutes is a range of the primary key.
Rule 3: sums of minutes and sums of hours have the same columns; ``minute`` is the first of the hour.
"""

from functools import cache
from typing import Any, Literal

import attrs
import sqlalchemy as sa

from perpetuo.adapters.sql.ids import floor_id
from perpetuo.adapters.sql.tables import events, refusals
from perpetuo.adapters.sql.values import moment
from perpetuo.domain.model.activity import FIGURES, MINUTE_US
from perpetuo.domain.model.histogram import BOUNDS

MINUTE_MS = 60_000
HOUR = 60
OUTCOMES = ("completed", "failed", "cancelled", "truncated", "abandoned")
SUMMED = ("cost_nano_usd", "input_tokens", "output_tokens", "cached_tokens")
EMPTY: sa.ColumnElement[str] = sa.literal_column("''", sa.Text)
CUTS: dict[str, tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]] = {
    "all": (EMPTY, EMPTY),
    "provider": (sa.func.coalesce(events.c.provider, EMPTY), EMPTY),
    "tenant": (events.c.tenant_id, events.c.model),
    "key": (events.c.tenant_id, events.c.key_name),
}
"""What a row is of: ``name`` and ``model``, where that of a key is the key's name."""
REFUSED: dict[str, tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]] = {
    "all": (EMPTY, EMPTY),
    "tenant": (refusals.c.tenant_id, EMPTY),
    "key": (refusals.c.tenant_id, refusals.c.key_name),
}
"""The same of refusals, which know no provider; a tenant's are not told by model."""
MEASURES = {"latency": events.c.latency_ms, "first_token": events.c.first_token_ms}
MEASURED = ("all", "provider")
DIGITS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13)
"""Where in an id the 48 bits of its time are."""


@attrs.frozen
class Span:
    """Minutes from ``first`` up to ``end``, told apart in steps of ``step``."""

    dialect: Literal["postgresql", "sqlite"]
    first: int
    end: int
    step: int = 1

    def slot(self, minute: str) -> sa.ColumnElement[int]:
        """Where a step begins. Written out: the same text in SELECT and GROUP BY is the same expression."""
        return sa.literal_column(f"({minute}) / {self.step:d} * {self.step:d}", sa.BigInteger)

    @property
    def of_event(self) -> sa.ColumnElement[int]:
        return self.slot(_EVENT_MINUTE[self.dialect])

    @property
    def of_refusal(self) -> sa.ColumnElement[int]:
        return self.slot(_REFUSAL_MINUTE[self.dialect])


_EVENT_MINUTE = {
    "postgresql": "CAST(CAST('x' || substr(CAST(events.id AS text), 1, 8) || substr(CAST(events.id AS text), 10, 4)"
    f" AS bit(48)) AS bigint) / {MINUTE_MS}",
    # SQLite reads no hexadecimal text
    "sqlite": "("
    + " + ".join(
        f"((instr('0123456789abcdef', substr(events.id, {place}, 1)) - 1) << {44 - 4 * n})"
        for n, place in enumerate(DIGITS)
    )
    + f") / {MINUTE_MS}",
}
_REFUSAL_MINUTE = {
    "postgresql": "CAST(extract(epoch FROM refusals.minute) AS bigint) / 60",
    "sqlite": "CAST(strftime('%s', refusals.minute) AS integer) / 60",
}


def tallies(span: Span, cut: str, name: str | None = None) -> sa.Select[Any]:
    """Calls; with ``name`` only what is of it."""
    named, part = CUTS[cut]
    ended = [sa.func.count().filter(events.c.outcome == outcome).label(outcome) for outcome in OUTCOMES]
    sums = [sa.cast(sa.func.sum(events.c[column]), sa.BigInteger).label(column) for column in SUMMED]
    columns = (*_head(cut, named, part, span.of_event), sa.func.count().label("calls"), *ended, _none("refused"), *sums)
    return sa.select(*columns).where(*_calls(span), *_of(named, name)).group_by(*_grouped(named, part, span.of_event))


def refused(span: Span, cut: str, name: str | None = None) -> sa.Select[Any]:
    """The same of refusals."""
    named, part = REFUSED[cut]
    count = sa.cast(sa.func.sum(refusals.c["count"]), sa.BigInteger).label("refused")
    figures = [count if column == "refused" else _none(column) for column in FIGURES]
    minute = refusals.c.minute
    chosen = sa.select(*_head(cut, named, part, span.of_refusal), *figures).where(
        minute >= moment(span.first * MINUTE_US), minute < moment(span.end * MINUTE_US), *_of(named, name)
    )
    if cut != "all":
        chosen = chosen.where(refusals.c.tenant_id != "")
    return chosen.group_by(*_grouped(named, part, span.of_refusal))


def times(span: Span, cut: str, measure: str, name: str | None = None) -> sa.Select[Any]:
    """How many calls took how long."""
    named, _ = CUTS[cut]
    bucket, slot = _bucket(measure), span.of_event
    columns = (
        _text(cut).label("cut"), named.label("name"), _text(measure).label("measure"), slot.label("minute"),
        bucket.label("bucket"), sa.func.count().label("count"),
    )  # fmt: skip
    known = MEASURES[measure].is_not(None)
    chosen = sa.select(*columns).where(*_calls(span), known, *_of(named, name))
    return chosen.group_by(*_grouped(named, EMPTY, slot), bucket)


def _calls(span: Span) -> list[sa.ColumnElement[bool]]:
    first, end = floor_id(span.first * MINUTE_MS), floor_id(span.end * MINUTE_MS)
    return [events.c.id >= first, events.c.id < end, events.c.kind != "admin"]


def _of(named: sa.ColumnElement[Any], name: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if name is None or named is EMPTY else [named == name]


def _head(
    cut: str, named: sa.ColumnElement[Any], part: sa.ColumnElement[Any], slot: sa.ColumnElement[int]
) -> tuple[sa.Label[Any], ...]:
    return _text(cut).label("cut"), named.label("name"), part.label("model"), slot.label("minute")


def _grouped(*parts: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    return [part for part in parts if part is not EMPTY]


def _text(word: str) -> sa.ColumnElement[str]:
    """One of our own words."""
    return sa.literal_column(f"'{word}'", sa.Text)


def _none(column: str) -> sa.Label[int]:
    return sa.literal_column("0", sa.BigInteger).label(column)


@cache
def _bucket(measure: str) -> sa.ColumnElement[Any]:
    """`perpetuo.domain.model.histogram.bucket_of` as a column."""
    column = MEASURES[measure].name
    whens = " ".join(f"WHEN {column} < {bound!r} THEN {n}" for n, bound in enumerate(BOUNDS))
    return sa.literal_column(f"CASE {whens} ELSE {len(BOUNDS)} END", sa.Integer)
