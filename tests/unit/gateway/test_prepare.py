"""What may a call cost, and may it run? Every branch of `prepare`, seen from the caller."""

from typing import Any

import attrs
import msgspec
import pytest

from perpetuo.adapters.dialects import openai
from perpetuo.domain.gateway.prepare import Prepared, affordable_limit, prepare
from perpetuo.domain.model.chat import Ask, CallRequest
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.models import Bound, Model, ModelTable, Target
from perpetuo.domain.model.money import Nano, Rate
from perpetuo.domain.model.pricing import FREE, CatalogueEntry, Price, Rates, Tier
from perpetuo.domain.model.settings import Settings, WhenShort
from perpetuo.domain.model.tenants import Caller, Limits, Tenant
from tests.unit.gateway.world import PRICE, key, settings

CHEAP = Price(Rates(Rate(100_000_000), Rate(100_000_000), Rate(100_000_000)))
ONE = Target("a", "m-a", price=PRICE, max_output_tokens=1_000)
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://host/cat.png"}}]}]
AUDIO = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}]}]
FILE = [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]
WITHOUT_BUDGET = Limits(rate_per_minute=5)


def asked(body: dict[str, Any]) -> Ask:
    return openai.parse_chat(
        msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **body})
    )


def prepared(config: Settings, **body: Any) -> Prepared | Refusal:
    """What becomes of acme's chat call with this body."""
    tenant = config.tenants["acme"]
    return prepare(config, Caller(tenant, tenant.keys[0]), CallRequest(asked(body), "r", 0, 0.0))


def allowed(config: Settings, **body: Any) -> Prepared:
    result = prepared(config, **body)
    assert isinstance(result, Prepared), result
    return result


def refused(config: Settings, **body: Any) -> tuple[Reason, str | None]:
    result = prepared(config, **body)
    assert isinstance(result, Refusal), result
    return result.reason, result.param


def with_models(*models: Model, **more: Any) -> Settings:
    return settings(models=ModelTable({m.name: m for m in models}), **more)


# --- which model ---------------------------------------------------------------------------------


def test_an_unknown_model_is_named_and_refused() -> None:
    """404, and the message quotes what was asked for, made printable and short."""
    result = prepared(settings(), model="no-" + "x" * 100)
    assert isinstance(result, Refusal)
    assert (result.reason, result.param) == (Reason.MODEL_NOT_FOUND, "model")
    assert f"'no-{'x' * 61}…'" in result.message


def test_a_model_outside_the_allow_lists_is_refused() -> None:
    """The key's list and the tenant's both have to allow it."""
    config = settings()
    only_gpt = key("sk-narrow", models=("gpt-*",))
    narrow = attrs.evolve(config, tenants={"acme": Tenant("acme", "pro", Limits(), keys=(only_gpt,))})
    assert refused(narrow) == (Reason.MODEL_NOT_ALLOWED, "model")
    tenant = Tenant("acme", "pro", Limits(), models=("gpt-*",), keys=(key("sk-acme"),))
    assert refused(attrs.evolve(config, tenants={"acme": tenant})) == (Reason.MODEL_NOT_ALLOWED, "model")


def test_b2_a_model_without_a_price_is_refused_under_a_budget_only() -> None:
    """Nobody spends what nobody can count; one unpriced target is enough to refuse."""
    model = Model("m", (ONE, Target("b", "m-b", max_output_tokens=10)))
    assert refused(with_models(model)) == (Reason.MODEL_NOT_PRICED, "model")
    assert allowed(with_models(model, limits=WITHOUT_BUDGET)).limit is None


def test_b2_a_free_model_holds_nothing_and_needs_no_ceiling() -> None:
    """``free: true``: no limit is set, no money is held."""
    call = allowed(with_models(Model("m", (Target("a", "m-a", price=FREE),))))
    assert (call.hold, call.limit) == (0, None)


# --- what can't be bounded -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service_tier", "priority"),
        ("web_search_options", {}),
        ("prediction", {"type": "content", "content": "x"}),
        ("modalities", ["text", "audio"]),
        ("tools", [{"type": "web_search_preview"}]),
    ],
)
def test_b2_options_that_cost_extra_are_refused_by_name(field: str, value: Any) -> None:
    """403 ``cost_not_bounded`` under a budget; passed on without one."""
    assert refused(settings(), **{field: value}) == (Reason.COST_NOT_BOUNDED, field)
    assert allowed(settings(limits=WITHOUT_BUDGET), **{field: value}).limit is None


@pytest.mark.parametrize(
    ("field", "value"), [("n_predict", 9), ("max_new_tokens", 9), ("best_of", 2), ("min_tokens", 9), ("num_predict", 1)]
)
def test_b2_members_that_lift_the_output_limit_are_refused_by_name(field: str, value: Any) -> None:
    """400: some servers obey them instead of the limit that is held for."""
    assert refused(settings(), max_tokens=5, **{field: value}) == (Reason.INVALID_REQUEST, field)
    assert allowed(settings(limits=WITHOUT_BUDGET), max_tokens=5, **{field: value}).limit is None


@pytest.mark.parametrize(("messages", "kind"), [(IMAGE, "image"), (AUDIO, "audio"), (FILE, "file")])
def test_b2_media_without_a_bound_is_refused(messages: Any, kind: str) -> None:
    """403, and the message says what the operator can set."""
    result = prepared(settings(), messages=messages)
    assert isinstance(result, Refusal)
    assert (result.reason, result.param) == (Reason.COST_NOT_BOUNDED, "messages")
    assert f"bound: {{{kind}Tokens" in result.message
    assert allowed(settings(limits=WITHOUT_BUDGET), messages=messages).limit is None


@pytest.mark.parametrize(
    ("messages", "bound"),
    [(IMAGE, Bound(image_tokens=1_600)), (AUDIO, Bound(audio_tokens=1_600)), (FILE, Bound(file_tokens=1_600))],
)
def test_b8_media_counts_by_its_bound_else_by_the_context_window(messages: Any, bound: Bound) -> None:
    """One image of 1,600 tokens is 1,600 tokens, whatever its base64 weighs."""
    plain = asked({"messages": messages}).text_bytes + 1_024
    assert allowed(with_models(Model("m", (ONE,), bound=bound)), messages=messages).input_bound == plain + 1_600
    windowed = Model("m", (attrs.evolve(ONE, context_window=8_192),))
    assert allowed(with_models(windowed), messages=messages).input_bound == plain + 8_192


# --- the output limit ----------------------------------------------------------------------------


def test_b2_no_known_ceiling_and_no_limit_asks_for_one() -> None:
    """400 that names the parameter to set."""
    model = Model("m", (attrs.evolve(ONE, max_output_tokens=None),))
    assert refused(with_models(model)) == (Reason.INVALID_REQUEST, "max_tokens")
    assert allowed(with_models(model), max_tokens=7).limit == 7


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, 1_000),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 99_999}, 1_000),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 0}, 0),
    ],
)
def test_b8_the_limit_held_for_is_the_larger_name_clamped_to_the_ceiling(body: dict[str, int], limit: int) -> None:
    """Both names are read; the limit sent is the limit held for."""
    call = allowed(with_models(Model("m", (ONE,))), **body)
    assert call.limit == limit
    assert call.hold == PRICE.at_most(asked(body).text_bytes + 1_024, limit)


def test_b8_n_answers_hold_n_times_the_output() -> None:
    """``n: 3`` may cost three outputs."""
    call = allowed(settings(), n=3, max_tokens=100)
    assert call.hold == PRICE.at_most(call.input_bound, 300)


def test_b8_the_dearest_target_counts() -> None:
    """Wherever the call ends up, its hold covers it."""
    targets = (Target("a", "cheap", price=CHEAP, max_output_tokens=4_000), ONE)
    call = allowed(settings(targets=targets), max_tokens=50)
    assert call.hold == PRICE.at_most(call.input_bound, 50)


def test_b8_a_dearer_tier_counts_when_the_input_can_reach_it() -> None:
    """Long inputs cost more per token; the hold knows."""
    tiered = Price(PRICE.rates, (Tier(2_000, Rates(Rate(10**9), Rate(3 * 10**9), Rate(10**9))),))
    model = Model("m", (attrs.evolve(ONE, price=tiered),))
    short = allowed(with_models(model), max_tokens=10)
    long = allowed(with_models(model), max_tokens=10, messages=[{"role": "user", "content": "x" * 3_000}])
    assert short.hold == PRICE.at_most(short.input_bound, 10)
    assert long.hold == tiered.at_most(long.input_bound, 10) > PRICE.at_most(long.input_bound, 10)


# --- the catch-all -------------------------------------------------------------------------------


def catch_all(**catalogue: CatalogueEntry) -> Settings:
    return with_models(Model("*", (Target("a", "*"),)), catalogue=catalogue)


def test_catch_all_passes_the_asked_name_on_and_prices_it_by_the_catalogue() -> None:
    """Any other name goes out as asked, at its own price and ceiling, under the label ``*``."""
    call = allowed(catch_all(exotic=CatalogueEntry(PRICE, 8_192, 500)), model="exotic")
    (target,) = call.targets
    assert (target.model, target.price, call.limit, call.label) == ("exotic", PRICE, 500, "*")


def test_catch_all_refuses_a_name_the_catalogue_does_not_know_under_a_budget() -> None:
    """403 ``model_not_priced``."""
    assert refused(catch_all(), model="unheard-of") == (Reason.MODEL_NOT_PRICED, "model")


def test_catch_all_asks_for_a_limit_when_no_ceiling_is_known() -> None:
    """400 that names ``max_tokens``."""
    config = catch_all(exotic=CatalogueEntry(PRICE))
    assert refused(config, model="exotic") == (Reason.INVALID_REQUEST, "max_tokens")
    assert allowed(config, model="exotic", max_tokens=3).limit == 3


def test_a_configured_name_is_not_the_catch_all() -> None:
    """The catch-all only takes names nobody configured."""
    config = with_models(Model("*", (Target("a", "*"),)), Model("m", (ONE,)))
    assert allowed(config, model="m").label == "m"


# --- when money is short -------------------------------------------------------------------------


def test_lowering_asks_for_at_least_256_output_tokens() -> None:
    """``whenShort: lower``: the least hold is for 256 tokens - if the client named no limit."""
    config = settings(when_short=WhenShort.LOWER)
    call = allowed(config)
    assert call.hold_min == PRICE.at_most(call.input_bound, 256)
    named = allowed(config, max_tokens=900)
    assert named.hold_min == named.hold
    refusing = allowed(settings())
    assert refusing.hold_min == refusing.hold


def test_lowering_gives_what_the_granted_hold_pays_for_at_every_target() -> None:
    """The dearest output rate of any tier decides; never below zero."""
    call = allowed(settings(when_short=WhenShort.LOWER), n=2)
    granted = PRICE.at_most(call.input_bound, 2 * 300)
    assert affordable_limit(call, granted) == 300
    assert affordable_limit(call, call.hold) == 1_000
    assert affordable_limit(call, Nano(1)) == 0
