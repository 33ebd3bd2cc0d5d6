"""What an operator asks of a large table is answered soon, whatever is asked and however little is found."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations, product
from typing import Any

import asyncpg
import pytest
from sqlalchemy.dialects import postgresql

from bench.scale import stage
from bench.scale.admin import BOUND_MS, FILTERS, ask_all, middle_id, slowest
from bench.scale.fill import fill
from perpetuo.adapters.sql import migrate
from perpetuo.adapters.sql.queries import latest
from perpetuo.domain.model.events import EventFilter
from tests import servers
from tests.live import LiveGateway

DAYS = 3
FETCHED_IN_VAIN = 2_500
"""Rows that may be fetched and then left out: a twelfth of the table."""


@pytest.fixture(scope="module")
def filled(_shared_postgres: str) -> Iterator[str]:
    """30,000 events in three days."""
    url = servers.new_database(_shared_postgres)
    migrate.upgrade(url)
    fill(url, 30_000, refused=2_000, days=DAYS)
    yield url
    servers.drop_database(_shared_postgres, url)


def statement(where: EventFilter, before: str | None, since: str | None = None) -> str:
    dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(latest(where, before, 51, since).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def wheres(*sizes: int) -> Iterator[EventFilter]:
    """Each combination of so many filters."""
    for size in sizes:
        for names in combinations(FILTERS, size):
            for values in product(*(FILTERS[name] for name in names)):
                chosen: dict[str, Any] = dict(zip(names, values, strict=True))
                yield EventFilter(**chosen | ({"status": int(chosen["status"])} if "status" in chosen else {}))


def explained(url: str, statements: list[str]) -> list[str]:
    """The plan of each, as it was carried out."""

    async def explain() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            found = [await connection.fetch(f"explain (analyze, timing off) {each}") for each in statements]
        finally:
            await connection.close()
        return ["\n".join(line for (line,) in plan) for plan in found]

    return asyncio.run(explain())


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(400)])])
def test_a_filter_that_finds_nothing_does_not_fetch_the_whole_table(filled: str, every: int) -> None:
    """
    Each combination of up to two filters, from the newest row on, from the middle, and in a span of time.

    And each, or every so many, of three.
    """
    now = datetime.now(UTC)
    before, since = middle_id(now, DAYS / 2), middle_id(now, DAYS / 2 + 1.2)
    spans: tuple[tuple[str | None, ...], ...] = ((None,), (before,), (before, since))
    chosen = [*wheres(0, 1, 2), *itertools.islice(wheres(3), 0, None, every)]
    asked = [statement(where, *span) for where in chosen for span in spans]
    vain = [sum(map(int, re.findall(r"Rows Removed by Filter: (\d+)", plan))) for plan in explained(filled, asked)]
    worst = max(range(len(asked)), key=vain.__getitem__)
    assert vain[worst] <= FETCHED_IN_VAIN, (vain[worst], asked[worst])


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_an_operator_waits_less_than_300_ms_at_a_million_events_and_10000_tenants(
    migrated_url: str, redis_server: servers.RedisServer
) -> None:
    """Every page and every query, whatever is filtered for, as `make bench-scale` asks them."""
    fill(migrated_url, 1_000_000)
    config = stage.config(10_000, servers.free_port())
    with LiveGateway(config, redis_url=redis_server.url, database_url=migrated_url) as gateway:
        _first, *others = ask_all(gateway)
    assert max(one.ms for one in others) < BOUND_MS, slowest(others)
