"""
What is asked of ``events``, as statements?

Rule 1: lists are paged by id, newest first; never by offset.
Rule 2: a time is looked for by ``occurred_at``, and by id with `CLOCKS_APART` to spare: the id picks the
partitions, and was made by the worker's clock, not by the ledger's.
Rule 3: sums go by ``budget_day`` alone, whatever the clocks said: they are money.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
import sqlalchemy as sa

from perpetuo.adapters.sql.ids import floor_id
from perpetuo.adapters.sql.tables import OF_OPERATORS, events, events_rejected, refusals
from perpetuo.adapters.sql.values import micros, moment
from perpetuo.adapters.sql.writing import EVENT_FIELDS, Rejected
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.model.money import Nano
from perpetuo.domain.ports import Admission, ProviderCall, WindowSum

CLOCKS_APART_MS = 3_600_000
PLAIN_FILTERS = ("tenant_id", "key_name", "model", "provider", "status", "outcome", "request_id", "tag")
BY_OPERATORS: sa.ColumnElement[bool] = sa.literal_column(OF_OPERATORS, sa.Boolean)
ROW = tuple(events.c[name] for name in (*EVENT_FIELDS, "occurred_at"))


def event_from(row: sa.RowMapping) -> Event:
    values = {name: row[name] for name in EVENT_FIELDS}
    values |= {"occurred_at_us": micros(row["occurred_at"]), "attempts": tuple(row["attempts"])}
    return Event(**values)


def by_request_id(tenant: str, request_id: str) -> sa.Select[Any]:
    mine = (events.c.tenant_id == tenant, events.c.request_id == request_id)
    return sa.select(*ROW).where(*mine).order_by(events.c.id.desc()).limit(1)


def latest(where: EventFilter, before: str | None, limit: int, since: str | None = None) -> sa.Select[Any]:
    """Ids from ``since`` on, and less than ``before``."""
    conditions = _conditions(where)
    if before is not None:
        conditions.append(events.c.id < before)
    if since is not None:
        conditions.append(events.c.id >= since)
    return sa.select(*ROW).where(*conditions).order_by(events.c.id.desc()).limit(limit)


def count(where: EventFilter) -> sa.Select[Any]:
    return sa.select(sa.func.count().label("rows")).select_from(events).where(*_conditions(where))


def _conditions(where: EventFilter) -> list[sa.ColumnElement[bool]]:
    wanted = attrs.asdict(where)
    conditions: list[sa.ColumnElement[bool]] = [
        events.c[name] == wanted[name] for name in PLAIN_FILTERS if wanted[name] is not None
    ]
    match where.kind:
        case None:
            pass
        case "call":
            conditions.append(~BY_OPERATORS)
        case "admin":
            conditions.append(BY_OPERATORS)
        case kind:
            conditions.append(events.c.kind == kind)
    if where.since_us is not None:
        conditions += _since(where.since_us)
    if where.until_us is not None:
        until = floor_id(where.until_us // 1000 + CLOCKS_APART_MS)
        conditions += [events.c.id < until, events.c.occurred_at < moment(where.until_us)]
    return conditions


def _since(us: int) -> list[sa.ColumnElement[bool]]:
    return [events.c.id >= floor_id(us // 1000 - CLOCKS_APART_MS), events.c.occurred_at >= moment(us)]


def provider_calls(provider: str, since_us: int, limit: int) -> sa.Select[Any]:
    """Without the documents of a row, which are most of it."""
    columns = tuple(events.c[name] for name in ("outcome", "error_code", "latency_ms", "first_token_ms"))
    mine = (events.c.provider == provider, events.c.kind != "admin", *_since(since_us))
    return sa.select(*columns).where(*mine).order_by(events.c.id.desc()).limit(limit)


def provider_call_from(row: sa.RowMapping) -> ProviderCall:
    return ProviderCall(**row)


def recent_admissions(since_us: int) -> sa.Select[Any]:
    columns = (events.c.tenant_id, events.c.key_name, events.c.occurred_at)
    calls = events.c.kind != "admin"
    return sa.select(*columns).where(calls, *_since(since_us)).order_by(events.c.occurred_at)


def admission_from(row: sa.RowMapping) -> Admission:
    return Admission(row["tenant_id"], row["key_name"], micros(row["occurred_at"]))


def refusal_minutes(
    since: datetime, until: datetime | None, wanted: Mapping[str, str | None], request_id: str | None, limit: int
) -> sa.Select[Any]:
    statement = sa.select(refusals).where(refusals.c.minute >= since)
    statement = statement.where(*(refusals.c[name] == value for name, value in wanted.items() if value is not None))
    if until is not None:
        statement = statement.where(refusals.c.minute < until)
    if request_id is not None:
        statement = statement.where(refusals.c.sample["request_id"].as_string() == request_id)
    return statement.order_by(refusals.c.minute.desc(), refusals.c.last_at.desc()).limit(limit)


# --- sums ----------------------------------------------------------------------------------------


def daily_costs(tenant: str | None, days: Iterable[str], months: Iterable[str]) -> sa.Select[Any]:
    """Cost per tenant, key and day, over these days and the days of these months."""
    of_months = {f"{month}-{day:02d}" for month in months for day in range(1, 32)}
    cost = sa.func.sum(events.c.cost_nano_usd).label("cost")
    columns = (events.c.tenant_id, events.c.key_name, events.c.budget_day)
    statement = sa.select(*columns, cost).where(events.c.budget_day.in_(sorted({*days, *of_months})))
    if tenant is not None:
        statement = statement.where(events.c.tenant_id == tenant)
    return statement.group_by(*columns)


def windows(costs: Iterable[sa.RowMapping], days: Sequence[str], months: Sequence[str]) -> list[WindowSum]:
    """Those costs summed up for each window asked for, for each key and for its tenant."""
    sums: defaultdict[tuple[str, str | None, str], int] = defaultdict(int)
    for row in costs:
        day = row["budget_day"]
        for window in {day}.intersection(days) | {day[:7]}.intersection(months):
            for key in (None, row["key_name"]):
                sums[row["tenant_id"], key, window] += int(row["cost"])
    return [WindowSum(tenant, key, window, Nano(spent)) for (tenant, key, window), spent in sums.items()]


# --- set aside -----------------------------------------------------------------------------------


def set_aside(insert: Any) -> Any:
    """Insert into ``events_rejected``; what is there already stays."""
    return insert(events_rejected).values(rejected_at=sa.func.now()).on_conflict_do_nothing(index_elements=["digest"])


def rejected_row(rejected: Rejected) -> dict[str, Any]:
    return {
        "digest": rejected.digest,
        "id": rejected.id,
        "revision": rejected.revision,
        "charged": rejected.charged,
        "error": rejected.error.replace("\0", "\ufffd"),
        "row": rejected.json,
    }
