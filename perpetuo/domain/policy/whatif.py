"""
Which calls that were admitted would another configuration refuse, and what would all have cost?

Recorded calls go through the policies of admission once more, in the order in which they were admitted: key → model →
rate → concurrency → budget, all or nothing, as `admission.admit` does it.

Rule 1: a row says when its call arrived, how long its admission took and when it ended; the instant of admission lies
        in between. Each call is judged at the latest instant, and seen by others from the earliest for the rate, and
        from the latest to its end for what it holds. So a configuration refuses nothing that it has admitted: in any
        minute the replay sees no more calls than there were, and at any instant no more calls or money in flight.
Rule 2: a call that would have been refused leaves no trace: it makes room for those behind it.
Rule 3: the rate, the calls and the money in flight are kept as a queue, a count and two sums instead of the policies'
        values, which are made anew at every step. Tests hold all of them together to the policies.
Rule 4: costs and holds are those of `repriced`.
Rule 5: a client holds the key that it held: calls follow the key, not its name. A key that is no longer known to the
        configuration in force is looked for by its name. A key that neither knows is no matter of the change:
        its calls are counted apart, and what they cost is spent.
Rule 6: money that an operator took off or put on is so here too, and a budget that was raised is raised from the
        beginning: more lenient than it was, never stricter.
Rule 7: before the hours that are judged lies a time that is only counted, and before that the sums of the open windows.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush

import attrs

from perpetuo.domain.model.admission import BudgetLimit, RateLimit
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.pricing import FREE
from perpetuo.domain.model.recorded import Recorded
from perpetuo.domain.model.settings import Settings, WhenShort
from perpetuo.domain.model.tenants import Caller
from perpetuo.domain.policy.budget import window_at
from perpetuo.domain.policy.repriced import Priced, model_of, model_refusal, price_of
from perpetuo.domain.policy.windows import key_scope, limits_of

WindowKey = tuple[str, str]
"""Scope and window."""


@attrs.define
class RefusedCalls:
    """Calls of one key that one limit would have refused."""

    limit: str
    count: int = 0
    first_us: int = 0
    last_us: int = 0


@attrs.define
class Cost:
    """What the calls of one tenant to one model cost and would have cost; those refused would have cost nothing."""

    calls: int = 0
    refused: int = 0
    before: int = 0
    after: int = 0


Group = tuple[str, str, str, str]
"""Tenant, key, reason, and the limit's scope and period."""


@attrs.define
class WhatIf:
    """The outcome so far."""

    calls: int = 0
    refused: int = 0
    refusals: dict[Group, RefusedCalls] = attrs.field(factory=dict)
    costs: dict[tuple[str, str], Cost] = attrs.field(factory=dict)
    unknown: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """Calls that are not judged, by tenant and key: neither configuration knows it."""


OUT_OF_ORDER_US = 1_000_000
"""An id may be made while a body is still read: rows by id may be so far from the order of arrival."""


def in_order(rows: Iterable[Recorded]) -> Iterator[Recorded]:
    """Rows by arrival put into the order of admission; no more are kept than arrive while one is admitted."""
    waiting: list[tuple[int, int, Recorded]] = []
    for number, row in enumerate(rows):
        heappush(waiting, (row.admitted_us, number, row))
        while waiting and waiting[0][0] < row.arrived_us - OUT_OF_ORDER_US:
            yield heappop(waiting)[2]
    while waiting:
        yield heappop(waiting)[2]


# --- the policies, in the form that lasts ---------------------------------------------------------


@attrs.define(eq=False)
class Rate:
    """`rate.RateLog` of one scope under its limit: the newest ``limit`` entries, oldest first."""

    limit: RateLimit
    times: deque[int] = attrs.field(factory=deque)

    def refuses(self, at_us: int) -> bool:
        """`rate.refusal`."""
        if self.limit.limit <= 0:
            return True
        return len(self.times) >= self.limit.limit and at_us - self.times[0] < self.limit.window_us

    def enter(self, at_us: int) -> None:
        """`rate.enter`; an entry may be older than the newest, as it counts from its earliest instant (rule 1)."""
        times = self.times
        if times and at_us < times[-1]:
            ordered = list(times)
            insort(ordered, at_us)
            times = self.times = deque(ordered)
        else:
            times.append(at_us)
        if len(times) > self.limit.limit:
            times.popleft()


@attrs.define(eq=False)
class Flight:
    """`concurrency.Leases` of one scope under its limit: how many have not ended."""

    scope: str
    limit: int
    count: int = 0


@attrs.define(eq=False)
class Money:
    """`budget.BudgetWindow`."""

    spent: int = 0
    held: int = 0


# --- one key --------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Lane:
    """One key's way through the new configuration: what it passes does not change from call to call."""

    caller: Caller | None
    rates: list[Rate]
    flights: list[Flight]
    same_days: bool
    """Do the tenant's days begin when they began?"""
    known: bool = True
    """To either configuration."""
    until_us: int = 0
    budgets: tuple[BudgetLimit, ...] = ()
    """The limits among them, as of ``until_us``."""
    priced: dict[tuple[str, str | None, str | None], "Priced"] = attrs.field(factory=dict)


class Replay:
    """
    Recorded calls under ``after``; ``before`` is the configuration in force, which knows who held which key.

    ``spent``: what windows that are open at the start had spent before. ``since_us``: from when calls are judged.
    """

    def __init__(
        self,
        before: Settings,
        after: Settings,
        *,
        spent: Mapping[WindowKey, int] | None = None,
        since_us: int = 0,
        raises: Mapping[str, Sequence[Raise]] | None = None,
    ) -> None:
        self.outcome = WhatIf()
        self._before = before
        self._after = after
        self._since_us = since_us
        self._raises = raises or {}
        self._lowers = after.when_short is WhenShort.LOWER
        self._rates: dict[str, Rate] = {}
        self._flights: dict[str, Flight] = {}
        self._money: dict[WindowKey, Money] = {key: Money(amount) for key, amount in (spent or {}).items()}
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._ending: list[tuple[int, int, list[Flight], list[Money], int, int]] = []
        self._number = 0

    def run(self, rows: Iterable[Recorded]) -> Iterator[int]:
        """Judge ``rows``, which are in the order of admission; yields how many were, now and then."""
        for row in rows:
            self.judge(row)
            if not self._number % 5_000:
                yield self._number

    def judge(self, row: Recorded) -> None:
        """One call, through everything that can refuse it."""
        self._number += 1
        at = row.admitted_us
        ending = self._ending
        while ending and ending[0][0] <= at:
            self._end(heappop(ending))
        if row.is_adjustment:
            self._spend(row)
            return
        lane = self._lanes.get((row.tenant, row.key)) or self._lane(row.tenant, row.key)
        if not lane.known:
            self._pass_by(row)
            return
        priced = lane.priced.get((row.model, row.provider, row.upstream_model)) or self._price(lane, row)
        judged = row.arrived_us >= self._since_us
        cost = priced.cost(row)
        hold = priced.scaled(row.hold)
        refused = self._refusal(lane, priced, at)
        if refused is None and _expired(lane.caller, row):
            refused = Reason.API_KEY_EXPIRED, "", "the key has expired"
        windows = self._windows(lane, row)
        if refused is None:
            refused = _short(windows, min(hold, cost) if self._lowers else hold)
        if refused is not None and judged:
            self._refuse(row, *refused)
            return
        if judged:
            self._count(row, cost)
        self._enter(lane, row, [money for money, _ in windows], hold, cost)

    def _pass_by(self, row: Recorded) -> None:
        self._spend(row)
        if row.arrived_us >= self._since_us:
            unknown = self.outcome.unknown
            unknown[row.tenant, row.key] = unknown.get((row.tenant, row.key), 0) + 1

    def _spend(self, row: Recorded) -> None:
        """Of a key: of its tenant as well."""
        day = row.budget_day or ""
        for scope in (row.tenant, key_scope(row.tenant, row.key))[: 2 if row.key else 1]:
            for window in (day, day[:7]):
                self._money.setdefault((scope, window), Money()).spent += row.cost

    # --- asking ----------------------------------------------------------------------------------

    def _refusal(self, lane: Lane, priced: Priced, at_us: int) -> tuple[Reason, str, str] | None:
        """Everything before the budget: why not, under which limit, in words."""
        if lane.caller is None:
            return Reason.INVALID_API_KEY, "", "the key is not known"
        if priced.refusal is not None:
            return priced.refusal, "", _MODEL_WORDS[priced.refusal]
        for rate in lane.rates:
            if rate.refuses(at_us):
                return Reason.RATE_LIMIT_EXCEEDED, rate.limit.scope, f"{rate.limit.limit} a minute"
        for flight in lane.flights:
            if flight.count >= flight.limit:
                return Reason.CONCURRENCY_LIMIT_EXCEEDED, flight.scope, f"{flight.limit} at once"
        return None

    def _windows(self, lane: Lane, row: Recorded) -> list[tuple[Money, BudgetLimit]]:
        """The budget windows that limit a call."""
        if row.admitted_us >= lane.until_us:
            self._renew(lane, row.admitted_us)
        windows = []
        for limit in lane.budgets:
            key = (limit.scope, _window(limit, row, same_days=lane.same_days))
            money = self._money.get(key)
            if money is None:
                money = self._money[key] = Money()
            windows.append((money, limit))
        return windows

    def _renew(self, lane: Lane, at_us: int) -> None:
        if lane.caller is not None:
            limits = limits_of(lane.caller, at_us, self._raises.get(lane.caller.tenant.id, ()))
            lane.until_us = limits.until_us
            lane.budgets = tuple(budget for budget in limits.budgets if budget.limit is not None)

    # --- telling ---------------------------------------------------------------------------------

    def _enter(self, lane: Lane, row: Recorded, windows: list[Money], hold: int, cost: int) -> None:
        for rate in lane.rates:
            rate.enter(row.arrived_us)
        if not lane.flights and not windows:
            return
        for flight in lane.flights:
            flight.count += 1
        for money in windows:
            money.held += hold
        heappush(self._ending, (row.ended_us, self._number, lane.flights, windows, hold, cost))

    @staticmethod
    def _end(call: tuple[int, int, list[Flight], list[Money], int, int]) -> None:
        _, _, flights, windows, hold, cost = call
        for flight in flights:
            flight.count -= 1
        for money in windows:
            money.held -= hold
            money.spent += cost

    def _refuse(self, row: Recorded, reason: Reason, scope: str, limit: str) -> None:
        found = self.outcome.refusals.setdefault((row.tenant, row.key, reason.value, scope), RefusedCalls(limit))
        found.first_us = found.first_us or row.arrived_us
        found.last_us = row.arrived_us
        found.count += 1
        self.outcome.refused += 1
        self._cost_of(row).refused += 1
        self._count(row, 0)

    def _count(self, row: Recorded, cost: int) -> None:
        self.outcome.calls += 1
        total = self._cost_of(row)
        total.calls += 1
        total.before += row.cost
        total.after += cost

    def _cost_of(self, row: Recorded) -> Cost:
        found = self.outcome.costs.get((row.tenant, row.model))
        if found is None:
            found = self.outcome.costs[row.tenant, row.model] = Cost()
        return found

    # --- once for each key, once for each of its models --------------------------------------------

    def _lane(self, tenant: str, key: str) -> Lane:
        """Of who holds the key under the new configuration (rule 5)."""
        held = self._before.key_of(tenant, key) or self._after.key_of(tenant, key)
        caller = self._after.authenticate(held.digest) if held is not None else None
        lane = Lane(caller, [], [], same_days=False, known=held is not None)
        if caller is not None:
            limits = limits_of(caller, 0)
            lane.rates = [self._rates.setdefault(one.scope, Rate(one)) for one in limits.rates]
            lane.flights = [self._flights.setdefault(o.scope, Flight(o.scope, o.limit)) for o in limits.concurrency]
            known = self._before.tenants.get(tenant)
            lane.same_days = known is None or known.time_zone == caller.tenant.time_zone
        self._lanes[tenant, key] = lane
        return lane

    def _price(self, lane: Lane, row: Recorded) -> Priced:
        old, new = model_of(self._before, row), model_of(self._after, row)
        before, after = price_of(self._before, old, row), price_of(self._after, new, row)
        found = lane.priced[row.model, row.provider, row.upstream_model] = Priced(
            model_refusal(lane.caller, new, after, row), before or FREE, after or FREE
        )
        return found


_MODEL_WORDS = {
    Reason.MODEL_NOT_FOUND: "there is no such model",
    Reason.MODEL_NOT_ALLOWED: "the key may not call it",
    Reason.MODEL_NOT_PRICED: "it has no price, and the key has a budget",
}


def _expired(caller: Caller | None, row: Recorded) -> bool:
    return caller is not None and caller.key.expires_us is not None and row.arrived_us >= caller.key.expires_us


def _short(windows: list[tuple[Money, BudgetLimit]], least: int) -> tuple[Reason, str, str] | None:
    """The first window that has too little left (`budget.grant`)."""
    for money, limit in windows:
        most = limit.limit or 0
        if money.spent + money.held + least > most:
            reason = Reason.BUDGET_RESERVED if money.spent + least <= most else Reason.BUDGET_EXCEEDED
            return reason, f"{limit.scope} {limit.period}", f"{usd(most)} USD a {limit.period}"
    return None


def _window(limit: BudgetLimit, row: Recorded, *, same_days: bool) -> str:
    """The window that the ledger's clock chose, where days begin as they did."""
    if same_days and row.budget_day is not None:
        return row.budget_day if limit.period == "day" else row.budget_day[:7]
    return window_at(limit, row.admitted_us)
