"""Limits on waits: who is ended, when, and whose cancellation it was."""

import asyncio
from collections.abc import Awaitable

import pytest

from perpetuo.entrypoints.http.patience import Patience, Wait
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


async def limited(wait: Wait, seconds: float, awaitable: Awaitable[object]) -> bool:
    """As the docstring of `Wait` has it: was it in time?"""
    wait.upto(seconds)
    try:
        await awaitable
    except asyncio.CancelledError:
        if not wait.is_over():
            raise
        return False
    finally:
        wait.done()
    return True


async def _nothing() -> None:
    """No look comes by meanwhile."""


async def test_a_wait_beyond_its_limit_is_ended() -> None:
    """And the task that waited goes on, and may wait again."""
    patience = Patience(0.005)
    wait = patience.begin()
    assert not await limited(wait, 0.01, asyncio.Event().wait())
    assert await limited(wait, PATIENCE, asyncio.sleep(0.02))
    assert not await limited(wait, 0.01, asyncio.Event().wait())
    patience.end(wait)
    await asyncio.sleep(0.02)


async def test_a_wait_within_its_limit_is_left_alone() -> None:
    """Also when a look comes by, and after it has ended."""
    patience = Patience(0.001)
    wait = patience.begin()
    assert await limited(wait, PATIENCE, asyncio.sleep(0.01))
    assert await limited(wait, 0.0, _nothing())
    await asyncio.sleep(0.01)
    patience.end(wait)


async def test_a_cancellation_of_the_task_stays_one() -> None:
    """Even if the limit is reached in the same turn."""
    patience = Patience(0.005)

    async def waiting() -> None:
        await limited(patience.begin(), 0.005, asyncio.Event().wait())

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_waits_are_ended_each_at_its_time() -> None:
    """One look serves all, and none is ended before."""
    patience, now = Patience(0.005), asyncio.get_running_loop().time

    async def waited(number: int) -> float:
        began = now()
        assert not await limited(patience.begin(), 0.02 * number, asyncio.Event().wait())
        return now() - began

    third, first, second = await asyncio.gather(*map(waited, (3, 1, 2)))
    assert (first >= 0.02, second >= 0.04, third >= 0.06) == (True, True, True)
