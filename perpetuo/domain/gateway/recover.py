"""
What happens to calls whose ending could not be written, or whose worker died?

Each worker keeps its calls in flight here, renews their leases in bulk, and repeats settlements
and cancellations the store did not take, until it does. Any worker's reaper settles what a dead
worker left behind, once its lease is over.

Rule 1: settlements go before cancellations: those are money and answers, these only holds that end with their lease.
Rule 2: each is repeated by itself. One that the store refuses while it takes others delays nobody, and after
        `MOST_TRIES` it is left to the reaper.
Rule 3: a store that takes nothing is away, for however long: what is owed then is not given up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice

import attrs

from perpetuo.domain.gateway.call import SHUTDOWN
from perpetuo.domain.model.admission import AdmitRequest, Hold, Settlement
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.model.upstream import Abort
from perpetuo.domain.ports import Journal, Ledger, StoreUnavailable, System

RENEW_EVERY = 1.0
"""Seconds between two renewals; each also stamps the shards, which must not be older than 10 s."""
REAP_EVERY = 2.0
RETRY_EVERY = 0.25
BATCH = 100
"""Steps repeated at once."""
MOST_TRIES = 120
"""Half a minute of refusals, so that a store which is full for a moment loses nothing."""
MOST_CANCELS = 10_000
"""Beyond this the oldest is forgotten: if that call was admitted after all, its hold ends with its lease."""


@attrs.define(eq=False)
class Owed:
    """A step the store has not taken yet. ``taken``: settlements it had taken at the last try that counted."""

    kind: str
    request_id: str
    step: Callable[[], Awaitable[object]]
    taken: int
    tries: int = 0


class InFlight:
    """The calls of this worker that are not settled yet."""

    def __init__(self, ledger: Ledger, journal: Journal, system: System) -> None:
        self._ledger = ledger
        self._journal = journal
        self._system = system
        self._calls: dict[str, tuple[Hold, Abort, float]] = {}
        self._settlements: dict[str, Owed] = {}
        self._cancels: dict[str, Owed] = {}
        self._taken = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def owing(self) -> int:
        """Settlements and cancellations the store has not taken yet."""
        return len(self._settlements) + len(self._cancels)

    def add(self, hold: Hold, abort: Abort, deadline: float) -> None:
        """Keep renewing ``hold`` until it is removed, or ``deadline`` (monotonic seconds) has passed."""
        self._calls[hold.call] = (hold, abort, deadline)

    def knows(self, call: str) -> bool:
        """Is the call neither settled nor on the list of settlements to repeat?"""
        return call in self._calls and call not in self._settlements

    def update(self, hold: Hold) -> None:
        """The hold grew."""
        known = self._calls.get(hold.call)
        if known is not None:
            self._calls[hold.call] = (hold, known[1], known[2])

    def settled(self, call: str) -> None:
        """The store has taken the end of the call."""
        self._taken += 1
        self._calls.pop(call, None)

    def settle_later(self, settlement: Settlement, keeping: IdempotencySettings) -> None:
        """The store is away: settle as soon as it is back. The lease is kept up meanwhile."""
        step = partial(self._ledger.settle, settlement, keeping)
        self._settlements[settlement.hold.call] = Owed("settlement", settlement.event.request_id, step, self._taken)

    def cancel_later(self, what: Hold | AdmitRequest) -> None:
        """Nobody knows whether an admission happened: undo it as soon as the store answers."""
        step = partial(self._ledger.cancel, what)
        self._cancels[what.call] = Owed("cancel", what.abandoned.request_id, step, self._taken)
        if len(self._cancels) > MOST_CANCELS:
            del self._cancels[next(iter(self._cancels))]

    def abort_all(self) -> None:
        """The drain is over: streams get an error event, calls an error."""
        for _, abort, _ in list(self._calls.values()):
            abort.fire(SHUTDOWN)

    async def renew_forever(self) -> None:
        """Renew the leases of calls before their deadline; an owing settlement keeps its lease too."""
        while True:
            await self._system.sleep(RENEW_EVERY)
            await self.renew_once()

    async def renew_once(self) -> None:
        now = self._system.monotonic()
        alive: Sequence[Hold] = [hold for hold, _, deadline in self._calls.values() if now < deadline]
        try:
            await self._ledger.renew(alive)
        except StoreUnavailable as error:
            self._journal.store_error("ledger", str(error))
        else:
            self._journal.store_back("ledger")

    async def reap_forever(self) -> None:
        """Settle what dead workers left behind."""
        while True:
            await self._system.sleep(REAP_EVERY * (0.75 + self._system.random() / 2))
            try:
                reaped = await self._ledger.reap()
            except StoreUnavailable as error:
                self._journal.store_error("ledger", str(error))
            else:
                if reaped:
                    self._journal.abandoned(reaped)

    async def repay_forever(self) -> None:
        """Repeat what the store did not take."""
        while True:
            await self._system.sleep(RETRY_EVERY)
            if self.owing:
                await self.repay_once()

    async def repay_once(self) -> None:
        """One round over what is owed."""
        await self._repay(self._settlements)
        await self._repay(self._cancels)

    async def _repay(self, owed: dict[str, Owed]) -> None:
        """Ends early with a batch of which the store took nothing: it is away. What failed waits at the end of it."""
        left = len(owed)
        while left > 0:
            batch = list(islice(owed.items(), min(BATCH, left)))
            left -= len(batch)
            results = await asyncio.gather(*(one.step() for _, one in batch), return_exceptions=True)
            done = [call for (call, _), found in zip(batch, results, strict=True) if not isinstance(found, Exception)]
            for call in done:
                owed.pop(call, None)
                if owed is self._settlements:
                    self.settled(call)
            for (call, one), found in zip(batch, results, strict=True):
                if isinstance(found, Exception) and owed.pop(call, None) is not None:
                    self._failed(owed, call, one, found)
            if not done:
                return

    def _failed(self, owed: dict[str, Owed], call: str, one: Owed, error: Exception) -> None:
        """To the end of the line; no outage if the store settled others meanwhile, or if this is no failure of its."""
        if not isinstance(error, StoreUnavailable) or self._taken != one.taken:
            one.taken, one.tries = self._taken, one.tries + 1
        if one.tries < MOST_TRIES:
            owed[call] = one
            return
        self._calls.pop(call, None)
        self._journal.log(
            "error", "store_refused", kind=one.kind, request_id=one.request_id, attempts=one.tries,
            problem=f"{type(error).__name__}: {error}",
            meaning="the store takes others but not this one; the reaper settles it at its hold once its lease is over",
        )  # fmt: skip
