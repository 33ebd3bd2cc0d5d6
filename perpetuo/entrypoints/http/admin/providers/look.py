"""How are the providers?"""

from perpetuo.bootstrap import Container
from perpetuo.domain.policy.breaker import BreakerPhase
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.providers.facts import provider

WORST_FIRST = (BreakerPhase.OPEN.value, BreakerPhase.HALF_OPEN.value, BreakerPhase.CLOSED.value)


def providers(container: Container) -> list[Facts]:
    """Those in trouble first."""
    settings, now_us = container.settings, container.system.now_us()
    readings = container.stores.breakers.all_views()
    specs = settings.providers
    found = [provider(specs[r.provider], r, settings.models, now_us) for r in readings if r.provider in specs]
    return sorted(found, key=lambda one: WORST_FIRST.index(one["breaker"]["state"]))
