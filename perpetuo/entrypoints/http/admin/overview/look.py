"""
What is wrong, and what goes on?

What is wrong comes first: `alerts` reads the same facts that the page shows.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.operate import KIND
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.events import Event, EventFilter, Outcome
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.events.look import PER_PAGE, brief_events
from perpetuo.entrypoints.http.admin.facts import Facts, span
from perpetuo.entrypoints.http.admin.overview.activity import Span, activity
from perpetuo.entrypoints.http.admin.providers.look import providers
from perpetuo.entrypoints.http.admin.refusals.look import MINUTE_US, refusals
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.admin.system.look import system
from perpetuo.entrypoints.http.admin.tenants.look import lately_active

LATELY_US = 5 * MINUTE_US
EVENTS_SHOWN = 20
LONG_BACKLOG = 10_000
FAILED = frozenset({Outcome.FAILED.value, Outcome.TRUNCATED.value, Outcome.ABANDONED.value})
STORES = frozenset({Reason.STORE_UNAVAILABLE.value, Reason.AUDIT_UNAVAILABLE.value})
OURS = STORES | {Reason.NO_HEALTHY_UPSTREAM.value}
"""Refusals that are not the caller's doing: somebody should look."""


async def overview(container: Container, span: Span) -> Facts:
    now_us = container.system.now_us()
    latest, refused, state, went_on = await asyncio.gather(
        asked(container.store.latest(EventFilter(), limit=PER_PAGE)),
        refusals(container, LATELY_US),
        system(container),
        activity(container, span),
    )
    page: Facts = {
        "as_of": iso(now_us),
        "activity": went_on,
        "system": state,
        "providers": await providers(container),
        "tenants": await lately_active(container, latest, refused),
        "events": brief_events(latest, EVENTS_SHOWN),
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
        yield _alert("warn", _about_file(state["config"]), "configuration")
    running, configured = state["workers"]["running"], state["workers"]["configured"]
    if running is not None and running < configured:
        yield _alert("warn", f"Only {running} of {configured} workers are running.", "system")
    if (state["events_backlog"] or 0) >= LONG_BACKLOG:
        yield _alert("warn", f"{state['events_backlog']:,} finished calls wait to be written to SQL.", "system")


def _about_file(config: Facts) -> str:
    """With the first of what is wrong with it: nothing else on the overview says so."""
    before = config["loaded_at"][:19].replace("T", " ")
    first, more = config["problems"][0], len(config["problems"]) - 1
    text = f"The configuration file is not valid; the one read at {before} UTC stays in force. {first}"
    return f"{text}; and {more} more." if more else text


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
