"""
May one more connection be opened, and who is next when none may?

Rule 1: first come, first served; waiting is bounded by the caller's connect phase.
Rule 2: a slot handed to a waiter that was cancelled in the same moment goes to the next one.
"""

import asyncio
from collections import OrderedDict

from perpetuo.adapters.providers.transport.wire import Phases
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure


def unsent(fault: Fault, text: str) -> UpstreamFailure:
    """A failure of which the server can't have seen a byte."""
    return UpstreamFailure(fault, False, text)


def connect_due(phases: Phases, now: float) -> tuple[float, UpstreamFailure]:
    """When connecting must be over, and the failure if it is not."""
    due = now + phases.connect
    if due < phases.deadline:
        return due, unsent(Fault.CONNECT, f"no connection within {phases.connect:g} s")
    return phases.deadline, unsent(Fault.TIMEOUT, "the deadline passed before there was a connection")


class Slots:
    """At most ``limit`` connections in use."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: OrderedDict[asyncio.Future[UpstreamFailure | None], None] = OrderedDict()
        """Whose turn it will be; told ``None`` for a slot, or why there is none."""
        self.busy = 0

    def take(self, abort: Abort) -> bool:
        """Take a slot if one is free; if not, `wait` for one. Raises `UpstreamFailure` (nothing sent) when aborted."""
        if abort.reason is not None:
            raise unsent(Fault.ABORTED, "aborted before a connection was there")
        if self.busy < self._limit:
            self.busy += 1
            return True
        return False

    async def wait(self, phases: Phases, abort: Abort) -> None:
        """Take the next one. Raises `UpstreamFailure` (nothing sent) when none became free in time."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[UpstreamFailure | None] = loop.create_future()
        due, late = connect_due(phases, loop.time())

        def fail(failure: UpstreamFailure) -> None:
            if not turn.done():
                turn.set_result(failure)

        def aborted() -> None:
            fail(unsent(Fault.ABORTED, "aborted while waiting for a free connection"))

        timer = loop.call_at(due, fail, late)
        abort.attach(aborted)
        self._line[turn] = None
        try:
            failure = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self.release()
            raise
        finally:
            timer.cancel()
            abort.detach(aborted)
            self._line.pop(turn, None)
        if failure is not None:
            raise failure.again()

    def release(self) -> None:
        """Give a slot back, to whoever is next."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.busy -= 1

    def dismiss(self, failure: UpstreamFailure) -> None:
        """Send everybody in line away."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            if not turn.done():
                turn.set_result(failure)
