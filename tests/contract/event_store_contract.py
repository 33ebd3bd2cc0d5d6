"""What every implementation of `EventStore` and `EventHistory` keeps, run on SQLite and on a real Postgres."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perpetuo.adapters.sql import SqlEventStore
from perpetuo.adapters.system import uuid7
from perpetuo.domain.model.events import Event, EventFilter, RefusalNote
from perpetuo.domain.ports import Admission, ProviderCall, StoreUnavailable, WindowSum

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 1_000_000
DAY_US = 86_400_000_000
SECOND_US = 1_000_000
_serial = count(1)


@attrs.define
class Sent:
    """An event as it comes out of the ledger's stream."""

    row: bytes
    revision: int = 1
    charged: int | None = None
    entry: str = "0-0"


def event(at_us: int = NOON_US, **fields: Any) -> Event:
    serial = next(_serial)
    return Event(
        **{
            "id": uuid7(at_us // 1000, serial),
            "occurred_at_us": at_us,
            "tenant_id": "acme",
            "key_name": "default",
            "kind": "chat",
            "model": "gpt-4o",
            "request_id": f"req-{serial}",
            "status": 200,
            "outcome": "completed",
            "budget_day": "2026-11-23",
            "cost_nano_usd": 1_000,
            **fields,
        }
    )


def sent(one: Event, revision: int = 1, charged: int | None = None) -> Sent:
    return Sent(msgspec.json.encode(one), revision, charged)


def spoilt(one: Event, **fields: Any) -> Sent:
    """The event with members replaced, or left out where ``...`` stands."""
    row = msgspec.to_builtins(one) | fields
    return Sent(msgspec.json.encode({name: value for name, value in row.items() if value is not ...}))


POISON: dict[str, Any] = {
    "no JSON": lambda one: Sent(b'{"id": "'),
    "no UTF-8": lambda one: Sent(msgspec.json.encode(one).replace(b"gpt-4o", b"gpt-\xff")),
    "no id": lambda one: spoilt(one, id=...),
    "too deep": lambda one: Sent(msgspec.json.encode(one)[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "two documents": lambda one: Sent(msgspec.json.encode(one) * 2),
    "a column missing": lambda one: spoilt(one, tenant_id=...),
    "a word for a number": lambda one: spoilt(one, status="fine"),
    "an integer beyond 64 bits": lambda one: spoilt(one, cost_nano_usd=2**63),
    "a time beyond the calendar": lambda one: spoilt(one, occurred_at_us=2**62),
}


def refusal(at_us: int = NOON_US, **fields: Any) -> RefusalNote:
    return RefusalNote(
        **{
            "at_us": at_us,
            "request_id": "req-1",
            "tenant_id": "acme",
            "key_name": "default",
            "reason": "rate_limit_exceeded",
            "status": 429,
            "model": "gpt-4o",
            **fields,
        }
    )


@pytest.mark.anyio
class EventStoreContract:
    """Subclasses give a fixture ``store``: empty, migrated."""

    # --- events ----------------------------------------------------------------------------------

    async def test_a1_an_event_comes_back_as_it_was(self, store: SqlEventStore) -> None:
        """Every field survives the way into the table and back, to the µs and the nano."""
        full = event(
            at_us=NOON_US + 123_456,
            tag="nightly",
            provider="openai",
            upstream_model="gpt-4o-2024-08-06",
            error_code=None,
            stream=True,
            attempts=({"provider": "openai", "ms": 12.5}, {"provider": "azure", "outcome": "timeout"}),
            decision={"candidates": ["a", "b"], "limits": {"rate": {"left": 3}}, "text": "naïve ✓ \\u0000"},
            input_tokens=2**40,
            output_tokens=7,
            cached_tokens=3,
            usage_basis="estimated",
            cost_nano_usd=999_999_999_999_999,
            price_version="config",
            hold_nano_usd=10**15,
            latency_ms=1234.5678,
            first_token_ms=0.125,
            overhead_ms=0.5,
            idempotency="stored",
            upstream_request_id="up-1",
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            client_ip="192.0.2.0",
        )
        await store.write([sent(full)])
        assert await store.by_request_id("acme", full.request_id) == full

    async def test_a1_usage_beyond_31_bits_is_a_row_and_not_set_aside(self, store: SqlEventStore) -> None:
        """Whatever a provider reports that fits 64 bits: tokens and money are BIGINT."""
        most = 2**63 - 1
        tokens = {"input_tokens": most, "output_tokens": 2**31, "cached_tokens": most}
        one = event(**tokens, cost_nano_usd=9 * 10**15, hold_nano_usd=most)
        assert await store.write([sent(one)]) == 0
        assert await store.by_request_id("acme", one.request_id) == one

    @given(at_us=st.integers(0, 4_000_000_000_000_000))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    async def test_a1_no_microsecond_is_lost(self, store: SqlEventStore, at_us: int) -> None:
        """``occurred_at`` is exact; it never goes through a float."""
        one = event(occurred_at_us=at_us)
        await store.write([sent(one)])
        found = await store.by_request_id("acme", one.request_id)
        assert found is not None
        assert found.occurred_at_us == at_us

    @given(
        arrivals=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=30),
        cuts=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    )
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    async def test_a2_any_order_and_repetition_gives_the_same_table(
        self, store: SqlEventStore, arrivals: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        """Whatever arrives when and how often, in whatever batches: one row an id, of its highest revision."""
        tenant = f"order-{next(_serial)}"
        calls = [event(tenant_id=tenant) for _ in range(5)]
        queue = [sent(attrs.evolve(calls[n], cost_nano_usd=10 * n + rev), rev) for n, rev in arrivals]
        size = iter(cuts * 30)
        while queue:
            here = next(size)
            batch, queue = queue[:here], queue[here:]
            assert await store.write(batch) == 0
        highest: dict[int, int] = {}
        for n, revision in arrivals:
            highest[n] = max(revision, highest.get(n, 0))
        found = await store.latest(EventFilter(tenant_id=tenant))
        assert {e.id: e.cost_nano_usd for e in found} == {calls[n].id: 10 * n + rev for n, rev in highest.items()}
        assert len(found) == len(highest)

    async def test_b5_an_abandoned_call_is_charged_at_its_hold_until_corrected(self, store: SqlEventStore) -> None:
        """``charged`` overrides cost and hold of an abandoned row; revision 2 puts the true cost in its place."""
        lost = event(outcome="abandoned", cost_nano_usd=0, hold_nano_usd=0, usage_basis="bound")
        await store.write([sent(lost, charged=5_000)])
        found = await store.by_request_id("acme", lost.request_id)
        assert found == attrs.evolve(lost, cost_nano_usd=5_000, hold_nano_usd=5_000)
        true = attrs.evolve(lost, outcome="completed", cost_nano_usd=3_210, hold_nano_usd=5_000)
        await store.write([sent(true, revision=2), sent(lost, charged=5_000)])
        assert await store.latest(EventFilter(tenant_id="acme")) == [true]

    @pytest.mark.parametrize("poison", POISON)
    async def test_a2_a_bad_event_is_set_aside_and_delays_no_other(self, store: SqlEventStore, poison: str) -> None:
        """A row the database can't take lands in ``events_rejected``, once; its neighbours in ``events``."""
        good = [event() for _ in range(10)]
        bad = POISON[poison](event())
        batch = [*map(sent, good[:4]), bad, *map(sent, good[4:])]
        assert await store.write(batch) == 1
        assert await store.write(batch) == 1
        assert {e.id for e in await store.latest(EventFilter())} == {e.id for e in good}
        assert await self.rejected(store) == 1

    async def test_a2_many_bad_events_delay_no_other(self, store: SqlEventStore) -> None:
        """Every second row bad: all the others are there."""
        good = [event() for _ in range(50)]
        batch = [each for one in good for each in (sent(one), spoilt(event(), status="fine"))]
        assert await store.write(batch) == 50
        assert len(await store.latest(EventFilter(), limit=1000)) == 50
        assert await self.rejected(store) == 50

    async def test_a1_a_lower_revision_stands_in_for_a_bad_higher_one(self, store: SqlEventStore) -> None:
        """Folding must not lose a call whose newest revision can't be written."""
        one = event()
        bad = attrs.evolve(spoilt(one, status="fine"), revision=2)
        assert await store.write([sent(one), bad]) == 1
        assert await store.latest(EventFilter()) == [one]

    async def test_a2_nothing_to_write_is_no_work(self, store: SqlEventStore) -> None:
        """An empty batch is fine."""
        assert await store.write([]) == 0
        await store.write_refusals([])

    # --- sums ------------------------------------------------------------------------------------

    async def test_b7_sums_are_those_of_the_events(self, store: SqlEventStore) -> None:
        """Per window, for the tenant and each of its keys, by ``budget_day`` and each call once."""
        await store.write(
            [
                sent(event(cost_nano_usd=1)),
                sent(event(cost_nano_usd=20, key_name="batch")),
                sent(event(cost_nano_usd=300, budget_day="2026-11-01")),
                sent(event(cost_nano_usd=4_000, budget_day="2026-10-31")),
                sent(event(cost_nano_usd=50_000, tenant_id="other")),
                sent(event(cost_nano_usd=600_000, budget_day=None, kind="admin")),
            ]
        )
        found = await store.sums("acme", ["2026-11-23", "2026-11-24"], ["2026-11"])
        expected = {
            ("acme", None, "2026-11-23", 21),
            ("acme", "default", "2026-11-23", 1),
            ("acme", "batch", "2026-11-23", 20),
            ("acme", None, "2026-11", 321),
            ("acme", "default", "2026-11", 301),
            ("acme", "batch", "2026-11", 20),
        }
        assert {attrs.astuple(one) for one in found} == expected
        assert len(found) == len(expected)

    async def test_b7_spending_of_all_tenants_is_their_sums(self, store: SqlEventStore) -> None:
        """One statement for the admin's page says what `sums` says of each tenant."""
        await store.write([sent(event(tenant_id=t, key_name=k)) for t in "abc" for k in ("x", "y")])
        days, months = ["2026-11-23"], ["2026-11"]
        each = [one for t in "abc" for one in await store.sums(t, days, months)]
        assert set(await store.spending(days, months)) == set(each)
        assert WindowSum("a", None, "2026-11", 2_000) in each  # type: ignore[arg-type]

    async def test_b1_sums_beyond_64_bits_are_exact(self, store: SqlEventStore) -> None:
        """Money is never summed in floats."""
        await store.write([sent(event(cost_nano_usd=10**15 + n)) for n in (1, 2, 3)])
        (total, *_) = [w for w in await store.sums("acme", ["2026-11-23"], []) if w.key_name is None]
        assert total.spent == 3 * 10**15 + 6

    # --- look-ups --------------------------------------------------------------------------------

    async def test_s2_a_tenant_finds_only_its_own_calls(self, store: SqlEventStore) -> None:
        """A request id used twice finds the newer call, and never another tenant's."""
        older, newer = event(request_id="same"), event(NOON_US + SECOND_US, request_id="same")
        theirs = event(NOON_US + 2 * SECOND_US, request_id="same", tenant_id="other")
        await store.write(list(map(sent, [newer, older, theirs])))
        assert await store.by_request_id("acme", "same") == newer
        assert await store.by_request_id("nobody", "same") is None

    @pytest.mark.parametrize("strange", ["", "\0", "' OR 1=1 --", "x" * 10_000, "\ufffd"])
    async def test_s3_a_strange_request_id_is_merely_not_found(self, store: SqlEventStore, strange: str) -> None:
        """Nothing a client can put into the path is an error."""
        assert await store.by_request_id("acme", strange) is None

    async def test_the_list_is_paged_by_id(self, store: SqlEventStore) -> None:
        """Newest first, no row twice and none left out, also when new ones arrive in between."""
        calls = [event(NOON_US + n * SECOND_US) for n in range(7)]
        await store.write(list(map(sent, calls)))
        pages: list[Event] = []
        before = None
        while page := await store.latest(EventFilter(), before=before, limit=3):
            await store.write([sent(event(NOON_US + 60 * SECOND_US))])
            pages += page
            before = page[-1].id
        assert pages == calls[::-1]
        await store.latest(EventFilter(), before="no id")

    @pytest.mark.parametrize(
        "wanted",
        [
            {"tenant_id": "t2"},
            {"key_name": "k2"},
            {"model": "m2"},
            {"provider": "p2"},
            {"status": 502},
            {"outcome": "failed"},
            {"request_id": "r2"},
            {"since_us": NOON_US},
        ],
    )
    async def test_each_filter_filters(self, store: SqlEventStore, wanted: dict[str, Any]) -> None:
        """Every filter of the admin's list finds the one call that differs."""
        plain = event(NOON_US - 1, provider="p1")
        other = event(NOON_US - 1, **{"provider": "p1", **wanted} if "since_us" not in wanted else {})
        if "since_us" in wanted:
            other = event(NOON_US)
        await store.write([sent(plain), sent(other)])
        assert await store.latest(EventFilter(**wanted)) == [other]

    async def test_times_are_from_and_until(self, store: SqlEventStore) -> None:
        """``since_us`` is in, ``until_us`` is out."""
        calls = [event(NOON_US + n) for n in range(4)]
        await store.write(list(map(sent, calls)))
        found = await store.latest(EventFilter(since_us=NOON_US + 1, until_us=NOON_US + 3))
        assert found == [calls[2], calls[1]]

    async def test_recent_admissions_seed_the_rate_log(self, store: SqlEventStore) -> None:
        """Calls of the last minute, oldest first; what operators did is no admission."""
        old, new, newest = (event(NOON_US + n * SECOND_US) for n in (-61, -30, -1))
        await store.write(list(map(sent, [newest, old, new, event(kind="admin")])))
        assert await store.recent_admissions(NOON_US - 60 * SECOND_US) == [
            Admission("acme", "default", NOON_US - 30 * SECOND_US),
            Admission("acme", "default", NOON_US - SECOND_US),
        ]

    # --- refusals --------------------------------------------------------------------------------

    async def test_refusals_are_one_row_a_minute(self, store: SqlEventStore) -> None:
        """A flood is one row with a count, the times of its first and last, and the first one's decision."""
        minute = NOON_US
        flood = [refusal(minute + n * SECOND_US, decision={"left": n}, request_id=f"r{n}") for n in range(40)]
        await store.write_refusals(flood[20:])
        await store.write_refusals([*flood[:20], refusal(minute + 60 * SECOND_US)])
        later, first = await store.refusals(minute)
        assert (first.minute_us, first.count) == (minute, 40)
        assert (first.first_us, first.last_us) == (minute, minute + 39 * SECOND_US)
        assert first.sample == {"request_id": "r20", "status": 429, "model": "gpt-4o", "decision": {"left": 20}}
        assert (later.minute_us, later.count) == (minute + 60 * SECOND_US, 1)
        assert await store.refusals(minute, until_us=later.minute_us) == [first]

    async def test_refusals_keep_tenant_key_and_reason_apart(self, store: SqlEventStore) -> None:
        """One row for each of them; a tenant's client addresses don't multiply rows."""
        notes = [
            refusal(tenant_id=t, key_name=k, reason=r, client_ip=ip)
            for t in ("a", "b")
            for k in ("x", "y")
            for r in ("rate_limit_exceeded", "budget_exceeded")
            for ip in ("192.0.2.1", "192.0.2.2")
        ]
        await store.write_refusals(notes)
        assert [row.count for row in await store.refusals(NOON_US)] == [2] * 8
        assert len(await store.refusals(NOON_US, tenant="a")) == 4

    async def test_failed_authentications_go_by_client_address(self, store: SqlEventStore) -> None:
        """Nobody knows whose they are, so rows are grouped by where they came from."""
        notes = [
            refusal(tenant_id="", key_name="", reason="invalid_api_key", client_ip=f"192.0.2.{n % 2}") for n in range(6)
        ]
        await store.write_refusals(notes)
        assert {(row.client_ip, row.count) for row in await store.refusals(NOON_US)} == {
            ("192.0.2.0", 3),
            ("192.0.2.1", 3),
        }

    async def test_a_note_that_stands_for_many_counts_as_many(self, store: SqlEventStore) -> None:
        """Notes are folded before they travel."""
        await store.write_refusals([refusal(count=1_000, last_us=NOON_US + 9), refusal(count=2)])
        (row,) = await store.refusals(NOON_US)
        assert (row.count, row.last_us) == (1_002, NOON_US + 9)

    async def test_a_nul_in_a_refusal_is_written_as_a_replacement(self, store: SqlEventStore) -> None:
        """A client may put anything into a model's name; one refusal must not keep the others out."""
        await store.write_refusals([refusal(model="gpt\0"), refusal(reason="a\0b", model="C:\\u0000")])
        rows = await store.refusals(NOON_US)
        assert {(row.reason, row.sample["model"]) for row in rows} == {
            ("rate_limit_exceeded", "gpt\ufffd"),
            ("a\ufffdb", "C:\\u0000"),
        }

    # --- a provider's calls --------------------------------------------------------------------

    async def test_a_providers_calls_are_those_that_ended_there(self, store: SqlEventStore) -> None:
        """Newest first, since then, up to a limit, and without what operators did to it."""
        old = event(NOON_US - 3_600 * SECOND_US - 1, provider="openai")
        calls = [
            event(NOON_US + n, provider="openai", latency_ms=float(n), first_token_ms=n / 2, error_code=f"e{n}")
            for n in range(4)
        ]
        others = [event(provider="other"), event(), event(provider="openai", kind="admin")]
        await store.write([sent(one) for one in (old, *calls, *others)])
        found = await store.provider_calls("openai", NOON_US - 3_600 * SECOND_US)
        assert found == [ProviderCall("completed", f"e{n}", float(n), n / 2) for n in (3, 2, 1, 0)]
        assert await store.provider_calls("openai", NOON_US, limit=1) == found[:1]
        assert await store.provider_calls("nobody\0", NOON_US) == []

    # --- upkeep ----------------------------------------------------------------------------------

    async def test_retention_drops_old_rows_of_every_table(self, store: SqlEventStore) -> None:
        """Events, refusals and rejected rows older than the retention are gone; the others stay."""
        old, new = event(NOON_US - 91 * DAY_US), event(NOON_US - 89 * DAY_US)
        await store.write([sent(old), sent(new)])
        await store.write_refusals([refusal(NOON_US - 91 * DAY_US), refusal(NOON_US - 89 * DAY_US)])
        await store.maintain(NOON_US, 90 * DAY_US)
        await store.maintain(NOON_US, 90 * DAY_US)
        assert await store.latest(EventFilter()) == [new]
        assert len(await store.refusals(0)) == 1

    async def test_b7_an_open_month_outlives_a_short_retention(self, store: SqlEventStore) -> None:
        """Budgets are re-seeded from these rows, so a retention of a day keeps the month all the same."""
        first = event(int((NOON - timedelta(days=22)).timestamp()) * SECOND_US)
        await store.write([sent(first)])
        await store.maintain(NOON_US, DAY_US)
        assert await store.latest(EventFilter()) == [first]

    async def test_a1_an_event_older_than_the_retention_is_still_written(self, store: SqlEventStore) -> None:
        """A late arrival after its day was dropped is a row like any other."""
        await store.write([sent(event(NOON_US - 100 * DAY_US))])
        await store.maintain(NOON_US, 90 * DAY_US)
        late = event(NOON_US - 100 * DAY_US)
        assert await store.write([sent(late)]) == 0
        assert await store.latest(EventFilter()) == [late]

    async def test_o2_ping_is_quiet_when_all_is_well(self, store: SqlEventStore) -> None:
        """A migrated database has no problem."""
        await store.ping()
        assert store.problem() is None

    async def test_o2_a_database_without_our_tables_says_what_to_do(self, empty_store: SqlEventStore) -> None:
        """Not migrated: every step raises `StoreUnavailable` that names the command."""
        steps: Sequence[Any] = (
            empty_store.ping(),
            empty_store.write([sent(event())]),
            empty_store.sums("a", ["b"], []),
        )
        for step in steps:
            with pytest.raises(StoreUnavailable, match="perpetuo migrate"):
                await step
        assert "perpetuo migrate" in (empty_store.problem() or "")

    async def rejected(self, store: SqlEventStore) -> int:
        """Rows in ``events_rejected``."""
        raise NotImplementedError
