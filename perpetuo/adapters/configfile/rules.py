"""
Do the parts of a configuration fit together?

Each rule looks at values that are right by themselves and yields `Mistake`s: names that must be known, things that
may be there only once, limits that must be somewhere. A part that had a mistake of its own is not blamed a second time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from perpetuo.adapters.configfile.kinds import UNLIMITED
from perpetuo.adapters.configfile.problems import Path, did_you_mean, quoted
from perpetuo.adapters.configfile.schema import (
    AdminKey,
    ApiKey,
    ConfigFile,
    Limits,
    Model,
    Plan,
    Provider,
    Target,
    Tenant,
)
from perpetuo.adapters.configfile.structure import Mistake
from perpetuo.domain.model.models import CATCH_ALL
from perpetuo.domain.model.settings import BUDGET_MONTH_US

T = TypeVar("T")
Items = tuple[tuple[int, T], ...]
"""What could be read of a list, with the place of each item."""


@attrs.frozen(kw_only=True)
class Draft:
    """A configuration as far as it could be read."""

    providers: Items[Provider] = ()
    models: Items[Model] = ()
    plans: Items[Plan] = ()
    tenants: Items[Tenant] = ()
    rest: Mapping[str, Any]
    """The other sections, by their name in `ConfigFile`."""
    names: Mapping[str, frozenset[str]]
    """Ids of providers, models and plans as written, those of broken items too."""
    mended: frozenset[Path]
    """Items that lack something because it was mistaken."""
    place: Callable[[Path, Path], str]
    """How the first path is told to somebody who reads at the second: with its file, if that is another."""

    def complete(self) -> ConfigFile:
        """The configuration, once no mistake was found."""
        return ConfigFile(
            providers=tuple(item for _, item in self.providers),
            models=tuple(item for _, item in self.models),
            plans=tuple(item for _, item in self.plans),
            tenants=tuple(item for _, item in self.tenants),
            **self.rest,
        )


def mistakes(draft: Draft) -> Iterator[Mistake]:
    yield from _twice("providers", "id", draft.providers, draft)
    yield from _twice("models", "name", draft.models, draft)
    yield from _twice("plans", "id", draft.plans, draft)
    yield from _twice("tenants", "id", draft.tenants, draft)
    for i, provider in draft.providers:
        yield from _provider(("providers", i), provider)
    for i, model in draft.models:
        yield from _model(("models", i), model, draft)
    yield from _loops(draft.models)
    yield from _tenants(draft)
    yield from _keys(draft)
    yield from _sizes(draft)
    yield from _retention(draft)


def _twice(section: str, name: str, items: Items[Any], draft: Draft) -> Iterator[Mistake]:
    paths = (((section, i, name), getattr(item, name)) for i, item in items)
    for path, value, first in _repeated(paths):
        yield Mistake(path, f"{quoted(value)} is already the {name} of {draft.place(first[:2], path)}")


def _repeated(paths: Iterable[tuple[Path, T]]) -> Iterator[tuple[Path, T, Path]]:
    """Where a value stands again, the value, and where it stood first."""
    seen: dict[T, Path] = {}
    for path, value in paths:
        first = seen.setdefault(value, path)
        if first != path:
            yield path, value, first


def _unknown(path: Path, name: str, known: frozenset[str], what: str) -> Iterator[Mistake]:
    if name not in known:
        named = ", ".join(quoted(k) for k in sorted(known)[:10]) or "none"
        more = ", …" if len(known) > 10 else ""
        yield Mistake(path, f"{quoted(name)} is no {what}{did_you_mean(name, known)}; there are: {named}{more}")


def _provider(path: Path, provider: Provider) -> Iterator[Mistake]:
    if provider.kind == "demo":
        for field, value in (("baseUrl", provider.base_url), ("apiKey", provider.api_key), ("proxy", provider.proxy)):
            if value is not None:
                yield Mistake((*path, field), "a demo provider has none: it answers without a network", of_key=True)
    elif provider.base_url is None:
        yield Mistake((*path, "baseUrl"), "is missing: a provider of kind openai needs the address of its API")


# --- models --------------------------------------------------------------------------------------


def _model(path: Path, model: Model, draft: Draft) -> Iterator[Mistake]:
    if not model.targets and path not in draft.mended:
        yield Mistake((*path, "targets"), "is empty: a model needs at least one place to run")
    yield from _price(path, model)
    for i, target in enumerate(model.targets):
        place: Path = (*path, "targets", i)
        yield from _unknown((*place, "provider"), target.provider, draft.names["providers"], "provider")
        yield from _price(place, target)
    if model.larger_context is not None:
        known = draft.names["models"] - {CATCH_ALL}
        yield from _unknown((*path, "largerContext"), model.larger_context, known, "model")


def _price(path: Path, owner: Model | Target) -> Iterator[Mistake]:
    price = owner.price
    if price is None:
        return
    rates = (price.input_per_m_tok, price.output_per_m_tok)
    if owner.free:
        yield Mistake((*path, "free"), "contradicts price: leave one of them out", of_key=True)
    elif price.free and any(r is not None for r in (*rates, price.cached_input_per_m_tok)):
        yield Mistake((*path, "price", "free"), "contradicts the rates beside it: leave one of them out", of_key=True)
    elif not price.free:
        for name, rate in zip(("inputPerMTok", "outputPerMTok"), rates, strict=True):
            if rate is None:
                yield Mistake((*path, "price", name), "is missing: a price in USD per million tokens, or free: true")


def _loops(models: Items[Model]) -> Iterator[Mistake]:
    """A call that is too long must come to an end: following ``largerContext`` may never come back."""
    following = {model.name: model.larger_context for _, model in models}
    for i, model in models:
        seen, name = {model.name}, model.larger_context
        while name is not None and name not in seen:
            seen.add(name)
            name = following.get(name)
        if name is not None and name == model.name:
            yield Mistake(
                ("models", i, "largerContext"), "leads back to this model: a larger context must be another's"
            )


# --- tenants -------------------------------------------------------------------------------------


def _tenants(draft: Draft) -> Iterator[Mistake]:
    plans = {plan.id: (i, plan) for i, plan in draft.plans}
    for i, tenant in draft.tenants:
        path: Path = ("tenants", i)
        if tenant.plan is not None:
            yield from _unknown((*path, "plan"), tenant.plan, draft.names["plans"], "plan")
        place, plan = plans.get(tenant.plan or "", (None, None))
        lost = path in draft.mended if tenant.plan is None else plan is None
        uncertain = lost or ("plans", place) in draft.mended
        own = tenant.limits is not None and tenant.limits.budget_day is not None
        shared = plan is not None and plan.limits is not None and plan.limits.budget_day is not None
        if not own and not shared and not uncertain:
            where = f"here and in plan {quoted(tenant.plan)}" if tenant.plan else "here, and there is no plan"
            message = f"is missing {where}: an amount of USD a day such as 50, or unlimited"
            yield Mistake((*path, "limits", "budgetDay"), message)


def _keys(draft: Draft) -> Iterator[Mistake]:
    placed: list[tuple[Path, bytes]] = []
    for i, tenant in draft.tenants:
        path: Path = ("tenants", i, "apiKeys")
        placed += (((*path, k), key.hash) for k, key in enumerate(tenant.api_keys))
        named = (((*path, k), name) for k, name in enumerate(key_names(tenant.api_keys)))
        for place, name, first in _repeated(named):
            yield Mistake(place, f"the name {quoted(name)} is already that of apiKeys[{first[-1]}]")
    admins: tuple[AdminKey, ...] = draft.rest["admin"].keys if draft.rest.get("admin") else ()
    names: list[tuple[Path, str]] = [(("admin", "keys", k, "name"), key.name) for k, key in enumerate(admins)]
    for place, name, first in _repeated(names):
        yield Mistake(place, f"{quoted(name)} is already the name of admin.keys[{first[2]}]")
    placed += ((("admin", "keys", k), key.hash) for k, key in enumerate(admins))
    for place, _, first in _repeated(placed):
        yield Mistake(place, f"the same key as {draft.place(first, place)}: a key has one holder")


def key_names(keys: tuple[ApiKey, ...]) -> list[str]:
    """Names of a tenant's keys; those without one are called by their place."""
    return [key.name or f"key-{place}" for place, key in enumerate(keys, 1)]


def _sizes(draft: Draft) -> Iterator[Mistake]:
    kept = draft.rest.get("idempotency")
    if kept and kept.max_bytes and kept.max_bytes_per_tenant is not None and kept.max_bytes > kept.max_bytes_per_tenant:
        yield Mistake(("idempotency", "maxBytes"), "more than maxBytesPerTenant: no such answer could ever be kept")
    retry = draft.rest.get("retry")
    if retry and retry.backoff and retry.max_backoff is not None and retry.backoff > retry.max_backoff:
        yield Mistake(("retry", "backoff"), "longer than maxBackoff")


def _retention(draft: Draft) -> Iterator[Mistake]:
    """After Redis has lost its counters, what a month has spent is the sum of the month's events."""
    audit = draft.rest.get("audit")
    if audit is None or audit.retention is None or audit.retention >= BUDGET_MONTH_US:
        return
    budgeted = next((place for place, limits in _limits(draft) if _by_the_month(limits)), None)
    if budgeted is not None:
        path: Path = ("audit", "retention")
        where = draft.place((*budgeted, "limits", "budgetMonth"), path)
        message = f"from 33d on while there is a budget by the month ({where}): it is counted from the month's events"
        yield Mistake(path, message, shown=True)


def _limits(draft: Draft) -> Iterator[tuple[Path, Limits | None]]:
    yield from ((("plans", i), plan.limits) for i, plan in draft.plans)
    for i, tenant in draft.tenants:
        yield ("tenants", i), tenant.limits
        yield from ((("tenants", i, "apiKeys", k), key.limits) for k, key in enumerate(tenant.api_keys))


def _by_the_month(limits: Limits | None) -> bool:
    return limits is not None and limits.budget_month is not None and limits.budget_month is not UNLIMITED
