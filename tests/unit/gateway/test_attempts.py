"""Which target is asked, how often, and when nobody is (C2, C3, C5, C6, C8), seen from the caller."""

from typing import Any

import attrs
import pytest

from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import BreakerPolicy, ProviderKind, ProviderSpec, Target, Timeouts
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.upstream import Ending, Fault, Outbound, UpstreamFailure
from tests.unit.gateway.world import PRICE, Listener, ScriptedStream, World, bad, ok, settings

pytestmark = pytest.mark.anyio
ONE = Target("a", "m-a", price=PRICE, max_output_tokens=1_000)
SECOND = 1_000_000
REFUSED = UpstreamFailure(Fault.CONNECT, False, "refused")


def alone(**more: Any) -> Settings:
    return settings(targets=(ONE,), **more)


def reason(seen: Listener) -> Reason:
    assert seen.refusal is not None
    return seen.refusal.reason


def limited(seconds: float) -> Any:
    return bad(429, Fault.RATE_LIMITED, retry_after_us=round(seconds * SECOND))


async def test_a_row_tells_when_each_attempt_began_and_how_long_it_took() -> None:
    """Counted from the call's arrival, waits between attempts left out of both."""
    world = World()

    async def slow(_: Outbound) -> Any:
        world.clock.us += 40_000
        return bad(500, Fault.SERVER_ERROR) if len(world.notes.attempts) == 0 else ok()

    world.providers["a"].script = [slow]
    world.providers["b"].script = [slow]
    await world.call()
    first, second = world.notes.events[0].attempts
    assert (first["start_ms"], first["ms"], second["ms"]) == (0.0, 40.0, 40.0)
    assert second["start_ms"] >= 40.0
    assert second["start_ms"] + second["ms"] == world.notes.events[0].latency_ms


# --- our credential ------------------------------------------------------------------------------


async def test_c5_a_refused_credential_cools_down_for_60_s() -> None:
    """The next target answers, the credential is left alone for a minute, the operator is told."""
    world = World()
    world.providers["a"].script = [bad(401, Fault.CREDENTIAL), ok()]
    assert (await world.call()).headers["x-perpetuo-provider"] == "b"
    world.clock.us += 59 * SECOND
    assert (await world.call()).headers["x-perpetuo-provider"] == "b"
    world.clock.us += SECOND
    assert (await world.call()).headers["x-perpetuo-provider"] == "a"
    assert ("a", "credential_rejected") in world.notes.attempts
    assert [(level, name) for level, name, _ in world.notes.lines] == [("error", "attempt_failed")]


async def test_c5_our_credential_is_no_business_of_the_clients() -> None:
    """502 without a word of the provider's; while it cools down the refusal is free."""
    world = World(alone())
    world.providers["a"].script = [bad(403, Fault.CREDENTIAL, code="account_suspended")]
    first = await world.call()
    assert (first.status, reason(first)) == (502, Reason.UPSTREAM_CREDENTIALS)
    assert first.refusal is not None
    assert "account_suspended" not in first.refusal.message
    steps = len(world.ledger.steps)
    assert reason(await world.call()) is Reason.UPSTREAM_CREDENTIALS
    assert len(world.ledger.steps) == steps
    assert len(world.providers["a"].sent) == 1
    assert await world.spent() == (0, 0)


def with_key(config: Settings, api_key: str) -> Settings:
    specs = {p: attrs.evolve(spec, api_key=api_key) for p, spec in config.providers.items()}
    return attrs.evolve(config, providers=specs)


async def test_c5_a_new_credential_works_at_once() -> None:
    """Found: after rotating the key, the provider was left alone for what was left of the minute."""
    world = World(with_key(alone(), "old"))
    world.providers["a"].script = [bad(401, Fault.CREDENTIAL), ok()]
    assert (await world.call()).status == 502
    world.gateway.replace(with_key(alone(), "old"))
    assert (await world.call()).status == 502
    world.gateway.replace(with_key(alone(), "new"))
    assert (await world.call()).status == 200


async def test_c5_a_new_credential_is_not_blamed_for_a_refusal_of_the_old_one() -> None:
    """An attempt begun with the old key comes back after the reload."""
    world = World(with_key(alone(), "old"))

    async def rotate(out: Outbound) -> Any:
        world.gateway.replace(with_key(alone(), "new"))
        return bad(401, Fault.CREDENTIAL)

    world.providers["a"].script = [rotate, ok()]
    assert (await world.call()).status == 502
    assert (await world.call()).status == 200


# --- 429 -----------------------------------------------------------------------------------------


async def test_c6_retry_after_is_waited_for() -> None:
    """A short one, and nobody else to ask: the second attempt comes right after it."""
    world = World(alone())
    world.providers["a"].script = [limited(2), ok()]
    began = world.clock.us
    seen = await world.call()
    assert (seen.status, seen.headers["x-perpetuo-attempts"]) == (200, "2")
    assert 2 * SECOND <= world.clock.us - began <= 2.1 * SECOND


async def test_c6_a_retry_after_longer_than_max_backoff_is_passed_on_at_once() -> None:
    """429 with the provider's wait, not a call that hangs."""
    world = World(alone())
    world.providers["a"].script = [limited(30)]
    began = world.clock.us
    seen = await world.call()
    assert (seen.status, reason(seen)) == (429, Reason.UPSTREAM_RATE_LIMITED)
    assert seen.refusal is not None
    assert seen.refusal.retry_after_us == 30 * SECOND
    assert world.clock.us == began


async def test_c5_a_429_cools_down_that_provider_and_model_until_its_retry_after() -> None:
    """The next target at once; nobody asks the first before its time, everybody after."""
    world = World()
    world.providers["a"].script = [limited(30), ok()]
    assert (await world.call()).headers["x-perpetuo-attempts"] == "2"
    second = await world.call()
    assert (second.headers["x-perpetuo-provider"], second.headers["x-perpetuo-attempts"]) == ("b", "1")
    world.clock.us += 30 * SECOND
    assert (await world.call()).headers["x-perpetuo-provider"] == "a"
    assert world.breakers.view("a").generation == 0


async def test_c5_while_the_only_target_cools_down_a_call_is_refused_for_free() -> None:
    """429 with what is left of the wait; no admission."""
    world = World(alone())
    world.providers["a"].script = [limited(30)]
    await world.call()
    world.clock.us += 10 * SECOND
    steps = len(world.ledger.steps)
    seen = await world.call()
    assert (seen.status, reason(seen)) == (429, Reason.UPSTREAM_RATE_LIMITED)
    assert seen.refusal is not None
    assert seen.refusal.retry_after_us == 20 * SECOND
    assert len(world.ledger.steps) == steps


# --- breakers ------------------------------------------------------------------------------------


async def test_c2_every_breaker_open_is_refused_with_the_time_left_before_admission() -> None:
    """503, free: no ledger call, no provider call."""
    world = World()
    await world.breakers.force("a", open_for_us=30 * SECOND)
    await world.breakers.force("b", open_for_us=20 * SECOND)
    world.clock.us += 5 * SECOND
    seen = await world.call()
    assert (seen.status, reason(seen)) == (503, Reason.NO_HEALTHY_UPSTREAM)
    assert seen.refusal is not None
    assert seen.refusal.retry_after_us == 15 * SECOND
    assert world.ledger.steps == []
    assert world.providers["a"].sent == world.providers["b"].sent == []


async def test_c2_an_open_breaker_is_stepped_around() -> None:
    """The call goes to the next target and the row says why."""
    world = World()
    await world.breakers.force("a", open_for_us=30 * SECOND)
    seen = await world.call()
    assert seen.headers["x-perpetuo-provider"] == "b"
    assert world.providers["a"].sent == []


async def test_c2_a_breaker_that_opens_after_admission_makes_a_failed_call_that_costs_nothing() -> None:
    """Admitted, then nowhere to go: 503, settled at zero."""
    world = World(alone())
    admit = world.memory.admit

    async def open_then(request: Any) -> Any:
        await world.breakers.force("a", open_for_us=30 * SECOND)
        return await admit(request)

    world.memory.admit = open_then  # type: ignore[method-assign]
    seen = await world.call()
    assert (seen.status, reason(seen)) == (503, Reason.NO_HEALTHY_UPSTREAM)
    assert await world.spent() == (0, 0)
    (event,) = world.notes.events
    assert (event.outcome, event.cost_nano_usd, event.attempts) == ("failed", 0, ())
    assert event.decision["skipped"] == [{"provider": "a", "model": "m-a", "why": "breaker_open"}]


async def test_c1_connect_failures_in_a_row_open_the_breaker() -> None:
    """Five, and the sixth call is refused without asking."""
    config = alone(retry=attrs.evolve(settings().retry, attempts=1))
    world = World(config)
    world.providers["a"].script = [REFUSED]
    assert [(await world.call()).status for _ in range(6)] == [502] * 5 + [503]


async def test_c3_after_its_time_one_probe_decides() -> None:
    """The probe's success closes it for everybody."""
    world = World(alone(retry=attrs.evolve(settings().retry, attempts=1)))
    world.providers["a"].script = [*[REFUSED] * 5, ok()]
    for _ in range(5):
        await world.call()
    world.clock.us += 30 * SECOND
    assert [(await world.call()).status for _ in range(3)] == [200] * 3


async def test_c3_others_are_refused_while_the_probe_runs() -> None:
    """One at a time in half-open: the second caller gets 503 with a second's wait."""
    world = World(alone())
    await world.breakers.force("a", open_for_us=SECOND)
    world.clock.us += SECOND
    inner: list[Listener] = []

    async def another(out: Outbound) -> Any:
        inner.append(await world.call())
        return ok()

    world.providers["a"].script = [another, ok()]
    assert (await world.call()).status == 200
    assert reason(inner[0]) is Reason.NO_HEALTHY_UPSTREAM
    assert inner[0].refusal is not None
    assert inner[0].refusal.retry_after_us == SECOND


async def test_c1_streams_that_break_count_against_their_provider() -> None:
    """A provider that cuts every stream is not healthy, though each began well."""
    policy = BreakerPolicy(minimum_calls=4)
    providers = {"a": ProviderSpec("a", ProviderKind.OPENAI, breaker=policy)}
    world = World(attrs.evolve(alone(), providers=providers))
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"], end=Ending.TRUNCATED)]
    statuses = [(await world.call(stream=True)).status for _ in range(5)]
    assert (statuses[0], statuses[-1]) == (200, 503)


@pytest.mark.parametrize("fault", [Fault.CLIENT_ERROR, Fault.CONTEXT_LENGTH])
async def test_c5_the_clients_errors_never_open_a_breaker(fault: Fault) -> None:
    """Fifty bad requests say nothing about the provider."""
    world = World(alone())
    world.providers["a"].script = [bad(400, fault)]
    for _ in range(50):
        await world.call()
    world.providers["a"].script = [ok()]
    assert (await world.call()).status == 200


# --- how often -----------------------------------------------------------------------------------


async def test_c6_one_attempt_budget_for_the_whole_call() -> None:
    """Three attempts over two targets, then 502 - no retry is asked of the SDK."""
    world = World()
    for provider in world.providers.values():
        provider.script = [bad(500, Fault.SERVER_ERROR, code="boom")]
    seen = await world.call()
    assert (seen.status, reason(seen)) == (502, Reason.UPSTREAM_ERROR)
    assert seen.headers["x-perpetuo-attempts"] == "3"
    assert [len(world.providers[p].sent) for p in "ab"] == [2, 1]
    assert seen.refusal is not None
    assert "'boom'" in seen.refusal.message


async def test_c6_an_outage_is_not_multiplied() -> None:
    """Calls to a provider that is down make at most 1.1 attempts each, and 3 a second."""
    world = World(alone())
    began = world.clock.us
    world.breakers.configure({"a": BreakerPolicy(minimum_calls=10_000)})
    world.providers["a"].script = [bad(503, Fault.SERVER_ERROR)]
    for _ in range(99):
        await world.call()
    seconds = (world.clock.us - began) / SECOND
    assert len(world.providers["a"].sent) <= 1.1 * 99 + 3 * max(seconds, 1)


async def test_c8_a_silent_target_is_not_asked_twice() -> None:
    """The next one is; none left: 504."""
    world = World()
    for provider in world.providers.values():
        provider.script = [UpstreamFailure(Fault.TIMEOUT, True, "silent")]
    seen = await world.call()
    assert (seen.status, reason(seen)) == (504, Reason.UPSTREAM_TIMEOUT)
    assert [len(world.providers[p].sent) for p in "ab"] == [1, 1]


async def test_c8_the_clients_own_limit_lowers_the_deadline() -> None:
    """``x-request-timeout-ms`` can only lower; the attempt learns the earlier end."""
    slow = attrs.evolve(ONE, timeouts=Timeouts(total=600.0))
    world = World(settings(targets=(slow,)))
    began = world.clock.monotonic()
    await world.call(timeout=2.0)
    await world.call(timeout=9_999.0)
    assert [round(out.deadline - began, 3) for out in world.providers["a"].sent] == [2.0, 600.0]


async def test_c8_nothing_is_sent_once_the_calls_time_is_over() -> None:
    """Found: a call that had spent its time on the way to its first attempt was sent all the same."""
    world = World(alone())
    admit = world.memory.admit

    async def slowly(request: Any) -> Any:
        world.clock.us += SECOND
        return await admit(request)

    world.memory.admit = slowly  # type: ignore[method-assign]
    seen = await world.call(timeout=0.5)
    assert (seen.status, reason(seen)) == (504, Reason.UPSTREAM_TIMEOUT)
    assert seen.refusal is not None
    assert "nothing was sent" in seen.refusal.message
    assert world.providers["a"].sent == []
    assert await world.spent() == (0, 0)
    assert world.breakers.all_views()[0].outcomes == 0


async def test_c6_nothing_is_asked_past_the_deadline() -> None:
    """A retry that would begin too late is not made."""
    world = World(alone())
    world.providers["a"].script = [limited(3), ok()]
    seen = await world.call(timeout=2.0)
    assert (seen.status, len(world.providers["a"].sent)) == (429, 1)


async def test_priority_and_weight_order_the_targets() -> None:
    """Equal priorities share by weight; the draw decides."""
    heavy = attrs.evolve(ONE, provider="b", weight=9)
    world = World(settings(targets=(ONE, heavy)))
    assert (await world.call()).headers["x-perpetuo-provider"] == "b"


async def test_waiting_before_a_retry_is_not_the_gateways_own_time() -> None:
    """Back-off is no overhead: an outage of a provider must not look like a slow gateway."""
    world = World(settings(targets=(Target("a", "m-a", price=PRICE, max_output_tokens=1_000),)))
    world.providers["a"].script = [bad(500, Fault.SERVER_ERROR), ok()]
    await world.call(max_tokens=5)
    (event,) = world.notes.events
    assert len(event.attempts) == 2
    assert event.latency_ms > 100
    assert event.overhead_ms < 1


async def test_a_call_that_fell_back_says_why_the_first_target_was_left_out() -> None:
    """The decision of an answered call names what was skipped."""
    world = World()
    await world.breakers.force("a", open_for_us=60_000_000)
    await world.call(max_tokens=5)
    (event,) = world.notes.events
    assert event.decision["skipped"] == [{"provider": "a", "model": "m-a", "why": "breaker_open"}]
