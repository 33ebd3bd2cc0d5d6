"""Whose is an idempotency key, and for how long is its answer kept? (I1, S2)"""

import attrs
import msgspec
import pytest

from perpetuo.adapters.dialects import openai
from perpetuo.domain.gateway.admit import claim_for
from perpetuo.domain.gateway.prepare import Prepared, prepare
from perpetuo.domain.model.admission import Claim
from perpetuo.domain.model.chat import CallRequest, Kind
from perpetuo.domain.model.settings import IdempotencySettings, Settings
from perpetuo.domain.model.tenants import Caller, Limits, Tenant
from tests.unit.gateway.world import World, key, ok, settings

HOUR = 3_600 * 1_000_000
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
EMBEDDINGS = {"model": "m", "input": "hi"}


def two_tenants() -> Settings:
    config = settings()
    other = Tenant("other", "pro", Limits(), keys=(key("sk-other"), key("sk-other-2", "key-2")))
    return attrs.evolve(config, tenants={**config.tenants, "other": other})


def claim(tenant: str, kind: Kind = Kind.CHAT, number: int = 0, text: str = "k") -> Claim:
    """What a call with this idempotency key claims."""
    config = two_tenants()
    body = msgspec.json.encode(CHAT if kind is Kind.CHAT else EMBEDDINGS)
    ask = openai.parse_chat(body) if kind is Kind.CHAT else openai.parse_embeddings(body)
    who = config.tenants[tenant]
    request = CallRequest(ask, "r", 0, 0.0, idempotency_key=text, fingerprint="f")
    prepared = prepare(config, Caller(who, who.keys[number]), request)
    assert isinstance(prepared, Prepared)
    made = claim_for(prepared)
    assert made is not None
    return made


def test_i1_a_key_belongs_to_tenant_method_and_path() -> None:
    """Another tenant's is another one, and so is that of another path; another key of the same tenant has the same."""
    assert claim("other", number=0) == claim("other", number=1)
    assert len({claim("acme").key, claim("other").key, claim("other", Kind.EMBEDDINGS).key}) == 3


def test_s2_no_tenants_name_makes_its_key_anothers() -> None:
    """What is hashed can't be cut in two ways: ``other`` + ``k`` is not ``othe`` + ``rk``."""
    assert claim("other", text="k").key != claim("other", text="kk").key
    assert claim("acme", text="k").key != claim("other", text="acme\0k").key


@pytest.mark.anyio
async def test_s2_two_tenants_with_the_same_key_and_body_get_each_its_own_answer() -> None:
    """Both run; each replay is one's own."""
    world = World(two_tenants())
    world.providers["a"].script = [ok(text="for acme"), ok(text="for other")]
    asked = {"acme": "sk-acme", "other": "sk-other"}
    for replayed in (None, "true"):
        for name, api_key in asked.items():
            client = await world.call(api_key=api_key, idempotency_key="same")
            assert client.headers.get("idempotent-replayed") == replayed
            assert f"for {name}".encode() in client.body
    assert len(world.providers["a"].sent) == 2


@pytest.mark.anyio
async def test_i1_an_answer_is_kept_for_24_hours() -> None:
    """A microsecond before it is replayed, at 24 h the request runs again, and is kept anew."""
    world = World()
    assert IdempotencySettings().ttl_us == 24 * HOUR
    await world.call(idempotency_key="k")
    world.clock.us += 24 * HOUR - 1
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"
    world.clock.us += 1
    again = await world.call(idempotency_key="k")
    assert ("idempotent-replayed" in again.headers, again.headers["x-perpetuo-idempotency"]) == (False, "stored")
    assert len(world.providers["a"].sent) == 2
