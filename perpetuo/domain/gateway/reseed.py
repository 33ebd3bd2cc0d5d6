"""
How are budgets opened again after the ledger has lost its counters?

    closed --one worker seals it--> sealed --drained, summed--> open
                                    sealed --seal lost, SQL away--> closed

Rule 1: wait one renewal first: every worker then has put back the holds of its calls in flight. Not at the first
        start of a process on an empty pair of stores, where there can be none.
Rule 2: seal, then drain, then sum, then open. A seal sets the counters to zero and keeps everybody else from moving
        events to SQL. So SQL's sum is everything up to the seal, the counter everything after it, and no
        settlement is lost or counted twice while calls go on ending.
Rule 3: without SQL nothing is sealed and nothing opens; ``waiting`` says so.
Rule 4: a shard belongs to whoever sealed it; lost in between, the next pass begins anew.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from zoneinfo import ZoneInfo

import attrs

from perpetuo.domain.model.money import ZERO, Nano
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Tenant
from perpetuo.domain.policy.windows import day_at, key_scope, month_at
from perpetuo.domain.ports import Counters, EventHistory, EventStore, Seal, StoreUnavailable, System, WindowSum

RENEWAL = 1.1
"""Seconds in which every worker has renewed its calls: they do once a second."""
PAUSE = 0.25
"""Seconds between looks for closed shards."""
SKEW_US = 3_600_000_000
"""How far this worker's clock and the store's may be apart: windows that near are seeded too."""

WindowKey = tuple[str, str]


@attrs.frozen
class Reseeder:
    """Opens what is closed. Any number of workers may run one."""

    counters: Counters
    events: EventStore
    history: EventHistory
    settings: Callable[[], Settings]
    system: System

    async def run(self) -> None:
        """Look for closed shards for ever."""
        while True:
            try:
                await self.open_closed()
            except StoreUnavailable:
                pass  # the ledger or SQL is away; both say so themselves, and rule 3 holds
            await self.system.sleep(PAUSE)

    async def open_closed(self) -> int:
        """One pass; how many shards it opened."""
        if not await self.counters.closed():
            self.counters.waiting(None)
            return 0
        try:
            return await self._seed()
        except StoreUnavailable:
            self.counters.waiting("budgets are closed: what was spent is waiting for SQL")
            raise

    async def _seed(self) -> int:
        windows = self._windows()
        is_empty = not await self._sums(windows)
        self.counters.waiting("budgets are closed until what was spent has been read back from SQL")
        if not (is_empty and self.counters.is_first_life):
            await self.system.sleep(RENEWAL)
        shards = await self.counters.closed()
        seals = await asyncio.gather(*(self.counters.seal(shard, windows.get(shard, ())) for shard in shards))
        mine = [seal for seal in seals if seal is not None and await self._drained(seal)]
        sums = await self._sums(windows) if mine else {}
        opened = [await self.counters.open(seal, _of(windows.get(seal.shard, ()), sums)) for seal in mine]
        return sum(opened)

    async def _drained(self, seal: Seal) -> bool:
        """Move what was settled before the seal to SQL; False: the seal is lost."""
        while found := await self.counters.sealed_events(seal):
            await self.events.write(found)
            await self.counters.forget(found)
        return found is not None

    def _windows(self) -> Mapping[int, Sequence[WindowKey]]:
        """The windows that matter now, by shard."""
        now = self.system.now_us()
        shards: dict[int, list[WindowKey]] = {}
        for tenant in self.settings().tenants.values():
            shards.setdefault(self.counters.shard_of(tenant.id), []).extend(windows_of(tenant, now))
        return shards

    async def _sums(self, windows: Mapping[int, Sequence[WindowKey]]) -> Mapping[WindowKey, Nano]:
        names = {window for listed in windows.values() for _, window in listed}
        days = sorted(name for name in names if len(name) == len("2026-11-23"))
        months = sorted(names.difference(days))
        return {_key(one): one.spent for one in await self.history.spending(days, months) if one.spent}


def windows_of(tenant: Tenant, now_us: int) -> Iterable[WindowKey]:
    """Every window of ``tenant`` and its keys that the store's clock may be in."""
    names = _windows_in(tenant.time_zone, now_us)
    scopes = [tenant.id, *(key_scope(tenant.id, key.name) for key in tenant.keys)]
    return [(scope, name) for scope in scopes for name in names]


@lru_cache(maxsize=1_000)
def _windows_in(time_zone: str, now_us: int) -> Iterable[str]:
    """Remembered: most tenants share a zone, and to look for each of 1,000 anew was 80 ms of a start."""
    zone = ZoneInfo(time_zone)
    instants = (now_us - SKEW_US, now_us, now_us + SKEW_US)
    return tuple(dict.fromkeys(at(instant, zone).current for at in (day_at, month_at) for instant in instants))


def _key(one: WindowSum) -> WindowKey:
    return (one.tenant if one.key_name is None else key_scope(one.tenant, one.key_name), one.window)


def _of(windows: Sequence[WindowKey], sums: Mapping[WindowKey, Nano]) -> Mapping[WindowKey, Nano]:
    return {window: sums.get(window, ZERO) for window in windows if sums.get(window)}
