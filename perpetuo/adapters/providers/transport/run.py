"""
How is a coroutine of somebody else's stopped with a reason, and told apart from a cancellation of ours?

`Run` puts it in a task of its own. Stopping it gives its waiter the failure it was stopped with; cancelling
the waiter cancels the task too, and waits until it has cleaned up. Only connecting and httpx need this: a call on
a warm connection has no task.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from perpetuo.domain.model.upstream import UpstreamFailure

T = TypeVar("T")


class Run(Generic[T]):
    """One coroutine, running."""

    __slots__ = ("_due", "_failure", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._task: asyncio.Task[T] | None = loop.create_task(coroutine)
        self._failure: UpstreamFailure | None = None
        self._due: asyncio.TimerHandle | None = None

    def stop(self, failure: UpstreamFailure) -> None:
        """End it, unless it has ended; only the first reason counts."""
        if self._failure is None and self._task is not None and not self._task.done():
            self._failure = failure
            self._task.cancel()

    def stop_at(self, due: float, failure: UpstreamFailure) -> None:
        """End it at ``due`` (loop time); replaces what was said before."""
        if self._due is not None:
            self._due.cancel()
        self._due = self._loop.call_at(due, self.stop, failure)

    async def result(self) -> T:
        """What the coroutine returned or raised, or the failure it was stopped with. To be asked once."""
        task = self._task
        if task is None:
            raise RuntimeError("a run has one result, and it has been taken")
        try:
            await self._ended(task)
            if self._failure is not None:
                raise self._failure.again()
            return task.result()
        finally:
            # What the task ended with knows the frames it was raised through. Would they know the task, none would go.
            del task
            self._task = None

    async def _ended(self, task: "asyncio.Task[T]") -> None:
        """Wait until it has ended, and cleaned up if it was stopped."""
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            await _finished(task)
            raise
        finally:
            if self._due is not None:
                self._due.cancel()
        if self._failure is not None:
            await _finished(task)


async def _finished(task: "asyncio.Task[Any]") -> None:
    """Wait until it has cleaned up; whatever it ended with has lost its meaning."""
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
    if not task.cancelled():
        task.exception()
