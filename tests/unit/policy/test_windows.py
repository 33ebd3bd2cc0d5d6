"""Do days and months begin at the tenant's midnight, whatever its clocks do?"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.admission import ConcurrencyLimit, RateLimit
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.tenants import ApiKey, Caller, Limits, Tenant
from perpetuo.domain.policy.windows import day_at, limits_of, month_at, replay_scope
from tests.contract.ledger_world import HOUR

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Beirut",
]


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


NO_LIMITS = Limits()


def caller(tenant: Limits, key: Limits = NO_LIMITS, zone: str = "UTC") -> Caller:
    one = ApiKey("batch", b"", limits=key)
    return Caller(Tenant("acme", "pro", tenant, time_zone=zone, keys=(one,)), one)


@pytest.mark.parametrize(("date", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-23", 24)])
def test_b6_a_day_has_as_many_hours_as_it_has(date: str, hours: int) -> None:
    """Berlin: 23 h when the clocks go forward, 25 h when they go back."""
    zone = ZoneInfo("Europe/Berlin")
    noon = us(f"{date}T11:00:00")
    day = day_at(noon, zone)
    before = day_at(noon - 24 * HOUR, zone)
    assert day.current == date
    assert before.following == date
    assert day.boundary_us - before.boundary_us == hours * HOUR
    assert before.following_end_us == day.boundary_us


def test_b6_a_day_without_a_midnight_begins_at_its_first_instant() -> None:
    """Beirut 2026-03-29: 00:00 does not exist, the day begins at 01:00 local, 22:00 UTC."""
    day = day_at(us("2026-03-28T12:00:00"), ZoneInfo("Asia/Beirut"))
    assert (day.following, day.boundary_us) == ("2026-03-29", us("2026-03-28T22:00:00"))


def test_b6_a_date_that_does_not_exist_is_skipped() -> None:
    """Samoa had no 2011-12-30."""
    day = day_at(us("2011-12-29T12:00:00"), ZoneInfo("Pacific/Apia"))
    assert (day.current, day.following) == ("2011-12-29", "2011-12-31")


@given(st.integers(us("2024-01-01"), us("2027-01-01")), st.sampled_from(ZONES))
def test_b6_every_instant_is_in_its_window(now: int, name: str) -> None:
    """The window's name is the local date; 1 µs before the boundary still, at it no longer."""
    zone = ZoneInfo(name)
    for window_at, shape in ((day_at, "%Y-%m-%d"), (month_at, "%Y-%m")):
        window = window_at(now, zone)
        assert window.current == datetime.fromtimestamp(now // 1_000_000, zone).strftime(shape)
        assert now < window.boundary_us < window.following_end_us
        assert window_at(window.boundary_us - 1, zone).current == window.current
        after = window_at(window.boundary_us, zone)
        assert (after.current, after.boundary_us) == (window.following, window.following_end_us)


@pytest.mark.parametrize(
    ("now", "current", "following"),
    [("2026-01-31T12:00:00", "2026-01", "2026-02"), ("2026-12-31T23:59:59", "2026-12", "2027-01")],
)
def test_b6_months_follow_each_other(now: str, current: str, following: str) -> None:
    """The shortest month and the turn of the year."""
    month = month_at(us(now), ZoneInfo("UTC"))
    assert (month.current, month.following) == (current, following)


def test_b7_tenant_and_key_are_always_counted() -> None:
    """Day and month of both, without any limit too: a limit may come while the day is running."""
    plain = limits_of(caller(Limits()), us("2026-11-23T12:00:00"))
    assert [(b.scope, b.period, b.limit) for b in plain.budgets] == [
        ("acme", "day", None),
        ("acme", "month", None),
        ("acme/batch", "day", None),
        ("acme/batch", "month", None),
    ]
    assert (plain.rates, plain.concurrency) == ((), ())
    own = limits_of(caller(Limits(budget_month=Nano(9)), Limits(budget_day=Nano(5))), us("2026-11-23T12:00:00"))
    assert [(b.scope, b.period, b.limit) for b in own.budgets] == [
        ("acme", "day", None),
        ("acme", "month", 9),
        ("acme/batch", "day", 5),
        ("acme/batch", "month", None),
    ]


def test_r1_tenant_and_key_have_limits_of_their_own() -> None:
    """The tenant's first; scopes are the tenant and tenant/key."""
    both = limits_of(
        caller(Limits(rate_per_minute=100, concurrency=20), Limits(rate_per_minute=10, concurrency=2)),
        us("2026-11-23T12:00:00"),
    )
    assert both.rates == (RateLimit("acme", 100), RateLimit("acme/batch", 10))
    assert both.concurrency == (ConcurrencyLimit("acme", 20), ConcurrencyLimit("acme/batch", 2))


def test_i2_a_tenant_may_have_ten_times_as_many_replays_as_calls() -> None:
    """All its keys together, whatever a key's own limit; without a limit of the tenant there is none for replays."""
    noon = us("2026-11-23T12:00:00")
    limited = limits_of(caller(Limits(rate_per_minute=100), Limits(rate_per_minute=3)), noon)
    assert limited.replays == RateLimit(replay_scope("acme"), 1_000)
    assert limits_of(caller(Limits(), Limits(rate_per_minute=3)), noon).replays is None


def test_b6_limits_hold_until_the_nearest_boundary() -> None:
    """The day's end, which is never after the month's."""
    limits = limits_of(caller(Limits(), zone="America/New_York"), us("2026-11-23T12:00:00"))
    assert limits.until_us == us("2026-11-24T05:00:00")
