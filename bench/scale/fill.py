"""
What do a million events look like? ``events`` and ``refusals`` filled in seconds, for whoever measures with them.

Rule 1: the rows are those of a gateway that has been at work: a large tenant and hundreds of small ones, most calls
completed, days as far back as they are kept, partitions made as the product makes them.
Rule 2: some things go together and others never do. The large tenant's calls never fail, so that a filter for its
failures finds nothing; a model of long ago has rows on the first day only; what was abandoned is rare, and so are
embeddings. A third of the calls has a tag.
Rule 3: the same number gives the same row, but for the day it is put on.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import asyncpg

from perpetuo.adapters.sql.database import Database, libpq_url
from perpetuo.adapters.sql.partitions import Partitions
from perpetuo.adapters.sql.tables import events, refusals

DAYS = 90
"""As long as events are kept by default."""
BATCH = 20_000
LARGE, SMALL = "large", tuple(f"t{n:04d}" for n in range(1, 500))
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-3.5-turbo", "o3-mini")
OLD_MODEL, OLD_ROWS = "gpt-3", 30
PROVIDERS = ("openai", "azure")
ENDINGS = (
    (0.974, "completed", 200, None),
    (0.980, "cancelled", 499, None),
    (0.992, "failed", 502, "upstream_error"),
    (0.998, "failed", 429, "upstream_rate_limited"),
    (0.9999, "truncated", 200, "upstream_truncated"),
    (1.0, "abandoned", 0, "abandoned"),
)
COLUMNS = tuple(column.name for column in events.c)


def rows(count: int, now: datetime, days: int = DAYS) -> Iterator[tuple[Any, ...]]:
    """Rows of ``events`` in the order of `COLUMNS`, oldest first, evenly over the days before ``now``."""
    dice = random.Random(1)
    step = timedelta(days=days) / max(1, count)
    for number in range(count):
        yield _row(number, now - step * (count - number), dice)


def _row(number: int, at: datetime, dice: random.Random) -> tuple[Any, ...]:
    drawn, share = dice.random(), dice.random()
    tenant = LARGE if share < 0.4 else SMALL[int(share * 1e6) % len(SMALL)]
    _, outcome, status, code = ENDINGS[0] if tenant == LARGE else next(e for e in ENDINGS if drawn <= e[0])
    model = OLD_MODEL if number < OLD_ROWS else MODELS[int(drawn * 1e5) % len(MODELS)]
    provider = PROVIDERS[int(share * 1e5) % 10 == 0]
    tag = f"job-{number % 5_000}" if number % 3 == 0 else None
    kind = "embeddings" if number % 10_000 == 7 else "chat"
    bits = f"{dice.getrandbits(74):019x}"
    ms = f"{int(at.timestamp() * 1000):012x}"
    event_id = f"{ms[:8]}-{ms[8:]}-7{bits[:3]}-a{bits[3:6]}-{bits[6:18]}"
    tokens, cost, latency = 100 + number % 900, 1_000_000 + number % 9_000_000, 200 + number % 4_000
    day = f"{at:%Y-%m-%d}"
    attempt = {
        "ms": latency - 3.2, "sent": True, "model": model, "status": status, "provider": provider,
        "outcome": "success" if status == 200 else "server_error",
    }  # fmt: skip
    budget = {"held": cost, "limit": 50_000_000_000, "scope": tenant, "spent": number, "period": "day", "window": day}
    decision = {
        "hold": 5 * cost, "kept": 0, "rates": [{"limit": 100, "scope": tenant, "remaining": number % 100}],
        "budgets": [budget, {**budget, "period": "month", "window": day[:7]}], "skipped": [], "admit_ms": 1.552,
        "after_ms": 0.303, "candidates": [f"{name}/{model}" for name in PROVIDERS], "max_tokens": 4_096,
        "upstream_ms": latency - 3.2, "max_tokens_reason": "ceiling",
    }  # fmt: skip
    return (
        event_id, 1, at, tenant, "key-2" if number % 20 == 0 else "key-1", tag, kind, model, provider, model, status,
        outcome, code, number % 3 == 0, json.dumps([attempt]), json.dumps(decision), tokens, tokens // 2, 0, "reported",
        cost, "catalogue", 5 * cost, day, float(latency), None, 3.2, "none", event_id, f"req_{bits}", None, "192.0.2.0",
    )  # fmt: skip


def refusal_rows(count: int, now: datetime, tenants: int = 500) -> Iterator[tuple[Any, ...]]:
    """Rows of ``refusals`` in its order: ``tenants`` a minute, newest first."""
    minute = now.replace(second=0, microsecond=0)
    sample = json.dumps({"request_id": "r", "status": 429, "model": MODELS[0], "decision": {"rates": [], "hold": 1}})
    for number in range(count):
        at, tenant = minute - timedelta(minutes=number // tenants), f"t{number % tenants:04d}"
        last = at + timedelta(seconds=number % 60)
        yield (at, tenant, "key-1", "rate_limit_exceeded", "", 1 + number % 100, at, last, sample)


def in_batches(source: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while batch := list(islice(source, BATCH)):
        yield batch


# --- Postgres ------------------------------------------------------------------------------------


async def fill_postgres(url: str, count: int, refused: int, now: datetime, days: int = DAYS) -> None:
    """Fill a migrated database by COPY, and do what autovacuum would: it never looks at ``events`` as a whole."""
    await _make_days(url, [now.date() - timedelta(days=n) for n in range(-7, days + 1)])
    connection = await asyncpg.connect(libpq_url(url))
    try:
        for batch in in_batches(rows(count, now, days)):
            await connection.copy_records_to_table("events", records=batch, columns=COLUMNS)
        names = [column.name for column in refusals.c]
        for batch in in_batches(refusal_rows(refused, now)):
            await connection.copy_records_to_table("refusals", records=batch, columns=names)
        leaves = "SELECT relid::text FROM pg_partition_tree('events') WHERE isleaf"
        for (table,) in [*await connection.fetch(leaves), ("refusals",)]:
            await connection.execute(f"VACUUM ANALYZE {table}")
    finally:
        await connection.close()


async def _make_days(url: str, days: Sequence[Any]) -> None:
    database = Database(url)
    await Partitions(database).make(days)
    await database.close()


# --- SQLite --------------------------------------------------------------------------------------


async def fill_sqlite(url: str, count: int, refused: int, now: datetime, days: int = DAYS) -> None:
    """As above, for the embedded mode."""
    database = Database(url)
    for table, source in ((events, rows(count, now, days)), (refusals, refusal_rows(refused, now))):
        columns = [column.name for column in table.c]
        marks = ", ".join("?" * len(columns))
        insert = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our own names
        for batch in in_batches(source):
            async with database.engine.begin() as connection:
                await connection.exec_driver_sql(insert, [tuple(map(_as_sqlite, row)) for row in batch])
    await database.close()


def _as_sqlite(value: Any) -> Any:
    """Times as SQLAlchemy writes them there."""
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


def fill(url: str, count: int, refused: int = 30_000, days: int = DAYS) -> None:
    """Fill the migrated database behind ``url``."""
    fitting = fill_sqlite if url.startswith("sqlite") else fill_postgres
    asyncio.run(fitting(url, count, refused, datetime.now(UTC), days))
