"""How are the providers, and how were they lately?"""

import asyncio

from perpetuo.bootstrap import Container
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.policy.breaker import BreakerPhase
from perpetuo.entrypoints.http.admin.facts import SECOND_US, Facts, listed
from perpetuo.entrypoints.http.admin.providers import facts
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.refusals import RefusedError

HOUR_US = 3_600 * SECOND_US
CALLS_LOOKED_AT = 1_000
"""Of the last hour, the latest: enough for percentiles, and quick however many there were."""
WORST_FIRST = (BreakerPhase.OPEN.value, BreakerPhase.HALF_OPEN.value, BreakerPhase.CLOSED.value)


async def providers(container: Container) -> list[Facts]:
    """Those in trouble first; also what another worker did a moment ago."""
    await container.stores.breakers.refresh()
    settings, now_us = container.settings, container.system.now_us()
    readings = container.stores.breakers.all_views()
    specs = settings.providers
    found = [facts.provider(specs[r.provider], r, settings.models, now_us) for r in readings if r.provider in specs]
    return sorted(found, key=lambda one: WORST_FIRST.index(one["breaker"]["state"]))


async def lately(container: Container) -> Facts:
    """All of them, with their last hour."""
    found = await providers(container)
    hours = await asyncio.gather(*(_hour(container, one["id"]) for one in found))
    away = next((hour.why for hour in hours if isinstance(hour, Away)), None)
    items = [{**one, "hour": None if isinstance(hour, Away) else hour} for one, hour in zip(found, hours, strict=True)]
    return listed(items, away)


async def one_provider(container: Container, name: str) -> Facts:
    """A provider with its history, its last hour and this worker's cooldowns; raises `RefusedError`."""
    found = await known(container, name)
    hour, history = await asyncio.gather(_hour(container, name), asked(container.stores.breakers.history(name)))
    now_us = container.system.now_us()
    return {
        **found,
        "hour": None if isinstance(hour, Away) else hour,
        "hour_unavailable": hour.why if isinstance(hour, Away) else None,
        "history": listed([], history.why) if isinstance(history, Away) else listed(list(map(facts.change, history))),
        "cooldowns_of_this_worker": facts.cooldowns(container.gateway.dispatcher.cooldowns, name, now_us),
    }


async def known(container: Container, name: str) -> Facts:
    """The provider of this name as it is now; raises `RefusedError`."""
    found = next((one for one in await providers(container) if one["id"] == name), None)
    if found is None:
        raise RefusedError(Refusal(Reason.NOT_FOUND, f"The configuration in force has no provider {name:.200}."))
    return found


async def _hour(container: Container, name: str) -> Facts | Away:
    since_us = container.system.now_us() - HOUR_US
    calls = await asked(container.store.provider_calls(name, since_us, limit=CALLS_LOOKED_AT))
    return calls if isinstance(calls, Away) else facts.recent(calls, CALLS_LOOKED_AT)
