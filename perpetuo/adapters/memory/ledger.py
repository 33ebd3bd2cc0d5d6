"""
How is one atomic step of the ledger done without Redis?

Load the pieces a step touches, ask the policy, put the pieces back. A step never awaits, so the event loop is its
lock. There are no decisions in here: `perpetuo.domain.policy.admission` makes them all.

For one process: `perpetuo dev`, ``REDIS_URL=memory://`` and unit tests. Everything is gone with the process, except
what `MemoryLedger.seed` and `MemoryLedger.seed_rates` are given from SQL at the next start.
"""

import heapq
from collections.abc import Iterable, Sequence

import attrs

from perpetuo.adapters.memory.stream import Clock, Entry, MemoryStream
from perpetuo.domain.model.admission import (
    MINUTE_US,
    Abandoned,
    AdmitDecision,
    AdmitRequest,
    Admitted,
    BudgetLimit,
    BudgetReading,
    ExtendDecision,
    Hold,
    Settled,
    Settlement,
)
from perpetuo.domain.model.budgets import AdjustDecision, Adjusted, Adjustment
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.policy import adjustment as adjusting
from perpetuo.domain.policy import admission, budget, calls, concurrency, idempotency, rate
from perpetuo.domain.policy.admission import AdmissionState, Appended, Touched, WindowKey
from perpetuo.domain.policy.calls import CallRecord, CallState, Pulse, Reaped, Tombstone
from perpetuo.domain.policy.nearness import NOTHING, Used, Watched
from perpetuo.domain.policy.windows import key_scope
from perpetuo.domain.ports import StreamedEvent, WindowSum

DURABLE_WAIT = 1.0
"""Seconds a durable settlement waits for SQL before it answers anyway."""
MIB = 1_048_576


@attrs.define
class Usage:
    """`perpetuo.domain.ports.ScopeUsage`."""

    scope: str
    admitted_last_minute: int
    oldest_leaves_us: int
    in_flight: int


class MemoryLedger:
    """
    `perpetuo.domain.ports.Ledger` and `EventStream` in this process.

    ``durable``: a settlement waits until SQL has its event (at most 1 s). ``seeded`` False: tenants with a budget wait
    for `seed`. ``max_backlog`` events SQL does not have yet close admission; ``max_kept`` bytes of answers are kept.
    """

    def __init__(
        self,
        now_us: Clock,
        *,
        durable: bool = False,
        seeded: bool = True,
        epoch: str = "memory",
        max_backlog: int = 200_000,
        max_kept: int = 256 * MIB,
    ) -> None:
        self._now_us = now_us
        self._durable = durable
        self._seeded = seeded
        self._seeded_tenants: set[str] = set()
        self._epoch = epoch
        self._max_backlog = max_backlog
        self._max_kept = max_kept
        self._stream = MemoryStream(now_us)
        self._calls: dict[str, CallState] = {}
        self._open: dict[str, None] = {}
        """Ids of calls in flight, oldest first."""
        self._claims: dict[str, idempotency.ClaimState] = {}
        self._rates: dict[str, rate.RateLog] = {}
        self._in_flight: dict[str, concurrency.Leases] = {}
        self._budgets: dict[WindowKey, budget.BudgetWindow] = {}
        self._pulse = Pulse()
        self._kept: dict[str, int] = {}
        """By tenant, bytes of answers that have not expired."""
        self._all_kept = 0
        self._leaving: list[tuple[int, str, str, str]] = []
        """Heap of what expires: when, which kind of piece, and its key (two parts)."""

    # --- atomic steps ----------------------------------------------------------------------------

    async def admit(self, request: AdmitRequest) -> AdmitDecision:
        now = self._now_us()
        touched = admission.touched_by_request(request)
        before = self._load(request.call, touched, now)
        decision, after = admission.admit(before, request, now)
        self._store(request.call, touched, before, after)
        if isinstance(decision, Admitted):
            self._forget_windows(decision.hold)
        return decision

    async def extend(self, hold: Hold, extra: Nano) -> ExtendDecision:
        now = self._now_us()
        touched = self._touched(hold)
        before = self._load(hold.call, touched, now)
        decision, after = admission.extend(before, hold, extra, now)
        self._store(hold.call, touched, before, after)
        return decision

    async def settle(self, settlement: Settlement, keeping: IdempotencySettings) -> Settled:
        now = self._now_us()
        hold = settlement.hold
        touched = self._touched(hold)
        before = self._load(hold.call, touched, now)
        settled, after = admission.settle(before, settlement, keeping, now)
        entries = self._store(hold.call, touched, before, after)
        if self._durable:
            for entry in entries:
                await self._stream.acked(entry, DURABLE_WAIT)
        return settled

    async def cancel(self, hold_or_request: Hold | AdmitRequest) -> None:
        now = self._now_us()
        call = hold_or_request.call
        touched = self._touched(hold_or_request)
        before = self._load(call, touched, now)
        self._store(call, touched, before, admission.cancel(before, now))

    async def renew(self, holds: Sequence[Hold]) -> frozenset[str]:
        now = self._now_us()
        self._pulse = calls.beat(self._pulse, now)
        return frozenset(hold.call for hold in holds if self._renew(hold, now))

    def _renew(self, hold: Hold, now_us: int) -> bool:
        touched = self._touched(hold)
        before = self._load(hold.call, touched, now_us)
        reaped, after = admission.renew(before, hold, now_us)
        self._store(hold.call, touched, before, after)
        return reaped

    async def reap(self) -> Sequence[Abandoned]:
        now = self._now_us()
        self._pulse = calls.beat(self._pulse, now)
        ended = [self._reap(call, now) for call in list(self._open)]
        return [one for one in ended if one is not None]

    def _reap(self, call: str, now_us: int) -> Abandoned | None:
        record = self._calls[call]
        assert isinstance(record, CallRecord)  # noqa: S101 - _open names calls in flight only
        touched = admission.touched_by_hold(record.hold)
        before = self._load(call, touched, now_us)
        abandoned, after = admission.reap(before, now_us)
        self._store(call, touched, before, after)
        return abandoned

    async def adjust(self, adjustment: Adjustment) -> AdjustDecision:
        now = self._now_us()
        call, touched = adjusting.call_of(adjustment), adjusting.touched_by(adjustment)
        before = self._load(call, touched, now)
        decision, after = adjusting.adjust(before, adjustment, now)
        if isinstance(decision, Adjusted) and not decision.repeated:
            self._forget_new_windows(decision.budgets)
        entries = self._store(call, touched, before, after)
        if self._durable:
            for entry in entries:
                await self._stream.acked(entry, DURABLE_WAIT)
        return decision

    async def append(self, event: Event) -> None:
        """An event that is no call's, on its way to SQL like the others."""
        self._stream.append([Appended(event, 1)])

    # --- reading ---------------------------------------------------------------------------------

    async def read_budgets(self, limits: Sequence[BudgetLimit], tenant: str) -> Sequence[BudgetReading]:
        now = self._now_us()
        return [
            budget.reading(b, self._budgets.get((b.scope, budget.window_at(b, now)), budget.EMPTY), now) for b in limits
        ]

    async def read_usage(self, tenant: str, scopes: Sequence[str]) -> Sequence[Usage]:
        now = self._now_us()
        return [self._usage(scope, now) for scope in scopes]

    async def read_used(self, watched: Sequence[Watched]) -> Sequence[Used]:
        now = self._now_us()
        return [self._used(one, now) for one in watched]

    def _used(self, one: Watched, now_us: int) -> Used:
        day, month = (self._budgets.get((one.scope, w.current), budget.EMPTY) for w in (one.day, one.month))
        alive = self._usage(one.scope, now_us)
        found = Used(day.spent + day.held, month.spent + month.held, alive.admitted_last_minute, alive.in_flight)
        return found if any(found) else NOTHING

    def _usage(self, scope: str, now_us: int) -> Usage:
        log = self._rates.get(scope, rate.EMPTY)
        at = rate.instant([log], now_us)
        count = rate.used(log, at, MINUTE_US)
        return Usage(
            scope=scope,
            admitted_last_minute=count,
            oldest_leaves_us=log.times[-count] + MINUTE_US - now_us if count else 0,
            in_flight=concurrency.alive(self._in_flight.get(scope, concurrency.EMPTY), now_us),
        )

    async def in_flight(self, tenant: str, call: str) -> Event | None:
        record = self._calls.get(call)
        if isinstance(record, CallRecord) and record.hold.tenant == tenant:
            return admission.row_if_abandoned(record)
        return None

    def accepts_answers(self) -> bool:
        return self._all_kept < self._max_kept

    def problem(self) -> str | None:
        if len(self._stream) >= self._max_backlog:
            return f"{len(self._stream)} events wait for SQL; no call is admitted until some are written"
        if not self._seeded and not self._seeded_tenants:
            return "budgets wait for SQL: what was spent so far has not been read yet"
        return None

    # --- from SQL at the start -------------------------------------------------------------------

    def seed(self, tenant: str, sums: Iterable[WindowSum]) -> None:
        """Set what ``tenant`` has spent, and open its budgets."""
        for one in sums:
            scope = tenant if one.key_name is None else key_scope(tenant, one.key_name)
            window = self._budgets.get((scope, one.window), budget.EMPTY)
            self._budgets[scope, one.window] = attrs.evolve(window, spent=one.spent)
        self._seeded_tenants.add(tenant)

    def open(self) -> None:
        """What was spent before is known: budgets are open, for every tenant there is or will be."""
        self._seeded = True

    def seed_rates(self, scope: str, times: Iterable[int]) -> None:
        """Put admissions of the last minute, made by an earlier process, into a rate log."""
        log = self._rates.get(scope, rate.EMPTY)
        self._rates[scope] = rate.RateLog(tuple(sorted((*log.times, *times))))

    # --- the stream ------------------------------------------------------------------------------

    async def read(self, limit: int, wait: float) -> Sequence[Entry]:
        return await self._stream.read(limit, wait)

    async def ack(self, events: Sequence[StreamedEvent]) -> None:
        await self._stream.ack(events)

    async def backlog(self) -> int:
        return await self._stream.backlog()

    # --- pieces ----------------------------------------------------------------------------------

    def _touched(self, asked: Hold | AdmitRequest) -> Touched:
        record = self._calls.get(asked.call)
        if isinstance(record, CallRecord | Reaped):
            return admission.touched_by_hold(record.hold)
        return admission.touched_by_hold(asked) if isinstance(asked, Hold) else admission.touched_by_request(asked)

    def _load(self, call: str, touched: Touched, now_us: int) -> AdmissionState:
        self._forget(now_us)
        return AdmissionState(
            epoch=self._epoch,
            call=self._calls.get(call),
            claim=self._claims.get(touched.claim, idempotency.UNSEEN) if touched.claim else idempotency.UNSEEN,
            rates={scope: self._rates[scope] for scope in touched.rates if scope in self._rates},
            in_flight={scope: self._in_flight[scope] for scope in touched.in_flight if scope in self._in_flight},
            budgets={key: self._budgets[key] for key in touched.budgets if key in self._budgets},
            pulse=self._pulse,
            seeded=self._seeded or touched.tenant in self._seeded_tenants,
            room=len(self._stream) < self._max_backlog,
            keeps_answers=self.accepts_answers(),
            kept_bytes=self._kept.get(touched.tenant, 0),
        )

    def _store(self, call: str, touched: Touched, before: AdmissionState, after: AdmissionState) -> list[str]:
        """Put the pieces back; returns the stream entries of the events that were appended."""
        if after is before:
            return []
        self._rates.update(after.rates)
        self._in_flight.update(after.in_flight)
        self._budgets.update(after.budgets)
        if after.call is not before.call:
            self._store_call(call, after.call)
        if touched.claim and after.claim is not before.claim:
            self._store_claim(touched.tenant, touched.claim, after.claim)
        return self._stream.append(after.appended)

    def _store_call(self, call: str, record: CallState) -> None:
        self._calls[call] = record
        if isinstance(record, CallRecord):
            self._open[call] = None
        else:
            self._open.pop(call, None)
        if isinstance(record, Reaped | Tombstone):
            heapq.heappush(self._leaving, (record.expires_us, "call", call, ""))

    def _store_claim(self, tenant: str, key: str, claim: idempotency.ClaimState) -> None:
        self._claims[key] = claim
        heapq.heappush(self._leaving, (claim.expires_us, "claim", key, ""))
        if isinstance(claim, idempotency.Done):
            size = len(claim.answer.body)
            self._keep(tenant, size)
            heapq.heappush(self._leaving, (claim.expires_us, "kept", tenant, str(size)))

    def _keep(self, tenant: str, size: int) -> None:
        self._kept[tenant] = self._kept.get(tenant, 0) + size
        self._all_kept += size

    def _forget_windows(self, hold: Hold) -> None:
        for read in hold.budgets:
            if read.spent == 0 and read.held == hold.amount:
                heapq.heappush(
                    self._leaving, (read.resets_at_us + adjusting.WINDOW_KEPT_US, "budget", read.scope, read.window)
                )

    def _forget_new_windows(self, budgets: Sequence[BudgetReading]) -> None:
        for read in budgets:
            if (read.scope, read.window) not in self._budgets:
                ends = read.resets_at_us + adjusting.WINDOW_KEPT_US
                heapq.heappush(self._leaving, (ends, "budget", read.scope, read.window))

    def _forget(self, now_us: int) -> None:
        """Drop what has expired; to the policy such a piece is the same as none."""
        while self._leaving and self._leaving[0][0] <= now_us:
            _, kind, key, more = heapq.heappop(self._leaving)
            match kind:
                case "call" if calls.seen(self._calls.get(key), now_us) is None:
                    self._calls.pop(key, None)
                case "claim" if idempotency.seen(self._claims.get(key, idempotency.UNSEEN), now_us).expires_us == 0:
                    self._claims.pop(key, None)
                case "kept":
                    self._keep(key, -int(more))
                case "budget":
                    self._budgets.pop((key, more), None)
