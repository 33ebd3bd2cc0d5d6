"""
What happens to calls whose ending could not be written, or whose worker died?

Each worker keeps its calls in flight here, renews their leases in bulk, and repeats settlements
and cancellations the store did not take, until it does. Any worker's reaper settles what a dead
worker left behind, once its lease is over.
"""

from collections.abc import Sequence

from perpetuo.domain.gateway.call import SHUTDOWN
from perpetuo.domain.model.admission import AdmitRequest, Hold, Settlement
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.model.upstream import Abort
from perpetuo.domain.ports import Journal, Ledger, StoreUnavailable, System

RENEW_EVERY = 1.0
"""Seconds between two renewals; each also stamps the shards, which must not be older than 10 s."""
REAP_EVERY = 2.0
RETRY_EVERY = 0.25


class InFlight:
    """The calls of this worker that are not settled yet."""

    def __init__(self, ledger: Ledger, journal: Journal, system: System) -> None:
        self._ledger = ledger
        self._journal = journal
        self._system = system
        self._calls: dict[str, tuple[Hold, Abort, float]] = {}
        self._settlements: dict[str, tuple[Settlement, IdempotencySettings]] = {}
        self._cancels: dict[str, Hold | AdmitRequest] = {}

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

    def remove(self, call: str) -> None:
        self._calls.pop(call, None)

    def settle_later(self, settlement: Settlement, keeping: IdempotencySettings) -> None:
        """The store is away: settle as soon as it is back. The lease is kept up meanwhile."""
        self._settlements[settlement.hold.call] = (settlement, keeping)

    def cancel_later(self, what: Hold | AdmitRequest) -> None:
        """Nobody knows whether an admission happened: undo it as soon as the store answers."""
        self._cancels[what.call] = what

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
        """One round over what is owed; stops at the first sign that the store is still away."""
        try:
            for call, what in list(self._cancels.items()):
                await self._ledger.cancel(what)
                self._cancels.pop(call, None)
            for call, (settlement, keeping) in list(self._settlements.items()):
                await self._ledger.settle(settlement, keeping)
                self._settlements.pop(call, None)
                self.remove(call)
        except StoreUnavailable:
            return
