"""
How do refusals become by-the-minute rows?

One row per tenant, key, reason and minute; failed authentications have no tenant and go by client
address instead. A row that exists is added to; its sample stays the first.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perpetuo.adapters.sql.tables import refusals
from perpetuo.adapters.sql.values import micros, moment
from perpetuo.domain.model.events import RefusalMinute, RefusalNote

MINUTE_US = 60_000_000
ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
KEY = ("minute", "tenant_id", "key_name", "reason", "client_ip")


@cache
def upsert(dialect: str) -> sa.sql.dml.Insert:
    """
    The statement that adds to a row or makes it; made once, as it is a ring of a hundred objects.

    Not idempotent: after a lost reply a minute may be counted twice. These are counts for people,
    no money depends on them.
    """
    insert = postgresql.insert(refusals) if dialect == "postgresql" else sqlite.insert(refusals)
    old, new = refusals.c, insert.excluded
    return insert.on_conflict_do_update(
        index_elements=list(KEY),
        set_={
            "count": old["count"] + new["count"],
            "first_at": sa.case((new.first_at < old.first_at, new.first_at), else_=old.first_at),
            "last_at": sa.case((new.last_at > old.last_at, new.last_at), else_=old.last_at),
        },
    )


def fold(notes: Sequence[RefusalNote]) -> list[dict[str, Any]]:
    """One row of parameters for each minute, in the order of their keys, so that workers don't deadlock."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for note in sorted(notes, key=lambda note: note.at_us):
        row = _row(note)
        known = rows.setdefault(tuple(row[name] for name in KEY), row)
        if known is not row:
            known["count"] += row["count"]
            known["last_at"] = max(known["last_at"], row["last_at"])
    return [rows[key] for key in sorted(rows)]


def _row(note: RefusalNote) -> dict[str, Any]:
    return {
        "minute": moment(note.at_us - note.at_us % MINUTE_US),
        "tenant_id": _clean(note.tenant_id),
        "key_name": _clean(note.key_name),
        "reason": _clean(note.reason),
        "client_ip": "" if note.tenant_id else _clean(note.client_ip or ""),
        "count": note.count,
        "first_at": moment(note.at_us),
        "last_at": moment(note.last_us or note.at_us),
        "sample": _sample(note),
    }


def _sample(note: RefusalNote) -> Any:
    fields = {"request_id": note.request_id, "status": note.status, "model": note.model, "decision": note.decision}
    return msgspec.json.decode(ESCAPED_NUL.sub(rb"\1\\ufffd", msgspec.json.encode(fields)))


def _clean(text: str) -> str:
    """Postgres has no NUL in text; a client may have sent one."""
    return text.replace("\0", "\ufffd")


def minute_from(row: sa.RowMapping) -> RefusalMinute:
    return RefusalMinute(
        minute_us=micros(row["minute"]),
        tenant_id=row["tenant_id"],
        key_name=row["key_name"],
        reason=row["reason"],
        client_ip=row["client_ip"],
        count=row["count"],
        first_us=micros(row["first_at"]),
        last_us=micros(row["last_at"]),
        sample=row["sample"],
    )
