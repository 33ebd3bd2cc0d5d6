"""
What do tests of a ledger need around it: a clock to turn, and short ways to say a request?

`World` is what a fixture provides for each kind of store; the builders make values whose names read like the trace.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from perpetuo.domain.model.admission import (
    LEASE_US,
    AdmitRequest,
    Admitted,
    BudgetLimit,
    Claim,
    ConcurrencyLimit,
    Hold,
    Keep,
    RateLimit,
    Settlement,
    StoredAnswer,
    UnknownOutcome,
)
from perpetuo.domain.model.budgets import Adjustment
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.policy import budget
from perpetuo.domain.policy.windows import replay_scope
from perpetuo.domain.ports import EventStream, Ledger, WindowSum

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MIDNIGHT = 1_764_028_800 * SECOND
"""2025-11-25T00:00:00Z: the boundary between the windows that `day` and `month` name."""
NOON = MIDNIGHT - 12 * HOUR
TENANT = "acme"
REPLAYS = replay_scope(TENANT)
KEEPING = IdempotencySettings()


class Clock:
    """The ledger's clock, turned by hand."""

    def __init__(self, now_us: int = NOON) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def advance(self, us: int) -> None:
        self.now_us += us


class World(Protocol):
    """A fresh ledger on an empty store, with budgets open."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def stream(self) -> EventStream: ...

    @property
    def clock(self) -> Clock: ...

    async def lose_data(self) -> None:
        """The store comes back empty, in another life (epoch), its budgets closed; ``ledger`` goes on."""
        ...

    async def seed(self, tenant: str, sums: Sequence[WindowSum]) -> None:
        """Set what ``tenant`` has spent according to SQL and open its budgets."""
        ...


# --- builders ------------------------------------------------------------------------------------


def rate(limit: int, scope: str = TENANT, window_us: int = MINUTE) -> RateLimit:
    return RateLimit(scope, limit, window_us)


def at_once(limit: int, scope: str = TENANT) -> ConcurrencyLimit:
    return ConcurrencyLimit(scope, limit)


def day(limit: int | None, scope: str = TENANT) -> BudgetLimit:
    return BudgetLimit(
        scope, "day", None if limit is None else Nano(limit), "2025-11-24", "2025-11-25", MIDNIGHT, MIDNIGHT + DAY
    )


def month(limit: int | None, scope: str = TENANT) -> BudgetLimit:
    end = MIDNIGHT + 6 * DAY
    return BudgetLimit(
        scope, "month", None if limit is None else Nano(limit), "2025-11", "2025-12", end, end + 31 * DAY
    )


def claim(
    name: str = "k",
    fingerprint: str = "f",
    *,
    ttl_us: int = DAY,
    lease_us: int = LEASE_US,
    on_unknown: UnknownOutcome = UnknownOutcome.REEXECUTE,
) -> Claim:
    return Claim(hashlib.sha256(name.encode()).hexdigest(), fingerprint, ttl_us, lease_us, on_unknown)


def event(call: str, tenant: str = TENANT, **columns: Any) -> Event:
    blank = Event(
        id=call,
        occurred_at_us=NOON,
        tenant_id=tenant,
        key_name="default",
        kind="chat",
        model="m",
        request_id=f"r-{call}",
        status=0,
        outcome="abandoned",
        usage_basis="bound",
    )
    return attrs.evolve(blank, **columns)


def request(
    call: str,
    *limits: RateLimit | ConcurrencyLimit | BudgetLimit,
    hold: int = 0,
    hold_min: int | None = None,
    claim: Claim | None = None,
    tenant: str = TENANT,
    lease_us: int = LEASE_US,
    replays: int | None = None,
) -> AdmitRequest:
    return AdmitRequest(
        call=call,
        tenant=tenant,
        rates=tuple(one for one in limits if isinstance(one, RateLimit)),
        concurrency=tuple(one for one in limits if isinstance(one, ConcurrencyLimit)),
        budgets=tuple(one for one in limits if isinstance(one, BudgetLimit)),
        hold=Nano(hold),
        hold_min=Nano(hold if hold_min is None else hold_min),
        claim=claim,
        abandoned=event(call, tenant),
        lease_us=lease_us,
        replays=None if replays is None else rate(replays, REPLAYS),
    )


def answer(body: bytes = b'{"ok":true}') -> StoredAnswer:
    return StoredAnswer(200, "application/json", (("x-a", "ä"),), body, "the-call")


def settlement(hold: Hold, charge: int = 0, keep: Keep = Keep.FREE, stored: StoredAnswer | None = None) -> Settlement:
    day = next((read.window for read in hold.budgets if read.period == "day"), None)
    columns: dict[str, Any] = {
        "status": 200,
        "outcome": "completed",
        "usage_basis": "reported",
        "cost_nano_usd": charge,
        "hold_nano_usd": hold.amount,
        "budget_day": day,
    }
    return Settlement(hold, Nano(charge), event(hold.call, hold.tenant, **columns), keep, stored)


def adjustment(name: str, amount: int, *limits: BudgetLimit, at_us: int = NOON) -> Adjustment:
    """Of the windows of ``limits`` that *at* falls into; the first is a day."""
    windows = tuple(budget.reading(one, budget.EMPTY, at_us) for one in limits)
    row = event(name, key_name="", kind="admin", outcome="completed", cost_nano_usd=amount)
    return Adjustment(name, TENANT, Nano(amount), windows, attrs.evolve(row, budget_day=windows[0].window))


# --- asking --------------------------------------------------------------------------------------


async def admitted(world: World, asked: AdmitRequest) -> Admitted:
    """Admit, and insist on it."""
    decision = await world.ledger.admit(asked)
    assert isinstance(decision, Admitted), decision
    return decision


async def hold(world: World, asked: AdmitRequest) -> Hold:
    return (await admitted(world, asked)).hold


async def money(world: World, *limits: BudgetLimit) -> list[tuple[int, int]]:
    """Spent and held of each budget, now."""
    return [(read.spent, read.held) for read in await world.ledger.read_budgets(limits, TENANT)]


@attrs.frozen
class Row:
    """An event as SQL would have it."""

    revision: int
    cost: int
    hold: int
    outcome: str
    budget_day: str | None


async def rows(world: World) -> dict[str, Row]:
    """Every event in the stream, folded by id to its highest revision; acknowledges them."""
    folded: dict[str, Row] = {}
    while batch := await world.stream.read(100, 0):
        for one in batch:
            row = json.loads(one.row)
            if row["id"] not in folded or folded[row["id"]].revision < one.revision:
                folded[row["id"]] = _row(row, one.revision, one.charged)
        await world.stream.ack(batch)
    return folded


def _row(row: dict[str, Any], revision: int, charged: int | None) -> Row:
    cost, hold = (row["cost_nano_usd"], row["hold_nano_usd"]) if charged is None else (charged, charged)
    return Row(revision, cost, hold, row["outcome"], row["budget_day"])


async def keep_alive(world: World, us: int, *holds: Hold) -> None:
    """Let time pass while a healthy worker stamps the store and renews ``holds`` every 5 s."""
    end = world.clock.now_us + us
    while world.clock.now_us < end:
        world.clock.advance(min(5 * SECOND, end - world.clock.now_us))
        await world.ledger.renew(holds)
