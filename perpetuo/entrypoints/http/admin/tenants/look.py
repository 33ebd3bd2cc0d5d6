"""
What do tenants use of their limits?

Nothing here asks for every tenant: there may be 10,000.
"""

import asyncio
from collections.abc import Sequence

from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.operate import tenant_standing
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.model.tenants import Tenant
from perpetuo.entrypoints.http.admin.events.asked import Asked
from perpetuo.entrypoints.http.admin.events.look import PER_PAGE, events_page
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.refusals.look import HOUR_US, refusals
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.admin.tenants import facts
from perpetuo.entrypoints.http.refusals import RefusedError

TENANTS_SHOWN = 8


async def lately_active(container: Container, latest: Sequence[Event] | Away, refused: Facts) -> Facts:
    """Tenants seen in the latest events and refusals, filled up with others, nearest to a limit first."""
    known = container.settings.tenants
    names = [] if isinstance(latest, Away) else [event.tenant_id for event in latest]
    names += [row["tenant"] for row in refused["items"]]
    seen = dict.fromkeys(name for name in (*names, *list(known)[:TENANTS_SHOWN]) if name in known)
    shown = await tenants(container, [known[name] for name in list(seen)[:TENANTS_SHOWN]])
    shown["items"].sort(key=facts.fullest, reverse=True)
    return {**shown, "total": len(known)}


async def tenants(container: Container, chosen: Sequence[Tenant]) -> Facts:
    now_us, ledger, raised = container.system.now_us(), container.ledger, container.stores.raises.of
    standings = await asyncio.gather(*(asked(tenant_standing(ledger, one, now_us, raised(one.id))) for one in chosen))
    away = next((standing.why for standing in standings if isinstance(standing, Away)), None)
    items = [
        facts.tenant_as_configured(one) if isinstance(standing, Away) else facts.tenant(standing)
        for one, standing in zip(chosen, standings, strict=True)
    ]
    return listed(items, away)


async def tenants_page(container: Container, text: str, page: int) -> Facts:
    """One page of the tenants whose id or plan has ``text`` in it, by id."""
    wanted = text.strip().casefold()
    known = container.settings.tenants.values()
    found = sorted(
        (one for one in known if wanted in one.id.casefold() or wanted in one.plan.casefold()), key=lambda one: one.id
    )
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(max(1, page), pages)
    shown = await tenants(container, found[(page - 1) * PER_PAGE : page * PER_PAGE])
    return {**shown, "total": len(found), "page": page, "pages": pages, "search": text}


async def one_tenant(container: Container, name: str) -> Facts:
    """A tenant with its keys, latest calls and refusals; raises `RefusedError`."""
    known = container.settings.tenants.get(name)
    if known is None:
        raise RefusedError(Refusal(Reason.NOT_FOUND, f"The configuration in force has no tenant {name}."))
    shown, events, refused = await asyncio.gather(
        tenants(container, [known]),
        events_page(container, Asked(EventFilter(tenant_id=name), None, {})),
        refusals(container, HOUR_US, name),
    )
    return {**shown["items"][0], "unavailable": shown["unavailable"], "events": events, "refusals": refused}
