"""
What does an operator see? Each function asks the stores for one part of a page.

Rule 1: a store that is away makes its part say so (``unavailable``), never the page fail.
Rule 2: what is wrong comes first: `alerts` reads the same facts that the page shows.
Rule 3: nothing here asks for every tenant: there may be 10,000.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from perpetuo import __version__
from perpetuo.adapters.telemetry.cells import read_all
from perpetuo.adapters.telemetry.metrics import AT, IN_FLIGHT, name_of
from perpetuo.adapters.telemetry.page import STALE_SECONDS
from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.operate import KIND, tenant_standing
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter, Outcome
from perpetuo.domain.model.tenants import Tenant
from perpetuo.domain.policy.breaker import BreakerPhase
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin import facts
from perpetuo.entrypoints.http.admin.facts import Facts, listed, span
from perpetuo.entrypoints.http.refusals import RefusedError

T = TypeVar("T")
MINUTE_US = 60_000_000
LATELY_US = 5 * MINUTE_US
HOUR_US = 60 * MINUTE_US
EVENTS_SHOWN = 20
PER_PAGE = 50
TENANTS_SHOWN = 8
WORST_FIRST = (BreakerPhase.OPEN.value, BreakerPhase.HALF_OPEN.value, BreakerPhase.CLOSED.value)
LONG_BACKLOG = 10_000
STORE_NAMES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite", "memory": "Ledger in this process"}
FAILED = frozenset({Outcome.FAILED.value, Outcome.TRUNCATED.value, Outcome.ABANDONED.value})
STORES = frozenset({Reason.STORE_UNAVAILABLE.value, Reason.AUDIT_UNAVAILABLE.value})
OURS = STORES | {Reason.NO_HEALTHY_UPSTREAM.value}
"""Refusals that are not the caller's doing: somebody should look."""


@attrs.frozen
class Away:
    """A store that could not be asked, and why."""

    why: str


async def asked(step: Awaitable[T]) -> T | Away:
    try:
        return await step
    except StoreUnavailable as error:
        return Away(str(error) or "the store is away")


# --- the overview --------------------------------------------------------------------------------


async def overview(container: Container) -> Facts:
    now_us = container.system.now_us()
    latest, refused, state = await asyncio.gather(
        asked(container.store.latest(EventFilter(), limit=PER_PAGE)),
        refusals(container, LATELY_US),
        system(container),
    )
    page: Facts = {
        "as_of": iso(now_us),
        "system": state,
        "providers": providers(container),
        "tenants": await lately_active(container, latest, refused),
        "events": _events(latest, EVENTS_SHOWN),
        "refusals": refused,
    }
    return {"as_of": page["as_of"], "alerts": alerts(page, latest, now_us), **page}


def alerts(page: Facts, latest: Sequence[Event] | Away, now_us: int) -> list[Facts]:
    """What is wrong, worst first; empty when everything works."""
    found = [*_about_system(page["system"]), *_about_providers(page["providers"])]
    found += _about_refusals(page["refusals"])
    if not isinstance(latest, Away):
        found += _about_calls([e for e in latest if e.kind != KIND and e.occurred_at_us > now_us - LATELY_US])
    return sorted(found, key=lambda alert: alert["level"] != "bad")


def _alert(level: str, text: str, see: str) -> Facts:
    return {"level": level, "text": text, "see": see}


def _about_system(state: Facts) -> Iterable[Facts]:
    if state["stage"] != "ready":
        yield _alert("bad", f"This worker is {state['stage']}.", "system")
    for store in state["stores"]:
        if not store["answers"]:
            yield _alert("bad", f"{store['name']} is away: {store['problem'] or 'it did not answer'}", "system")
        elif store["problem"] is not None:
            yield _alert("warn", f"{store['name']}: {store['problem']}", "system")
    if state["config"]["problems"]:
        before = state["config"]["loaded_at"][:19].replace("T", " ")
        message = f"The configuration file is not valid; the one read at {before} UTC stays in force."
        yield _alert("warn", message, "configuration")
    running, configured = state["workers"]["running"], state["workers"]["configured"]
    if running is not None and running < configured:
        yield _alert("warn", f"Only {running} of {configured} workers are running.", "system")
    if (state["events_backlog"] or 0) >= LONG_BACKLOG:
        yield _alert("warn", f"{state['events_backlog']:,} finished calls wait to be written to SQL.", "system")


def _about_providers(found: Sequence[Facts]) -> Iterable[Facts]:
    for one in found:
        breaker = one["breaker"]
        if breaker["state"] == "open":
            text = f"Provider {one['id']} gets no calls for {span(breaker['seconds_left'])}: {breaker['because']}."
            yield _alert("bad", text, "providers")
        elif breaker["state"] == "half_open":
            yield _alert(
                "warn", f"Provider {one['id']} is on trial: one call at a time, until one succeeds.", "providers"
            )


def _about_refusals(refused: Facts) -> Iterable[Facts]:
    reasons: Counter[str] = Counter()
    for row in refused["items"]:
        reasons[row["reason"]] += row["count"]
    for reason, count in reasons.most_common():
        if reason in OURS:
            level = "bad" if reason in STORES else "warn"
            yield _alert(level, f"{count:,} calls were refused in the last 5 minutes: {reason}.", "refusals")


def _about_calls(events: Sequence[Event]) -> Iterable[Facts]:
    failed = Counter(e.error_code or e.outcome for e in events if e.outcome in FAILED)
    count = sum(failed.values())
    if count >= 5 and count * 5 >= len(events):
        ((code, _),) = failed.most_common(1)
        text = f"{count} of the last {len(events)} calls failed, most often with {code}."
        yield _alert("warn", text, "events")


# --- the parts -----------------------------------------------------------------------------------


def providers(container: Container) -> list[Facts]:
    """Those in trouble first."""
    settings, now_us = container.settings, container.system.now_us()
    readings = container.stores.breakers.all_views()
    specs = settings.providers
    found = [facts.provider(specs[r.provider], r, settings.models, now_us) for r in readings if r.provider in specs]
    return sorted(found, key=lambda one: WORST_FIRST.index(one["breaker"]["state"]))


async def system(container: Container) -> Facts:
    """This worker, its neighbours, the stores, the configuration."""
    backlog, ping = await asyncio.gather(asked(container.stores.stream.backlog()), asked(container.store.ping()))
    problems, settings, environment = container.problems(), container.settings, container.environment
    running, in_flight = await asyncio.to_thread(_alive, environment.run_dir, container.system.monotonic())
    return {
        "version": __version__,
        "stage": container.stage,
        "problems": problems,
        "stores": [
            {"name": STORE_NAMES[name], "answers": not isinstance(answer, Away), "problem": problems.get(name)}
            for name, answer in ((container.stores.name, backlog), (container.database_name, ping))
        ],
        "workers": {"running": running, "configured": environment.workers},
        "in_flight": in_flight if in_flight is not None else len(container.gateway.in_flight),
        "events_backlog": None if isinstance(backlog, Away) else backlog,
        "config": {
            "version": settings.version,
            "loaded_at": iso(container.config.loaded_at_us),
            "problems": list(container.config.problems),
            "tenants": len(settings.tenants),
            "models": len(settings.models.by_name),
            "providers": len(settings.providers),
        },
    }


def _alive(run_dir: Path | None, now: float) -> tuple[int | None, int | None]:
    """How many workers of this server have told of themselves lately, and how many calls they have in flight."""
    if run_dir is None:
        return None, None
    value, at = name_of(IN_FLIGHT), name_of(IN_FLIGHT, part=AT)
    fresh = [slot for slot in read_all(run_dir / "metrics") if slot.get(at, 0.0) > now - STALE_SECONDS]
    return len(fresh), round(sum(slot.get(value, 0.0) for slot in fresh))


# --- tenants -------------------------------------------------------------------------------------


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
    now_us, ledger = container.system.now_us(), container.ledger
    standings = await asyncio.gather(*(asked(tenant_standing(ledger, one, now_us)) for one in chosen))
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
        events_page(container, EventFilter(tenant_id=name), None),
        refusals(container, HOUR_US, name),
    )
    return {**shown["items"][0], "unavailable": shown["unavailable"], "events": events, "refusals": refused}


# --- events and refusals -------------------------------------------------------------------------


async def events_page(container: Container, where: EventFilter, before: str | None) -> Facts:
    """One page, newest first; ``next`` is the ``before`` of the page after it."""
    latest = await asked(container.store.latest(where, before=before, limit=PER_PAGE + 1))
    more = not isinstance(latest, Away) and len(latest) > PER_PAGE
    page = _events(latest, PER_PAGE)
    return {**page, "next": page["items"][-1]["id"] if more else None}


def _events(latest: Sequence[Event] | Away, limit: int) -> Facts:
    if isinstance(latest, Away):
        return listed([], latest.why)
    return listed([facts.event_brief(event) for event in latest[:limit]])


async def one_event(container: Container, event_id: str) -> Facts | Away:
    """The row with this id: the newest of those before the id after it; raises `RefusedError`."""
    try:
        wanted = uuid.UUID(event_id)
        after = uuid.UUID(int=wanted.int + 1)
    except ValueError as error:
        raise RefusedError(Refusal(Reason.NOT_FOUND, "This is not the id of an event.")) from error
    found = await asked(container.store.latest(EventFilter(), before=str(after), limit=1))
    if isinstance(found, Away):
        return found
    if not found or found[0].id != str(wanted):
        text = "There is no event with this id. A finished call has its row within 2 seconds."
        raise RefusedError(Refusal(Reason.NOT_FOUND, text))
    return facts.event_whole(found[0])


async def refusals(container: Container, span_us: int, tenant: str | None = None) -> Facts:
    """By the minute, newest first."""
    rows = await asked(container.store.refusals(container.system.now_us() - span_us, tenant))
    if isinstance(rows, Away):
        return listed([], rows.why)
    return listed([facts.refusal(row) for row in rows])
