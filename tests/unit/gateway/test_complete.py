"""The use case, step by step, over memory twins: what a client sees, what is charged, what is written."""

import attrs
import pytest

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.money import nano_from_usd
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.model.upstream import Ending, Fault, UpstreamFailure
from perpetuo.domain.model.usage import Usage
from tests.unit.gateway.world import PRICE, Listener, ScriptedStream, World, bad, ok, settings

pytestmark = pytest.mark.anyio
TIMEOUT = UpstreamFailure(Fault.TIMEOUT, True, "silent")
REFUSED = UpstreamFailure(Fault.CONNECT, False, "refused")


async def test_a_call_is_answered_charged_and_written_down_once() -> None:
    """The plain case: body through, exact charge, hold gone, one event."""
    world = World()
    seen = await world.call(max_tokens=100)
    assert (seen.status, seen.body) == (200, ok().body)
    assert seen.headers["x-perpetuo-cost-usd"] == "0.0000125"
    assert seen.headers["x-perpetuo-provider"] == "a"
    assert await world.spent() == (12_500, 0)
    (event,) = world.notes.events
    assert (event.outcome, event.cost_nano_usd, event.usage_basis) == ("completed", 12_500, "reported")


async def test_b8_hold_covers_ceiling_when_no_limit_is_named() -> None:
    """Without max_tokens the ceiling is set, sent, and said."""
    world = World()
    seen = await world.call()
    (out,) = world.providers["a"].sent
    assert (out.limit_field, out.limit) == ("max_tokens", 1_000)
    assert seen.headers["x-perpetuo-max-tokens"] == "1000;reason=ceiling"


async def test_b2_nothing_is_touched_without_a_budget() -> None:
    """A tenant without a budget gets its body passed on as it is."""
    world = World(settings(limits=Limits(rate_per_minute=5)))
    seen = await world.call(max_tokens=99_999)
    (out,) = world.providers["a"].sent
    assert out.limit is None
    assert "x-perpetuo-max-tokens" not in seen.headers


async def test_r1_the_limit_admits_exactly_its_number_and_says_when_again() -> None:
    """100 pass, the 101st is refused with the exact wait; waited, it passes."""
    world = World()
    assert [(await world.call(max_tokens=1)).status for _ in range(100)] == [200] * 100
    refused = await world.call(max_tokens=1)
    assert refused.status == 429
    assert refused.refusal is not None
    wait = refused.refusal.retry_after_us
    assert wait is not None
    world.clock.us += wait - 1
    assert (await world.call(max_tokens=1)).status == 429
    world.clock.us += 1
    assert (await world.call(max_tokens=1)).status == 200


async def test_b3_a_spent_budget_refuses_with_403_and_nothing_is_sent() -> None:
    """A budget smaller than one hold refuses before anything goes out."""
    world = World(settings(limits=Limits(budget_day=nano_from_usd("0.0001"))))
    seen = await world.call(max_tokens=1_000)
    assert (seen.status, seen.refusal and seen.refusal.reason) == (403, Reason.BUDGET_EXCEEDED)
    assert world.providers["a"].sent == []
    assert await world.spent() == (0, 0)


async def test_i2_a_replay_has_the_same_bytes_and_makes_no_call() -> None:
    """Same key, same request: replayed."""
    world = World()
    first = await world.call(idempotency_key="k", max_tokens=5)
    again = await world.call(idempotency_key="k", max_tokens=5)
    assert first.headers["x-perpetuo-idempotency"] == "stored"
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.providers["a"].sent) == 1
    assert await world.spent() == (12_500, 0)


async def test_i3_same_key_other_request_is_422() -> None:
    """A key belongs to one request."""
    world = World()
    await world.call(idempotency_key="k", max_tokens=5)
    other = await world.call(idempotency_key="k", max_tokens=6)
    assert (other.status, other.refusal and other.refusal.reason) == (422, Reason.IDEMPOTENCY_KEY_REUSED)


async def test_i2_streams_replay_byte_for_byte() -> None:
    """A stored stream comes back whole, its [DONE] included."""
    world = World()
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"] * 3, Usage(3, 3))]
    first = await world.call(idempotency_key="k", stream=True)
    again = await world.call(idempotency_key="k", stream=True)
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert again.body == first.body
    assert len(world.providers["a"].sent) == 1


async def test_i2_the_last_events_of_a_stream_go_with_its_end() -> None:
    """Once its terminal event was read: nothing is lost or doubled, for the client or for the key."""
    world = World()
    stream = ScriptedStream([b"data: 1\n\n", b"data: 2\n\n"], Usage(3, 3))
    world.providers["a"].script = [attrs.evolve(stream, over_after=2)]
    seen = await world.call(idempotency_key="k", stream=True)
    assert seen.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert seen.writes == [b"data: 1\n\n", b"data: 2\n\ndata: [DONE]\n\n"]
    assert (await world.call(idempotency_key="k", stream=True)).body == seen.body


async def test_c6_a_failing_provider_is_left_for_the_next_target() -> None:
    """5xx: the next target at once; two attempts are told."""
    world = World()
    world.providers["a"].script = [bad(500, Fault.SERVER_ERROR)]
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.headers["x-perpetuo-provider"], seen.headers["x-perpetuo-attempts"]) == (200, "b", "2")


async def test_b9_an_attempt_that_was_sent_keeps_its_input_cost() -> None:
    """A silent target may have billed: its input stays charged, and the row says estimated."""
    world = World()
    world.providers["a"].script = [TIMEOUT]
    await world.call(max_tokens=5)
    (event,) = world.notes.events
    kept = PRICE.at_most(event.decision["kept"] and 1_024 + len(world.providers["b"].sent[0].ask.body), 0)
    assert event.cost_nano_usd == kept + 12_500
    assert event.usage_basis == "estimated"
    assert await world.spent() == (event.cost_nano_usd, 0)


async def test_b9_an_attempt_that_was_never_sent_costs_nothing() -> None:
    """Refused connections are free."""
    world = World()
    world.providers["a"].script = [REFUSED]
    await world.call(max_tokens=5)
    (event,) = world.notes.events
    assert (event.cost_nano_usd, event.usage_basis) == (12_500, "reported")


async def test_c9_a_refusal_on_content_is_passed_on() -> None:
    """The provider's 400 is an answer: same status and body, no other target, no cost."""
    world = World()
    world.providers["a"].script = [bad(400, Fault.CLIENT_ERROR, code="content_filter")]
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.body) == (400, bad(400, Fault.CLIENT_ERROR, code="content_filter").body)
    assert seen.headers["x-should-retry"] == "false"
    assert world.providers["b"].sent == []
    assert await world.spent() == (0, 0)


async def test_c7_a_cut_stream_ends_in_an_error_and_is_not_kept() -> None:
    """No [DONE], recorded truncated, and the key is free for a retry."""
    world = World()
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"], end=Ending.TRUNCATED)]
    seen = await world.call(stream=True, idempotency_key="k")
    assert b"[DONE]" not in seen.body
    assert seen.refusal is not None
    assert world.notes.events[0].outcome == "truncated"
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"], Usage(1, 1))]
    again = await world.call(stream=True, idempotency_key="k")
    assert again.body.endswith(b"[DONE]\n\n")


async def test_i8_a_client_that_leaves_cancels_its_call() -> None:
    """Without a key the provider call stops, what was streamed is charged, the hold is gone."""
    world = World()
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"] * 5)]
    client = Listener()
    client.on_write = lambda: client.abort.fire("client_gone")
    await world.call(stream=True, client=client)
    (event,) = world.notes.events
    assert (event.outcome, event.status, event.usage_basis) == ("cancelled", 499, "estimated")
    assert event.cost_nano_usd > 0
    assert await world.spent() == (event.cost_nano_usd, 0)


async def test_i8_with_a_key_the_call_is_finished_and_stored() -> None:
    """A client that left can come back for its answer."""
    world = World()
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"] * 5, Usage(9, 9))]
    client = Listener()
    client.on_write = lambda: client.abort.fire("client_gone")
    await world.call(stream=True, client=client, idempotency_key="k")
    again = await world.call(stream=True, idempotency_key="k")
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.providers["a"].sent) == 1


async def test_i2_a_replayed_stream_is_not_kept_back_by_a_proxy() -> None:
    """Found: replays lacked `cache-control` and `x-accel-buffering`, which tell proxies to pass a stream on at once."""
    world = World()
    world.providers["a"].script = [ScriptedStream([b"data: {}\n\n"], Usage(9, 9)), ok()]
    first, again = [await world.call(stream=True, idempotency_key="stream") for _ in range(2)]
    assert (again.status, again.body) == (200, first.body)
    for name in ("content-type", "cache-control", "x-accel-buffering"):
        assert again.headers[name] == first.headers[name]
    plain = [await world.call(idempotency_key="plain") for _ in range(2)]
    assert not {"cache-control", "x-accel-buffering"} & {name for seen in plain for name in seen.headers}


async def test_r4_a_call_that_straddles_a_reload_does_not_hold_back_the_raised_limit() -> None:
    """Authenticated before the reload, refused after it: the old limit's refusal is not remembered for the new one."""
    world = World(settings(limits=Limits(rate_per_minute=1, budget_day=nano_from_usd("50"))))
    await world.call(max_tokens=1)
    old = world.gateway.authenticate("sk-acme")
    world.gateway.replace(settings(limits=Limits(rate_per_minute=10, budget_day=nano_from_usd("50"))))
    assert not isinstance(old, Refusal)
    assert (await world.call(max_tokens=1, caller=old)).status == 429
    assert (await world.call(max_tokens=1)).status == 200
