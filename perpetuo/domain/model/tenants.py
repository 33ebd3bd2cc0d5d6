"""Who calls, and what may they do?"""

from fnmatch import fnmatchcase
from functools import cached_property

import attrs

from perpetuo.domain.model.money import Nano


@attrs.frozen
class Limits:
    """Limits of one scope. ``None`` means no such limit."""

    rate_per_minute: int | None = None
    concurrency: int | None = None
    budget_day: Nano | None = None
    budget_month: Nano | None = None

    @cached_property
    def has_budget(self) -> bool:
        return self.budget_day is not None or self.budget_month is not None


@attrs.frozen
class ApiKey:
    """One key of a tenant: its SHA-256, never itself."""

    name: str
    digest: bytes = attrs.field(repr=False)
    expires_us: int | None = None
    """First instant (µs since the epoch) at which the key is no longer valid."""
    models: tuple[str, ...] | None = None
    """Patterns of models the key may call; ``None``: whatever the tenant may."""
    limits: Limits = Limits()
    """Limits of this key alone, on top of the tenant's."""


@attrs.frozen
class Tenant:
    """A customer of the gateway. ``limits`` are already merged with the plan's."""

    id: str
    plan: str
    limits: Limits
    models: tuple[str, ...] = ("*",)
    time_zone: str = "UTC"
    keys: tuple[ApiKey, ...] = ()
    idempotency_ttl_us: int | None = None
    """Overrides how long answers are kept; 0 keeps none."""


@attrs.frozen
class Caller:
    """The tenant and key behind one request."""

    tenant: Tenant
    key: ApiKey

    @cached_property
    def has_budget(self) -> bool:
        return self.tenant.limits.has_budget or self.key.limits.has_budget

    def may_call(self, model: str) -> bool:
        """Is ``model`` allowed by both the tenant's and the key's patterns (``*`` and ``?`` as in a shell)?"""
        return matches_any(model, self.tenant.models) and (
            self.key.models is None or matches_any(model, self.key.models)
        )


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    return "*" in patterns or name in patterns or any(fnmatchcase(name, p) for p in patterns)
