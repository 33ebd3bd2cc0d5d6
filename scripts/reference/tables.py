"""What is written down of calls and refusals?"""

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from perpetuo.adapters.sql.tables import events, events_rejected, refusals
from scripts.reference.markdown import GENERATED, table

MEANING = {
    events: "One row for each admitted call, and for each action of an operator. No prompts, no outputs, no secrets.",
    refusals: "Refusals and replays: one row for each minute, tenant, key and reason, so that a flood can't fill it.",
    events_rejected: "Events that SQL would not take, with the error. They hold up no others.",
}


def lines() -> Iterator[str]:
    yield from ["# Tables", "", GENERATED, ""]
    yield "Made by `perpetuo migrate`, on PostgreSQL and SQLite alike (types are PostgreSQL's). Money is in nano-USD,"
    yield "times are in UTC, durations in milliseconds."
    for one, meaning in MEANING.items():
        yield from ["", f"## `{one.name}`", "", meaning, ""]
        yield from table(("Column", "Type", "Empty?", "Meaning"), [_row(column) for column in one.columns])


def _row(column: sa.Column[object]) -> tuple[str, ...]:
    kind = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    empty = "may be" if column.nullable else "primary key" if column.primary_key else "no"
    return f"`{column.name}`", kind, empty, column.doc or ""
