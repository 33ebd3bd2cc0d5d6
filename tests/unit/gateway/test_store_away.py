"""What the gateway does when its ledger does not answer, and what it does not ask it at all (R3, R4, R5, O1)."""

import asyncio
from typing import Any

import attrs
import pytest

from perpetuo.domain.gateway import recover
from perpetuo.domain.model.admission import Settled, Settlement
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.money import nano_from_usd
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.model.upstream import Fault, Outbound
from perpetuo.domain.model.usage import Usage
from perpetuo.domain.ports import StoreUnavailable
from tests.unit.gateway.world import ScriptedStream, World, bad, ok, settings

pytestmark = pytest.mark.anyio
SECOND = 1_000_000
CHUNK = b"data: {}\n\n"


# --- R4: refusals without the ledger -------------------------------------------------------------


async def flood(world: World, calls: int) -> list[int]:
    return [(await world.call(max_tokens=1)).status for _ in range(calls)]


async def test_r4_a_flood_is_refused_without_asking_the_ledger() -> None:
    """Ten admitted, 490 refused over a second and a half: at most 5 % of the refusals cost a step."""
    world = World(settings(limits=Limits(rate_per_minute=10)))
    await flood(world, 10)
    asked = world.ledger.steps.count("admit")
    refused = 0
    for _ in range(490):
        world.clock.us += 3_000
        refused += (await world.call(max_tokens=1)).status == 429
    assert refused == 490
    assert world.ledger.steps.count("admit") - asked <= 0.05 * refused


async def test_r4_a_local_refusal_says_what_is_left_of_the_wait() -> None:
    """The message and the headers count down; at the end of the wait a call passes."""
    world = World(settings(limits=Limits(rate_per_minute=1)))
    await flood(world, 2)
    world.clock.us += 40 * SECOND
    seen = await world.call(max_tokens=1)
    assert seen.refusal is not None
    assert (seen.refusal.reason, seen.refusal.retry_after_us) == (Reason.RATE_LIMIT_EXCEEDED, 20 * SECOND)
    world.clock.us += 20 * SECOND
    assert await flood(world, 1) == [200]


async def test_r4_a_raised_limit_works_at_once() -> None:
    """A reload forgets every local refusal."""
    world = World(settings(limits=Limits(rate_per_minute=2)))
    assert await flood(world, 4) == [200, 200, 429, 429]
    world.gateway.settings = settings(limits=Limits(rate_per_minute=4))
    assert await flood(world, 3) == [200, 200, 429]


async def test_r4_a_call_with_a_key_is_never_refused_locally() -> None:
    """It may be a replay, and only the ledger knows."""
    world = World(settings(limits=Limits(rate_per_minute=1)))
    await world.call(idempotency_key="k")
    assert await flood(world, 2) == [429, 429]
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"


async def test_r4_one_keys_limit_does_not_refuse_its_tenants_other_keys() -> None:
    """A limit of one key is that key's own."""
    config = settings(limits=Limits())
    tenant = config.tenants["acme"]
    narrow = attrs.evolve(tenant.keys[0], limits=Limits(rate_per_minute=1))
    from tests.unit.gateway.world import key

    other = key("sk-second", "key-2")
    world = World(attrs.evolve(config, tenants={"acme": attrs.evolve(tenant, keys=(narrow, other))}))
    assert await flood(world, 3) == [200, 429, 429]
    assert (await world.call(api_key="sk-second")).status == 200


# --- R5: the ledger is away ----------------------------------------------------------------------


async def test_r5_nothing_is_sent_while_the_ledger_is_away_and_the_admission_is_cancelled_later() -> None:
    """503, should retry; when the store is back nothing stays held and no rate is used."""
    world = World()
    world.ledger.away = {"admit"}
    seen = await world.call()
    assert (seen.status, seen.refusal and seen.refusal.reason) == (503, Reason.STORE_UNAVAILABLE)
    assert world.providers["a"].sent == []
    assert world.gateway.in_flight.owing == 1
    world.ledger.away = set()
    await world.gateway.in_flight.repay_once()
    assert world.gateway.in_flight.owing == 0
    assert await world.spent() == (0, 0)


async def test_r5_an_admission_whose_reply_was_lost_is_undone() -> None:
    """It did happen: the hold and the slot are given back, charged nothing."""
    world = World(settings(limits=Limits(rate_per_minute=1)))
    world.ledger.lost = {"admit"}
    assert (await world.call()).status == 503
    world.ledger.lost = set()
    await world.gateway.in_flight.repay_once()
    assert await world.spent() == (0, 0)
    assert (await world.call()).status == 200


async def test_r5_a_call_in_flight_ends_well_and_is_settled_when_the_ledger_is_back() -> None:
    """The client has its answer; the charge and the row come later, once."""
    world = World()
    world.ledger.away = {"settle"}
    seen = await world.call(max_tokens=5)
    assert (seen.status, seen.body) == (200, ok().body)
    assert (await world.spent())[1] > 0
    await world.gateway.in_flight.repay_once()
    assert world.gateway.in_flight.owing == 1
    world.ledger.away = set()
    await world.gateway.in_flight.repay_once()
    assert await world.spent() == (12_500, 0)
    assert (world.gateway.in_flight.owing, len(world.gateway.in_flight)) == (0, 0)
    assert await world.memory.backlog() == 1


async def test_r5_a_settlement_whose_reply_was_lost_is_not_charged_twice() -> None:
    """Repeating it changes nothing."""
    world = World()
    world.ledger.lost = {"settle"}
    await world.call(max_tokens=5)
    world.ledger.lost = set()
    await world.gateway.in_flight.repay_once()
    assert await world.spent() == (12_500, 0)
    assert await world.memory.backlog() == 1


async def test_r5_a_stream_keeps_its_done_when_the_settlement_fails() -> None:
    """The ledger's trouble is not the client's."""
    world = World()
    world.providers["a"].script = [ScriptedStream([CHUNK] * 2, Usage(1, 1))]
    world.ledger.away = {"settle"}
    seen = await world.call(stream=True, idempotency_key="k")
    assert seen.body.endswith(b"data: [DONE]\n\n")


async def test_r5_an_answer_that_could_not_be_stored_yet_says_not_stored() -> None:
    """It never pretends; once the settlement is repeated the replay is there."""
    world = World()
    world.ledger.away = {"settle"}
    assert (await world.call(idempotency_key="k")).headers["x-perpetuo-idempotency"] == "not_stored"
    world.ledger.away = set()
    await world.gateway.in_flight.repay_once()
    assert (await world.call(idempotency_key="k")).headers["idempotent-replayed"] == "true"


async def test_r5_an_owed_settlement_keeps_its_lease() -> None:
    """The store was slow for longer than a lease: still one charge, not an abandoned call."""
    world = World()
    world.ledger.away = {"settle"}
    await world.call(max_tokens=5)
    for _ in range(8):
        world.clock.us += 5 * SECOND
        await world.gateway.in_flight.renew_once()
        assert await world.memory.reap() == []
    world.ledger.away = set()
    await world.gateway.in_flight.repay_once()
    assert await world.spent() == (12_500, 0)


async def test_r5_calls_refused_while_the_ledger_was_not_even_asked_leave_nothing_behind() -> None:
    """Found: 19,200 cancels after 20 s of an outage, and settlements waited behind them."""
    world = World()
    world.ledger.unsent = {"admit"}
    for _ in range(100):
        assert (await world.call()).status == 503
    assert world.gateway.in_flight.owing == 0


async def test_r5_cancels_are_bounded_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """An admission whose reply was lost is at worst a hold until its lease ends."""
    monkeypatch.setattr(recover, "MOST_CANCELS", 10)
    world = World(settings(limits=Limits(rate_per_minute=100)))
    world.ledger.lost = {"admit"}
    for _ in range(30):
        await world.call()
    assert world.gateway.in_flight.owing == 10
    world.ledger.lost = set()
    await world.gateway.in_flight.repay_once()
    (usage,) = await world.memory.read_usage("acme", ["acme"])
    assert usage.admitted_last_minute == 20


async def test_r5_settlements_go_before_cancels() -> None:
    """Money and answers first."""
    world = World()
    world.ledger.away = {"settle"}
    await world.call()
    world.ledger.away = {"admit"}
    for _ in range(3):
        await world.call()
    world.ledger.away = set()
    world.ledger.steps.clear()
    await world.gateway.in_flight.repay_once()
    assert world.ledger.steps == ["settle", "cancel", "cancel", "cancel"]


async def test_r5_while_the_ledger_is_away_a_round_asks_it_little() -> None:
    """One batch of settlements and one of cancels, not all that is owed."""
    world = World()
    world.ledger.away = {"settle"}
    for _ in range(50):
        await world.call(max_tokens=1)
    world.ledger.away = {"admit"}
    for _ in range(250):
        await world.call(max_tokens=1)
    world.ledger.away = {"settle", "cancel"}
    world.ledger.steps.clear()
    await world.gateway.in_flight.repay_once()
    assert (world.ledger.steps.count("settle"), world.ledger.steps.count("cancel")) == (50, 100)
    assert world.gateway.in_flight.owing == 300


def refuse_one(world: World, error: Exception) -> None:
    """The next call's settlement fails for good, and no other."""
    refused: set[str] = set()
    settle = world.memory.settle

    async def settle_others(settlement: Settlement, keeping: IdempotencySettings) -> Settled:
        if not refused or settlement.hold.call in refused:
            refused.add(settlement.hold.call)
            raise error
        return await settle(settlement, keeping)

    world.memory.settle = settle_others  # type: ignore[method-assign]


async def test_b4_a_settlement_the_store_refuses_for_good_delays_no_other() -> None:
    """Found: the round stopped at it, and no settlement behind it was ever repeated."""
    world = World()
    refuse_one(world, StoreUnavailable("WRONGTYPE"))
    await world.call(max_tokens=5)
    world.ledger.away = {"settle"}
    for _ in range(3):
        await world.call(max_tokens=5)
    assert world.gateway.in_flight.owing == 4
    world.ledger.away = set()
    await world.gateway.in_flight.repay_once()
    assert world.gateway.in_flight.owing == 1
    assert (await world.spent())[0] == 3 * 12_500


@pytest.mark.parametrize("error", [StoreUnavailable("WRONGTYPE"), ValueError("not a number")])
async def test_b4_a_settlement_the_store_refuses_for_good_is_left_to_the_reaper(error: Exception) -> None:
    """While others are taken; said once, as an error; its lease is not kept up any longer."""
    world = World(settings(limits=Limits(budget_day=nano_from_usd("50"))))
    refuse_one(world, error)
    world.ledger.away = {"settle"}
    await world.call(max_tokens=5)
    world.ledger.away = set()
    rounds = 0
    while world.gateway.in_flight.owing:
        await world.gateway.in_flight.repay_once()
        await world.call(max_tokens=5)
        world.clock.us += SECOND // 4
        rounds += 1
    assert rounds <= recover.MOST_TRIES + 1
    lines = [fields for level, name, fields in world.notes.lines if (level, name) == ("error", "store_refused")]
    assert [fields["kind"] for fields in lines] == ["settlement"]
    for _ in range(9):
        world.clock.us += 9 * SECOND
        await world.gateway.in_flight.renew_once()
    assert len(await world.memory.reap()) == 1
    assert (await world.spent())[1] == 0


async def test_r5_in_an_outage_no_settlement_is_given_up() -> None:
    """Ten minutes of rounds that get nothing through: all is still owed."""
    world = World()
    world.ledger.away = {"settle"}
    await world.call(max_tokens=5)
    for _ in range(2_400):
        await world.gateway.in_flight.repay_once()
    world.ledger.away = set()
    await world.gateway.in_flight.repay_once()
    assert await world.spent() == (12_500, 0)


async def test_r5_renewing_survives_a_ledger_that_is_away() -> None:
    """It is said in the log, and tried again."""
    world = World()
    world.ledger.away = {"renew"}
    await world.gateway.in_flight.renew_once()
    assert world.notes.lines == [("error", "ledger", {"text": "away"})]


# --- O1: draining --------------------------------------------------------------------------------


async def test_o1_a_draining_worker_takes_no_further_call() -> None:
    """503 ``shutting_down``, and what is in flight goes on."""
    world = World()

    async def drain(out: Outbound) -> Any:
        world.gateway.draining = True
        seen = await world.call()
        assert (seen.status, seen.refusal and seen.refusal.reason) == (503, Reason.SHUTTING_DOWN)
        return ok()

    world.providers["a"].script = [drain]
    assert (await world.call()).status == 200
    assert [note.reason for note in world.notes.refusals] == ["shutting_down"]


async def test_o1_who_waits_on_a_key_when_the_drain_begins_is_turned_away() -> None:
    """Found: it waited on, and its call could begin when the worker had no time left for it."""
    world = World()
    asked, go = asyncio.Event(), asyncio.Event()

    async def hold(out: Outbound) -> Any:
        asked.set()
        await go.wait()
        return bad(500, Fault.SERVER_ERROR)

    world.providers["a"].script = [hold]
    world.providers["b"].script = [bad(500, Fault.SERVER_ERROR)]
    first = asyncio.create_task(world.call(idempotency_key="k"))
    await asked.wait()
    waiting = asyncio.create_task(world.call(idempotency_key="k", wait=60.0))
    await asyncio.sleep(0)
    world.gateway.draining = True
    seen = await waiting
    assert (seen.status, seen.refusal and seen.refusal.reason) == (503, Reason.SHUTTING_DOWN)
    go.set()
    await first
    assert len(world.notes.events) == 1


async def test_r3_a_refusal_is_noted_with_its_caller_and_costs_nothing() -> None:
    """By the minute, off the call path; no hold, no row."""
    world = World(settings(limits=Limits(rate_per_minute=1)))
    await flood(world, 2)
    (note,) = world.notes.refusals
    assert (note.reason, note.status, note.tenant_id, note.key_name) == ("rate_limit_exceeded", 429, "acme", "key-1")
    assert len(world.notes.events) == 1
