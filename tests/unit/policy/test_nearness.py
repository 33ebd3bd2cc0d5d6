"""Which tenant is nearest to one of its limits, whatever limits it has?"""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant
from perpetuo.domain.policy.nearness import WHOLE, Used, nearest_first, share, watched

NOW = 1_795_000_000_000_000
ALL = Limits(rate_per_minute=100, concurrency=10, budget_day=Nano(1_000), budget_month=Nano(8_000))


def tenant(name: str, limits: Limits = ALL, *keys: Limits) -> Tenant:
    own = tuple(ApiKey(f"key-{n}", b"", limits=one) for n, one in enumerate(keys))
    return Tenant(name, "pro", limits, keys=own)


def raised(scope: str, amount: int, until_us: int = NOW + 1) -> Raise:
    return Raise("id", scope.partition("/")[0], scope, "day", Nano(amount), until_us, "ann", "")


def test_the_highest_share_of_any_limit_counts() -> None:
    """Not their sum, and not only money."""
    assert share(ALL, Used(day=500, month=1_000, admitted=70, in_flight=1)) == 700_000
    assert share(ALL, Used(day=500, month=7_000, admitted=70, in_flight=1)) == 875_000
    assert share(ALL, Used(day=500, month=7_000, admitted=70, in_flight=9)) == 900_000
    assert share(ALL, Used(day=1_200)) == 1_200_000, "a budget that was lowered below what is spent"


def test_without_limits_nothing_is_near_and_a_limit_of_zero_is_used_up() -> None:
    """A tenant that may do nothing stands first, one that may do all last."""
    assert share(Limits(), Used(10**12, 10**12, 10**6, 10**6)) == 0
    assert share(Limits(budget_day=Nano(0)), Used()) == WHOLE


def test_only_scopes_with_limits_are_asked_for() -> None:
    """The tenant, and its keys that have limits of their own."""
    one = tenant("acme", ALL, Limits(), Limits(budget_day=Nano(5)))
    assert [scope.scope for scope in watched([one], (), NOW)] == ["acme", "acme/key-1"]


def test_raises_in_force_make_the_limit_higher() -> None:
    """Of the tenant and of its key, each its own; one that has ended does not."""
    one = tenant("acme", ALL, Limits(budget_day=Nano(5)))
    raises = (raised("acme", 1_000), raised("acme/key-0", 20), raised("acme", 7, NOW))
    assert [scope.limits.budget_day for scope in watched([one], raises, NOW)] == [2_000, 25]
    assert [scope.limits.budget_month for scope in watched([one], raises, NOW)] == [8_000, None]


def test_windows_are_those_of_the_tenants_own_clock() -> None:
    """Midnight is not everywhere at once."""
    there = attrs.evolve(tenant("kiritimati"), time_zone="Pacific/Kiritimati")
    here, away = watched([tenant("utc"), there], (), NOW)
    assert here.day.current < away.day.current


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 200)), min_size=1, max_size=12))
def test_tenants_stand_in_the_order_of_their_nearest_limit_then_of_their_ids(used: list[tuple[int, int]]) -> None:
    """Each once, a key's limit counting as its tenant's."""
    tenants = [tenant(f"t{n:02d}", ALL, Limits(budget_day=Nano(100))) for n in range(len(used))]
    scopes = list(watched(tenants, (), NOW))
    spent = [Used(day=amount) for pair in used for amount in pair]
    ranked = nearest_first(tenants, zip(scopes, spent, strict=True))
    near = {f"t{n:02d}": max(day / 1_000, key / 100) for n, (day, key) in enumerate(used)}
    assert [one.id for one in ranked] == sorted(near, key=lambda name: (-near[name], name))
