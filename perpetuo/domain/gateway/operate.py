"""
What does an operator do, and what does one ask of a tenant?

Rule 1: an action is done first and told afterwards: to the log at once, then as a row of kind ``admin``. An event
        table that is away stops no action.
Rule 2: a breaker forced while the shared store is away holds for this worker alone; the answer says so.
"""

import asyncio
import json
from collections.abc import Callable, Sequence

import attrs

from perpetuo.domain.model.admission import BudgetReading
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.events import Event, Outcome
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.tenants import ApiKey, Caller, Limits, Tenant
from perpetuo.domain.policy import nearness
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.policy.windows import key_scope, limits_of
from perpetuo.domain.ports import BreakerBoard, EventStore, Journal, Ledger, ScopeUsage, StoreUnavailable, System

KIND = "admin"
NO_KEY = ApiKey("", b"")
SECOND_US = 1_000_000


@attrs.frozen
class Actor:
    """Who acts: the name of an admin key, and the request it came with. ``client_ip`` as rows may keep it."""

    name: str
    request_id: str
    client_ip: str | None


@attrs.frozen
class Done:
    """``everywhere``: on all workers, else on this one alone. ``recorded``: there is a row of it."""

    everywhere: bool
    recorded: bool


@attrs.frozen
class AdminEvent:
    """`perpetuo.domain.ports.StreamedEvent` of an action: it never was in a stream."""

    row: bytes
    entry: str = ""
    revision: int = 1
    charged: int | None = None


async def force_breaker(
    breakers: BreakerBoard,
    store: EventStore,
    journal: Journal,
    system: System,
    actor: Actor,
    provider: str,
    open_for_us: int | None,
) -> Done:
    """Open a provider's breaker for so long, or close it (``None``)."""
    await breakers.refresh()  # another worker may have changed it a moment ago
    before = breakers.view(provider).phase.value
    everywhere = True
    try:
        await breakers.force(provider, open_for_us=open_for_us)
    except StoreUnavailable:
        everywhere = False
    decision: dict[str, object] = {
        "action": "breaker_close" if open_for_us is None else "breaker_open",
        "actor": actor.name,
        "before": before,
        "open_for_s": None if open_for_us is None else open_for_us // SECOND_US,
        "everywhere": everywhere,
    }
    journal.log(
        "warning", "admin_action", action=decision["action"], actor=actor.name, provider=provider, state=before,
        seconds=decision["open_for_s"], request_id=actor.request_id, client_ip=actor.client_ip,
        meaning="on all workers" if everywhere else "on this worker alone, until the store is back",
    )  # fmt: skip
    return Done(everywhere, await _record(store, journal, _event(system, actor, provider, decision)))


async def _record(store: EventStore, journal: Journal, event: Event) -> bool:
    try:
        await store.write([AdminEvent(json.dumps(attrs.asdict(event)).encode())])
    except StoreUnavailable as error:
        journal.store_error("sql", str(error))
        return False
    return True


def _event(system: System, actor: Actor, provider: str, decision: dict[str, object]) -> Event:
    return Event(
        id=system.new_id(),
        occurred_at_us=system.now_us(),
        tenant_id="",
        key_name=actor.name,
        kind=KIND,
        model="",
        provider=provider,
        request_id=actor.request_id,
        status=200,
        outcome=Outcome.COMPLETED.value,
        decision=decision,
        client_ip=actor.client_ip,
    )


# --- what a tenant uses --------------------------------------------------------------------------


@attrs.frozen
class TenantStanding:
    """What a tenant, and each of its keys with limits of its own, uses of its limits now."""

    tenant: Tenant
    budgets: tuple[BudgetReading, ...]
    usage: tuple[ScopeUsage, ...]
    raises: tuple[Raise, ...] = ()
    """In force; the limits of ``budgets`` have them in."""


async def tenant_standing(ledger: Ledger, tenant: Tenant, now_us: int, raises: Sequence[Raise] = ()) -> TenantStanding:
    """Read it; raises `StoreUnavailable`. ``raises`` are the tenant's."""
    budgets = list(limits_of(Caller(tenant, NO_KEY), now_us, raises).budgets)
    scopes = [tenant.id]
    for key in tenant.keys:
        budgets += [b for b in limits_of(Caller(tenant, key), now_us, raises).budgets if b.scope != tenant.id]
        if counts_calls(key.limits):
            scopes.append(key_scope(tenant.id, key.name))
    readings = await ledger.read_budgets(budgets, tenant.id)
    usage = await ledger.read_usage(tenant.id, scopes)
    return TenantStanding(tenant, tuple(readings), tuple(usage), raising.in_force(raises, now_us))


async def remaining_budgets(
    ledger: Ledger, tenants: Sequence[Tenant], now_us: int, raised: Callable[[str], Sequence[Raise]]
) -> list[tuple[str, str, Nano, Nano]]:
    """Tenant, period, what is neither spent nor held, and the limit; raises `StoreUnavailable`."""
    asked = []
    for tenant in tenants:
        limits = limits_of(Caller(tenant, NO_KEY), now_us, raised(tenant.id)).budgets
        if own := [limit for limit in limits if limit.limit is not None]:
            asked.append(ledger.read_budgets(own, tenant.id))
    readings = [reading for readings in await asyncio.gather(*asked) for reading in readings]
    return [
        (r.scope, r.period, r.remaining, r.limit) for r in readings if r.remaining is not None and r.limit is not None
    ]


async def nearest_first(
    ledger: Ledger, tenants: Sequence[Tenant], now_us: int, raises: Sequence[Raise] = ()
) -> list[Tenant]:
    """The tenants, those nearest to one of their limits first; raises `StoreUnavailable`."""
    scopes = list(nearness.watched(tenants, raises, now_us))
    used = await ledger.read_used(scopes)
    return nearness.nearest_first(tenants, zip(scopes, used, strict=True))


def counts_calls(limits: Limits) -> bool:
    """Is there a limit for whose sake calls of this scope are counted?"""
    return limits.rate_per_minute is not None or limits.concurrency is not None
