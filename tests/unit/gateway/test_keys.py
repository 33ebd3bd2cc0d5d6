"""Idempotency keys, seen from the caller: who runs, who waits, what is kept (I2, I4, I6, I7, I8, I9)."""

import asyncio
from typing import Any

import attrs
import pytest

from perpetuo.domain.model.admission import UnknownOutcome
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import RetryPolicy
from perpetuo.domain.model.settings import IdempotencySettings, Settings
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.model.upstream import Answer, Ending, Fault, Outbound, UpstreamFailure
from perpetuo.domain.model.usage import Usage
from tests.unit.gateway.world import Listener, ScriptedStream, World, bad, ok, settings

pytestmark = pytest.mark.anyio
CHUNK = b"data: {}\n\n"
SECOND = 1_000_000


def keeping(**more: Any) -> Settings:
    return settings(idempotency=IdempotencySettings(**more))


def reason(seen: Listener) -> Reason:
    assert seen.refusal is not None
    return seen.refusal.reason


async def running(world: World, **more: Any) -> tuple[asyncio.Event, "asyncio.Task[Listener]"]:
    """A call with the key ``k`` that waits at its provider until the event is set."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def hold(out: Outbound) -> Any:
        asked.set()
        await go.wait()
        return ok()

    world.providers["a"].script = [hold, ok()]
    task = asyncio.create_task(world.call(idempotency_key="k", **more))
    await asked.wait()
    return go, task


async def test_i4_while_the_first_runs_others_get_409_with_a_second_to_wait() -> None:
    """The SDK may try again by itself; nothing is sent, nothing is counted."""
    world = World()
    go, first = await running(world)
    second = await world.call(idempotency_key="k")
    assert (second.status, reason(second)) == (409, Reason.IDEMPOTENCY_IN_PROGRESS)
    assert second.refusal is not None
    assert second.refusal.retry_after_us == SECOND
    go.set()
    assert (await first).status == 200
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"
    assert len(world.providers["a"].sent) == 1


@pytest.mark.parametrize("how", ["prefer", "config"])
async def test_i4_who_waits_gets_the_replay(how: str) -> None:
    """``Prefer: wait=N`` or the config's ``wait``: polls until the first is done."""
    world = World(keeping(wait=5.0) if how == "config" else None)
    go, first = await running(world)
    waiting = asyncio.create_task(world.call(idempotency_key="k", wait=5.0 if how == "prefer" else None))
    for _ in range(5):
        await asyncio.sleep(0)
    go.set()
    assert (await waiting).headers["idempotent-replayed"] == "true"
    assert (await first).body == (await waiting).body
    assert len(world.providers["a"].sent) == 1


async def test_i4_waiting_ends_when_its_time_is_over() -> None:
    """409 after so long, and no longer."""
    world = World()
    go, first = await running(world)
    began = world.clock.us
    assert reason(await world.call(idempotency_key="k", wait=2.0)) is Reason.IDEMPOTENCY_IN_PROGRESS
    assert 2 * SECOND <= world.clock.us - began <= 2.2 * SECOND
    go.set()
    await first


async def test_i4_nobody_waits_for_a_client_that_has_gone() -> None:
    """Found: a client that left while it waited was waited for, and its call could still be run."""
    world = World()
    go, first = await running(world)
    client = Listener()
    slept = world.clock.sleep

    async def leave(seconds: float) -> None:
        client.abort.fire("client_gone")
        await slept(seconds)

    world.clock.sleep = leave  # type: ignore[method-assign]
    began = world.clock.us
    await world.call(idempotency_key="k", wait=50.0, client=client)
    assert world.clock.us - began < SECOND
    go.set()
    await first


async def test_i4_who_waits_on_the_same_key_shares_one_look_at_it() -> None:
    """Found: each of them asked the ledger ten times a second, before any limit of its tenant."""
    world = World()
    go, first = await running(world)
    asked = world.ledger.steps.count("admit")
    began = world.clock.us
    waiting = [asyncio.create_task(world.call(idempotency_key="k", wait=30.0)) for _ in range(50)]
    while world.clock.us - began < 20 * SECOND:  # noqa: ASYNC110 - the clock moves with each turn of the loop
        await asyncio.sleep(0)
    assert world.ledger.steps.count("admit") - asked <= 50 + 25
    go.set()
    assert {seen.headers["idempotent-replayed"] for seen in await asyncio.gather(*waiting)} == {"true"}
    assert (await first).status == 200
    assert len(world.providers["a"].sent) == 1
    assert world.clock.us - began < 23 * SECOND


async def test_i4_when_the_first_fails_one_of_those_who_wait_runs_and_the_others_get_its_answer() -> None:
    """Nobody is left behind, and nothing is sent twice."""
    world = World(settings(limits=Limits()))
    asked, go = asyncio.Event(), asyncio.Event()

    async def fail(out: Outbound) -> Any:
        asked.set()
        await go.wait()
        return bad(500, Fault.SERVER_ERROR)

    world.providers["a"].script = [fail, ok()]
    world.providers["b"].script = [bad(500, Fault.SERVER_ERROR)]
    world.gateway.settings = attrs.evolve(world.gateway.settings, retry=RetryPolicy(attempts=1))
    first = asyncio.create_task(world.call(idempotency_key="k"))
    await asked.wait()
    waiting = [asyncio.create_task(world.call(idempotency_key="k", wait=30.0)) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    go.set()
    assert (await first).status == 502
    seen = await asyncio.gather(*waiting)
    assert [s.status for s in seen] == [200] * 5
    assert sorted("idempotent-replayed" in s.headers for s in seen) == [False] + [True] * 4
    assert len(world.providers["a"].sent) == 2


async def test_i4_who_asks_for_all_may_leave() -> None:
    """The one that looks for the others is cancelled; another looks."""
    world = World()
    go, first = await running(world)
    waiting = [asyncio.create_task(world.call(idempotency_key="k", wait=30.0)) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    go.set()
    assert [(await task).headers["idempotent-replayed"] for task in waiting[1:]] == ["true"] * 2
    await first


async def test_i4_a_tenant_has_a_hundred_places_to_wait() -> None:
    """The next gets 409 at once; when one has gone there is a place again."""
    world = World()
    go, first = await running(world)
    waiting = [asyncio.create_task(world.call(idempotency_key="k", wait=50.0)) for _ in range(100)]
    for _ in range(5):
        await asyncio.sleep(0)
    began = world.clock.us
    one_more = await world.call(idempotency_key="k", wait=50.0)
    assert reason(one_more) is Reason.IDEMPOTENCY_IN_PROGRESS
    assert world.clock.us == began
    go.set()
    await asyncio.gather(first, *waiting)
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"


async def test_c8_waiting_on_a_key_ends_with_the_calls_own_time() -> None:
    """Found: ``Prefer: wait=50`` outlived a timeout of two seconds."""
    world = World()
    go, first = await running(world)
    began = world.clock.us
    assert reason(await world.call(idempotency_key="k", wait=50.0, timeout=2.0)) is Reason.IDEMPOTENCY_IN_PROGRESS
    assert world.clock.us - began <= 2.2 * SECOND
    go.set()
    await first


# --- a kept answer needs no provider -------------------------------------------------------------


async def all_open(world: World) -> None:
    for provider in "ab":
        await world.breakers.force(provider, open_for_us=30 * SECOND)


async def test_i2_a_kept_answer_is_replayed_while_every_breaker_is_open() -> None:
    """Found: 503, although nothing had to be sent."""
    world = World()
    first = await world.call(idempotency_key="k")
    await all_open(world)
    again = await world.call(idempotency_key="k")
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotent-replayed"] == "true"


async def test_i2_a_kept_answer_is_replayed_when_its_model_has_lost_its_price() -> None:
    """A replay costs nothing, so it needs no price."""
    world = World()
    await world.call(idempotency_key="k", max_tokens=5)
    unpriced = tuple(attrs.evolve(t, price=None) for t in world.gateway.settings.models.by_name["m"].targets)
    world.gateway.replace(settings(targets=unpriced))
    assert (await world.call(idempotency_key="k", max_tokens=5)).headers["idempotent-replayed"] == "true"
    assert reason(await world.call(idempotency_key="other", max_tokens=5)) is Reason.MODEL_NOT_PRICED


async def test_i2_asking_for_a_kept_answer_leaves_no_trace() -> None:
    """The key stays free, no rate is used, nothing is held; the refusal is the one that was due."""
    world = World()
    await all_open(world)
    seen = await world.call(idempotency_key="k")
    assert (seen.status, reason(seen)) == (503, Reason.NO_HEALTHY_UPSTREAM)
    assert world.ledger.steps == ["admit"]
    assert await world.spent() == (0, 0)
    (usage,) = await world.memory.read_usage("acme", ["acme"])
    assert (usage.admitted_last_minute, usage.in_flight) == (0, 0)
    world.clock.us += 31 * SECOND
    assert "idempotent-replayed" not in (await world.call(idempotency_key="k")).headers


async def test_i2_while_the_ledger_is_away_the_refusal_is_the_one_that_was_due() -> None:
    """And there is nothing to undo: the question could not have admitted the call."""
    world = World()
    await all_open(world)
    world.ledger.away = {"admit"}
    assert reason(await world.call(idempotency_key="k")) is Reason.NO_HEALTHY_UPSTREAM
    assert world.gateway.in_flight.owing == 0


async def test_i3_another_request_under_a_used_key_is_422_while_every_breaker_is_open() -> None:
    """No provider would make it right."""
    world = World()
    await world.call(idempotency_key="k", max_tokens=5)
    await all_open(world)
    assert reason(await world.call(idempotency_key="k", max_tokens=6)) is Reason.IDEMPOTENCY_KEY_REUSED


# --- what is kept --------------------------------------------------------------------------------

FAILED = UpstreamFailure(Fault.RESET, True, "scripted")


@pytest.mark.parametrize(
    ("script", "stream", "kept"),
    [
        (ok(), False, True),
        (bad(400, Fault.CLIENT_ERROR), False, True),
        (bad(404, Fault.CLIENT_ERROR), False, True),
        (bad(413, Fault.CLIENT_ERROR), False, True),
        (bad(422, Fault.CLIENT_ERROR), False, True),
        (bad(400, Fault.CONTEXT_LENGTH), False, True),
        (bad(401, Fault.CREDENTIAL), False, False),
        (bad(429, Fault.RATE_LIMITED, retry_after_us=60 * SECOND), False, False),
        (bad(500, Fault.SERVER_ERROR), False, False),
        (FAILED, False, False),
        (UpstreamFailure(Fault.TIMEOUT, True, "silent"), False, False),
        (ScriptedStream([CHUNK], Usage(1, 1)), True, True),
        (ScriptedStream([CHUNK], end=Ending.TRUNCATED), True, False),
        (ScriptedStream([CHUNK], end=Ending.MALFORMED), True, False),
        (ScriptedStream([CHUNK], failure=FAILED), True, False),
    ],
)
async def test_i6_kept_are_complete_answers_and_refusals_that_are_answers(
    script: Any, stream: bool, kept: bool
) -> None:
    """Everything worth retrying leaves the key free."""
    world = World()
    for provider in world.providers.values():
        provider.script = [script]
    first = await world.call(idempotency_key="k", stream=stream)
    (event,) = world.notes.events
    assert event.idempotency == ("stored" if kept else "not_stored")
    world.clock.us += 120 * SECOND
    for provider in world.providers.values():
        provider.script = [ScriptedStream([CHUNK], Usage(1, 1)) if stream else ok()]
    again = await world.call(idempotency_key="k", stream=stream)
    assert ("idempotent-replayed" in again.headers) is kept
    if kept:
        assert (again.status, again.body) == (first.status, first.body)
    else:
        assert again.status == 200


async def test_i6_a_refused_call_leaves_its_key_free() -> None:
    """A rate limit hit with a key: later the same key runs."""
    world = World()
    await world.breakers.force("a", open_for_us=SECOND)
    await world.breakers.force("b", open_for_us=SECOND)
    assert (await world.call(idempotency_key="k")).status == 503
    world.clock.us += 2 * SECOND
    assert (await world.call(idempotency_key="k")).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_i9_an_answer_too_large_to_keep_says_so_and_is_never_run_again(stream: bool) -> None:
    """``not_stored``, then 409 ``idempotency_not_stored``."""
    world = World(keeping(max_bytes=100))
    large: Answer | ScriptedStream = ScriptedStream([CHUNK] * 50, Usage(1, 1)) if stream else ok(text="x" * 200)
    world.providers["a"].script = [large]
    first = await world.call(idempotency_key="k", stream=stream)
    assert first.status == 200
    assert world.notes.events[0].idempotency == "not_stored"
    if not stream:
        assert first.headers["x-perpetuo-idempotency"] == "not_stored"
    again = await world.call(idempotency_key="k", stream=stream)
    assert (again.status, reason(again)) == (409, Reason.IDEMPOTENCY_NOT_STORED)
    assert len(world.providers["a"].sent) == 1


async def test_i9_a_tenants_share_is_its_own() -> None:
    """The second answer has no room left: not stored, and says so."""
    size = len(ok().body)
    world = World(keeping(max_bytes_per_tenant=size))
    assert (await world.call(idempotency_key="k1")).headers["x-perpetuo-idempotency"] == "stored"
    assert (await world.call(idempotency_key="k2")).headers["x-perpetuo-idempotency"] == "not_stored"
    assert reason(await world.call(idempotency_key="k2")) is Reason.IDEMPOTENCY_NOT_STORED


async def test_a5_a_tenant_with_ttl_zero_keeps_nothing() -> None:
    """``ttl: 0s``: the key guards a running call, no output rests anywhere."""
    config = settings()
    tenant = attrs.evolve(config.tenants["acme"], idempotency_ttl_us=0)
    world = World(attrs.evolve(config, tenants={"acme": tenant}))
    first = await world.call(idempotency_key="k")
    again = await world.call(idempotency_key="k")
    assert [s.headers["x-perpetuo-idempotency"] for s in (first, again)] == ["not_stored"] * 2
    assert len(world.providers["a"].sent) == 2


# --- a worker died -------------------------------------------------------------------------------


async def dead_worker(world: World) -> None:
    """A call with the key ``k`` whose worker died: its lease is over and nobody renewed it."""
    go, first = await running(world)
    first.cancel()
    world.ledger.away = {"settle"}
    with pytest.raises(asyncio.CancelledError):
        await first
    world.ledger.away = set()
    for _ in range(10):  # the shard's pulse goes on
        world.clock.us += 8 * SECOND
        await world.memory.renew([])
    assert not go.is_set()


async def test_i7_after_the_lease_a_retry_runs_again_and_says_so() -> None:
    """``reexecuted`` in header and row; the dead run is charged at its hold."""
    world = World()
    await dead_worker(world)
    again = await world.call(idempotency_key="k")
    assert (again.status, again.headers["x-perpetuo-idempotency"]) == (200, "reexecuted")
    assert world.notes.events[-1].idempotency == "reexecuted"
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"


async def test_i7_fail_never_runs_twice() -> None:
    """``onUnknownOutcome: fail``: 409, and nothing is sent."""
    world = World(keeping(on_unknown=UnknownOutcome.FAIL))
    await dead_worker(world)
    again = await world.call(idempotency_key="k")
    assert (again.status, reason(again)) == (409, Reason.IDEMPOTENCY_OUTCOME_UNKNOWN)
    assert len(world.providers["a"].sent) == 1


async def test_i2_a_replay_uses_no_rate_and_no_money_and_is_noted() -> None:
    """Counted by the minute like refusals, not as a call."""
    world = World()
    await world.call(idempotency_key="k")
    before = await world.spent(), (await world.memory.read_usage("acme", ["acme"]))[0].admitted_last_minute
    await world.call(idempotency_key="k")
    after = await world.spent(), (await world.memory.read_usage("acme", ["acme"]))[0].admitted_last_minute
    assert before == after
    assert [note.reason for note in world.notes.refusals] == ["replayed"]
    assert len(world.notes.events) == 1


async def test_i2_replays_of_a_tenant_are_limited_to_ten_times_its_rate() -> None:
    """A loop on one key costs no money, but it is told to stop, and why; new calls go on."""
    world = World(settings(limits=Limits(rate_per_minute=2)))
    await world.call(idempotency_key="k")
    for _ in range(20):
        assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"
        world.clock.us += SECOND
    refused = await world.call(idempotency_key="k")
    assert (refused.status, reason(refused)) == (429, Reason.RATE_LIMIT_EXCEEDED)
    assert refused.refusal is not None
    assert refused.refusal.retry_after_us == 40 * SECOND
    assert "replays" in refused.refusal.message
    assert "20 times per minute" in refused.refusal.message
    assert (await world.call(idempotency_key="k2")).status == 200
    world.clock.us += 40 * SECOND
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"
    assert len(world.notes.events) == 2


async def test_i2_without_a_rate_limit_replays_are_not_limited() -> None:
    """There is nothing to take ten times of."""
    world = World(settings(limits=Limits()))
    await world.call(idempotency_key="k")
    for _ in range(50):
        assert (await world.call(idempotency_key="k")).status == 200
    assert len(world.notes.events) == 1
