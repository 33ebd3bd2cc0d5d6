"""
How is a wait ended that takes too long, at next to no cost for the many that do not?

``asyncio.timeout`` makes and cancels a timer for each wait, several times a call. Here a wait is an entry in a
table, and one look each half second ends those whose time is over: a limit may be that much late, which is fine for
limits of many seconds.
"""

import asyncio
from types import TracebackType
from typing import Self

LOOK_EVERY = 0.5


class Patience:
    """All limited waits of one event loop."""

    def __init__(self, look_every: float = LOOK_EVERY) -> None:
        self._look_every = look_every
        self._waits: dict[Wait, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, seconds: float) -> "Wait":
        """``with patience.limit(20): await …`` raises `TimeoutError` once the block has taken so long."""
        return Wait(self, seconds)

    def begin(self, wait: "Wait") -> None:
        self._waits[wait] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_every, self._look)

    def end(self, wait: "Wait") -> None:
        self._waits.pop(wait, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for wait in [wait for wait in self._waits if wait.due <= now]:
            del self._waits[wait]
            wait.expire()
        self._timer = loop.call_later(self._look_every, self._look) if self._waits else None


class Wait:
    """One block with a limit, used once, by one task."""

    __slots__ = ("_cancelling", "_expired", "_patience", "_seconds", "_task", "due")

    def __init__(self, patience: Patience, seconds: float) -> None:
        self._patience = patience
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limited wait needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self.due = asyncio.get_running_loop().time() + self._seconds
        self._patience.begin(self)
        return self

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._patience.end(self)
        # as asyncio.timeout does it: somebody else's cancellation stays one
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
