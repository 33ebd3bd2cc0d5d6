"""
What does one configuration mean that another does not?

Rule 1: meaning, not text: limits are those in force (the plan's, unless the tenant has its own), prices those that
        calls are charged. Two files that mean the same differ in nothing.
Rule 2: keys go by their names. A key behind the same name that is another one is ``replaced``; neither digests nor
        credentials of providers are ever shown.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from perpetuo.domain.model.models import Model, ProviderSpec, Target
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.pricing import Price
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant

SECRET = frozenset({"api_key", "proxy", "digest"})
WHOLE = ("retry", "idempotency", "when_short", "budget_status", "audit", "server", "redis_timeout")
"""Parts of `Settings` that are there once."""


@attrs.frozen
class Change:
    """``before`` ``None``: it is new; ``after`` ``None``: it is gone."""

    what: str
    """``tenant acme``, ``tenant acme, key batch``, ``model gpt-4o``, ``provider openai``, ``settings``."""
    field: str
    """Empty when the whole of it came or went."""
    before: str | None
    after: str | None


def difference(before: Settings, after: Settings) -> tuple[Change, ...]:
    """Everything that ``after`` changes, by kind and name."""
    return (
        *_named("provider", before.providers, after.providers, _provider),
        *_named("model", before.models.by_name, after.models.by_name, _model),
        *_named("tenant", before.tenants, after.tenants, _tenant),
        *_named("admin key", _by_name(before.admin_keys), _by_name(after.admin_keys), _fields),
        *_changed("settings", _settings(before), _settings(after)),
    )


Facts = dict[str, Any]
"""What is compared, by its name; what is shown is its text."""


def _named(
    kind: str, before: Mapping[str, Any], after: Mapping[str, Any], facts: Callable[[Any], Facts]
) -> Iterator[Change]:
    for name in [*before, *(name for name in after if name not in before)]:
        what = f"{kind} {name}"
        old, new = before.get(name), after.get(name)
        if old is None:
            yield Change(what, "", None, _summary(new))
        elif new is None:
            yield Change(what, "", _summary(old), None)
        elif old != new:
            yield from _changed(what, facts(old), facts(new))
            if isinstance(old, Tenant):
                yield from _named(f"{what}, key", _by_name(old.keys), _by_name(new.keys), _key)


def _changed(what: str, before: Facts, after: Facts) -> Iterator[Change]:
    for field in [*before, *(field for field in after if field not in before)]:
        old, new = before.get(field), after.get(field)
        if old == new:
            continue
        if field.rpartition(".")[2] in SECRET:
            yield Change(what, "secret" if field == "digest" else field, *_hidden(old, new))
        else:
            yield Change(what, field, _text(old), _text(new))


def _hidden(old: Any, new: Any) -> tuple[str | None, str | None]:
    """That a secret is another one, and nothing of it."""
    return "one" if old is not None else None, None if new is None else "one" if old is None else "another one"


def _summary(value: Any) -> str:
    match value:
        case Tenant():
            limits = ", ".join(f"{name} {_text(limit)}" for name, limit in _limits(value.limits).items()) or "no limits"
            return f"{limits}; keys: {', '.join(key.name for key in value.keys) or 'none'}"
        case Model():
            return ", ".join(f"{t.provider}/{t.model} ({_price(t.price)})" for t in value.targets)
        case ProviderSpec():
            return f"{value.kind.value} {value.base_url}".rstrip()
        case _:
            return "there"


def _by_name(values: Any) -> dict[str, Any]:
    return {value.name: value for value in values}


# --- facts ---------------------------------------------------------------------------------------


def _fields(value: Any) -> Facts:
    return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}


def _provider(provider: ProviderSpec) -> Facts:
    facts = {name: value for name, value in _fields(provider).items() if name not in {"timeouts", "breaker"}}
    return facts | _dotted("timeouts", provider.timeouts) | _dotted("breaker", provider.breaker)


def _dotted(name: str, value: Any) -> Facts:
    return {f"{name}.{field}": one for field, one in _fields(value).items()}


def _model(model: Model) -> Facts:
    facts: dict[str, Any] = {"larger_context": model.larger_context, **_dotted("bound", model.bound)}
    facts["targets"] = [f"{target.provider}/{target.model}" for target in model.targets]
    for target in model.targets:
        facts |= {f"{target.provider}/{target.model} {name}": value for name, value in _target(target).items()}
    return facts


def _target(target: Target) -> Facts:
    facts = {name: value for name, value in _fields(target).items() if name not in {"provider", "model", "timeouts"}}
    return facts | {"price": _price(target.price)} | _dotted("timeouts", target.timeouts)


def _price(price: Price | None) -> str:
    """In USD per million tokens."""
    if price is None:
        return "unpriced"
    parts = [_rates(price.rates), *(f"above {tier.above} input tokens {_rates(tier.rates)}" for tier in price.tiers)]
    return "; ".join(parts)


def _rates(rates: Any) -> str:
    return f"{usd(rates.input)} in, {usd(rates.output)} out, {usd(rates.cached_input)} cached"


def _limits(limits: Limits) -> Facts:
    facts: dict[str, Any] = {"rate_per_minute": limits.rate_per_minute, "concurrency": limits.concurrency}
    money = {"budget_day": limits.budget_day, "budget_month": limits.budget_month}
    return {n: v for n, v in facts.items() if v is not None} | {
        name: f"{usd(amount)} USD" for name, amount in money.items() if amount is not None
    }


def _tenant(tenant: Tenant) -> Facts:
    plain = {name: value for name, value in _fields(tenant).items() if name not in {"id", "limits", "keys"}}
    return plain | _limits(tenant.limits)


def _key(key: ApiKey) -> Facts:
    return {n: v for n, v in _fields(key).items() if n not in {"name", "limits"}} | _limits(key.limits)


def _settings(settings: Settings) -> Facts:
    facts: dict[str, Any] = {}
    for name in WHOLE:
        value = getattr(settings, name)
        facts |= _dotted(name, value) if attrs.has(type(value)) else {name: value}
    return facts


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return (
        str(getattr(value, "value", value)).lower() if isinstance(value, bool) else str(getattr(value, "value", value))
    )
