"""Routing: the order of targets, what is left out, and what follows each kind of fault."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import Model, RetryPolicy, Target
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerView
from perpetuo.domain.policy.routing import (
    COOLDOWNS_KEPT,
    Cooldowns,
    GiveUp,
    LargerContext,
    PassOn,
    RetryBudget,
    Route,
    Skipped,
    Step,
    Tried,
    Try,
    Why,
    blocked,
    candidates,
    next_step,
    probing,
    unavailable,
)

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
FAR = NOW + 600 * SECOND
A, B, C = (Target(provider=p, model="m") for p in "abc")
RETRY = RetryPolicy()


def closed(_: str) -> BreakerView:
    return BreakerView()


def opened(*providers: str, until: int = NOW + 30 * SECOND) -> "dict[str, BreakerView]":
    return dict.fromkeys(providers, BreakerView(BreakerPhase.OPEN, until, 1))


def step(*tried: Tried, route: Route | None = None, now: int = NOW, deadline: int = FAR, draw: float = 1.0) -> Step:
    return next_step(route or Route((A,)), tried, RETRY, now_us=now, deadline_us=deadline, draw=draw)


def failed(target: Target, fault: Fault, retry_after: float | None = None, at: int = NOW) -> Tried:
    return Tried(target, fault, at, None if retry_after is None else int(retry_after * SECOND))


# --- order ---------------------------------------------------------------------------------------


def test_lower_priority_goes_first_whatever_the_draws() -> None:
    """Priority beats weight."""
    first = Target("first", "m", priority=0, weight=1)
    second = Target("second", "m", priority=1, weight=1000)
    route = candidates(Model("m", (second, first)), closed, Cooldowns(), NOW, [0.99, 0.99])
    assert route.targets == (first, second)


def test_equal_priorities_share_by_weight() -> None:
    """Over evenly spread draws a weight of 3 is first three times as often as a weight of 1."""
    light, heavy = Target("light", "m", weight=1), Target("heavy", "m", weight=3)
    firsts = Counter(
        candidates(Model("m", (light, heavy)), closed, Cooldowns(), NOW, [n / 400, 0.5]).targets[0].provider
        for n in range(400)
    )
    assert firsts == {"light": 100, "heavy": 300}


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=6),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6),
)
def test_every_target_appears_once_in_order_of_priority(shape: list[tuple[int, int]], draws: list[float]) -> None:
    """A shuffle loses and doubles nothing, also with weights of zero."""
    targets = tuple(Target(f"p{i}", "m", weight=w, priority=p) for i, (p, w) in enumerate(shape))
    ordered = candidates(Model("m", targets), closed, Cooldowns(), NOW, draws).targets
    assert sorted(ordered, key=lambda t: t.provider) == sorted(targets, key=lambda t: t.provider)
    assert [t.priority for t in ordered] == sorted(t.priority for t in targets)


# --- what is left out ----------------------------------------------------------------------------


def test_c2_an_open_breaker_is_skipped_and_the_next_target_is_first() -> None:
    """Fallback needs no attempt at the open provider."""
    views = opened("a")
    route = candidates(Model("m", (A, B)), lambda p: views.get(p, BreakerView()), Cooldowns(), NOW, [0.0, 0.0])
    assert route == Route((B,), (Skipped(A, Why.OPEN, NOW + 30 * SECOND),))


def test_a_half_open_provider_stays_a_candidate() -> None:
    """Somebody has to make the probe."""
    half_open = BreakerView(BreakerPhase.HALF_OPEN, generation=1)
    assert candidates(Model("m", (A,)), lambda _: half_open, Cooldowns(), NOW, [0.0]).targets == (A,)


def test_c2_all_open_gives_503_with_the_soonest_time() -> None:
    """The wait is that of the breaker that opens first, and of nothing else."""
    route = Route((), (Skipped(A, Why.OPEN, NOW + 30 * SECOND), Skipped(B, Why.COOLING, NOW + 12 * SECOND)))
    assert unavailable(route, NOW) == GiveUp(Reason.NO_HEALTHY_UPSTREAM, 12 * SECOND)
    assert step(route=route) == GiveUp(Reason.NO_HEALTHY_UPSTREAM, 12 * SECOND)


def test_c5_only_cooldowns_in_the_way_give_429_with_their_time() -> None:
    """A client is told to wait for the provider's Retry-After."""
    route = Route((), (Skipped(A, Why.COOLING, NOW + 7 * SECOND),))
    assert unavailable(route, NOW) == GiveUp(Reason.UPSTREAM_RATE_LIMITED, 7 * SECOND)


def test_c5_only_refused_credentials_in_the_way_give_502() -> None:
    """Waiting would not help, so no time is given."""
    route = Route((), (Skipped(A, Why.CREDENTIAL, NOW + 7 * SECOND),))
    assert unavailable(route, NOW) == GiveUp(Reason.UPSTREAM_CREDENTIALS)


def test_a_lost_probe_leaves_the_next_target() -> None:
    """Half-open with another prober is as good as open."""
    route = Route((A, B)).without(probing(A, NOW))
    assert step(route=route) == Try(B)
    assert step(route=route.without(probing(B, NOW))) == GiveUp(Reason.NO_HEALTHY_UPSTREAM, SECOND)


# --- cooldowns -----------------------------------------------------------------------------------


def test_c5_429_cools_down_provider_and_model_until_its_retry_after() -> None:
    """Another model of the same provider goes on; the time itself is over the limit's edge."""
    cooled = Cooldowns().after(A, Fault.RATE_LIMITED, 5 * SECOND, NOW)
    assert blocked(A, BreakerView(), cooled, NOW + 5 * SECOND - 1) == Skipped(A, Why.COOLING, NOW + 5 * SECOND)
    assert blocked(A, BreakerView(), cooled, NOW + 5 * SECOND) is None
    assert blocked(Target("a", "other"), BreakerView(), cooled, NOW) is None


def test_c5_429_without_a_time_cools_down_for_a_second() -> None:
    """Some wait is better than none when the provider names none."""
    cooled = Cooldowns().after(A, Fault.RATE_LIMITED, None, NOW)
    assert blocked(A, BreakerView(), cooled, NOW + SECOND - 1) is not None
    assert blocked(A, BreakerView(), cooled, NOW + SECOND) is None


def test_c5_a_refused_credential_cools_down_the_provider_for_60_s() -> None:
    """Every model behind that credential is left alone, other providers are not."""
    cooled = Cooldowns().after(A, Fault.CREDENTIAL, None, NOW)
    other = Target("a", "other")
    assert blocked(other, BreakerView(), cooled, NOW) == Skipped(other, Why.CREDENTIAL, NOW + 60 * SECOND)
    assert blocked(other, BreakerView(), cooled, NOW + 60 * SECOND) is None
    assert blocked(B, BreakerView(), cooled, NOW) is None


def test_a_shorter_cooldown_does_not_shorten_a_longer_one() -> None:
    """Two answers that cross: the later end holds."""
    cooled = Cooldowns().after(A, Fault.RATE_LIMITED, 30 * SECOND, NOW)
    assert cooled.after(A, Fault.RATE_LIMITED, SECOND, NOW).targets == cooled.targets


@pytest.mark.parametrize("fault", [None, *(f for f in Fault if f not in (Fault.RATE_LIMITED, Fault.CREDENTIAL))])
def test_nothing_else_cools_down(fault: Fault | None) -> None:
    """Everything else is the breaker's or nobody's business."""
    before = Cooldowns()
    assert before.after(A, fault, SECOND, NOW) is before


def test_cooldowns_stay_bounded() -> None:
    """Names invented by clients of a catch-all model can't fill the memory; what has ended is dropped."""
    cooled = Cooldowns()
    for n in range(COOLDOWNS_KEPT + 5):
        cooled = cooled.after(Target("a", f"m{n}"), Fault.RATE_LIMITED, (n + 1) * SECOND, NOW)
    assert len(cooled.targets) == COOLDOWNS_KEPT
    assert ("a", "m0") not in cooled.targets
    assert len(cooled.after(A, Fault.RATE_LIMITED, SECOND, FAR * 2).targets) == 1


# --- after a fault -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.CONNECT, Fault.RESET, Fault.PROTOCOL])
def test_c6_a_lone_target_is_asked_again_with_full_jitter(fault: Fault) -> None:
    """250 ms, then 500 ms at most; a draw of 0 waits not at all."""
    assert step(failed(A, fault)) == Try(A, 250_000, again=True)
    assert step(failed(A, fault), failed(A, fault)) == Try(A, 500_000, again=True)
    assert step(failed(A, fault), draw=0.0) == Try(A, 0, again=True)


def test_c6_three_attempts_for_the_whole_call() -> None:
    """Fallbacks and repeats share one budget of attempts."""
    tried = [failed(A, Fault.SERVER_ERROR), failed(B, Fault.SERVER_ERROR), failed(C, Fault.SERVER_ERROR)]
    fourth = Target("d", "m")
    assert step(*tried, route=Route((A, B, C, fourth))) == GiveUp(Reason.UPSTREAM_ERROR)


def test_c6_the_next_target_comes_at_once_and_before_any_repeat() -> None:
    """No backoff towards a provider that has done nothing wrong."""
    route = Route((A, B))
    assert step(failed(A, Fault.SERVER_ERROR), route=route) == Try(B)
    assert step(failed(A, Fault.SERVER_ERROR), failed(B, Fault.SERVER_ERROR, 3), route=route) == Try(
        A, 250_000, again=True
    )


def test_c6_never_before_retry_after() -> None:
    """Retry-After beats a shorter backoff, and a little is added for clocks that differ in speed."""
    tried = step(failed(A, Fault.RATE_LIMITED, 2), draw=0.0)
    assert isinstance(tried, Try)
    assert 2 * SECOND < tried.wait_us < 2.01 * SECOND


def test_c6_time_since_the_fault_counts_towards_the_wait() -> None:
    """Another attempt in between has already used some of it."""
    tried = [failed(A, Fault.RATE_LIMITED, 2, at=NOW - 1_900_000), failed(B, Fault.TIMEOUT)]
    again = step(*tried, route=Route((A, B)), draw=0.0)
    assert isinstance(again, Try)
    assert again.target == A
    assert 100_000 < again.wait_us < 110_000


def test_c6_the_backoff_never_passes_its_maximum() -> None:
    """Doubling ends at 8 s."""
    retry = RetryPolicy(attempts=50)
    tried = [failed(A, Fault.SERVER_ERROR)] * 40
    assert next_step(Route((A,)), tried, retry, now_us=NOW, deadline_us=FAR, draw=1.0) == Try(A, 8 * SECOND, again=True)


def test_c6_never_past_the_deadline() -> None:
    """A wait that would end at the deadline is not begun; a target that needs none still is asked before it."""
    assert step(failed(A, Fault.SERVER_ERROR), deadline=NOW + 250_000) == GiveUp(Reason.UPSTREAM_ERROR)
    assert step(failed(A, Fault.SERVER_ERROR), deadline=NOW + 250_001) == Try(A, 250_000, again=True)
    assert step(failed(A, Fault.SERVER_ERROR), route=Route((A, B)), deadline=NOW + 1) == Try(B)
    assert step(failed(A, Fault.TIMEOUT), route=Route((A, B)), deadline=NOW) == GiveUp(Reason.UPSTREAM_TIMEOUT)


def test_c6_a_retry_after_beyond_the_maximal_backoff_ends_the_call_at_once() -> None:
    """The client hears the provider's own time; with another target it hears nothing of it."""
    limited = failed(A, Fault.RATE_LIMITED, 9)
    assert step(limited) == GiveUp(Reason.UPSTREAM_RATE_LIMITED, 9 * SECOND)
    assert step(limited, route=Route((A, B))) == Try(B)
    assert step(failed(A, Fault.SERVER_ERROR, 9)) == GiveUp(Reason.UPSTREAM_ERROR)


def test_c8_a_silent_target_is_not_asked_again() -> None:
    """The next one is; none left is a 504."""
    assert step(failed(A, Fault.TIMEOUT)) == GiveUp(Reason.UPSTREAM_TIMEOUT)
    assert step(failed(A, Fault.TIMEOUT), route=Route((A, B))) == Try(B)
    again = step(failed(A, Fault.TIMEOUT), failed(B, Fault.SERVER_ERROR), route=Route((A, B)))
    assert isinstance(again, Try)
    assert again.target == B


def test_c5_a_refused_credential_is_used_no_further() -> None:
    """Neither for this target nor for another of the same provider."""
    same = Target("a", "other")
    assert step(failed(A, Fault.CREDENTIAL), route=Route((A, same))) == GiveUp(Reason.UPSTREAM_CREDENTIALS)
    assert step(failed(A, Fault.CREDENTIAL), route=Route((A, same, B))) == Try(B)


def test_c9_a_refusal_of_the_request_is_passed_on() -> None:
    """Content filters and bad requests are answers, whatever other targets there are."""
    assert step(failed(A, Fault.CLIENT_ERROR), route=Route((A, B))) == PassOn()


def test_c9_a_too_long_input_goes_to_the_larger_model_or_is_passed_on() -> None:
    """Once, and within the attempts there are."""
    too_long = failed(A, Fault.CONTEXT_LENGTH)

    def after(*tried: Tried, larger: bool) -> Step:
        return next_step(Route((A, B)), tried, RETRY, now_us=NOW, deadline_us=FAR, draw=0.0, larger=larger)

    assert after(too_long, larger=True) == LargerContext()
    assert after(too_long, larger=False) == PassOn()
    assert after(failed(A, Fault.RESET), failed(A, Fault.RESET), too_long, larger=True) == PassOn()


def test_c9_the_larger_models_route_is_taken_and_its_own_refusal_passed_on() -> None:
    """Its first target follows at once, no retry token needed; it may find the input too long as well."""
    too_long = failed(A, Fault.CONTEXT_LENGTH)

    def after(*tried: Tried, targets: tuple[Target, ...] = (B, C)) -> Step:
        route = Route(targets)
        return next_step(route, tried, RETRY, now_us=NOW, deadline_us=FAR, draw=0.0, may_repeat=lambda _: False)

    assert after(too_long) == Try(B)
    assert after(too_long, failed(B, Fault.CONTEXT_LENGTH)) == PassOn()
    assert after(too_long, failed(B, Fault.RESET)) == Try(C)
    assert after(too_long, targets=()) == PassOn()
    assert after(failed(A, Fault.RESET), failed(A, Fault.RESET), too_long) == PassOn()


def test_c6_nothing_follows_once_a_byte_has_gone_to_the_client() -> None:
    """Half an answer can't be taken back."""
    tried = [failed(A, Fault.RESET)]
    done = next_step(Route((A, B)), tried, RETRY, now_us=NOW, deadline_us=FAR, draw=0.0, committed=True)
    assert done == GiveUp(Reason.UPSTREAM_ERROR)


def test_nothing_follows_an_abort() -> None:
    """Nobody is waiting for an answer."""
    assert isinstance(step(failed(A, Fault.ABORTED), route=Route((A, B))), GiveUp)


def test_a_target_blocked_meanwhile_is_not_asked_again() -> None:
    """A breaker that opened by this call's own failure ends it."""
    route = Route((A,)).without(Skipped(A, Why.OPEN, NOW + SECOND))
    assert step(failed(A, Fault.CONNECT), route=route) == GiveUp(Reason.UPSTREAM_ERROR)


# --- the retry budget ----------------------------------------------------------------------------


def test_c6_no_repeat_without_a_token_but_fallback_goes_on() -> None:
    """The budget is per provider: an outage of one must not stop calls from reaching another."""

    def after(route: Route) -> Step:
        tried = [failed(A, Fault.SERVER_ERROR)]
        return next_step(
            route, tried, RETRY, now_us=NOW, deadline_us=FAR, draw=0.0, may_repeat=lambda provider: provider != "a"
        )

    assert after(Route((A,))) == GiveUp(Reason.UPSTREAM_ERROR)
    assert after(Route((A, Target("a", "other")))) == GiveUp(Reason.UPSTREAM_ERROR)
    assert after(Route((A, B))) == Try(B)


@given(
    st.lists(st.tuples(st.integers(0, 400_000), st.booleans()), max_size=300),
    st.sampled_from([1.0, 0.5, 0.25]),
)
def test_c6_repeats_never_pass_a_tenth_of_the_requests_and_three_a_second(
    arrivals: list[tuple[int, bool]], share: float
) -> None:
    """Whatever the traffic: in any span of a second or more, counted from any request."""
    budget, now, log = RetryBudget(share), NOW, []
    for gap, first in arrivals:
        now += gap
        if first:
            budget = budget.requested(RETRY, now)
            log.append((now, 1, 0))
        elif budget.allows(now):
            budget = budget.repeated(now)
            log.append((now, 0, 1))
    for i, (begin, _, _) in enumerate(log):
        part = log[i:]
        seconds = max((part[-1][0] - begin) / SECOND, 1)
        requests, repeats = sum(p[1] for p in part), sum(p[2] for p in part)
        assert repeats <= 0.1 * requests + 3 * seconds + 1e-6


def test_a_lone_call_may_use_all_its_attempts() -> None:
    """The budget does not get into the way of a quiet gateway."""
    budget = RetryBudget().requested(RETRY, NOW)
    assert budget.allows(NOW)
    assert budget.repeated(NOW).allows(NOW)
    assert not budget.repeated(NOW).repeated(NOW).allows(NOW)
    assert budget.repeated(NOW).repeated(NOW).allows(NOW + SECOND)
