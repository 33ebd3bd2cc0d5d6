"""How many minutes are summed up in one transaction, and what when that was too much."""

import time
from contextlib import suppress

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from perpetuo.adapters.sql.database import MAINTAINING, Database
from perpetuo.adapters.sql.rollups import Rollups, mark
from perpetuo.domain.ports import StoreUnavailable

pytestmark = pytest.mark.anyio
LONG_AGO, MINUTES, TOO_MANY = 29_000_040, 6_000, 120


class Slow(Rollups):
    """More than two hours at once take it too long."""

    asked: list[int]

    async def _roll(self, connection: AsyncConnection, first: int, end: int, now: int) -> None:
        self.asked.append(end - first)
        if end - first > TOO_MANY:
            raise StoreUnavailable("canceling statement due to statement timeout")
        await super()._roll(connection, first, end, now)


async def test_what_was_too_much_for_a_transaction_is_asked_in_smaller_pieces(sqlite_url: str) -> None:
    """A backlog ends, and pieces grow step by step: from one that went well not to a whole day."""
    database = Database(sqlite_url)
    rollups = Slow(database)
    rollups.asked = []
    async with database.transaction(MAINTAINING) as connection:
        await mark(connection, range(LONG_AGO, LONG_AGO + MINUTES))
    done = MINUTES
    while done:
        with suppress(StoreUnavailable):
            done = await rollups.roll(time.time_ns() // 1_000)
    assert sum(n for n in rollups.asked if n <= TOO_MANY) == MINUTES
    assert TOO_MANY < max(rollups.asked) <= 4 * TOO_MANY
    await database.close()
