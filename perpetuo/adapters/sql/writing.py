"""
How do finished events become rows?

Rule 1: any order and any repetition of the same revisions gives the same table: a batch is folded by
id to the highest revision, and a row only ever gives way to a higher one.
Rule 2: on Postgres the event's own JSON bytes are unpacked by the server; nobody decodes them on the way.
Rule 3: a row the database refuses delays no other: the batch is halved until the row stands alone.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any

import attrs
import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perpetuo.adapters.sql.database import Unacceptable
from perpetuo.adapters.sql.tables import events
from perpetuo.adapters.sql.values import moment
from perpetuo.domain.model.events import Event
from perpetuo.domain.ports import StreamedEvent

ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes it: behind an odd number of backslashes."""
NUL = r"unsupported Unicode escape sequence: \u0000 cannot be converted to text"
YEAR_10000_US = 253_402_300_800_000_000


class _Head(msgspec.Struct):
    id: str
    occurred_at_us: Annotated[int, msgspec.Meta(ge=0, lt=YEAR_10000_US)]
    """Postgres takes later ones, but then Python can't read them back."""


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_event = msgspec.json.Decoder(Event).decode


class Row(msgspec.Struct, frozen=True):  # a frozen attrs class takes 1.5 µs longer to make
    """An event as it goes into a statement; ``json`` is the `Event`."""

    id: str
    revision: int
    charged: int | None
    json: str


@attrs.frozen
class Rejected:
    """An event no row can be made of, and why."""

    id: str | None
    revision: int
    charged: int | None
    json: str
    error: str

    @property
    def digest(self) -> str:
        """The same for the same event, so that sending it again sets nothing aside twice."""
        return hashlib.sha256(f"{self.revision}:{self.json}".encode()).hexdigest()


def read(streamed: Sequence[StreamedEvent]) -> tuple[list[Row], list[Rejected]]:
    """Look at the id of each; what is no JSON with an id is rejected here."""
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for event in streamed:
        try:
            head = _decode_head(event.row)
            rows.append(Row(head.id.lower(), event.revision, event.charged, event.row.decode().lstrip()))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            rejected.append(Rejected(None, event.revision, event.charged, _printable(event.row), str(error)))
    return rows, rejected


def _printable(row: bytes) -> str:
    return row.decode("utf-8", "backslashreplace").replace("\0", "\\u0000")


def without_nul(rows: Sequence[Row]) -> tuple[list[Row], list[Rejected]]:
    """
    Tell apart what Postgres is sure to refuse: it has no NUL, in text or in jsonb.

    A client can put one into every call where names are passed on, and halving batches for each takes long.
    """
    clean = [row for row in rows if "\\u0000" not in row.json]
    if len(clean) == len(rows):
        return clean, []
    suspects = [row for row in rows if "\\u0000" in row.json]
    bad = [row for row in suspects if ESCAPED_NUL.search(row.json)]
    return [*clean, *(row for row in suspects if row not in bad)], [_refused(row, NUL) for row in bad]


def fold(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """
    The highest revision of each id, and the others.

    Sorted by id: two workers with the same rows take their locks in the same order.
    """
    highest: dict[str, Row] = {}
    others: list[Row] = []
    for row in rows:
        known = highest.setdefault(row.id, row)
        if known.revision < row.revision:
            highest[row.id] = row
            others.append(known)
        elif known is not row:
            others.append(row)
    return sorted(highest.values(), key=attrgetter("id")), others


async def write_folded(rows: Sequence[Row], upsert: Callable[[Sequence[Row]], Awaitable[None]]) -> list[Rejected]:
    """Write every row that can be; a lower revision stands in for a higher one that was refused."""
    rejected: list[Rejected] = []
    while rows:
        highest, others = fold(rows)
        refused = await _bisect(highest, upsert)
        rejected += refused
        ids = {row.id for row in refused}
        rows = [row for row in others if row.id in ids]
    return rejected


async def _bisect(rows: Sequence[Row], upsert: Callable[[Sequence[Row]], Awaitable[None]]) -> list[Rejected]:
    try:
        await upsert(rows)
    except Unacceptable as error:
        if len(rows) == 1:
            return [_refused(rows[0], str(error))]
        middle = len(rows) // 2
        return await _bisect(rows[:middle], upsert) + await _bisect(rows[middle:], upsert)
    return []


def _refused(row: Row, error: str) -> Rejected:
    return Rejected(row.id, row.revision, row.charged, row.json, error)


# --- Postgres ------------------------------------------------------------------------------------

_JSON_TYPES: dict[str, str] = {"UUID": "uuid", "INTEGER": "int", "BIGINT": "bigint", "BOOLEAN": "boolean"}
_JSON_TYPES |= {"JSONB": "jsonb", "DOUBLE PRECISION": "double precision"}
_COMPUTED = {
    "occurred_at": "timestamptz 'epoch' + occurred_at_us * interval '1 microsecond'",
    "hold_nano_usd": "coalesce(charged, hold_nano_usd)",
    "cost_nano_usd": "coalesce(charged, cost_nano_usd)",
}


def _postgres_upsert() -> sa.TextClause:
    dialect: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    names = [column.name for column in events.c]
    fields = {c.name: _JSON_TYPES.get(c.type.compile(dialect), "text") for c in events.c if c.name != "occurred_at"}
    fields |= {"occurred_at_us": "bigint", "charged": "bigint"}
    return sa.text(
        f"INSERT INTO events ({', '.join(names)})"  # noqa: S608 - names of our own columns
        f" SELECT {', '.join(_COMPUTED.get(name, name) for name in names)}"
        f" FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb))"
        f" AS e({', '.join(f'{name} {kind}' for name, kind in fields.items())})"
        f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names[1:])}"
        f" WHERE events.revision < excluded.revision"
    )


POSTGRES_UPSERT = _postgres_upsert()


def postgres_document(rows: Sequence[Row]) -> str:
    """The rows as one JSON array; revision and charge are spliced in before each event's own members."""
    return f"[{','.join(map(_spliced, rows))}]"


def _spliced(row: Row) -> str:
    charged = "null" if row.charged is None else row.charged
    return f'{{"revision":{row.revision},"charged":{charged},{row.json[1:]}'


# --- SQLite --------------------------------------------------------------------------------------


def _sqlite_upsert() -> sqlite.Insert:
    insert = sqlite.insert(events)
    return insert.on_conflict_do_update(
        index_elements=[events.c.id],
        set_={column.name: column for column in insert.excluded if column.name != "id"},
        where=events.c.revision < insert.excluded.revision,
    )


SQLITE_UPSERT = _sqlite_upsert()


def sqlite_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as parameters; raises `Unacceptable` if one of them is no `Event`."""
    return [_columns(row) for row in rows]


def _columns(row: Row) -> dict[str, Any]:
    try:
        event = _decode_event(row.json)
        columns = {name: getattr(event, name) for name in EVENT_FIELDS}
        columns |= {"id": row.id, "revision": row.revision, "occurred_at": moment(event.occurred_at_us)}
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise Unacceptable(str(error)) from error
    if row.charged is not None:
        columns |= {"hold_nano_usd": row.charged, "cost_nano_usd": row.charged}
    return columns


EVENT_FIELDS = tuple(field.name for field in attrs.fields(Event) if field.name in events.c)
