"""
What do tenants use of their limits?

There may be 10,000: all are ranked by a few numbers each, and only those of one page are looked at whole.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.operate import nearest_first, tenant_standing
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.model.tenants import Tenant
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.http.admin.events.asked import Asked
from perpetuo.entrypoints.http.admin.events.look import PER_PAGE, events_page
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.refusals.look import HOUR_US, refusals
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.admin.tenants import facts
from perpetuo.entrypoints.http.admin.tenants.usage import usage
from perpetuo.entrypoints.http.refusals import RefusedError

TENANTS_SHOWN = 8
NEAREST, BY_ID = "near", "id"
SORTS = {NEAREST: "Nearest limit", BY_ID: "Id"}


async def lately_active(container: Container, latest: Sequence[Event] | Away, refused: Facts) -> Facts:
    """Tenants seen in the latest events and refusals, filled up with others, nearest to a limit first."""
    known = container.settings.tenants
    names = [] if isinstance(latest, Away) else [event.tenant_id for event in latest]
    names += [row["tenant"] for row in refused["items"]]
    seen = dict.fromkeys(name for name in (*names, *list(known)[:TENANTS_SHOWN]) if name in known)
    await look_again(container)
    shown = await tenants(container, [known[name] for name in list(seen)[:TENANTS_SHOWN]])
    shown["items"].sort(key=facts.fullest, reverse=True)
    return {**shown, "total": len(known)}


async def look_again(container: Container) -> None:
    """
    Know of raises made a moment ago through another worker; with the store away, of those that are known.

    Once for each answer: whatever in it asks about raises sees the same.
    """
    with suppress(StoreUnavailable):
        await container.stores.raises.refresh()


async def tenants(container: Container, chosen: Sequence[Tenant]) -> Facts:
    """What they use, under the raises known here."""
    now_us, ledger, raised = container.system.now_us(), container.ledger, container.stores.raises.of
    standings = await asyncio.gather(*(asked(tenant_standing(ledger, one, now_us, raised(one.id))) for one in chosen))
    away = next((standing.why for standing in standings if isinstance(standing, Away)), None)
    items = [
        facts.tenant_as_configured(one) if isinstance(standing, Away) else facts.tenant(standing)
        for one, standing in zip(chosen, standings, strict=True)
    ]
    return listed(items, away)


async def tenants_page(container: Container, text: str, page: int, sort: str) -> Facts:
    """One page of the tenants whose id or plan has ``text`` in it: in an order of `SORTS`."""
    await look_again(container)
    wanted = text.strip().casefold()
    known = container.settings.tenants.values()
    found = sorted(
        (one for one in known if wanted in one.id.casefold() or wanted in one.plan.casefold()), key=lambda one: one.id
    )
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(max(1, page), pages)
    if sort == NEAREST and (len(found) > 1):
        found = await _nearest_first(container, found)
    shown = await tenants(container, found[(page - 1) * PER_PAGE : page * PER_PAGE])
    return {**shown, "total": len(found), "page": page, "pages": pages, "search": text, "sort": sort}


async def _nearest_first(container: Container, found: list[Tenant]) -> list[Tenant]:
    """By id when the ledger is away: then the page says so anyway."""
    raises = container.stores.raises.all()
    ranked = await asked(nearest_first(container.ledger, found, container.system.now_us(), raises))
    return found if isinstance(ranked, Away) else ranked


async def one_tenant(container: Container, name: str) -> Facts:
    """A tenant with its keys, latest calls and refusals; raises `RefusedError`."""
    known = container.settings.tenants.get(name)
    if known is None:
        raise RefusedError(Refusal(Reason.NOT_FOUND, f"The configuration in force has no tenant {name}."))
    await look_again(container)
    shown, went, events, refused = await asyncio.gather(
        tenants(container, [known]),
        usage(container, name),
        events_page(container, Asked(EventFilter(tenant_id=name), None, {})),
        refusals(container, HOUR_US, name),
    )
    tenant = {**shown["items"][0], "unavailable": shown["unavailable"]}
    return {**tenant, "usage": went, "events": events, "refusals": refused}
