"""What may a caller call, what has it used, and what became of a request of its own?"""

from collections.abc import Sequence

import attrs

from perpetuo.domain.gateway.admit import Admission
from perpetuo.domain.model.admission import BudgetReading
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.models import CATCH_ALL, Model
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Caller
from perpetuo.domain.ports import EventStore, Ledger, RecentRefusals, ScopeUsage


@attrs.frozen
class Standing:
    """A caller's limits and what is used of them."""

    caller: Caller
    budgets: tuple[BudgetReading, ...]
    usage: tuple[ScopeUsage, ...]
    raises: tuple[Raise, ...] = ()
    """In force; the limits of ``budgets`` have them in."""


def callable_models(settings: Settings, caller: Caller) -> list[Model]:
    """Models the key may call, as configured; the catch-all is never listed."""
    return [m for m in settings.models.by_name.values() if m.name != CATCH_ALL and caller.may_call(m.name)]


async def standing(ledger: Ledger, admission: Admission, caller: Caller) -> Standing:
    """Read a caller's use of its limits; raises `StoreUnavailable`."""
    limits = admission.limits_of(caller)
    scopes = [caller.tenant.id]
    key_limits = caller.key.limits
    if key_limits.rate_per_minute is not None or key_limits.concurrency is not None:
        scopes.append(f"{caller.tenant.id}/{caller.key.name}")
    budgets = await ledger.read_budgets(limits.budgets, caller.tenant.id)
    usage: Sequence[ScopeUsage] = await ledger.read_usage(caller.tenant.id, scopes)
    return Standing(caller, tuple(budgets), tuple(usage), admission.raises_of(caller))


async def find_request(
    ledger: Ledger, store: EventStore, recent: RecentRefusals, caller: Caller, request_id: str
) -> Event | RefusalNote | None:
    """
    The caller's own call by its request id: written down, refused lately, or still in flight.

    Raises `StoreUnavailable` when a store that might know it is away.
    """
    tenant = caller.tenant.id
    written = await store.by_request_id(tenant, request_id)
    if written is not None:
        return written
    return await recent.find_refusal(tenant, request_id) or await ledger.in_flight(tenant, request_id)
