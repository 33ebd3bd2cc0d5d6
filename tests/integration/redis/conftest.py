"""Ledgers on the shared Redis."""

from collections.abc import AsyncIterator

import pytest

from perpetuo.adapters.redis.store import RedisStore
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[RedisWorld]:
    """A fresh ledger on an empty Redis, budgets open. The timeout is generous: these tests are not about time."""
    made = RedisWorld(await RedisStore.connect(redis_url, timeout=PATIENCE))
    await made.open_all()
    yield made
    await made.close()
