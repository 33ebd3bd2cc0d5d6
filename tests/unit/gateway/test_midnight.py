"""Midnight in the tenant's zone, short and long days, and prices that change, seen from whole calls (B6, B2, B4)."""

from datetime import datetime
from zoneinfo import ZoneInfo

import attrs
import pytest

from perpetuo.domain.model.models import ModelTable, Target
from perpetuo.domain.model.money import Rate, nano_from_usd
from perpetuo.domain.model.pricing import Price, Rates
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Limits, Tenant
from perpetuo.domain.model.upstream import Answer, Outbound
from tests.unit.gateway.world import World, key, ok, settings

pytestmark = pytest.mark.anyio

SECOND, HOUR = 1_000_000, 3_600 * 1_000_000
COST = 10 * 500 + 5 * 1_500
"""Nano-USD of `ok` at the price of `tests.unit.gateway.world`."""
ONE_CALL = Limits(budget_day=nano_from_usd("0.0025"))
"""Room for one call that may cost 0.0020 USD."""


def midnight(date: str, zone: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def in_zone(zone: str) -> Settings:
    tenant = Tenant("acme", "pro", ONE_CALL, time_zone=zone, keys=(key("sk-acme"),))
    return attrs.evolve(settings(), tenants={"acme": tenant})


DAYS = [
    ("Europe/Berlin", "2026-03-29", 23),
    ("Europe/Berlin", "2026-10-25", 25),
    ("Asia/Kathmandu", "2026-11-23", 24),
    ("Australia/Lord_Howe", "2026-04-05", 24.5),
]


@pytest.mark.parametrize(("zone", "date", "hours"), DAYS)
async def test_b6_a_day_is_as_long_as_it_is_and_the_first_call_after_it_is_admitted(
    zone: str, date: str, hours: float
) -> None:
    """Spent in its first second, refused until its last µs with the exact wait, admitted at midnight."""
    world = World(in_zone(zone))
    begins = midnight(date, zone)
    ends = begins + round(hours * HOUR)
    world.clock.us = begins
    world.providers["a"].script = [ok(2_000, 666)]
    assert (await world.call()).status == 200
    for now in (begins + SECOND, ends - HOUR, ends - 1):
        world.clock.us = now
        refused = await world.call()
        assert refused.status == 403
        assert refused.refusal is not None
        assert refused.refusal.retry_after_us == ends - now
    world.clock.us = ends
    assert (await world.call()).status == 200
    today, tomorrow = (event.budget_day for event in world.notes.events)
    assert (today == date, tomorrow == date) == (True, False)


@pytest.mark.parametrize(("zone", "date", "hours"), DAYS)
async def test_b6_a_call_over_midnight_is_charged_to_the_day_of_its_admission(
    zone: str, date: str, hours: float
) -> None:
    """Begun in the last second of a day and answered in the next: nothing of it is in the new day."""
    world = World(in_zone(zone))
    ends = midnight(date, zone) + round(hours * HOUR)
    world.clock.us = ends - SECOND

    async def over_midnight(out: Outbound) -> Answer:
        world.clock.us = ends + SECOND
        return ok()

    world.providers["a"].script = [over_midnight, ok()]
    assert (await world.call()).status == 200
    (event,) = world.notes.events
    assert (event.budget_day, event.cost_nano_usd) == (date, COST)
    assert await world.spent() == (0, 0)
    assert (await world.call()).status == 200
    assert await world.spent() == (COST, 0)
    world.clock.us = ends - 1
    assert await world.spent() == (COST, 0)


def at_price(dearer: int) -> Settings:
    rates = Rates(Rate(500_000_000 * dearer), Rate(1_500_000_000 * dearer), Rate(250_000_000 * dearer))
    target = Target("a", "m-a", price=Price(rates), max_output_tokens=1_000)
    return settings(targets=(target,))


async def test_b2_a_call_in_flight_is_settled_at_the_price_it_was_held_for() -> None:
    """A reload makes the model ten times as dear: the call before it costs what it held for, the next the new price."""
    world = World(at_price(1))

    async def while_prices_change(out: Outbound) -> Answer:
        world.gateway.replace(at_price(10))
        return ok()

    world.providers["a"].script = [while_prices_change, ok()]
    await world.call()
    await world.call()
    assert [event.cost_nano_usd for event in world.notes.events] == [COST, 10 * COST]
    assert world.notes.exceeded == []
    assert await world.spent() == (11 * COST, 0)


async def test_b4_a_call_of_a_tenant_and_model_that_a_reload_removed_is_settled_all_the_same() -> None:
    """A settlement needs its call record only."""
    world = World(at_price(1))

    async def while_all_is_removed(out: Outbound) -> Answer:
        world.gateway.replace(attrs.evolve(at_price(1), tenants={}, models=ModelTable({})))
        return ok()

    world.providers["a"].script = [while_all_is_removed]
    assert (await world.call()).status == 200
    world.gateway.replace(at_price(1))
    assert await world.spent() == (COST, 0)
