"""Limits on waits: who is ended, when, and whose cancellation it was."""

import asyncio

import pytest

from perpetuo.entrypoints.http.patience import Patience

pytestmark = pytest.mark.anyio


async def test_a_wait_beyond_its_limit_is_a_timeout() -> None:
    """And the task that waited goes on."""
    patience = Patience(0.005)
    with pytest.raises(TimeoutError), patience.limit(0.01):
        await asyncio.Event().wait()
    await asyncio.sleep(0)


async def test_a_wait_within_its_limit_is_left_alone() -> None:
    """Also when a look comes by, and after it has ended."""
    patience = Patience(0.001)
    with patience.limit(0.5):
        await asyncio.sleep(0.01)
    with patience.limit(0.0):
        pass
    await asyncio.sleep(0.01)


async def test_a_cancellation_of_the_task_stays_one() -> None:
    """Even if the limit is reached in the same turn."""
    patience = Patience(0.005)

    async def waiting() -> None:
        with patience.limit(0.005):
            await asyncio.Event().wait()

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_waits_are_ended_each_at_its_time() -> None:
    """One look serves all."""
    patience = Patience(0.005)
    ended: list[int] = []

    async def waiting(number: int) -> None:
        with pytest.raises(TimeoutError), patience.limit(0.02 * number):
            await asyncio.Event().wait()
        ended.append(number)

    await asyncio.gather(*(waiting(number) for number in (3, 1, 2)))
    assert ended == [1, 2, 3]
