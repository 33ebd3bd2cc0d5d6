"""The breaker as a protocol: scripted traces over the pure policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.breaker import (
    BUCKETS,
    Breaker,
    BreakerPhase,
    Cause,
    Closed,
    Delta,
    HalfOpen,
    Key,
    Open,
    Verdict,
    ask_probe,
    count,
    counts,
    force,
    judge,
    reading,
    seen,
    verdict,
    view,
)

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
RULES = BreakerPolicy()


def record(breaker: Breaker, *faults: Fault | None, now: int = NOW, generation: int = 0) -> Breaker:
    """Each result as a delta of its own."""
    for fault in faults:
        breaker = count(seen(breaker, now), Delta().plus(fault), generation, RULES, now)
    return breaker


def opened(now: int = NOW) -> Breaker:
    return record(Closed(), *[Fault.CONNECT] * 5, now=now)


def half_open() -> Breaker:
    return seen(opened(), NOW + RULES.open_us)


# --- opening -------------------------------------------------------------------------------------


def test_c1_opens_at_half_of_twenty_and_not_before() -> None:
    """19 outcomes are too few, less than half is not enough, exactly half of 20 is."""
    assert isinstance(record(Closed(), *[Fault.SERVER_ERROR] * 19), Closed)
    assert isinstance(record(Closed(), *[None] * 11, *[Fault.TIMEOUT] * 9), Closed)
    assert isinstance(record(Closed(), *[None] * 10, *[Fault.RESET] * 9), Closed)
    after = record(Closed(), *[None] * 10, *[Fault.RESET] * 10)
    assert isinstance(after, Open)
    assert after.until_us == NOW + RULES.open_us
    assert after.since.cause is Cause.FAILURE_RATE


def test_c1_opens_at_five_connect_failures_in_a_row() -> None:
    """Any answer in between, even a failure of another kind, breaks the row."""
    assert isinstance(record(Closed(), *[Fault.CONNECT] * 4), Closed)
    assert isinstance(record(Closed(), *[Fault.CONNECT] * 4, Fault.SERVER_ERROR, *[Fault.CONNECT] * 4), Closed)
    after = opened()
    assert isinstance(after, Open)
    assert after.since.cause is Cause.CONNECT_FAILURES


def test_c1_only_the_last_ten_seconds_count() -> None:
    """Ten failures and then ten more a window later are no twenty; within the window they are."""
    ten = record(Closed(), *[Fault.SERVER_ERROR] * 10)
    later = NOW + RULES.window_us
    assert isinstance(record(ten, *[Fault.SERVER_ERROR] * 10, now=later), Open)
    part = RULES.window_us // BUCKETS
    assert isinstance(record(ten, *[Fault.SERVER_ERROR] * 10, now=later + part + 1), Closed)


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND), st.booleans()), max_size=60))
def test_c1_counts_all_of_the_last_ten_seconds_and_little_older(results: list[tuple[int, bool]]) -> None:
    """Against an exact log: nothing in the window is missed, nothing older than a part more is counted."""
    never = BreakerPolicy(minimum_calls=10_000)
    breaker: Breaker = Closed()
    now, log = NOW, list[tuple[int, bool]]()
    for gap, bad in results:
        now += gap
        breaker = count(breaker, Delta().plus(Fault.SERVER_ERROR if bad else None), 0, never, now)
        log.append((now, bad))
        assert isinstance(breaker, Closed)
        exact = [was for at, was in log if at > now - never.window_us]
        at_most = [was for at, was in log if at > now - never.window_us - never.window_us // BUCKETS]
        assert len(exact) <= breaker.tally.outcomes <= len(at_most)
        assert sum(exact) <= breaker.tally.failures <= sum(at_most)


@pytest.mark.parametrize(
    "fault", [Fault.CLIENT_ERROR, Fault.CONTEXT_LENGTH, Fault.RATE_LIMITED, Fault.CREDENTIAL, Fault.ABORTED]
)
def test_c5_what_says_nothing_about_health_is_not_counted(fault: Fault) -> None:
    """Clients' errors, 429, our credential and clients leaving never open a breaker."""
    assert not counts(fault)


def test_every_fault_is_judged() -> None:
    """As a probe's answer each fault shows the provider alive or dead, but for a client that left."""
    dead = {Fault.SERVER_ERROR, Fault.TIMEOUT, Fault.RESET, Fault.PROTOCOL, Fault.CONNECT}
    assert {f for f in Fault if verdict(f) is Verdict.FAILED} == dead == {f for f in Fault if counts(f)}
    assert [f for f in Fault if verdict(f) is Verdict.SILENT] == [Fault.ABORTED]
    assert verdict(None) is Verdict.ALIVE
    assert counts(None)


def test_a_delta_counts_like_its_results_one_by_one() -> None:
    """Also the row of connect failures goes on across deltas."""
    delta = Delta().plus(Fault.CONNECT).plus(None).plus(Fault.CONNECT).plus(Fault.CONNECT)
    assert delta == Delta(outcomes=4, failures=3, connected=True, streak=2)
    after = count(count(Closed(), delta, 0, RULES, NOW), Delta(2, 2, streak=2), 0, RULES, NOW)
    assert isinstance(after, Closed)
    assert after.tally.streak == 4
    assert isinstance(record(after, Fault.CONNECT), Open)


# --- generations ---------------------------------------------------------------------------------


def test_results_begun_before_the_last_change_do_not_count() -> None:
    """Slow failures of calls from before the outage can't reopen a breaker that was just closed."""
    reset = force(opened(), None, NOW)
    assert record(reset, *[Fault.CONNECT] * 50) == reset
    assert isinstance(record(reset, *[Fault.CONNECT] * 5, generation=2), Open)


# --- half-open -----------------------------------------------------------------------------------


def test_c3_open_until_its_time_is_over_to_the_microsecond() -> None:
    """A microsecond early is open, on time is half-open."""
    assert view(seen(opened(), NOW + RULES.open_us - 1)).phase is BreakerPhase.OPEN
    assert view(half_open()).phase is BreakerPhase.HALF_OPEN
    assert ask_probe(opened(), "x", RULES, NOW)[0] is False


def test_c3_one_probe_at_a_time() -> None:
    """The second asker waits; the prober itself may ask again (a lost reply)."""
    granted, probed = ask_probe(half_open(), "first", RULES, NOW)
    assert granted
    assert ask_probe(probed, "second", RULES, NOW) == (False, probed)
    assert ask_probe(probed, "first", RULES, NOW) == (True, probed)


def test_c3_a_dead_probers_lease_ends_after_ten_seconds() -> None:
    """Not a microsecond earlier; then the next asker has it."""
    _, probed = ask_probe(half_open(), "first", RULES, NOW)
    assert ask_probe(probed, "second", RULES, NOW + 10 * SECOND - 1)[0] is False
    granted, taken = ask_probe(probed, "second", RULES, NOW + 10 * SECOND)
    assert granted
    assert judge(taken, "first", 1, Verdict.FAILED, RULES, NOW + 11 * SECOND) == taken


def test_c3_the_probes_verdict_decides() -> None:
    """Alive closes, failed opens for the full time again."""
    _, probed = ask_probe(half_open(), "x", RULES, NOW)
    closed = judge(probed, "x", 1, Verdict.ALIVE, RULES, NOW)
    assert closed == Closed(probed.since.then(Cause.PROBE_SUCCEEDED, NOW))
    again = judge(probed, "x", 1, Verdict.FAILED, RULES, NOW)
    assert again == Open(probed.since.then(Cause.PROBE_FAILED, NOW), NOW + RULES.open_us)


def test_c3_only_the_probes_verdict_counts() -> None:
    """Neither ordinary results nor verdicts of strangers or of an earlier outage move a half-open breaker."""
    _, probed = ask_probe(half_open(), "x", RULES, NOW)
    assert record(probed, *[Fault.CONNECT] * 9, generation=1) == probed
    assert judge(probed, "stranger", 1, Verdict.FAILED, RULES, NOW) == probed
    assert judge(probed, "stranger", 0, Verdict.ALIVE, RULES, NOW) == probed
    assert judge(opened(), "x", 1, Verdict.ALIVE, RULES, NOW) == opened()


def test_c3_a_prober_slower_than_its_lease_still_finds_the_provider_alive() -> None:
    """Else a provider whose answers take longer than a lease would never be closed again under load."""
    _, first = ask_probe(half_open(), "slow", RULES, NOW)
    _, second = ask_probe(first, "next", RULES, NOW + 10 * SECOND)
    assert isinstance(judge(second, "slow", 1, Verdict.ALIVE, RULES, NOW + 15 * SECOND), Closed)


def test_a_prober_whose_client_left_frees_the_probe() -> None:
    """Nothing was learnt, so the next asker probes at once."""
    _, probed = ask_probe(half_open(), "x", RULES, NOW)
    freed = judge(probed, "x", 1, Verdict.SILENT, RULES, NOW)
    assert isinstance(freed, HalfOpen)
    assert ask_probe(freed, "y", RULES, NOW)[0]


# --- operators -----------------------------------------------------------------------------------


def test_c4_a_key_gone_before_its_time_closes() -> None:
    """On time it is half-open instead."""
    deleted = seen(opened(), NOW + 1, Key.DELETED)
    assert isinstance(deleted, Closed)
    assert deleted.since.generation == 2
    assert deleted.since.cause is Cause.OPERATOR
    assert isinstance(seen(opened(), NOW + RULES.open_us, Key.DELETED), HalfOpen)


@pytest.mark.parametrize("before", [Closed(), opened(), half_open()])
def test_c4_a_key_set_by_hand_opens_until_it_goes(before: Breaker) -> None:
    """Then closed: no probe, the operator has decided."""
    held = seen(before, NOW, Key.BY_HAND, NOW + 99)
    assert view(held).phase is BreakerPhase.OPEN
    assert view(held).generation == before.since.generation + 1
    moved = seen(held, NOW + 1, Key.BY_HAND, NOW + 200)
    assert view(moved) == view(Open(held.since, NOW + 200))
    assert isinstance(seen(moved, NOW + 2), Closed)


def test_an_operator_opens_and_closes() -> None:
    """From any state, for the time asked."""
    forced = force(Closed(), 7 * SECOND, NOW)
    assert view(forced).until_us == NOW + 7 * SECOND
    assert isinstance(force(forced, None, NOW), Closed)


def test_a_reading_tells_what_was_counted() -> None:
    """The admin page shows the window, the row and the last change."""
    shown = reading("openai", record(Closed(), None, Fault.CONNECT, Fault.CONNECT))
    assert (shown.outcomes, shown.failures, shown.connect_streak, shown.cause) == (3, 2, 2, Cause.NEVER_CHANGED)
    assert reading("openai", opened()).changed_us == NOW
