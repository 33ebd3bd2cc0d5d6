"""Every ending settles (B4): what is charged, that nothing stays held, and one row says what happened."""

import asyncio
from typing import Any

import attrs
import pytest

from perpetuo.domain.gateway.call import SHUTDOWN
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import Bound, Model, ModelTable, Target
from perpetuo.domain.model.money import Rate, nano_from_usd
from perpetuo.domain.model.pricing import Price, Rates
from perpetuo.domain.model.settings import WhenShort
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.model.upstream import Ending, Fault, Outbound, UpstreamFailure
from perpetuo.domain.model.usage import Usage
from tests.unit.gateway.world import PRICE, Listener, ScriptedStream, World, bad, ok, settings

pytestmark = pytest.mark.anyio
CHUNK = b'data: {"choices":[]}\n\n'
ONE = Target("a", "m-a", price=PRICE, max_output_tokens=1_000)


def failure(fault: Fault, *, sent: bool = True) -> UpstreamFailure:
    return UpstreamFailure(fault, sent, "scripted")


async def settled(world: World, outcome: str, status: int) -> int:
    """Exactly one row with this outcome, nothing held, counter = row; what was charged."""
    (event,) = world.notes.events
    assert (event.outcome, event.status) == (outcome, status)
    assert await world.spent() == (event.cost_nano_usd, 0)
    assert len(world.gateway.in_flight) == 0
    assert await world.memory.backlog() == 1
    return event.cost_nano_usd


async def test_b4_success() -> None:
    """Charged to the nano."""
    world = World()
    await world.call(max_tokens=5)
    assert await settled(world, "completed", 200) == PRICE.charge(Usage(10, 5))


@pytest.mark.parametrize(
    ("fault", "sent", "reason", "status"),
    [
        (Fault.RESET, True, Reason.UPSTREAM_ERROR, 502),
        (Fault.PROTOCOL, True, Reason.UPSTREAM_ERROR, 502),
        (Fault.CONNECT, False, Reason.UPSTREAM_ERROR, 502),
        (Fault.TIMEOUT, True, Reason.UPSTREAM_TIMEOUT, 504),
    ],
)
async def test_b4_no_answer_of_any_target(fault: Fault, sent: bool, reason: Reason, status: int) -> None:
    """Attempts that were sent keep their input cost, those that were not are free (B9)."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [failure(fault, sent=sent)]
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.refusal and seen.refusal.reason) == (status, reason)
    charged = await settled(world, "failed", status)
    (event,) = world.notes.events
    assert event.error_code == reason.value
    bound = len(world.providers["a"].sent[0].ask.body) + 1_024
    assert charged == (len(event.attempts) * PRICE.at_most(bound, 0) if sent else 0)


async def test_b4_the_providers_refusal_costs_nothing() -> None:
    """A 400 is passed on and settled at zero."""
    world = World()
    world.providers["a"].script = [bad(400, Fault.CLIENT_ERROR)]
    await world.call(max_tokens=5)
    assert await settled(world, "failed", 400) == 0


async def test_b4_a_stream_without_usage_is_charged_by_its_bytes() -> None:
    """Input by its bound, output by the bytes that were streamed; the row says estimated."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [ScriptedStream([CHUNK] * 3)]
    await world.call(stream=True, max_tokens=500)
    bound = len(world.providers["a"].sent[0].ask.body) + 1_024
    assert await settled(world, "completed", 200) == PRICE.at_most(bound, 3 * len(CHUNK))
    assert world.notes.events[0].usage_basis == "estimated"


async def test_b4_a_stream_without_usage_never_costs_more_than_its_hold() -> None:
    """Bytes bound tokens from above; the hold bounds them as well."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [ScriptedStream([CHUNK] * 50)]
    await world.call(stream=True, max_tokens=5)
    assert await settled(world, "completed", 200) == world.notes.events[0].hold_nano_usd


@pytest.mark.parametrize(
    ("stream", "outcome"),
    [
        (ScriptedStream([CHUNK], end=Ending.TRUNCATED), "truncated"),
        (ScriptedStream([CHUNK], end=Ending.MALFORMED), "failed"),
        (ScriptedStream([CHUNK], failure=failure(Fault.RESET)), "truncated"),
        (ScriptedStream([CHUNK], failure=failure(Fault.TIMEOUT)), "failed"),
    ],
)
async def test_b4_a_stream_that_breaks_is_charged_for_what_it_brought(stream: ScriptedStream, outcome: str) -> None:
    """One error event, no [DONE], what was streamed is charged."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [stream]
    seen = await world.call(stream=True, max_tokens=500)
    assert seen.finished
    assert seen.refusal is not None
    assert b"[DONE]" not in seen.body
    assert await settled(world, outcome, 200) > 0


async def test_b4_a_client_that_leaves_before_the_answer() -> None:
    """The attempt is aborted, its input is charged, the row says cancelled, 499."""
    world = World()
    client = Listener()

    async def leave(out: Outbound) -> Any:
        client.abort.fire("client_gone")
        raise failure(Fault.ABORTED)

    world.providers["a"].script = [leave]
    await world.call(client=client, max_tokens=5)
    bound = len(world.providers["a"].sent[0].ask.body) + 1_024
    assert await settled(world, "cancelled", 499) == PRICE.at_most(bound, 0)
    assert world.providers["b"].sent == []


async def test_b4_a_client_that_left_before_anything_was_sent_pays_nothing() -> None:
    """Aborted before the first byte: free."""
    world = World()
    client = Listener()

    async def leave(out: Outbound) -> Any:
        client.abort.fire("client_gone")
        raise failure(Fault.ABORTED, sent=False)

    world.providers["a"].script = [leave]
    await world.call(client=client)
    assert await settled(world, "cancelled", 499) == 0


async def test_b4_a_client_that_leaves_while_a_retry_waits() -> None:
    """Nobody asks again for a client that has gone."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [bad(503, Fault.SERVER_ERROR, retry_after_us=5_000_000)]
    client = Listener()
    slept = world.clock.sleep

    async def leave(seconds: float) -> None:
        client.abort.fire("client_gone")
        await slept(seconds)

    world.clock.sleep = leave  # type: ignore[method-assign]
    await world.call(client=client)
    await settled(world, "cancelled", 499)
    assert len(world.providers["a"].sent) == 1


async def test_b4_the_drain_is_over_before_the_answer() -> None:
    """503 ``shutting_down``, settled as failed."""
    world = World()

    async def shut(out: Outbound) -> Any:
        world.gateway.in_flight.abort_all()
        raise failure(Fault.ABORTED)

    world.providers["a"].script = [shut]
    seen = await world.call(idempotency_key="k")
    assert (seen.status, seen.refusal and seen.refusal.reason) == (503, Reason.SHUTTING_DOWN)
    await settled(world, "failed", 503)


async def test_o1_the_drain_is_over_in_the_middle_of_a_stream() -> None:
    """The stream ends with one error event that says so."""
    world = World()
    world.providers["a"].script = [ScriptedStream([CHUNK] * 5)]
    client = Listener()
    client.on_write = world.gateway.in_flight.abort_all
    await world.call(stream=True, client=client)
    assert client.refusal is not None
    assert client.refusal.reason is Reason.SHUTTING_DOWN
    await settled(world, "failed", 200)


async def test_b4_a_defect_of_ours_is_settled_too() -> None:
    """Whatever breaks in the gateway, the hold does not stay."""
    world = World()

    async def broken(out: Outbound) -> Any:
        raise ZeroDivisionError

    world.providers["a"].script = [broken]
    with pytest.raises(ZeroDivisionError):
        await world.call()
    await settled(world, "failed", 500)


async def test_b4_a_cancelled_task_is_settled_too() -> None:
    """A server that cancels its handlers leaves no hold behind."""
    world = World()
    asked = asyncio.Event()

    async def forever(out: Outbound) -> Any:
        asked.set()
        await asyncio.Event().wait()

    world.providers["a"].script = [forever]
    task = asyncio.create_task(world.call())
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(world, "failed", 500)


async def test_b9_a_cancelled_first_attempt_is_charged() -> None:
    """Found: it was on its way, but not on the list of attempts yet, and so it was free."""
    world = World(settings(targets=(ONE,)))
    asked = asyncio.Event()

    async def forever(out: Outbound) -> Any:
        asked.set()
        await asyncio.Event().wait()

    world.providers["a"].script = [forever]
    task = asyncio.create_task(world.call(max_tokens=5))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bound = len(world.providers["a"].sent[0].ask.body) + 1_024
    assert await settled(world, "failed", 500) == PRICE.at_most(bound, 0)


async def test_b9_a_defect_between_two_attempts_is_not_charged_for_a_third() -> None:
    """The first keeps its input cost, the second was never made."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [failure(Fault.RESET)]

    async def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError

    world.memory.extend = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        await world.call(max_tokens=5)
    bound = len(world.providers["a"].sent[0].ask.body) + 1_024
    assert await settled(world, "failed", 500) == PRICE.at_most(bound, 0)


async def test_b9_a_defect_in_the_middle_of_a_stream_is_charged_for_what_was_streamed() -> None:
    """Found: the bytes that had come were forgotten."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [ScriptedStream([CHUNK] * 5)]
    client = Listener()

    def broken() -> None:
        if client.body.count(CHUNK) == 3:
            raise ZeroDivisionError

    client.on_write = broken
    with pytest.raises(ZeroDivisionError):
        await world.call(stream=True, client=client, max_tokens=500)
    bound = len(world.providers["a"].sent[0].ask.body) + 1_024
    assert await settled(world, "failed", 500) == PRICE.at_most(bound, 3 * len(CHUNK))


async def test_b2_usage_above_the_hold_is_charged_and_flagged() -> None:
    """A provider that ignores its limit: charged in full, told to the operator."""
    world = World(settings(targets=(ONE,)))
    world.providers["a"].script = [ok(input_tokens=5_000_000, output_tokens=9)]
    await world.call(max_tokens=1)
    assert await settled(world, "completed", 200) == PRICE.charge(Usage(5_000_000, 9))
    assert len(world.notes.exceeded) == 1


# --- the hold grows ------------------------------------------------------------------------------


async def test_b8_the_hold_grows_before_a_further_attempt() -> None:
    """An attempt that was sent stays paid for while the next one runs."""
    world = World()
    world.providers["a"].script = [failure(Fault.TIMEOUT)]
    held: list[int] = []

    async def look(out: Outbound) -> Any:
        held.append((await world.spent())[1])
        return ok()

    world.providers["b"].script = [look]
    await world.call(max_tokens=5)
    (event,) = world.notes.events
    assert held == [PRICE.at_most(len(world.providers["b"].sent[0].ask.body) + 1_024, 5) + event.decision["kept"]]
    assert world.ledger.steps.count("extend") == 1


async def test_b8_no_further_attempt_that_the_budget_does_not_cover() -> None:
    """The extension is refused: the first failure is the answer."""
    body = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}')
    one = PRICE.at_most(body + 1_024, 5)
    world = World(settings(limits=Limits(budget_day=one)))
    world.providers["a"].script = [failure(Fault.TIMEOUT)]
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.refusal and seen.refusal.reason) == (504, Reason.UPSTREAM_TIMEOUT)
    assert world.providers["b"].sent == []
    assert await settled(world, "failed", 504) == PRICE.at_most(body + 1_024, 0)


async def test_b8_no_further_attempt_while_the_store_is_away() -> None:
    """What can't be held for is not sent."""
    world = World()
    world.providers["a"].script = [failure(Fault.TIMEOUT)]
    world.ledger.away = {"extend"}
    assert (await world.call(max_tokens=5)).status == 504
    assert world.providers["b"].sent == []


# --- a larger context ----------------------------------------------------------------------------

DEAR = Price(Rates(Rate(2_500_000_000), Rate(7_500_000_000), Rate(2_500_000_000)))
TOO_LONG = bad(400, Fault.CONTEXT_LENGTH, code="context_length_exceeded")


def world_with_larger(**more: Any) -> World:
    larger = Target("b", "m-large", price=DEAR, max_output_tokens=2_000)
    models = ModelTable({"m": Model("m", (ONE,), larger_context="large"), "large": Model("large", (larger,))})
    world = World(settings(models=models, **more))
    world.providers["a"].script = [TOO_LONG]
    return world


async def test_c9_a_too_long_input_goes_to_the_larger_context() -> None:
    """Held and charged at the larger model's price; the row keeps the name that was asked for."""
    world = world_with_larger()
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.headers["x-perpetuo-model"]) == (200, "m-large")
    assert await settled(world, "completed", 200) == DEAR.charge(Usage(10, 5))
    (event,) = world.notes.events
    assert (event.model, event.upstream_model) == ("m", "m-large")
    assert event.decision["candidates"] == ["a/m-a", "b/m-large"]


async def test_c9_the_limit_header_says_ceiling_not_budget_after_a_larger_context() -> None:
    """Found: the larger model's own ceiling was told as if money had been short."""
    world = world_with_larger()
    seen = await world.call()
    assert world.providers["b"].sent[0].limit == 2_000
    assert seen.headers["x-perpetuo-max-tokens"] == "2000;reason=ceiling"


async def test_c9_a_larger_context_that_can_not_be_paid_for_passes_the_refusal_on() -> None:
    """The hold can't grow: the provider's 400 is the answer."""
    body = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}')
    world = world_with_larger(limits=Limits(budget_day=PRICE.at_most(body + 1_024, 5)))
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.body) == (400, TOO_LONG.body)
    assert world.providers["b"].sent == []
    assert await settled(world, "failed", 400) == 0


async def test_c9_without_a_larger_context_the_refusal_is_passed_on() -> None:
    """Nothing to go to."""
    world = World()
    world.providers["a"].script = [TOO_LONG]
    assert (await world.call()).body == TOO_LONG.body
    assert world.providers["b"].sent == []


async def test_b8_a_second_attempt_at_the_larger_model_is_held_for_at_its_price() -> None:
    """Found: the hold grew by the first model's price only, so that it no longer bounded the call."""
    larger = (Target("b", "m-large", price=DEAR, max_output_tokens=2_000),)
    models = ModelTable({"m": Model("m", (ONE,), larger_context="large"), "large": Model("large", larger)})
    world = World(settings(models=models))
    world.providers["a"].script = [TOO_LONG]
    held: list[int] = []

    async def look(out: Outbound) -> Any:
        held.append((await world.spent())[1])
        return ok()

    world.providers["b"].script = [failure(Fault.RESET), look]
    assert (await world.call(max_tokens=1_000)).status == 200
    bound = len(world.providers["b"].sent[0].ask.body) + 1_024
    assert held == [DEAR.at_most(bound, 1_000) + DEAR.at_most(bound, 0)]


async def test_b9_input_bound_of_the_larger_model_counts_when_usage_is_missing() -> None:
    """Its images may cost more than the first model's."""
    larger = Model("large", (Target("b", "m-large", price=DEAR, max_output_tokens=9),), bound=Bound(image_tokens=9_000))
    small = Model("m", (ONE,), larger_context="large", bound=Bound(image_tokens=100))
    world = World(settings(models=ModelTable({"m": small, "large": larger})))
    world.providers["a"].script = [TOO_LONG]
    world.providers["b"].script = [attrs.evolve(ok(), usage=None)]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://host/cat.png"}}]}]
    await world.call(messages=image)
    (event,) = world.notes.events
    assert event.input_tokens == world.providers["b"].sent[0].ask.text_bytes + 1_024 + 9_000


# --- money is short ------------------------------------------------------------------------------


async def test_when_short_the_limit_is_lowered_and_the_header_says_so() -> None:
    """``whenShort: lower``: half an answer instead of none, told in ``x-perpetuo-max-tokens``."""
    body = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    affordable = PRICE.at_most(body + 1_024, 300)
    world = World(settings(targets=(ONE,), limits=Limits(budget_day=affordable), when_short=WhenShort.LOWER))
    seen = await world.call()
    assert seen.headers["x-perpetuo-max-tokens"] == "300;reason=budget"
    assert world.providers["a"].sent[0].limit == 300


async def test_when_short_a_named_limit_is_refused_not_lowered() -> None:
    """B3 is for calls that name their limit."""
    body = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    limits = Limits(budget_day=PRICE.at_most(body + 1_024, 300))
    world = World(settings(targets=(ONE,), limits=limits, when_short=WhenShort.LOWER))
    assert (await world.call(max_tokens=900)).status == 403


async def test_the_limit_header_tells_what_the_answering_target_got() -> None:
    """Found: with a lower ceiling at the first target the header told another target's limit, or nothing at all."""
    targets = (ONE, Target("b", "m-b", priority=1, price=PRICE, max_output_tokens=4_000))
    world = World(settings(targets=targets))
    seen = await world.call(max_tokens=2_000)
    assert world.providers["a"].sent[0].limit == 1_000
    assert seen.headers["x-perpetuo-max-tokens"] == "1000;reason=ceiling"


async def test_b3_money_held_by_others_says_try_again_money_spent_says_when() -> None:
    """429 ``budget_reserved`` while a call is in flight, 403 ``budget_exceeded`` once it is spent."""
    body = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":50}')
    one = PRICE.at_most(body + 1_024, 50)
    world = World(settings(targets=(ONE,), limits=Limits(budget_day=one)))
    inner: list[Listener] = []

    async def another(out: Outbound) -> Any:
        inner.append(await world.call(max_tokens=50))
        return ok(input_tokens=1_000, output_tokens=50)

    world.providers["a"].script = [another, ok()]
    await world.call(max_tokens=50)
    assert inner[0].refusal is not None
    assert inner[0].refusal.reason is Reason.BUDGET_RESERVED
    assert inner[0].refusal.retry_after_us == 1_000_000
    spent = await world.call(max_tokens=50)
    assert spent.refusal is not None
    assert spent.refusal.reason is Reason.BUDGET_EXCEEDED
    assert spent.refusal.retry_after_us is not None
    assert 0 < spent.refusal.retry_after_us <= 86_400_000_000


async def test_a_months_budget_refuses_as_well_as_a_days() -> None:
    """The narrowest window decides, and the message names it."""
    world = World(settings(limits=Limits(budget_day=nano_from_usd("50"), budget_month=nano_from_usd("0.0001"))))
    seen = await world.call(max_tokens=1_000)
    assert seen.refusal is not None
    assert "month budget" in seen.refusal.message
    assert SHUTDOWN not in seen.refusal.message
