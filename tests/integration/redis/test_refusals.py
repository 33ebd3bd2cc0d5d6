"""Are refusals found again by those who were refused, and logins limited over all workers?"""

import pytest

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.logins import RedisLogins
from perpetuo.adapters.redis.refusals import RedisRecentRefusals
from perpetuo.adapters.redis.room import Room
from perpetuo.domain.model.events import RefusalNote
from tests.contract.ledger_world import MINUTE, SECOND
from tests.integration.redis.world import RedisWorld

pytestmark = pytest.mark.anyio


def note(request_id: str, tenant: str = "acme") -> RefusalNote:
    return RefusalNote(
        at_us=1,
        request_id=request_id,
        tenant_id=tenant,
        key_name="default",
        reason="rate_limit_exceeded",
        status=429,
        model="m",
        decision={"limit": 3},
    )


async def test_r3_a_refused_caller_finds_the_refusal_for_ten_minutes(world: RedisWorld) -> None:
    """By tenant and request id; nobody else's, and nothing older."""
    refusals = RedisRecentRefusals(world.store, world.clock)
    await refusals.note_refusals([note("r1"), note("r2"), note("r1", "other"), note("r3", "")])
    assert await refusals.find_refusal("acme", "r1") == note("r1")
    assert await refusals.find_refusal("acme", "r3") is None
    world.clock.advance(10 * MINUTE)
    assert await refusals.find_refusal("other", "r1") == note("r1", "other")
    world.clock.advance(MINUTE)
    assert await refusals.find_refusal("acme", "r1") is None
    assert 0 < await world.store.execute(b"TTL", await _any_hash(world)) <= 660


async def _any_hash(world: RedisWorld) -> bytes:
    names: list[bytes] = await world.store.execute(b"KEYS", b"perpetuo:*:refusals:*")
    return names[0]


async def test_r4_a_flood_of_refusals_fills_nothing(world: RedisWorld) -> None:
    """At most 1,000 at a time are remembered."""
    refusals = RedisRecentRefusals(world.store, world.clock)
    await refusals.note_refusals([note(f"r{n}") for n in range(1500)])
    name = keys.refusals(keys.prefix_of("acme"), world.clock.now_us // MINUTE)
    assert await world.store.execute(b"HLEN", name) == 1000


async def test_a3_minutes_of_429s_leave_room_for_calls(world: RedisWorld) -> None:
    """From however many workers: 2,000 notes a shard and minute, what is there already stays."""
    workers = [RedisRecentRefusals(world.store, world.clock) for _ in range(4)]
    for number, worker in enumerate(workers):
        await worker.note_refusals([note(f"r{number}-{n}") for n in range(900)])
    name = keys.refusals(keys.prefix_of("acme"), world.clock.now_us // MINUTE)
    assert await world.store.execute(b"HLEN", name) == 2_000
    assert await world.store.execute(b"MEMORY", b"USAGE", name, b"SAMPLES", b"0") < 1_000_000
    assert await workers[0].find_refusal("acme", "r0-0") == note("r0-0")
    assert await workers[0].find_refusal("acme", "r3-899") is None
    world.clock.advance(MINUTE)
    await workers[0].note_refusals([note("next")])
    assert await workers[0].find_refusal("acme", "next") is not None


async def test_a3_refusals_are_not_remembered_in_a_redis_that_is_half_full(world: RedisWorld) -> None:
    """Notes are a convenience: they give way long before answers (70 %) and calls (85 %) do."""
    refusals = RedisRecentRefusals(world.store, world.clock, room=lambda: world.room)
    world.room = Room(used=50, maximum=100)
    await refusals.note_refusals([note("r1")])
    assert await world.store.execute(b"KEYS", b"*refusals*") == []
    world.room = Room(used=49, maximum=100)
    await refusals.note_refusals([note("r1")])
    assert await refusals.find_refusal("acme", "r1") == note("r1")


async def test_s7_five_logins_a_minute_for_each_address(world: RedisWorld) -> None:
    """The sixth waits exactly until the first is a minute old; other addresses do not."""
    logins = RedisLogins(world.store, world.clock)
    for _ in range(5):
        assert await logins.login_attempt("192.0.2.1") == 0
        world.clock.advance(SECOND)
    assert await logins.login_attempt("192.0.2.1") == MINUTE - 5 * SECOND
    assert await logins.login_attempt("2001:db8::1") == 0
    world.clock.advance(MINUTE - 5 * SECOND)
    assert await logins.login_attempt("192.0.2.1") == 0
