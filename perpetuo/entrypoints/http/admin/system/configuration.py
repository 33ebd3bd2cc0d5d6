"""
All of the configuration in force, in the words of the file.

Rule 1: written out member by member, so that nothing comes along: no key, no hash, no address with a password in it.
Rule 2: what came from a variable where secrets may be is shown as that variable's name.
Rule 3: what is shown counts: defaults are written out, a plan's limits stand at its tenants.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from perpetuo.domain.model.models import Model, ProviderSpec, Target, Timeouts
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.pricing import Price, Rates
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import SECOND_US, Facts

SECRET = "(set, not shown)"  # noqa: S105 - what is shown instead of one
Variables = Mapping[tuple[str, str], Sequence[str]]
UNITS = (("d", 86_400 * SECOND_US), ("h", 3_600 * SECOND_US), ("m", 60 * SECOND_US), ("s", SECOND_US))


def configuration(settings: Settings, variables: Variables, most_tenants: int | None = None) -> Facts:
    """``variables``: by provider and member, what it was made of. ``most_tenants``: only the first so many."""
    return {
        "providers": [_provider(one, variables) for one in settings.providers.values()],
        "models": [_model(one) for one in settings.models.by_name.values()],
        "admin": {"keys": [{"name": key.name, "role": key.role} for key in settings.admin_keys]},
        **sections(settings),
        "tenants": [_tenant(one) for one in list(settings.tenants.values())[:most_tenants]],
    }


def sections(settings: Settings) -> Facts:
    """What is there once for the whole gateway."""
    kept = settings.idempotency
    return {
        "retry": {
            "attempts": settings.retry.attempts,
            "backoff": _seconds(settings.retry.backoff),
            "maxBackoff": _seconds(settings.retry.max_backoff),
            "budget": settings.retry.budget,
        },
        "idempotency": {
            "ttl": _span(kept.ttl_us),
            "maxBytes": kept.max_bytes,
            "maxBytesPerTenant": kept.max_bytes_per_tenant,
            "lease": _span(kept.lease_us),
            "wait": _seconds(kept.wait),
            "onUnknownOutcome": kept.on_unknown.value,
        },
        "budget": {"whenShort": settings.when_short.value},
        "errors": {"budgetStatus": settings.budget_status},
        "audit": {"retention": _span(settings.audit.retention_us), "clientIp": settings.audit.client_ip.value},
        "server": {
            "requestMaxBytes": settings.server.request_max_bytes,
            "trustedProxies": list(settings.server.trusted_proxies),
            "drainDelay": _seconds(settings.server.drain_delay),
            "bodyTimeout": _seconds(settings.server.body_timeout),
        },
        "redis": {"timeout": _seconds(settings.redis_timeout)},
    }


# --- providers and models ------------------------------------------------------------------------


def _provider(one: ProviderSpec, variables: Variables) -> Facts:
    breaker = one.breaker
    return {
        "id": one.id,
        "kind": one.kind.value,
        "baseUrl": _named(variables, one.id, "baseUrl") or _address(one.base_url),
        "apiKey": _named(variables, one.id, "apiKey") or (SECRET if one.api_key else None),
        "proxy": _named(variables, one.id, "proxy") or (_address(one.proxy) if one.proxy else None),
        "http2": one.http2,
        "timeouts": _timeouts(one.timeouts),
        "breaker": {
            "failureRate": breaker.failure_rate,
            "minimumCalls": breaker.minimum_calls,
            "window": _span(breaker.window_us),
            "consecutiveConnectFailures": breaker.consecutive_connect_failures,
            "openFor": _span(breaker.open_us),
        },
    }


def _named(variables: Variables, provider: str, member: str) -> str | None:
    return " ".join(f"${{{name}}}" for name in variables.get((provider, member), ())) or None


def _address(url: str) -> str | None:
    """Without what may be a password: no user, no query."""
    if not url:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _timeouts(one: Timeouts) -> Facts:
    return {
        "connect": _seconds(one.connect),
        "firstToken": _seconds(one.first_token),
        "idle": _seconds(one.idle),
        "total": _seconds(one.total),
    }


def _model(one: Model) -> Facts:
    bound = one.bound
    return {
        "name": one.name,
        "targets": [_target(target) for target in one.targets],
        "largerContext": one.larger_context,
        "bound": {
            "imageTokens": bound.image_tokens,
            "audioTokens": bound.audio_tokens,
            "fileTokens": bound.file_tokens,
        },
    }


def _target(one: Target) -> Facts:
    return {
        "provider": one.provider,
        "model": one.model,
        "weight": one.weight,
        "priority": one.priority,
        "price": None if one.price is None else _price(one.price),
        "maxOutputTokens": one.max_output_tokens,
        "maxTokensField": one.max_tokens_field,
        "contextWindow": one.context_window,
        "timeouts": _timeouts(one.timeouts),
    }


def _price(price: Price) -> Facts:
    """``version``: where it is from. ``tiers`` only where there are some: they are the catalogue's."""
    found = {**_rates(price.rates), "version": price.version}
    tiers = [{"above": tier.above, **_rates(tier.rates)} for tier in price.tiers]
    return {**found, "tiers": tiers} if tiers else found


def _rates(rates: Rates) -> Facts:
    return {
        "inputPerMTok": usd(rates.input),
        "outputPerMTok": usd(rates.output),
        "cachedInputPerMTok": usd(rates.cached_input),
    }


# --- tenants -------------------------------------------------------------------------------------


def _tenant(one: Tenant) -> Facts:
    ttl = one.idempotency_ttl_us
    return {
        "id": one.id,
        "plan": one.plan,
        "timeZone": one.time_zone,
        "models": list(one.models),
        "limits": _limits(one.limits),
        "idempotency": None if ttl is None else {"ttl": _span(ttl)},
        "apiKeys": [_key(key) for key in one.keys],
    }


def _key(key: ApiKey) -> Facts:
    return {
        "name": key.name,
        "expires": None if key.expires_us is None else iso(key.expires_us),
        "models": None if key.models is None else list(key.models),
        "limits": _limits(key.limits),
    }


def _limits(own: Limits) -> Facts:
    return {
        "rateLimitMin": own.rate_per_minute,
        "concurrency": own.concurrency,
        "budgetDay": None if own.budget_day is None else usd(own.budget_day),
        "budgetMonth": None if own.budget_month is None else usd(own.budget_month),
    }


# --- spans ---------------------------------------------------------------------------------------


def _seconds(seconds: float) -> str:
    return _span(round(seconds * SECOND_US))


def _span(us: int) -> str:
    """In the largest unit of the file that it is a whole number of."""
    for unit, size in UNITS:
        if us >= size and us % size == 0:
            return f"{us // size}{unit}"
    return f"{us // 1_000}ms" if us else "0s"
