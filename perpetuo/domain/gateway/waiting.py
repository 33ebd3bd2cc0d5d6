"""
Who asks about an idempotency key that another call has, and how often?

Rule 1: of those who wait on a key in this worker one asks the ledger, ever more rarely, up to once in `LONGEST_PAUSE`.
        When it hears that the other call is over, the others ask too; when it gets the key itself, they go on waiting.
Rule 2: whoever asked leaves when its time is over; another takes its turn.
Rule 3: a tenant has `MOST_WAITING` places in a worker. Waiting is before all its limits, so it needs one of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import attrs

from perpetuo.domain.model.admission import AdmitDecision, Admitted, ClaimRefused
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.ports import System

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between two looks at a key that is still in progress."""
MOST_WAITING = 100

Found = AdmitDecision | Refusal
Ask = Callable[[], Awaitable[Found]]


@attrs.define(eq=False)
class Line:
    """Those who wait on one key. ``ends``: until when, monotonic seconds. ``round``: tells whether there is news."""

    pause: float = FIRST_PAUSE
    ends: list[float] = attrs.field(factory=list)
    round: "asyncio.Future[bool] | None" = None


class Waiting:
    """The lines of one worker."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lines: dict[str, Line] = {}
        self._places: Counter[str] = Counter()

    async def wait(self, tenant: str, key: str, until: float, over: Callable[[], bool], ask: Ask) -> Found:
        """What ``ask`` says once the key is no longer in progress; in progress: time was ``over``, or no place left."""
        found: Found = ClaimRefused.IN_PROGRESS
        if self._places[tenant] >= MOST_WAITING:
            return found
        line = self._lines.setdefault(key, Line())
        self._places[tenant] += 1
        line.ends.append(until)
        try:
            while found is ClaimRefused.IN_PROGRESS and self._system.monotonic() < until and not over():
                found = await (self._hear(line.round, ask) if line.round else self._lead(line, over, ask))
            return found
        finally:
            line.ends.remove(until)
            if not line.ends:
                del self._lines[key]
            self._places -= Counter({tenant: 1})

    async def _hear(self, round_: "asyncio.Future[bool]", ask: Ask) -> Found:
        await asyncio.wait({round_})
        return await ask() if round_.result() else ClaimRefused.IN_PROGRESS

    async def _lead(self, line: Line, over: Callable[[], bool], ask: Ask) -> Found:
        """Ask for all; whatever happens to this one, the others hear of it."""
        told = line.round = asyncio.get_running_loop().create_future()
        news = False
        try:
            now = self._system.monotonic()
            await self._system.sleep(min([line.pause, *(end - now for end in line.ends if end > now)]))
            line.pause = min(2 * line.pause, LONGEST_PAUSE)
            if over():
                return ClaimRefused.IN_PROGRESS
            found = await ask()
            news = found is not ClaimRefused.IN_PROGRESS and not isinstance(found, Admitted)
            return found
        finally:
            line.round = None
            told.set_result(news)
