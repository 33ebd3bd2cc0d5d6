"""
The configuration in force, in words and figures.

Written out member by member, so that nothing comes along: no key, no hash, no address with a password in it. Of a
secret it says that there is one.
"""

from urllib.parse import urlsplit

from perpetuo.domain.model.models import Model, ProviderSpec
from perpetuo.domain.model.settings import Settings
from perpetuo.entrypoints.http.admin.facts import SECOND_US, Facts

SECRET = "(set, not shown)"  # noqa: S105 - what is shown instead of one


def in_force(settings: Settings) -> Facts:
    """What the file says, as it is understood; tenants have their own page."""
    retry, kept = settings.retry, settings.idempotency
    return {
        "providers": [_provider(one) for one in settings.providers.values()],
        "models": [_model(one) for one in settings.models.by_name.values()],
        "admin_keys": [{"name": key.name, "role": key.role, "hash": SECRET} for key in settings.admin_keys],
        "rest": {
            "retry.attempts": retry.attempts,
            "idempotency.ttl": f"{kept.ttl_us // SECOND_US} s",
            "idempotency.onUnknownOutcome": kept.on_unknown.value,
            "budget.whenShort": settings.when_short.value,
            "errors.budgetStatus": settings.budget_status,
            "audit.retention": f"{settings.audit.retention_us // SECOND_US // 86_400} d",
            "audit.clientIp": settings.audit.client_ip.value,
            "server.requestMaxBytes": settings.server.request_max_bytes,
            "server.drainDelay": f"{settings.server.drain_delay:g} s",
            "server.trustedProxies": ", ".join(settings.server.trusted_proxies) or "none",
            "redis.timeout": f"{settings.redis_timeout * 1_000:g} ms",
        },
    }


def _provider(one: ProviderSpec) -> Facts:
    where = urlsplit(one.base_url)
    return {
        "id": one.id,
        "kind": one.kind.value,
        "host": f"{where.hostname}:{where.port}" if where.port else where.hostname,
        "api_key": SECRET if one.api_key else None,
        "timeouts_s": {
            "connect": one.timeouts.connect,
            "first_token": one.timeouts.first_token,
            "idle": one.timeouts.idle,
            "total": one.timeouts.total,
        },
    }


def _model(one: Model) -> Facts:
    return {"name": one.name, "targets": [f"{target.provider}/{target.model}" for target in one.targets]}
