"""
How is a wait ended that takes too long, at next to no cost for the many that do not?

``asyncio.timeout`` makes and cancels a timer for each wait, several times a call. Here a call has one entry in a
table, which says until when it may wait for its client now, and one look each half second ends those whose time is
over: a limit may be that much late, which is fine for limits of many seconds.
"""

import asyncio

LOOK_EVERY = 0.5
_NEVER = float("inf")


class Patience:
    """All limited waits of one event loop."""

    def __init__(self, look_every: float = LOOK_EVERY) -> None:
        self._look_every = look_every
        self._waits: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> "Wait":
        """For the waits of the task that asks; to be given back by `end`."""
        wait = Wait()
        self._waits.add(wait)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_every, self._look)
        return wait

    def end(self, wait: "Wait") -> None:
        self._waits.discard(wait)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for wait in self._waits:
            if wait.due <= now:
                wait.expire()
        self._timer = loop.call_later(self._look_every, self._look) if self._waits else None


class Wait:
    """
    The limit of what one task waits for now.

        wait.upto(20)
        try:
            await …
        except asyncio.CancelledError:
            if not wait.is_over():
                raise  # somebody else's cancellation
            … it took too long
        finally:
            wait.done()
    """

    __slots__ = ("_cancelling", "_expired", "_now", "_task", "due")

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limited wait needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self._now = asyncio.get_running_loop().time
        self.due = _NEVER

    def upto(self, seconds: float) -> None:
        self.due = self._now() + seconds

    def done(self) -> None:
        self.due = _NEVER

    def expire(self) -> None:
        self._expired = True
        self.due = _NEVER
        self._task.cancel()

    def is_over(self) -> bool:
        """Is the cancellation just caught this limit's, and nobody else's? As ``asyncio.timeout`` tells them apart."""
        expired, self._expired = self._expired, False
        return expired and self._task.uncancel() <= self._cancelling
