"""What sums of minutes keep, on SQLite and on a real Postgres: sums over the rows, whatever arrived when."""

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from attrs import evolve
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from perpetuo.adapters.sql import SqlEventStore, database
from perpetuo.adapters.sql.rollups import TABLES
from perpetuo.adapters.sql.tables import events, refusals
from perpetuo.domain.model.activity import EVERYTHING, MINUTE_US, Scope, Slice, Tally, added
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.model.histogram import Histogram
from tests.contract.event_store_contract import DAY_US, NOON_US, event, refusal, sent
from tests.examples import examples

HOUR_US = 60 * MINUTE_US
OUTCOMES = ("completed", "failed", "cancelled", "truncated", "abandoned")


def tally(of: list[Event], refused: int = 0) -> Tally:
    """What the rows sum up to, the slow way."""
    return Tally(
        calls=len(of),
        refused=refused,
        **{outcome: sum(one.outcome == outcome for one in of) for outcome in OUTCOMES},
        **{
            name: sum(getattr(one, name) for one in of)
            for name in ("cost_nano_usd", "input_tokens", "output_tokens", "cached_tokens")
        },
    )


async def total(store: SqlEventStore, scope: Scope = EVERYTHING, step: int = 1) -> Slice:
    return (await store.activity(NOON_US - 2 * HOUR_US, NOON_US + HOUR_US, step, scope)).total


async def parts(store: SqlEventStore, scope: Scope) -> dict[str, Tally]:
    return something(await store.parts(NOON_US - 2 * HOUR_US, NOON_US + HOUR_US, scope))


def something(of: Mapping[str, Tally]) -> dict[str, Tally]:
    """Without what nothing happened in."""
    return {name: one for name, one in of.items() if one != Tally()}


async def emptied(store: SqlEventStore) -> None:
    """A database for each example would take ten times as long."""
    async with store._database.transaction(database.WRITING) as connection:
        for table in (events, refusals, *TABLES):
            await connection.execute(sa.delete(table))


def calls(seconds: int = 30 * 60, most: int = 25) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        st.fixed_dictionaries({
            "at_us": st.integers(-seconds, seconds - 1).map(lambda s: NOON_US + s * 1_000_000),
            "tenant_id": st.sampled_from(["acme", "<b>", "other"]),
            "model": st.sampled_from(["m", "n"]),
            "key_name": st.sampled_from(["default", "batch"]),
            "provider": st.sampled_from(["openai", "demo", None]),
            "outcome": st.sampled_from(OUTCOMES),
            "cost_nano_usd": st.integers(0, 10**14),
            "input_tokens": st.integers(0, 10**9),
            "output_tokens": st.integers(0, 10**6),
            "latency_ms": st.floats(0, 700_000),
            "first_token_ms": st.none() | st.floats(0, 60_000),
            "kind": st.sampled_from(["chat", "chat", "admin"]),
        }),
        max_size=most,
    )  # fmt: skip


@pytest.mark.anyio
class RollupsContract:
    """Subclasses give a fixture ``store``: empty, migrated."""

    @examples(4, 50, suppress_health_check=list(HealthCheck))
    @given(
        found=calls(), cut=st.integers(0, 25), refused=st.integers(0, 5),
        when=st.sampled_from([(1, 1), (15, 1), (60, 1), (120, 1), (60, 120), (120, 120)]),
    )  # fmt: skip
    async def test_a3_sums_of_minutes_are_the_sums_over_the_rows(
        self, store: SqlEventStore, found: list[dict[str, Any]], cut: int, refused: int, when: tuple[int, int]
    ) -> None:
        """Of everything, each provider, tenant and key; in whatever steps; for late rows, twice, days later."""
        await emptied(store)
        arrived = [event(**fields) for fields in found]
        step, after = when[0], NOON_US + when[1] * HOUR_US
        await store.write([sent(one) for one in arrived[:cut]])
        await store.roll(after)
        await store.write([sent(one) for one in arrived[cut:]])
        if refused:
            await store.write_refusals([refusal(count=refused), refusal(tenant_id="", client_ip="10.0.0.1")])
        await store.roll(after)
        assert await store.roll(after) == 0, "nothing is left to do"
        counted = [one for one in arrived if one.kind != "admin"]
        whole = await total(store, step=step)
        assert whole.tally == tally(counted, refused + 1 if refused else 0)
        assert whole.latency == Histogram.of(one.latency_ms for one in counted)
        assert whole.first_token == Histogram.of(o.first_token_ms for o in counted if o.first_token_ms is not None)
        for name in ("openai", "demo", ""):
            mine = [one for one in counted if (one.provider or "") == name]
            seen = await total(store, Scope("provider", name), step)
            assert (seen.tally, seen.latency) == (tally(mine), Histogram.of(one.latency_ms for one in mine))
        for name in ("acme", "<b>", "other"):
            mine = [one for one in counted if one.tenant_id == name]
            expected = tally(mine, refused if name == "acme" else 0)
            assert (await total(store, Scope("tenant", name), step)).tally == expected
            assert (await total(store, Scope("key", name), step)).tally == expected
            by_model = {model: tally([o for o in mine if o.model == model]) for model in ("m", "n")}
            by_key = {key: tally([o for o in mine if o.key_name == key]) for key in ("default", "batch")}
            if name == "acme":
                by_model[""] = Tally(refused=refused)
                by_key["default"] = evolve(by_key["default"], refused=refused)
            assert await parts(store, Scope("tenant", name)) == something(by_model)
            assert await parts(store, Scope("key", name)) == something(by_key)

    async def test_a_minute_that_comes_late_is_in_its_hour_as_well(self, store: SqlEventStore) -> None:
        """Of an hour that has been summed up, and of hours in between that nobody has closed."""
        for back in (3, 1):
            await store.write([sent(event(NOON_US - back * HOUR_US))])
            await store.roll(NOON_US + MINUTE_US)
        await store.write([sent(event(NOON_US - 3 * HOUR_US + MINUTE_US)), sent(event(NOON_US - 2 * HOUR_US))])
        await store.roll(NOON_US + 2 * MINUTE_US)
        seen = await store.activity(NOON_US - 3 * HOUR_US, NOON_US + HOUR_US, 60)
        assert [one.tally.calls for one in seen.slices] == [2, 1, 1]

    async def test_an_hour_that_is_not_over_is_read_by_its_minutes(self, store: SqlEventStore) -> None:
        """And is whole when it is over, without a further row."""
        now = NOON_US + 30 * MINUTE_US
        await store.write([sent(event(NOON_US + n * MINUTE_US)) for n in (-1, 0, 5, 29)])
        for later in (now, now + HOUR_US):
            await store.roll(later)
            seen = await store.activity(NOON_US - HOUR_US, later, 60)
            assert [one.tally.calls for one in seen.slices] == [1, 3]
        assert (await parts(store, Scope("tenant", "acme")))["gpt-4o"].calls == 4

    async def test_minutes_give_way_to_their_hours_after_three_days(self, store: SqlEventStore) -> None:
        """Never before their hour has been summed up; however many days there are to forget."""
        await store.write([sent(event()), sent(event(NOON_US - 5 * DAY_US))])
        await store.roll(NOON_US + MINUTE_US)
        await store.maintain(NOON_US + 4 * DAY_US, 90 * DAY_US)
        assert (await total(store)).tally.calls == 1, "its hour was never closed"
        await store.roll(NOON_US + 4 * DAY_US)
        await store.maintain(NOON_US + 4 * DAY_US, 90 * DAY_US)
        assert ((await total(store)).tally.calls, (await total(store, step=60)).tally.calls) == (0, 1)
        before = await store.activity(NOON_US - 6 * DAY_US, NOON_US, 60)
        assert before.total.tally.calls == 1

    async def test_a_minute_that_is_not_over_is_read_from_its_rows(self, store: SqlEventStore) -> None:
        """And not summed up before; both together are one chart."""
        now = NOON_US + 30 * 1_000_000
        await store.write([sent(event(NOON_US - MINUTE_US)), sent(event(NOON_US)), sent(event(now, outcome="failed"))])
        await store.write_refusals([refusal(now)])
        assert await store.roll(now) == 1
        seen = await store.activity(NOON_US - HOUR_US, now, 1)
        assert [(one.minute, one.tally.calls, one.tally.errors, one.tally.refused) for one in seen.slices] == [
            (NOON_US // MINUTE_US - 1, 1, 0, 0),
            (NOON_US // MINUTE_US, 2, 1, 1),
        ]
        assert seen.behind == 0

    async def test_b5_a_correction_changes_the_sum_and_counts_once(self, store: SqlEventStore) -> None:
        """An abandoned call that settles after all, long after its minute was summed up."""
        one = event(outcome="abandoned", cost_nano_usd=9_000)
        await store.write([sent(one)])
        await store.roll(NOON_US + HOUR_US)
        assert (await total(store)).tally.abandoned == 1
        await store.write([sent(evolve(one, outcome="completed", cost_nano_usd=10), revision=2)])
        await store.roll(NOON_US + HOUR_US)
        assert (await total(store)).tally == Tally(calls=1, completed=1, cost_nano_usd=10)

    async def test_minutes_that_nobody_has_summed_up_are_told(self, store: SqlEventStore) -> None:
        """A chart with a hole says so."""
        await store.write([sent(event(NOON_US - 90 * MINUTE_US)), sent(event(NOON_US))])
        seen = await store.activity(NOON_US - 2 * HOUR_US, NOON_US + MINUTE_US, 1)
        assert (added(one.tally for one in seen.slices).calls, seen.behind) == (1, 1)
        await store.roll(NOON_US + HOUR_US)
        seen = await store.activity(NOON_US - 2 * HOUR_US, NOON_US + MINUTE_US, 1)
        assert (added(one.tally for one in seen.slices).calls, seen.behind) == (2, 0)

    async def test_sums_outlive_the_rows_they_were_made_of(self, store: SqlEventStore) -> None:
        """Rows go after the retention, their sums after 90 days."""
        await store.write([sent(event())])
        await store.roll(NOON_US + HOUR_US)
        await store.maintain(NOON_US + 60 * DAY_US, 5 * DAY_US)
        assert await store.latest(EventFilter()) == []
        assert (await total(store, step=60)).tally.calls == 1
        await store.maintain(NOON_US + 91 * DAY_US, 5 * DAY_US)
        assert (await total(store, step=60)).tally.calls == 0
