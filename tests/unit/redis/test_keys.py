"""Is every key of the contract's table spelled as it says, and can no name end up in another one's key?"""

from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.redis import keys


def test_names_are_those_of_the_contract() -> None:
    """Operators and other releases read these."""
    p = keys.prefix_of("acme")
    assert p == "perpetuo:{s14}:"
    assert keys.rate(p, "acme/batch") == p + "rate:acme/batch"
    assert keys.budget(p, "acme", "2026-11-23") == p + "budget:acme:2026-11-23"
    assert keys.in_flight(p, "acme") == p + "inflight:acme"
    assert keys.idempotency(p, "acme", "00ff") == p + "idem:acme:00ff"
    assert keys.call(p, "0192") == p + "call:0192"
    assert (keys.holds(p), keys.seeded(p), keys.events(p)) == (p + "holds", p + "seeded", p + "events")
    assert (keys.FORMAT, keys.breaker("openai")) == ("perpetuo:format", "perpetuo:cb:openai")
    assert keys.breaker_state("openai") == "perpetuo:cbs:{perpetuo:cb:openai}"


def test_names_from_outside_are_encoded() -> None:
    """Braces move no key to another shard, colons and slashes make no other key."""
    assert keys.safe("a{b}:c/d ~é") == "a%7Bb%7D%3Ac%2Fd%20%7E%C3%A9"
    assert keys.login("2001:db8::1") == "perpetuo:login:2001%3Adb8%3A%3A1"


@given(st.text(max_size=8), st.text(max_size=8))
def test_s2_different_names_have_different_keys(one: str, other: str) -> None:
    """Of tenants and of providers."""
    try:
        a, b = keys.safe(one), keys.safe(other)
    except UnicodeEncodeError:
        return  # half a surrogate pair: no configuration file can hold one
    assert (a == b) == (one == other)
    assert 0 <= keys.shard_of(one) < keys.SHARDS
