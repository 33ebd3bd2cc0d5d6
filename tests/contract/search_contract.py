"""What a search keeps, which may end before it has looked at everything; run on SQLite and on a real Postgres."""

from typing import Any

import pytest

from perpetuo.adapters.sql import SqlEventStore
from perpetuo.domain.model.events import Event, EventFilter
from tests.contract.event_store_contract import DAY_US, NOON_US, event, sent

HOUR_US = DAY_US // 24
NO_TIME, PLENTY = 0.0, 60.0
AGES = (0, 1, 2, 30, 31, 47, 60)
"""Hours."""


async def gone_on(
    store: SqlEventStore, where: EventFilter, seconds: float, limit: int, before: str | None = None
) -> tuple[list[Event], int]:
    """All that there is, and how many searches it took."""
    found: list[Event] = []
    for searches in range(1, 1_000):
        page = await store.search(where, now_us=NOON_US, before=before, limit=limit, seconds=seconds)
        assert len(page.events) <= limit
        assert page.next is not None or page.back_to_us is None
        found += page.events
        if page.next is None:
            return found, searches
        before = page.next
    raise AssertionError("It goes on for ever.")


class SearchContract:
    @pytest.mark.parametrize(
        "wanted",
        [
            {},
            {"tag": "t"},
            {"tag": "t", "status": 502},
            {"tenant_id": "none"},
            {"since_us": NOON_US - 31 * HOUR_US},
            {"until_us": NOON_US - 30 * HOUR_US, "tag": "t"},
            {"since_us": NOON_US + DAY_US},
        ],
    )
    async def test_pages_have_each_event_once_however_short_their_time(
        self, store: SqlEventStore, wanted: dict[str, Any]
    ) -> None:
        """Followed to the end they are what `latest` has at once."""
        calls = [event(NOON_US - age * HOUR_US, tag="t" if age % 2 == 0 else None) for age in AGES]
        ahead = event(NOON_US, id="0fffffff-0000-4000-8000-000000000000", tag="t")  # an id of no day
        await store.write(list(map(sent, [*calls, ahead, event(NOON_US + HOUR_US)])))
        where = EventFilter(**wanted)
        for seconds, limit in ((NO_TIME, 1), (NO_TIME, 50), (PLENTY, 1), (PLENTY, 3), (PLENTY, 50)):
            found, _ = await gone_on(store, where, seconds, limit)
            assert found == await store.latest(where), (seconds, limit)

    async def test_a_search_whose_time_is_over_says_how_far_it_came(self, store: SqlEventStore) -> None:
        """It has nothing yet, which is not to say that there is nothing; it gets on by an hour at least."""
        old = event(NOON_US - 5 * HOUR_US, tag="t")
        await store.write([sent(old), sent(event())])
        where = EventFilter(tag="t")
        first = await store.search(where, now_us=NOON_US, seconds=NO_TIME)
        assert (first.events, first.back_to_us) == ([], NOON_US - HOUR_US)
        found, searches = await gone_on(store, where, NO_TIME, 50, first.next)
        assert found == [old]
        assert searches <= 24, "an end is found, where there is nothing older"
        assert store.problem() is None

    async def test_enough_time_is_one_search(self, store: SqlEventStore) -> None:
        """Also where there is nothing, and for what no row can hold."""
        for where in (EventFilter(), EventFilter(tag="none"), EventFilter(tag="\0")):
            assert await gone_on(store, where, PLENTY, 50) == ([], 1)
        await store.write([sent(event(NOON_US - age * DAY_US)) for age in range(40)])
        assert await gone_on(store, EventFilter(tag="none"), PLENTY, 50) == ([], 1)
        assert len((await gone_on(store, EventFilter(), PLENTY, 50))[0]) == 40
