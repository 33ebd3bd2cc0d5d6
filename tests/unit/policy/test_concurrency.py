"""Are calls at once counted by their leases, and never by a counter that can drift?"""

from perpetuo.domain.model.admission import ConcurrencyLimit, ConcurrencyRefused
from perpetuo.domain.policy import concurrency
from perpetuo.domain.policy.concurrency import Leases

TWO = Leases({"a": 100, "b": 200})


def test_a_lease_ends_at_its_last_instant() -> None:
    """At ``end`` the call no longer counts (≥ for > fails here)."""
    assert [concurrency.alive(TWO, now) for now in (99, 100, 199, 200)] == [2, 1, 1, 0]


def test_refused_exactly_at_the_limit() -> None:
    """Limit 2: two in flight refuse, one does not; a limit of 0 always does."""
    limit = ConcurrencyLimit("s", 2)
    assert concurrency.refusal([limit], {"s": TWO}, 99) == ConcurrencyRefused("s", 2)
    assert concurrency.refusal([limit], {"s": TWO}, 100) is None
    assert concurrency.refusal([ConcurrencyLimit("s", 0)], {}, 0) == ConcurrencyRefused("s", 0)


def test_the_first_full_limit_is_named() -> None:
    """In the order of the list."""
    limits = [ConcurrencyLimit("free", 1), ConcurrencyLimit("y", 1), ConcurrencyLimit("s", 1)]
    assert concurrency.refusal(limits, {"s": TWO, "y": TWO}, 0) == ConcurrencyRefused("y", 1)


def test_admission_drops_the_dead() -> None:
    """Who is dead at admission is forgotten, so that the set stays as small as the limit."""
    assert concurrency.enter(TWO, "c", 300, 100) == Leases({"b": 200, "c": 300})


def test_renewing_moves_on_and_never_back() -> None:
    """A later end counts, an earlier one does not; one that was dropped is alive again."""
    assert concurrency.renew(TWO, "a", 150).ends["a"] == 150
    assert concurrency.renew(TWO, "a", 50) == TWO
    assert concurrency.renew(TWO, "c", 300).ends["c"] == 300


def test_leaving_is_harmless_twice() -> None:
    """Gone is gone."""
    assert concurrency.leave(concurrency.leave(TWO, "a"), "a") == Leases({"b": 200})
