"""What counts against a provider and what does not: impatience, slow readers and defects of ours don't (C3, C5)."""

from typing import Any

import attrs
import pytest

from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import BreakerPolicy, Target, Timeouts
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.model.upstream import Fault, Outbound, UpstreamFailure
from perpetuo.domain.policy.breaker import BreakerPhase
from tests.unit.gateway.world import PRICE, Listener, ScriptedStream, World, bad, ok, settings

pytestmark = pytest.mark.anyio
SECOND = 1_000_000
CHUNK = b"data: {}\n\n"
ONE = Target("a", "m-a", price=PRICE, max_output_tokens=1_000, timeouts=Timeouts(total=600.0))


def alone(**more: Any) -> Settings:
    return settings(targets=(ONE,), retry=attrs.evolve(settings().retry, attempts=1), **more)


def silent(world: World, *, until: float | None = None) -> Any:
    """A provider that says nothing until the attempt's deadline (or for so many seconds), as transports report it."""

    async def wait(out: Outbound) -> Any:
        end = out.deadline if until is None else world.clock.monotonic() + until
        world.clock.us += max(0, round((end - world.clock.monotonic()) * SECOND))
        raise UpstreamFailure(Fault.TIMEOUT, True, "silent")

    return wait


def failures(world: World) -> int:
    return world.breakers.all_views()[0].failures


async def test_c5_a_clients_own_short_timeout_does_not_open_the_breaker() -> None:
    """Found: 24 calls with 50 ms each against a healthy provider that takes 300 refused everybody."""
    world = World(alone())
    world.providers["a"].script = [silent(world)]
    for _ in range(24):
        seen = await world.call(timeout=0.05)
        assert (seen.status, seen.refusal and seen.refusal.reason) == (504, Reason.UPSTREAM_TIMEOUT)
    assert world.breakers.view("a").phase is BreakerPhase.CLOSED
    assert failures(world) == 0
    assert set(world.notes.attempts) == {("a", "timeout")}


async def test_c5_a_provider_that_is_silent_for_its_whole_time_counts() -> None:
    """Also when admission took some of it."""
    world = World(alone())
    world.breakers.configure({"a": BreakerPolicy(minimum_calls=2, window_us=10_000 * SECOND)})
    admit = world.memory.admit

    async def slowly(request: Any) -> Any:
        world.clock.us += SECOND
        return await admit(request)

    world.memory.admit = slowly  # type: ignore[method-assign]
    world.providers["a"].script = [silent(world)]
    for _ in range(2):
        await world.call()
    assert world.breakers.view("a").phase is BreakerPhase.OPEN


async def test_c5_silence_that_ends_before_the_deadline_counts_though_the_client_has_one() -> None:
    """The first token's own timeout passed; the client would have waited longer."""
    world = World(alone())
    world.providers["a"].script = [silent(world, until=60)]
    await world.call(timeout=100.0)
    assert failures(world) == 1


async def test_c5_a_target_that_got_what_others_left_of_the_time_is_not_to_blame() -> None:
    """The first used up the call's time; the second had two seconds of its 600."""
    second = attrs.evolve(ONE, provider="b", priority=1)
    world = World(settings(targets=(ONE, second)))

    async def late(out: Outbound) -> Any:
        world.clock.us += 598 * SECOND
        raise UpstreamFailure(Fault.RESET, True, "reset")

    world.providers["a"].script = [late]
    world.providers["b"].script = [silent(world)]
    assert (await world.call()).status == 504
    assert [reading.failures for reading in world.breakers.all_views()] == [1, 0]


async def test_c5_a_probe_with_a_short_timeout_is_given_back() -> None:
    """Found: an impatient probe opened the breaker for another 30 s; now the next call is the probe."""
    world = World(alone())
    await world.breakers.force("a", open_for_us=SECOND)
    world.clock.us += SECOND
    world.providers["a"].script = [silent(world), ok()]
    assert (await world.call(timeout=0.05)).status == 504
    assert world.breakers.view("a").phase is BreakerPhase.HALF_OPEN
    assert (await world.call()).status == 200


async def test_c5_a_slow_reader_is_not_its_providers_fault() -> None:
    """The call's time went into writing to the client."""
    world = World(alone())
    client = Listener()

    def dawdle() -> None:
        world.clock.us += 300 * SECOND

    client.on_write = dawdle
    late = UpstreamFailure(Fault.TIMEOUT, True, "deadline")
    world.providers["a"].script = [ScriptedStream([CHUNK] * 2, failure=late)]
    await world.call(stream=True, client=client)
    assert client.refusal is not None
    assert failures(world) == 0


async def test_c5_a_stream_that_the_clients_timeout_cuts_does_not_count() -> None:
    """It was going well."""
    world = World(alone())
    client = Listener()

    def two_seconds_later() -> None:
        world.clock.us += 2 * SECOND

    client.on_write = two_seconds_later
    world.providers["a"].script = [ScriptedStream([CHUNK], failure=UpstreamFailure(Fault.TIMEOUT, True, "deadline"))]
    await world.call(stream=True, client=client, timeout=2.0)
    assert failures(world) == 0


async def test_c5_a_stream_that_falls_silent_counts() -> None:
    """Well before the deadline."""
    world = World(alone())
    world.providers["a"].script = [ScriptedStream([CHUNK], failure=UpstreamFailure(Fault.TIMEOUT, True, "idle"))]
    await world.call(stream=True)
    assert failures(world) == 1


@pytest.mark.parametrize("fault", [Fault.PROTOCOL, Fault.RESET, Fault.TIMEOUT, Fault.SERVER_ERROR])
async def test_c5_what_never_left_says_nothing_about_the_provider(fault: Fault) -> None:
    """Found: a request of ours that could not be written down counted as the provider's failure."""
    world = World(alone())
    world.providers["a"].script = [UpstreamFailure(fault, False, "not a byte was sent")]
    for _ in range(24):
        assert (await world.call()).status in (502, 504)
    assert failures(world) == 0


# --- the probe -----------------------------------------------------------------------------------


async def half_open_after(world: World) -> None:
    """``a`` answers 500 and ``b``'s breaker is half-open."""
    world.providers["a"].script = [UpstreamFailure(Fault.RESET, True, "reset")]
    await world.breakers.force("b", open_for_us=SECOND)
    world.clock.us += SECOND


async def test_c3_a_call_that_can_not_pay_for_a_probe_does_not_take_it() -> None:
    """Found: it took the probe, had no money left to send it, and nobody could probe for ten seconds."""
    body = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}')
    world = World(settings(limits=Limits(budget_day=PRICE.at_most(body + 1_024, 5))))
    await half_open_after(world)
    assert (await world.call(max_tokens=5)).status == 502
    assert world.providers["b"].sent == []
    assert await world.breakers.try_probe("b", "another call")


async def test_c3_a_probe_whose_attempt_broke_in_the_gateway_is_given_back() -> None:
    """A defect or a cancelled task of ours: the next call probes."""
    world = World(settings(limits=Limits()))
    await half_open_after(world)

    async def broken(out: Outbound) -> Any:
        raise ZeroDivisionError

    world.providers["b"].script = [broken]
    with pytest.raises(ZeroDivisionError):
        await world.call()
    assert await world.breakers.try_probe("b", "another call")


# --- what callers are told -----------------------------------------------------------------------


async def test_c5_a_refused_credentials_code_is_not_told_after_another_providers_failure() -> None:
    """Found: the code came with the message of the failure that followed."""
    world = World()
    world.providers["a"].script = [bad(401, Fault.CREDENTIAL, code="account_suspended")]
    world.providers["b"].script = [UpstreamFailure(Fault.RESET, True, "reset")]
    seen = await world.call()
    assert seen.refusal is not None
    assert seen.refusal.reason is Reason.UPSTREAM_ERROR
    assert "account_suspended" not in seen.refusal.message
