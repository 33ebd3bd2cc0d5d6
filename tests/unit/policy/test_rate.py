"""Is the rate policy exact: never one too many in any minute, never one refused too early?"""

from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.domain.model.admission import MINUTE_US, RateLimit, RateRefused
from perpetuo.domain.policy import rate
from perpetuo.domain.policy.rate import RateLog

LIMIT = RateLimit("acme", 3)
PAUSES = st.lists(
    st.one_of(st.integers(0, MINUTE_US), st.sampled_from([0, 1, MINUTE_US // 3, MINUTE_US - 1, MINUTE_US])),
    max_size=40,
)


def arrivals(pauses: list[int]) -> list[int]:
    times, now = list[int](), 10**15
    for pause in pauses:
        now += pause
        times.append(now)
    return times


@settings(max_examples=100, deadline=None)
@given(PAUSES, st.integers(1, 5))
def test_r1_r2_exact_over_every_window(pauses: list[int], limit: int) -> None:
    """Admitted iff fewer than the limit were admitted in the minute before, counted from scratch; the wait is exact."""
    log, policy = RateLog(), RateLimit("acme", limit)
    admitted: list[int] = []
    for now in arrivals(pauses):
        recent = [t for t in admitted if now - MINUTE_US < t <= now]
        wait = rate.wait_us(log, policy, now, now)
        assert (wait == 0) == (len(recent) < limit)
        if wait == 0:
            log = rate.enter(log, policy, now)
            admitted.append(now)
            assert rate.reading(log, policy, now, now).remaining == limit - len(recent) - 1
        else:
            assert rate.wait_us(log, policy, now + wait, now + wait) == 0
            assert rate.wait_us(log, policy, now + wait - 1, now + wait - 1) == 1
        assert len(log.times) <= limit


def test_r2_an_entry_one_window_old_has_left() -> None:
    """Exactly 60 s is outside (≥ for > fails here); 1 µs less is inside."""
    log = RateLog((100, 200, 300))
    assert rate.wait_us(log, LIMIT, 100 + MINUTE_US - 1, 100 + MINUTE_US - 1) == 1
    assert rate.wait_us(log, LIMIT, 100 + MINUTE_US, 100 + MINUTE_US) == 0
    assert rate.used(log, 100 + MINUTE_US, MINUTE_US) == 2


def test_r1_the_log_does_not_go_back_with_the_clock() -> None:
    """The admission gets the newest time in any log of the call; the wait counts from the clock as it is."""
    log = RateLog((100, 200, 300))
    at = rate.instant([RateLog(), log, RateLog((250,))], 50)
    assert at == 300
    assert rate.wait_us(log, LIMIT, at, 50) == MINUTE_US + 50
    assert rate.enter(RateLog((300,)), LIMIT, at).times == (300, 300)
    assert rate.instant([], 50) == 50


def test_r1_only_as_many_times_as_the_limit_are_kept() -> None:
    """The newest ones; a lowered limit keeps fewer, a raised one more."""
    log = RateLog((1, 2, 3))
    assert rate.enter(log, LIMIT, 4).times == (2, 3, 4)
    assert rate.enter(log, RateLimit("acme", 5), 4).times == (1, 2, 3, 4)
    assert rate.enter(log, RateLimit("acme", 1), 4).times == (4,)


def test_r1_a_limit_of_zero_admits_nobody() -> None:
    """It waits a window, again and again."""
    assert rate.wait_us(RateLog(), RateLimit("acme", 0), 5, 5) == MINUTE_US


def test_r3_the_longest_wait_is_named_and_the_first_among_equals() -> None:
    """Obeying the answer must be enough; the order of the list decides a tie."""
    a, b = RateLimit("a", 1), RateLimit("b", 1)
    logs = {"a": RateLog((100,)), "b": RateLog((200,))}
    assert rate.refusal([a, b], logs, 300, 300) == RateRefused("b", 1, MINUTE_US - 100)
    tied = {"a": RateLog((100,)), "b": RateLog((100,))}
    assert rate.refusal([b, a], tied, 300, 300) == RateRefused("b", 1, MINUTE_US - 200)
    assert rate.refusal([a, b], {}, 300, 300) is None
    assert rate.refusal([], {}, 300, 300) is None


def test_r1_windows_may_differ_in_length() -> None:
    """A second's limit beside a minute's: each by its own window."""
    second = RateLimit("a", 1, 1_000_000)
    assert rate.refusal([second], {"a": RateLog((100,))}, 1_000_099, 1_000_099) == RateRefused("a", 1, 1)
    assert rate.refusal([second], {"a": RateLog((100,))}, 1_000_100, 1_000_100) is None


def test_r3_giving_back_takes_one_entry_out() -> None:
    """One equal entry, not all; an entry that has gone is no error."""
    log = RateLog((1, 2, 2, 3))
    assert rate.give_back(log, 2).times == (1, 2, 3)
    assert rate.give_back(log, 9) == log
    assert rate.give_back(RateLog((5,)), 5) == RateLog()
