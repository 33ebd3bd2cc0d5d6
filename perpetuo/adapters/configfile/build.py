"""
What does a checked configuration mean in the domain's words?

Rule 1: a default stands in the domain's class and nowhere else: what is left out is not passed on.
Rule 2: the nearer value wins: target before model before catalogue; model before provider; tenant before plan.
Rule 3: keys are digests here already.
"""

from collections.abc import Mapping
from datetime import date, datetime, time
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import attrs

from perpetuo.adapters.configfile import schema
from perpetuo.adapters.configfile.kinds import UNLIMITED
from perpetuo.adapters.configfile.rules import key_names
from perpetuo.domain.model.admission import UnknownOutcome
from perpetuo.domain.model.models import (
    CATCH_ALL,
    Bound,
    BreakerPolicy,
    Model,
    ModelTable,
    ProviderKind,
    ProviderSpec,
    RetryPolicy,
    Target,
    Timeouts,
)
from perpetuo.domain.model.pricing import FREE, CatalogueEntry, Price, Rates
from perpetuo.domain.model.settings import (
    AdminKey,
    AuditSettings,
    ClientIp,
    IdempotencySettings,
    ServerSettings,
    Settings,
    WhenShort,
)
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant


def build(config: schema.ConfigFile, catalogue: Mapping[str, CatalogueEntry], version: str) -> Settings:
    providers = {p.id: _provider(p) for p in config.providers}
    plans = {p.id: p for p in config.plans}
    return Settings(
        providers=providers,
        models=ModelTable({m.name: _model(m, providers, catalogue) for m in config.models}),
        tenants={t.id: _tenant(t, plans.get(t.plan or "")) for t in config.tenants},
        catalogue=catalogue,
        retry=_retry(config.retry or schema.Retry()),
        idempotency=_idempotency(config.idempotency or schema.Idempotency()),
        admin_keys=tuple(map(_admin_key, config.admin.keys)) if config.admin else (),
        audit=_audit(config.audit or schema.Audit()),
        server=_server(config.server or schema.Server()),
        version=version,
        **_given(
            when_short=config.budget and config.budget.when_short and WhenShort(config.budget.when_short),
            budget_status=config.errors and config.errors.budget_status,
            redis_timeout=config.redis and _seconds(config.redis.timeout),
        ),
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _seconds(us: int | None) -> float | None:
    return None if us is None else us / 1_000_000


# --- providers and models ------------------------------------------------------------------------


def _provider(provider: schema.Provider) -> ProviderSpec:
    return ProviderSpec(
        id=provider.id,
        kind=ProviderKind(provider.kind),
        api_key=provider.api_key,
        timeouts=_timeouts(Timeouts(), provider.timeouts),
        breaker=_breaker(provider.breaker or schema.Breaker()),
        loopback=provider.base_url is None or is_loopback(provider.base_url),
        **_given(base_url=provider.base_url, http2=provider.http2, proxy=provider.proxy),
    )


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _timeouts(base: Timeouts, own: schema.Timeouts | None) -> Timeouts:
    if own is None:
        return base
    return attrs.evolve(base, **_given(**{name: _seconds(us) for name, us in _fields(own)}))


def _fields(value: Any) -> list[tuple[str, Any]]:
    return [(a.name, getattr(value, a.name)) for a in attrs.fields(type(value))]


def _breaker(breaker: schema.Breaker) -> BreakerPolicy:
    return BreakerPolicy(
        **_given(
            failure_rate=breaker.failure_rate,
            minimum_calls=breaker.minimum_calls,
            window_us=breaker.window,
            consecutive_connect_failures=breaker.consecutive_connect_failures,
            open_us=breaker.open_for,
        )
    )


def _model(
    model: schema.Model, providers: Mapping[str, ProviderSpec], catalogue: Mapping[str, CatalogueEntry]
) -> Model:
    return Model(
        name=model.name,
        targets=tuple(_target(t, model, providers[t.provider], catalogue) for t in model.targets),
        larger_context=model.larger_context,
        bound=Bound(**dict(_fields(model.bound))) if model.bound else Bound(),
    )


def _target(
    target: schema.Target, model: schema.Model, provider: ProviderSpec, catalogue: Mapping[str, CatalogueEntry]
) -> Target:
    # "*" stands for the name that was asked for; only under the catch-all is that not known yet.
    name = model.name if target.model == CATCH_ALL else target.model
    entry = catalogue.get(name)
    ceiling = target.max_output_tokens or model.max_output_tokens
    return Target(
        provider=target.provider,
        model=name,
        price=_price(target, model, entry, provider),
        max_output_tokens=ceiling or (entry.max_output_tokens if entry else None),
        max_tokens_field=target.max_tokens_field or model.max_tokens_field,
        timeouts=_timeouts(provider.timeouts, model.timeouts),
        context_window=entry.context_window if entry else None,
        **_given(weight=target.weight, priority=target.priority),
    )


def _price(
    target: schema.Target, model: schema.Model, entry: CatalogueEntry | None, provider: ProviderSpec
) -> Price | None:
    for owner in (target, model):
        if owner.free or (owner.price and owner.price.free):
            if owner is model and target.free is False:
                break
            return FREE
        if owner.price:
            return _configured(owner.price)
    if entry is not None:
        return entry.price
    return FREE if provider.kind is ProviderKind.DEMO else None


def _configured(price: schema.Price) -> Price | None:
    given, output, cached = price.input_per_m_tok, price.output_per_m_tok, price.cached_input_per_m_tok
    if given is None or output is None:
        return None
    return Price(Rates(given, output, given if cached is None else cached))


# --- tenants -------------------------------------------------------------------------------------


def _tenant(tenant: schema.Tenant, plan: schema.Plan | None) -> Tenant:
    own = tenant.idempotency
    return Tenant(
        id=tenant.id,
        plan=tenant.plan or "",
        limits=_limits(plan.limits if plan else None, tenant.limits),
        keys=_keys(tenant),
        idempotency_ttl_us=own.ttl if own else None,
        **_given(models=plan.models if plan else None, time_zone=tenant.time_zone),
    )


def _limits(*layers: schema.Limits | None) -> Limits:
    """Later layers win; ``unlimited`` wins too and is then no limit."""
    found: dict[str, Any] = {}
    for layer in filter(None, layers):
        found |= _given(
            rate_per_minute=layer.rate_limit_min,
            concurrency=layer.concurrency,
            budget_day=layer.budget_day,
            budget_month=layer.budget_month,
        )
    return Limits(**{name: value for name, value in found.items() if value is not UNLIMITED})


def _keys(tenant: schema.Tenant) -> tuple[ApiKey, ...]:
    zone = tenant.time_zone or Tenant("", "", Limits()).time_zone
    return tuple(
        ApiKey(
            name=name,
            digest=key.hash,
            expires_us=None if key.expires is None else _instant(key.expires, zone),
            models=key.models,
            limits=_limits(key.limits),
        )
        for name, key in zip(key_names(tenant.api_keys), tenant.api_keys, strict=True)
    )


def _instant(expires: date, zone: str) -> int:
    """µs since the epoch; a day starts at midnight in ``zone``."""
    moment = expires if isinstance(expires, datetime) else datetime.combine(expires, time(), ZoneInfo(zone))
    return int(moment.timestamp()) * 1_000_000


# --- the rest ------------------------------------------------------------------------------------


def _retry(retry: schema.Retry) -> RetryPolicy:
    return RetryPolicy(
        **_given(
            attempts=retry.attempts,
            backoff=_seconds(retry.backoff),
            max_backoff=_seconds(retry.max_backoff),
            budget=retry.budget,
        )
    )


def _idempotency(kept: schema.Idempotency) -> IdempotencySettings:
    return IdempotencySettings(
        **_given(
            ttl_us=kept.ttl,
            max_bytes=kept.max_bytes,
            max_bytes_per_tenant=kept.max_bytes_per_tenant,
            lease_us=kept.lease,
            wait=_seconds(kept.wait),
            on_unknown=kept.on_unknown_outcome and UnknownOutcome(kept.on_unknown_outcome),
        )
    )


def _admin_key(key: schema.AdminKey) -> AdminKey:
    return AdminKey(name=key.name, digest=key.hash, **_given(role=key.role))


def _audit(audit: schema.Audit) -> AuditSettings:
    return AuditSettings(
        **_given(retention_us=audit.retention, client_ip=audit.client_ip and ClientIp(audit.client_ip))
    )


def _server(server: schema.Server) -> ServerSettings:
    return ServerSettings(
        trusted_proxies=server.trusted_proxies,
        **_given(
            request_max_bytes=server.request_max_bytes,
            drain_delay=_seconds(server.drain_delay),
            body_timeout=_seconds(server.body_timeout),
        ),
    )
