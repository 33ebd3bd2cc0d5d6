"""Does the configuration mean what the reference says it means?"""

import json
import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.configfile import load, load_catalogue, published_keys, schema
from perpetuo.adapters.configfile.kinds import UNLIMITED
from perpetuo.adapters.configfile.structure import CONVERTER
from perpetuo.domain.model.admission import UnknownOutcome
from perpetuo.domain.model.models import Bound, BreakerPolicy, ProviderKind, RetryPolicy, Target, Timeouts
from perpetuo.domain.model.money import Nano, Rate, usd
from perpetuo.domain.model.pricing import FREE, Price, Rates
from perpetuo.domain.model.settings import ClientIp, Settings, WhenShort
from perpetuo.domain.model.tenants import Limits
from tests.patience import best
from tests.unit.configfile.samples import VALID, problems, settings, with_line

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "perpetuo.config.yaml"

EVERYTHING = """
providers:
  - id: openai
    kind: openai
    baseUrl: https://api.openai.com/v1/
    apiKey: ${OPENAI_API_KEY}
    timeouts: {connect: 5s, firstToken: 60s, idle: 120s, total: 600}
    breaker: {failureRate: 0.5, minimumCalls: 20, window: 10s, consecutiveConnectFailures: 5, openFor: 1.5s}
    http2: true
    proxy: http://user:pass@proxy:3128
  - {id: local, kind: openai, baseUrl: "http://127.0.0.1:8080/v1"}
models:
  - name: gpt-3.5-turbo
    targets:
      - {provider: openai, model: gpt-3.5-turbo, weight: 3, priority: 1, maxTokensField: max_completion_tokens}
      - {provider: local, model: "*", free: true, maxOutputTokens: 128}
    largerContext: gpt-4o
    price: {inputPerMTok: 0.0375, outputPerMTok: 1.5, cachedInputPerMTok: 0.25}
    maxOutputTokens: 4096
    bound: {imageTokens: 1600}
    timeouts: {total: 900s}
  - {name: gpt-4o, targets: [{provider: openai, model: gpt-4o-2024-08-06}]}
  - name: "*"
    targets: [{provider: openai, model: "*"}]
retry: {attempts: 4, backoff: 100ms, maxBackoff: 2s, budget: 0.2}
plans:
  - id: pro
    limits: {rateLimitMin: 100, budgetDay: 50, budgetMonth: 1000, concurrency: 20}
    models: ["gpt-*"]
tenants:
  - id: new-tenant
    plan: pro
    limits: {rateLimitMin: 10, budgetDay: 0.000000001, budgetMonth: unlimited}
    timeZone: Asia/Tokyo
    idempotency: {ttl: 0s}
    apiKeys:
      - "sk-new-key"
      - {hash: "sha256:HASH", name: batch, expires: 2027-01-31, models: ["gpt-4*"], limits: {budgetDay: 5}}
      - {hash: "sha256:ZEROS", expires: "2027-01-31T12:00:00+01:00"}
  - {id: open, limits: {budgetDay: unlimited}}
idempotency: {ttl: 12h, maxBytes: 512KiB, maxBytesPerTenant: 1MB, lease: 10s, wait: 2s, onUnknownOutcome: fail}
budget: {whenShort: lower}
errors: {budgetStatus: 402}
audit: {retention: 33d, clientIp: none}
admin: {keys: [{name: alice, hash: "sha256:HASH2", role: read}]}
server: {requestMaxBytes: 1MiB, trustedProxies: [10.0.0.0/8, "::1"], drainDelay: 0, bodyTimeout: 10s}
redis: {timeout: 50ms}
"""
for _word, _digest in {"HASH2": sha256(b"admin"), "HASH": sha256(b"batch"), "ZEROS": sha256(b"third")}.items():
    EVERYTHING = EVERYTHING.replace(_word, _digest.hexdigest())


@pytest.fixture(scope="module")
def everything() -> Settings:
    return settings(EVERYTHING, {"OPENAI_API_KEY": "sk-real"})


def test_contract_every_provider_setting_is_taken(everything: Settings) -> None:
    """Timeouts are seconds, the breaker's times µs, and an address loses its last slash."""
    openai, local = everything.providers.values()
    assert (openai.kind, openai.base_url) == (ProviderKind.OPENAI, "https://api.openai.com/v1")
    assert (openai.api_key, openai.http2, openai.proxy) == ("sk-real", True, "http://user:pass@proxy:3128")
    assert openai.timeouts == Timeouts(5.0, 60.0, 120.0, 600.0)
    assert openai.breaker == BreakerPolicy(open_us=1_500_000)
    assert (openai.loopback, local.loopback) == (False, True)
    assert "sk-real" not in repr(everything)


def test_contract_every_model_setting_is_taken(everything: Settings) -> None:
    """What stands at a target wins over the model, the model over provider and catalogue."""
    model = everything.models.by_name["gpt-3.5-turbo"]
    first, second = model.targets
    timeouts = Timeouts(total=900.0)
    price = Price(Rates(Rate(37_500_000), Rate(1_500_000_000), Rate(250_000_000)))
    assert first == Target(
        "openai", "gpt-3.5-turbo", 3, 1, price, 4096, "max_completion_tokens", timeouts, first.context_window
    )
    assert second == Target("local", "gpt-3.5-turbo", 1, 0, FREE, 128, None, timeouts, second.context_window)
    assert (model.larger_context, model.bound) == ("gpt-4o", Bound(image_tokens=1600))
    assert everything.models.by_name["*"].targets[0].price is None


def test_contract_a_price_comes_from_the_catalogue_by_the_upstream_name(everything: Settings) -> None:
    """A dated snapshot that is not listed costs what its model costs."""
    target = everything.models.by_name["gpt-4o"].targets[0]
    entry = load_catalogue()["gpt-4o"]
    assert (target.price, target.max_output_tokens) == (entry.price, 16_384)
    assert target.context_window == 128_000


@pytest.mark.parametrize(
    "model", ["free: true", "price: {free: true}", "price: {inputPerMTok: 1, outputPerMTok: 2}", ""]
)
def test_contract_one_paid_target_of_a_free_model_is_paid(model: str) -> None:
    """``free: false`` at a target undoes its model's ``free: true``, and no price."""
    targets = "targets: [{provider: demo, model: own}, {provider: openai, model: gpt-4o, free: false}]"
    text = with_line("targets: [{provider: openai, model: gpt-4o}]", f"{targets}, {model}".rstrip(", "))
    own, paid = settings(text).models.by_name["gpt-4o"].targets
    price = Price(Rates(Rate(1_000_000_000), Rate(2_000_000_000), Rate(1_000_000_000)))
    assert (own.price, paid.price) == (
        (price, price) if "PerMTok" in model else (FREE, load_catalogue()["gpt-4o"].price)
    )


def test_contract_every_tenant_setting_is_taken(everything: Settings) -> None:
    """A tenant's limits are merged over its plan's; ``unlimited`` lifts one."""
    tenant, open_ = everything.tenants.values()
    assert tenant.limits == Limits(rate_per_minute=10, concurrency=20, budget_day=Nano(1), budget_month=None)
    assert (tenant.plan, tenant.models, tenant.time_zone) == ("pro", ("gpt-*",), "Asia/Tokyo")
    assert tenant.idempotency_ttl_us == 0
    assert (open_.plan, open_.limits, open_.models, open_.time_zone) == ("", Limits(), ("*",), "UTC")


def test_s6_keys_are_kept_as_digests_only(everything: Settings) -> None:
    """Plain or hashed, a key becomes its SHA-256; names are given by place; a day ends where the tenant lives."""
    plain, batch, third = everything.tenants["new-tenant"].keys
    assert (plain.name, plain.digest) == ("key-1", sha256(b"sk-new-key").digest())
    assert (batch.name, batch.digest) == ("batch", sha256(b"batch").digest())
    assert (batch.models, batch.limits) == (("gpt-4*",), Limits(budget_day=Nano(5_000_000_000)))
    assert batch.expires_us == int(datetime(2027, 1, 30, 15, tzinfo=UTC).timestamp()) * 1_000_000
    assert third.name == "key-3"
    assert third.expires_us == int(datetime(2027, 1, 31, 11, tzinfo=UTC).timestamp()) * 1_000_000
    assert everything.authenticate(plain.digest) is not None
    assert "sk-new-key" not in repr(attrs.asdict(everything.tenants["new-tenant"]))


def test_contract_every_other_section_is_taken(everything: Settings) -> None:
    """Spans, sizes and choices arrive in the domain's units."""
    assert everything.retry == RetryPolicy(4, 0.1, 2.0, 0.2)
    kept = everything.idempotency
    assert (kept.ttl_us, kept.max_bytes, kept.max_bytes_per_tenant) == (43_200_000_000, 524_288, 1_000_000)
    assert (kept.lease_us, kept.wait, kept.on_unknown) == (10_000_000, 2.0, UnknownOutcome.FAIL)
    assert (everything.when_short, everything.budget_status) == (WhenShort.LOWER, 402)
    assert (everything.audit.retention_us, everything.audit.client_ip) == (33 * 86_400_000_000, ClientIp.NONE)
    assert [(k.name, k.role) for k in everything.admin_keys] == [("alice", "read")]
    server = everything.server
    assert (server.request_max_bytes, server.trusted_proxies) == (1_048_576, ("10.0.0.0/8", "::1/128"))
    assert (server.drain_delay, server.body_timeout, everything.redis_timeout) == (0.0, 10.0, 0.05)


@given(st.decimals(0, 1_000_000, places=9))
def test_b1_money_is_read_exactly(amount: Decimal) -> None:
    """Whatever decimal is written, not one nano-USD is lost or won: it never is a float."""
    text = with_line("budgetDay: 50", f"budgetDay: {amount:f}")
    limit = settings(text).tenants["acme"].limits.budget_day
    assert limit is not None
    assert Decimal(usd(limit)) == amount


# --- defaults ------------------------------------------------------------------------------------


def _defaults(cls: Any) -> dict[str, Any]:
    """A mapping that writes out the documented default of every key that has one."""
    return {
        schema.camel(a.name): yaml.safe_load(a.metadata["default"])
        for a in attrs.fields(cls)
        if a.metadata.get("default") is not None
    }


def test_contract_documented_defaults_are_the_real_ones() -> None:
    """Writing out every default of the reference changes nothing."""
    written: dict[str, Any] = yaml.safe_load(VALID)
    sections = [f for f in attrs.fields(schema.ConfigFile) if f.default is None]
    written |= {f.name: _defaults(get_args(f.type)[0]) for f in sections}
    for provider in written["providers"]:
        own = {"timeouts": _defaults(schema.Timeouts), "breaker": _defaults(schema.Breaker)}
        provider.update(_defaults(schema.Provider) | own)
    for model in written["models"]:
        model["targets"] = [t | _defaults(schema.Target) for t in model["targets"]]
        model.update(_defaults(schema.Model))
    written["plans"] = [p | _defaults(schema.Plan) for p in written["plans"]]
    written["tenants"] = [_defaults(schema.Tenant) | t for t in written["tenants"]]
    long, short = settings(json.dumps(written)), settings(VALID)
    assert attrs.evolve(long, version="") == attrs.evolve(short, version="")


def test_contract_every_key_is_known_to_the_domain() -> None:
    """No key of the schema is read and then forgotten: each is used in the example above."""
    used = set(_keys(yaml.safe_load(EVERYTHING)))
    assert {schema.camel(a.name) for cls in _classes(schema.ConfigFile) for a in attrs.fields(cls)} - used <= {
        "include",  # read before there is one configuration: test_include
        "audioTokens",  # as imageTokens
        "fileTokens",
    }


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(k for v in value.values() for k in _keys(v))]
    return [k for v in value for k in _keys(v)] if isinstance(value, list) else []


def _classes(cls: Any) -> set[Any]:
    if isinstance(cls, type) and attrs.has(cls):
        return {cls}.union(*(_classes(a.type) for a in attrs.fields(cls)))
    return set().union(*map(_classes, get_args(cls)))


# --- the shipped sample and the runbook ----------------------------------------------------------


def test_contract_the_sample_runs_without_any_variable() -> None:
    """A fresh checkout answers the runbook's curl: its key, its model, on the demo provider."""
    sample = load(SAMPLE, {})
    caller = sample.authenticate(sha256(b"sk-perpetuo-pro-1").digest())
    model = sample.models.find("gpt-3.5-turbo")
    assert caller is not None
    assert model is not None
    assert caller.may_call("gpt-3.5-turbo")
    assert sample.providers[model.targets[0].provider].kind is ProviderKind.DEMO
    assert "# yaml-language-server: $schema=./perpetuo.schema.json" in SAMPLE.read_text()
    assert published_keys(sample) == []


def test_contract_the_runbooks_snippet_is_valid_as_it_stands() -> None:
    """What the runbook tells an operator to add can be added, to the sample's tenants or to a file without any."""
    snippet = """
  - id: "new-tenant"
    plan: "pro"
    limits:
      rateLimitMin: 100
      budgetDay: 50
    apiKeys: ["sk-new-key"]
"""
    assert problems(SAMPLE.read_text() + snippet) == []
    assert problems(VALID.partition("tenants:")[0] + "tenants:" + snippet) == []


def test_contract_what_the_sample_has_in_comments_is_valid() -> None:
    """Taking away the marks of the commented parts gives a configuration that works."""
    uncommented = re.sub(r"(?m)^( *)# (- |  )", r"\1\2", SAMPLE.read_text())
    full = settings(uncommented, {"OPENAI_API_KEY": "x"})
    assert (len(full.providers), len(full.tenants), len(full.models.by_name["gpt-3.5-turbo"].targets)) == (2, 2, 2)


# --- variables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "variables", "key"),
    [
        ("${K}", {"K": "abc"}, "abc"),
        ("${K:-dflt}", {}, "dflt"),
        ("${K:-dflt}", {"K": ""}, "dflt"),
        ("a${K}c", {"K": "b"}, "abc"),
        ("${K:-}", {}, None),
    ],
)
def test_contract_variables_are_replaced(written: str, variables: dict[str, str], key: str | None) -> None:
    """As in a shell; a plain value that becomes empty counts as left out."""
    text = VALID.replace(
        "{id: demo, kind: demo}",
        "{id: demo, kind: demo}\n  - id: other\n    kind: openai\n    baseUrl: http://x\n    apiKey: " + written,
    )
    assert settings(text, variables).providers["other"].api_key == key


def test_contract_a_variable_that_cannot_be_read_is_a_problem() -> None:
    """A secret's file that is missing is told at the place that asks for it."""

    class Broken(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            raise ValueError(f"{name}_FILE can't be read")

    told = problems(with_line("sk-provider-secret", '"${K}"'), Broken(other=""))
    assert told == ["c.yaml:3:76: providers[1].apiKey: K_FILE can't be read"]


# --- published keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "provider", "refused"),
    [
        ('["*"]', "{id: p, kind: openai, baseUrl: https://api.openai.com/v1}", True),
        ('["m"]', "{id: p, kind: openai, baseUrl: https://api.openai.com/v1}", True),
        ('["other"]', "{id: p, kind: openai, baseUrl: https://api.openai.com/v1}", False),
        ('["*"]', '{id: p, kind: openai, baseUrl: "http://[::1]:8080/v1"}', False),
        ('["*"]', "{id: p, kind: openai, baseUrl: http://localhost/v1}", False),
        ('["*"]', "{id: p, kind: demo}", False),
    ],
)
def test_contract_published_keys_may_not_spend_money(models: str, provider: str, refused: bool) -> None:
    """A key of our documentation is refused when its tenant can reach a provider elsewhere, also by its hash."""
    text = f"""
providers: [{provider}]
models: [{{name: m, targets: [{{provider: p, model: m}}]}}]
plans: [{{id: pro, limits: {{budgetDay: 5}}, models: {models}}}]
tenants: [{{id: a, plan: pro, apiKeys: ["sha256:{sha256(b"sk-new-key").hexdigest()}"]}}]
"""
    told = published_keys(settings(text))
    assert bool(told) is refused
    assert not refused or ("sk-new-key" in told[0] and "perpetuo keys new" in told[0])


def test_contract_published_keys_are_seen_behind_a_larger_context() -> None:
    """A free model that hands long inputs to a paid one reaches the paid one's provider."""
    text = with_line("{name: play,", "{name: play, largerContext: gpt-4o,").replace("sk-acme-one", "sk-perpetuo-pro-1")
    assert len(published_keys(settings(text))) == 1


# --- size ----------------------------------------------------------------------------------------


def test_ten_thousand_tenants_load_in_three_seconds() -> None:
    """A large file is no reason to wait; measured 1.3 s on an idle two-core machine."""
    tenant = '  - {{id: "tenant-{0}", plan: pro, limits: {{rateLimitMin: 100, budgetDay: 50}}, apiKeys: ["sk-{0}"]}}\n'
    text = VALID + "".join(tenant.format(i) for i in range(10_000))

    def loaded() -> float:
        started = time.process_time()
        assert len(settings(text).callers) == 10_001
        return time.process_time() - started

    best(3, loaded)


def test_an_unlimited_limit_is_not_a_number() -> None:
    """``unlimited`` is its own value until it is merged."""
    assert CONVERTER.structure({"budgetDay": "unlimited"}, schema.Limits).budget_day is UNLIMITED
