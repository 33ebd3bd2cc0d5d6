"""
Would a key that our documentation publishes spend somebody's money?

The sample's keys are for trying things out. Everybody knows them, so `serve` refuses to start with one whose tenant
can reach a provider that is neither ``demo`` nor on this machine.
"""

from collections.abc import Iterator
from hashlib import sha256

from perpetuo.domain.model.models import CATCH_ALL, Model, ProviderKind, ProviderSpec
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Tenant, matches_any

PUBLISHED = ("sk-perpetuo-pro-1", "sk-new-key")
_BY_DIGEST = {sha256(key.encode()).digest(): key for key in PUBLISHED}


def published_keys(settings: Settings) -> list[str]:
    """A sentence for each published key that could cost money; empty: fine to serve."""
    return [
        f"tenant {tenant.id} has the key {_BY_DIGEST[key.digest]}, which our documentation publishes, and can reach "
        f"provider {provider.id}. Make a key of your own with `perpetuo keys new` and put it in its place."
        for tenant in settings.tenants.values()
        for key in tenant.keys
        if key.digest in _BY_DIGEST
        for provider in list(_paid(settings, tenant))[:1]
    ]


def _paid(settings: Settings, tenant: Tenant) -> Iterator[ProviderSpec]:
    for model in settings.models.by_name.values():
        # the catch-all takes names that nobody has listed, so any pattern may let one through
        if matches_any(model.name, tenant.models) or (model.name == CATCH_ALL and tenant.models):
            yield from (p for p in _providers(settings, model) if p.kind is not ProviderKind.DEMO and not p.loopback)


def _providers(settings: Settings, model: Model | None) -> Iterator[ProviderSpec]:
    """Where ``model`` runs, and where its larger contexts do."""
    while model is not None:
        yield from (settings.providers[target.provider] for target in model.targets)
        model = settings.models.by_name.get(model.larger_context) if model.larger_context else None
