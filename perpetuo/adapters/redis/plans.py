"""
Which keys and arguments does a step need, as far as its limits say it?

They are the same for every call under the same limits, so they are made once: an admission has some 25 arguments, of
which ten change. Requests find theirs by the identity of their limits (the gateway hands out the same tuples as long
as they hold), holds by their scopes and windows.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, Self, TypeVar

import attrs
import msgspec

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.resp import Bulks
from perpetuo.domain.model.admission import AdmitRequest, BudgetLimit, BudgetReading, Hold
from perpetuo.domain.model.money import Nano

MOST = 20_000
"""Plans kept; when there are more, all are made anew."""
WindowKey = tuple[str, str, int]
"""Scope, window, and when it ends."""
T = TypeVar("T")


class Scopes(msgspec.Struct, frozen=True):
    """What the reaper must know of a call it has never seen: kept in the call's record, as JSON."""

    tenant: str
    concurrency: tuple[str, ...]
    budgets: tuple[tuple[str, str, str, int], ...]
    """Scope, current, following, boundary."""

    def budget_keys(self, prefix: str, at_us: int) -> list[str]:
        return [
            keys.budget(prefix, scope, current if at_us < boundary else following)
            for scope, current, following, boundary in self.budgets
        ]


@attrs.frozen
class RequestPlan:
    """``limits`` are the tuples it was made from: who holds it may compare identities."""

    limits: tuple[Any, ...]
    prefix: str
    head: Bulks
    """life, seeded, holds."""
    keys: Bulks
    arguments: Bulks
    windows: tuple[tuple[str, str, str, Nano | None, int], ...]
    """Of each budget, before any of them ends at ``until_us``: scope, period, window, limit and when it ends."""
    until_us: int
    day: str | None
    """Which day the row of an abandoned call must carry: of the first budget by the day."""
    limited: bytes
    rate_scopes: tuple[str, ...]
    concurrency_scopes: tuple[str, ...]
    replay_key: tuple[bytes, ...]
    """The log of replays, if they are limited."""
    replay_arguments: tuple[bytes, ...]


@attrs.frozen
class HoldPlan:
    prefix: str
    holds: bytes
    life: bytes
    events: bytes
    seeded: bytes
    in_flight: tuple[bytes, ...]
    rates: tuple[bytes, ...]
    budgets: tuple[bytes, ...]
    settled: Bulks
    """Keys of a settlement but the first two: life, events, in flight, budgets."""
    resets: Bulks
    """Its arguments but the first four: how many scopes and windows, and when each window ends."""

    @classmethod
    def make(cls, tenant: str, in_flight: Iterable[str], rates: Iterable[str], windows: Iterable[WindowKey]) -> Self:
        p = keys.prefix_of(tenant)
        windows = tuple(windows)
        scopes = _encoded(*(keys.in_flight(p, scope) for scope in in_flight))
        budgets = _encoded(*(keys.budget(p, scope, window) for scope, window, _ in windows))
        life, events = keys.life(p).encode(), keys.events(p).encode()
        return cls(
            prefix=p,
            holds=keys.holds(p).encode(),
            life=life,
            events=events,
            seeded=keys.seeded(p).encode(),
            in_flight=scopes,
            rates=_encoded(*(keys.rate(p, scope) for scope in rates)),
            budgets=budgets,
            settled=Bulks.of(life, events, *scopes, *budgets),
            resets=Bulks.of(len(scopes), len(budgets), *(resets_at_us for _, _, resets_at_us in windows)),
        )


def plan_request(request: AdmitRequest) -> RequestPlan:
    p = keys.prefix_of(request.tenant)
    rates, concurrency, budgets, replays = request.rates, request.concurrency, request.budgets, request.replays
    scopes = Scopes(
        request.tenant,
        tuple(c.scope for c in concurrency),
        tuple((b.scope, b.current, b.following, b.boundary_us) for b in budgets),
    )
    day = next(((i, b) for i, b in enumerate(budgets, 1) if b.period == "day"), None)
    arguments: list[Any] = [len(rates), len(concurrency), len(budgets), msgspec.json.encode(scopes)]
    arguments += [day[0], day[1].following] if day else [0, ""]
    for r in rates:
        arguments += [r.limit, r.window_us]
    arguments += [c.limit for c in concurrency]
    for b in budgets:
        arguments += [_limit(b), b.boundary_us, b.boundary_us, b.following_end_us]
    return RequestPlan(
        limits=(rates, concurrency, budgets, replays),
        prefix=p,
        head=Bulks.of(keys.life(p), keys.seeded(p), keys.holds(p)),
        keys=Bulks.of(
            *(keys.rate(p, r.scope) for r in rates),
            *(keys.in_flight(p, c.scope) for c in concurrency),
            *(keys.budget(p, b.scope, window) for b in budgets for window in (b.current, b.following)),
        ),
        arguments=Bulks.of(*arguments),
        windows=tuple((b.scope, b.period, b.current, b.limit, b.boundary_us) for b in budgets),
        until_us=min((b.boundary_us for b in budgets), default=0),
        day=day[1].current if day else None,
        limited=b"1" if request.has_budget else b"0",
        rate_scopes=tuple(r.scope for r in rates),
        concurrency_scopes=scopes.concurrency,
        replay_key=_encoded(keys.rate(p, replays.scope)) if replays else (),
        replay_arguments=_encoded(replays.limit, replays.window_us) if replays else (),
    )


def plan_hold(hold: Hold) -> HoldPlan:
    return HoldPlan.make(
        hold.tenant, hold.concurrency, hold.rates, ((b.scope, b.window, b.resets_at_us) for b in hold.budgets)
    )


def plan_unknown(request: AdmitRequest) -> HoldPlan:
    """Of a call that may have been admitted: its windows in pairs, since who only asked knows no choice."""
    return HoldPlan.make(
        request.tenant,
        (c.scope for c in request.concurrency),
        (r.scope for r in request.rates),
        ((b.scope, window, 0) for b in request.budgets for window in (b.current, b.following)),
    )


def _encoded(*parts: object) -> tuple[bytes, ...]:
    """As bytes, which are packed twice as fast."""
    return tuple(part if isinstance(part, bytes) else str(part).encode() for part in parts)


def _limit(budget: BudgetLimit | BudgetReading) -> int | str:
    return "" if budget.limit is None else budget.limit


class Plans(Generic[T]):
    """Plans made so far."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._made: dict[Hashable, T] = {}

    def get(self, name: Hashable, asked: Any) -> T:
        plan = self._made.get(name)
        if plan is None:
            if len(self._made) >= MOST:
                self._made.clear()
            plan = self._made[name] = self._make(asked)
        return plan


class PlansInUse:
    """The plans of one ledger."""

    def __init__(self) -> None:
        self._requests = Plans(plan_request)
        self._holds = Plans(plan_hold)

    def of_request(self, request: AdmitRequest) -> RequestPlan:
        """A plan keeps its limits alive, so that no others can have their identity."""
        name = (request.tenant, id(request.rates), id(request.concurrency), id(request.budgets), id(request.replays))
        return self._requests.get(name, request)

    def of_hold(self, hold: Hold) -> HoldPlan:
        windows = tuple([(read.scope, read.window, read.resets_at_us) for read in hold.budgets])
        return self._holds.get((hold.tenant, hold.rates, hold.concurrency, windows), hold)
