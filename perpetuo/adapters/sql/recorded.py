"""
What do the tables know of the calls of some hours, for another configuration to judge?

Rule 1: pages by id, so that memory stays constant and no transaction is long.
Rule 2: what a worker did not write down (it died) is taken as the slowest admission there can be.
Rule 3: what windows had spent before is the sum of the rows before, by the day they were charged to.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from perpetuo.adapters.sql import queries
from perpetuo.adapters.sql.database import READING, Database
from perpetuo.adapters.sql.ids import floor_id
from perpetuo.adapters.sql.queries import CLOCKS_APART_MS
from perpetuo.adapters.sql.tables import events, refusals
from perpetuo.adapters.sql.values import micros, moment
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.recorded import Recorded
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.policy.whatif import WindowKey
from perpetuo.domain.policy.windows import key_scope
from perpetuo.domain.ports import WindowSum

PAGE = 10_000
KIND = "admin"
SLOWEST_ADMISSION_MS = 150.0
_COUNTS = (events.c.kind != KIND) | (events.c.cost_nano_usd != 0)
"""Calls, and money that an operator took off or put on."""
_PLAIN = ("tenant_id", "key_name", "model", "provider", "upstream_model", "input_tokens", "output_tokens",
          "cached_tokens", "usage_basis", "cost_nano_usd", "hold_nano_usd", "budget_day", "latency_ms")  # fmt: skip
_ROW = (
    events.c.id,
    events.c.occurred_at,
    events.c.kind,
    *(events.c[name] for name in _PLAIN),
    events.c.decision["admit_ms"].as_float().label("admit_ms"),
    events.c.decision["kept"].as_float().label("kept"),
)


class RecordedCalls:
    """Calls that arrived from ``since_us`` until before ``until_us``."""

    def __init__(self, database: Database, since_us: int, until_us: int) -> None:
        self._database = database
        self._since_us = since_us
        first = floor_id(since_us // 1000 - CLOCKS_APART_MS)
        last = floor_id(until_us // 1000 + CLOCKS_APART_MS)
        at = events.c.occurred_at
        self._there = (events.c.id >= first, events.c.id < last, at >= moment(since_us), at < moment(until_us))

    async def count(self) -> int:
        rows = await self._read(sa.select(sa.func.count().label("calls")).where(_COUNTS, *self._there))
        return int(rows[0]["calls"])

    async def page(self, after: str | None) -> tuple[list[Recorded], str | None]:
        """The next calls in the order of their ids, and the id to go on from; ``None``: that was all."""
        further = () if after is None else (events.c.id > after,)
        statement = sa.select(*_ROW).where(_COUNTS, *self._there, *further).order_by(events.c.id).limit(PAGE)
        rows = await self._read(statement)
        return [_recorded(row) for row in rows], str(rows[-1]["id"]) if len(rows) == PAGE else None

    async def raises(self) -> Mapping[str, Sequence[Raise]]:
        """Budgets that were raised at some time of these hours, by tenant."""
        since = floor_id((self._since_us - raising.LONGEST_US) // 1000 - CLOCKS_APART_MS)
        raised = events.c.decision["action"].as_string() == raising.RAISED
        statement = sa.select(*queries.ROW).where(events.c.kind == KIND, events.c.id >= since, raised)
        found: dict[str, list[Raise]] = {}
        for one in raising.past(map(queries.event_from, await self._read(statement))).made:
            found.setdefault(one.tenant, []).append(one)
        return found

    async def spent_before(self) -> dict[WindowKey, int]:
        """What tenants and keys had spent before, in windows that may be open still."""
        since = moment(self._since_us)
        months = sorted({f"{since + timedelta(days=apart):%Y-%m}" for apart in (-1, 0, 1)})
        costs = await self._read(queries.daily_costs(None, (), months).where(events.c.occurred_at < since))
        sums = queries.windows(costs, sorted({row["budget_day"] for row in costs}), months)
        return {
            (key_scope(one.tenant, one.key_name) if one.key_name else one.tenant, one.window): one.spent for one in sums
        }

    async def refused(self, since_us: int, until_us: int) -> dict[tuple[str, str], int]:
        """How many calls were refused, by tenant and reason."""
        columns = (refusals.c.tenant_id, refusals.c.reason)
        minute = refusals.c.minute
        where = (minute >= moment(since_us - since_us % 60_000_000), minute < moment(until_us))
        counted = sa.func.sum(refusals.c["count"]).label("calls")
        rows = await self._read(sa.select(*columns, counted).where(*where).group_by(*columns))
        return {(row["tenant_id"], row["reason"]): int(row["calls"]) for row in rows}

    async def _read(self, statement: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        async with self._database.transaction(READING) as connection:
            rows: Sequence[sa.RowMapping] = (await connection.execute(statement)).mappings().all()
        return rows


def _scope(one: WindowSum) -> str:
    return key_scope(one.tenant, one.key_name) if one.key_name else one.tenant


def _recorded(row: sa.RowMapping) -> Recorded:
    arrived = micros(row["occurred_at"])
    admit = row["admit_ms"] if row["admit_ms"] is not None else SLOWEST_ADMISSION_MS
    admitted = arrived + round(admit * 1000)
    return Recorded(
        arrived_us=arrived,
        admitted_us=admitted,
        ended_us=max(admitted, arrived + round(row["latency_ms"] * 1000)),
        tenant=row["tenant_id"],
        key=row["key_name"],
        model=row["model"],
        provider=row["provider"],
        upstream_model=row["upstream_model"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        is_reported=row["usage_basis"] == "reported" and not row["kept"],
        cost=row["cost_nano_usd"],
        hold=row["hold_nano_usd"] - int(row["kept"] or 0),
        budget_day=row["budget_day"],
        is_adjustment=row["kind"] == KIND,
    )
