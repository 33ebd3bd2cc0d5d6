"""The configuration in force, as one value: loaded whole, swapped whole."""

from collections.abc import Mapping
from enum import Enum
from typing import Literal

import attrs

from perpetuo.domain.model.admission import UnknownOutcome
from perpetuo.domain.model.models import ModelTable, ProviderSpec, RetryPolicy
from perpetuo.domain.model.pricing import CatalogueEntry
from perpetuo.domain.model.tenants import ApiKey, Caller, Tenant


class WhenShort(Enum):
    REFUSE = "refuse"
    LOWER = "lower"


class ClientIp(Enum):
    TRUNCATED = "truncated"
    FULL = "full"
    NONE = "none"


@attrs.frozen
class IdempotencySettings:
    """Spans in µs, sizes in bytes, ``wait`` in seconds."""

    ttl_us: int = 86_400_000_000
    max_bytes: int = 1_048_576
    max_bytes_per_tenant: int = 67_108_864
    lease_us: int = 30_000_000
    wait: float = 0.0
    on_unknown: UnknownOutcome = UnknownOutcome.REEXECUTE


BUDGET_MONTH_US = 33 * 86_400_000_000
"""
Age of the oldest event of a month that is still open: 31 days, a day for time zones, and one to be safe.

Counters that were lost are the sums of these events.
"""


@attrs.frozen
class AuditSettings:
    retention_us: int = 90 * 86_400_000_000
    client_ip: ClientIp = ClientIp.TRUNCATED


@attrs.frozen
class AdminKey:
    """``role`` ``read`` looks, ``write`` also acts."""

    name: str
    digest: bytes = attrs.field(repr=False)
    role: Literal["read", "write"] = "write"


@attrs.frozen
class ServerSettings:
    """Bytes and seconds; ``trusted_proxies`` are networks whose ``X-Forwarded-For`` is believed."""

    request_max_bytes: int = 10_485_760
    trusted_proxies: tuple[str, ...] = ()
    drain_delay: float = 5.0
    body_timeout: float = 30.0


@attrs.frozen
class Settings:
    """Everything ``perpetuo.config.yaml`` says."""

    providers: Mapping[str, ProviderSpec]
    models: ModelTable
    tenants: Mapping[str, Tenant]
    catalogue: Mapping[str, CatalogueEntry] = attrs.field(factory=dict, repr=False)
    retry: RetryPolicy = RetryPolicy()
    idempotency: IdempotencySettings = IdempotencySettings()
    when_short: WhenShort = WhenShort.REFUSE
    budget_status: int = 403
    audit: AuditSettings = AuditSettings()
    admin_keys: tuple[AdminKey, ...] = ()
    server: ServerSettings = ServerSettings()
    redis_timeout: float = 0.1
    version: str = ""
    """Short hash of the file's text, shown to operators."""
    callers: Mapping[bytes, Caller] = attrs.field(init=False, repr=False, eq=False)
    """Every key's caller by the key's SHA-256."""

    @callers.default
    def _index(self) -> Mapping[bytes, Caller]:
        return {key.digest: Caller(tenant, key) for tenant in self.tenants.values() for key in tenant.keys}

    def authenticate(self, digest: bytes) -> Caller | None:
        """
        Who holds the key with this SHA-256?

        A dictionary look-up of a digest is no timing oracle: what an attacker can vary is the
        preimage, and SHA-256 gives no control over the digest's leading bytes.
        """
        return self.callers.get(digest)

    def key_of(self, tenant: str, name: str) -> ApiKey | None:
        found = self.tenants.get(tenant)
        return next((k for k in found.keys if k.name == name), None) if found else None
