"""Recorded calls under another configuration: the same refuses nothing, and all others what the policies refuse."""

from collections.abc import Sequence
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.admission import BudgetRefused
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.models import Model, ModelTable, ProviderKind, ProviderSpec, Target
from perpetuo.domain.model.money import Nano, Rate
from perpetuo.domain.model.pricing import Price, Rates
from perpetuo.domain.model.recorded import Recorded
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import ApiKey, Caller, Limits, Tenant
from perpetuo.domain.policy import budget, concurrency, rate
from perpetuo.domain.policy.difference import difference
from perpetuo.domain.policy.whatif import Replay, in_order
from perpetuo.domain.policy.windows import limits_of

NOON = 1_790_078_400_000_000
SECOND = 1_000_000
CHEAP = Price(Rates(Rate(1_000_000), Rate(2_000_000), Rate(1_000_000)))
DEAR = Price(Rates(Rate(3_000_000), Rate(6_000_000), Rate(3_000_000)))
KEYS = ("web", "batch")
NO_LIMITS = Limits()
OPEN = Limits(budget_day=Nano(10**15))


def configured(
    tenant: Limits = OPEN,
    batch: Limits = NO_LIMITS,
    price: Price | None = CHEAP,
    keys: Sequence[str] = KEYS,
    models: tuple[str, ...] = ("*",),
    zone: str = "UTC",
) -> Settings:
    made = tuple(ApiKey(name, name.encode(), limits=batch if name == "batch" else Limits()) for name in keys)
    acme = Tenant("acme", "", tenant, models, zone, made)
    model = Model("m", (Target("p", "m", price=price),))
    return Settings({"p": ProviderSpec("p", ProviderKind.DEMO)}, ModelTable({"m": model}), {"acme": acme})


def called(at: int, key: str = "web", tokens: int = 1_000, lasted: int = SECOND, **more: Any) -> Recorded:
    cost = CHEAP.rates.at_most(tokens, 0)
    values: dict[str, Any] = {
        "arrived_us": at, "admitted_us": at, "ended_us": at + lasted, "tenant": "acme", "key": key, "model": "m",
        "provider": "p", "upstream_model": "m", "input_tokens": tokens, "output_tokens": 0, "cached_tokens": 0,
        "is_reported": True, "cost": cost, "hold": cost * 2, "budget_day": None,
    }  # fmt: skip
    return Recorded(**{**values, **more})


def replayed(before: Settings, after: Settings, rows: Sequence[Recorded], **more: Any) -> Replay:
    replay = Replay(before, after, **more)
    for row in in_order(rows):
        replay.judge(row)
    return replay


def refused(replay: Replay) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, _, reason, _), one in replay.outcome.refusals.items():
        found[reason] = found.get(reason, 0) + one.count
    return found


@attrs.define
class Policies:
    """The policies themselves, one caller after the other: slow, and what is right by definition."""

    settings: Settings
    logs: dict[str, rate.RateLog] = attrs.field(factory=dict)
    leases: dict[str, concurrency.Leases] = attrs.field(factory=dict)
    money: dict[tuple[str, str], budget.BudgetWindow] = attrs.field(factory=dict)
    ending: list[tuple[int, int, list[tuple[str, str]], Recorded]] = attrs.field(factory=list)
    number: int = 0

    def admits(self, row: Recorded) -> bool:
        at = row.admitted_us
        for ended in sorted(one for one in self.ending if one[0] <= at):
            self.ending.remove(ended)
            for window in ended[2]:
                self.money[window] = budget.settle(self.money[window], Nano(row_hold(ended[3])), Nano(ended[3].cost))
        tenant = self.settings.tenants["acme"]
        key = self.settings.key_of("acme", row.key)
        assert key is not None
        limits = limits_of(Caller(tenant, key), at)
        if rate.refusal(limits.rates, self.logs, rate.instant(self.logs.values(), at), at):
            return False
        if concurrency.refusal(limits.concurrency, self.leases, at):
            return False
        windows = [(limit.scope, budget.window_at(limit, at)) for limit in limits.budgets]
        readings = [
            budget.reading(limit, self.money.setdefault(window, budget.EMPTY), at)
            for limit, window in zip(limits.budgets, windows, strict=True)
        ]
        hold = Nano(row_hold(row))
        if isinstance(budget.grant(readings, hold, hold), BudgetRefused):
            return False
        for one in limits.rates:
            self.logs[one.scope] = rate.enter(self.logs.get(one.scope, rate.EMPTY), one, at)
        self.number += 1
        for full in limits.concurrency:
            leases = self.leases.get(full.scope, concurrency.EMPTY)
            self.leases[full.scope] = concurrency.enter(leases, str(self.number), row.ended_us, at)
        for window in windows:
            self.money[window] = budget.hold(self.money[window], hold)
        self.ending.append((row.ended_us, self.number, windows, row))
        return True


def row_hold(row: Recorded) -> int:
    return row.hold


small = st.one_of(st.none(), st.integers(0, 6))
some_money = st.one_of(st.none(), st.integers(0, 20).map(lambda n: Nano(n * 1_000)))
limits = st.builds(Limits, small, small, some_money, some_money)
histories = st.lists(
    st.tuples(st.integers(0, 40 * SECOND), st.sampled_from(KEYS), st.integers(0, 4_000), st.integers(0, 90 * SECOND)),
    max_size=40,
)


def rows_of(history: Sequence[tuple[int, str, int, int]]) -> list[Recorded]:
    at, rows = NOON + 11 * 3_600 * SECOND + 50 * 60 * SECOND, []
    for gap, key, tokens, lasted in history:
        at += gap
        rows.append(called(at, key, tokens, lasted))
    return rows


@given(history=histories, tenant=limits, batch=limits, delays=st.lists(st.integers(0, 300_000), min_size=40))
def test_the_same_configuration_refuses_nothing_and_costs_the_same(
    history: Sequence[tuple[int, str, int, int]], tenant: Limits, batch: Limits, delays: Sequence[int]
) -> None:
    """Whatever the policies admitted, and though a row knows the instant of its admission only roughly."""
    settings = configured(tenant, batch)
    policies = Policies(settings)
    admitted = [row for row in rows_of(history) if policies.admits(row)]
    recorded = [
        row._replace(arrived_us=row.arrived_us - delay, admitted_us=row.admitted_us + delay // 2, ended_us=row.ended_us)
        for row, delay in zip(admitted, delays, strict=False)
        if row.ended_us - row.admitted_us >= delay
    ]
    outcome = replayed(settings, settings, sorted(recorded)).outcome
    assert outcome.refusals == {}
    assert outcome.calls == len(recorded)
    assert all(cost.before == cost.after for cost in outcome.costs.values())


@given(history=histories, tenant=limits, batch=limits)
def test_another_configuration_refuses_what_the_policies_refuse(
    history: Sequence[tuple[int, str, int, int]], tenant: Limits, batch: Limits
) -> None:
    """Call by call, over the day's end too, where a row knows its instant exactly."""
    before, after = configured(), configured(tenant, batch)
    policies = Policies(after)
    expected = [row for row in rows_of(history) if not policies.admits(row)]
    assert replayed(before, after, rows_of(history)).outcome.refused == len(expected)


@given(rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 900_000)), max_size=30))
def test_rows_come_in_the_order_of_admission(rows: Sequence[tuple[int, int]]) -> None:
    """However they lie within a second."""
    arrived = sorted(NOON + second * SECOND for second, _ in rows)
    made = [called(at)._replace(admitted_us=at + delay) for at, (_, delay) in zip(arrived, rows, strict=True)]
    assert [row.admitted_us for row in in_order(made)] == sorted(row.admitted_us for row in made)


def test_a_lower_rate_refuses_the_call_too_many() -> None:
    """Ten in a minute, six allowed: four; a minute later there is room again."""
    rows = [called(NOON + n * SECOND) for n in range(10)] + [called(NOON + 70 * SECOND)]
    replay = replayed(configured(), configured(attrs.evolve(OPEN, rate_per_minute=6)), rows)
    assert refused(replay) == {"rate_limit_exceeded": 4}
    (one,) = replay.outcome.refusals.values()
    assert (one.limit, one.first_us, one.last_us) == ("6 a minute", NOON + 6 * SECOND, NOON + 9 * SECOND)


def test_who_and_what_is_gone_is_refused() -> None:
    """A key, a model, a permission, a price under a budget."""
    rows = [called(NOON), called(NOON + 1, "batch")]
    assert refused(replayed(configured(), configured(keys=["web"]), rows)) == {"invalid_api_key": 1}
    assert refused(replayed(configured(), configured(models=("other",)), rows)) == {"model_not_allowed": 2}
    assert refused(replayed(configured(), configured(price=None), rows)) == {"model_not_priced": 2}
    gone = attrs.evolve(configured(), models=ModelTable({}))
    assert refused(replayed(configured(), gone, rows)) == {"model_not_found": 2}


def test_a_key_that_neither_knows_is_no_matter_of_the_change() -> None:
    """It was taken out since: the same file refuses nothing. What it cost is spent; what came too early is not told."""
    gone = [called(NOON + n * SECOND, "gone", budget_day="2026-09-22") for n in range(3)]
    rows = [*gone, called(NOON + 9 * SECOND, budget_day="2026-09-22"), called(NOON, tenant="left")]
    replay = replayed(configured(), configured(), rows, since_us=NOON + SECOND)
    assert (refused(replay), replay.outcome.calls, replay.outcome.unknown) == ({}, 1, {("acme", "gone"): 2})
    cost = gone[0].cost
    fits, short = (
        configured(attrs.evolve(OPEN, budget_day=Nano(3 * cost + left))) for left in (2 * cost, 2 * cost - 1)
    )
    assert refused(replayed(configured(), fits, rows)) == {}
    assert refused(replayed(configured(), short, rows)) == {"budget_exceeded": 1}


def test_a_dearer_price_is_charged_and_can_use_up_a_budget() -> None:
    """Known tokens at the new price; a cost without tokens times what the price has changed."""
    rows = [called(NOON), called(NOON + 10 * SECOND, is_reported=False)]
    costs = replayed(configured(), configured(price=DEAR), rows).outcome.costs["acme", "m"]
    assert (costs.before, costs.after) == (2_000, 6_000)
    tight = configured(attrs.evolve(OPEN, budget_day=Nano(8_000)), price=DEAR)
    assert refused(replayed(configured(), tight, rows)) == {"budget_exceeded": 1}


def test_what_was_spent_before_counts_and_what_was_adjusted() -> None:
    """The windows' sums before the first row; money taken off makes room."""
    settings = configured(attrs.evolve(OPEN, budget_day=Nano(5_000)))
    day = "2026-09-22"
    spent = {("acme", day): 4_000}
    row = called(NOON, budget_day=day)
    off = called(NOON - SECOND, "", is_adjustment=True, cost=-2_000, budget_day=day)
    assert refused(replayed(configured(), settings, [row], spent=spent)) == {"budget_exceeded": 1}
    assert refused(replayed(configured(), settings, [off, row], spent=spent)) == {}


def test_a_raised_budget_is_raised_here_too() -> None:
    """Else the same configuration would refuse what was let through."""
    settings = configured(attrs.evolve(OPEN, budget_day=Nano(1_000)))
    up = Raise("id", "acme", "acme", "day", Nano(5_000), NOON + 3_600 * SECOND)
    assert refused(replayed(settings, settings, [called(NOON)])) == {"budget_exceeded": 1}
    assert refused(replayed(settings, settings, [called(NOON)], raises={"acme": [up]})) == {}


def test_calls_before_the_hours_asked_for_are_only_counted() -> None:
    """They take their place in the minute, and are neither judged nor summed."""
    rows = [called(NOON + n * SECOND) for n in range(6)]
    after = configured(attrs.evolve(OPEN, rate_per_minute=4))
    replay = replayed(configured(), after, rows, since_us=NOON + 3 * SECOND)
    assert refused(replay) == {"rate_limit_exceeded": 2}
    assert replay.outcome.calls == 3


# --- the difference ------------------------------------------------------------------------------


@given(tenant=limits, batch=limits)
def test_the_same_differs_in_nothing(tenant: Limits, batch: Limits) -> None:
    """Made twice from the same text."""
    assert difference(configured(tenant, batch), configured(tenant, batch)) == ()


def test_a_difference_names_what_it_is_about_and_shows_no_secret() -> None:
    """Limits, prices, keys by name; a key behind the same name is another one, and that is all that is said."""
    before = configured(attrs.evolve(OPEN, rate_per_minute=100))
    other = configured(attrs.evolve(OPEN, rate_per_minute=60), price=DEAR, keys=["web"])
    found = {(c.what, c.field): (c.before, c.after) for c in difference(before, other)}
    assert found["tenant acme", "rate_per_minute"] == ("100", "60")
    assert found["model m", "p/m price"] == ("0.001 in, 0.002 out, 0.001 cached", "0.003 in, 0.006 out, 0.003 cached")
    assert found["tenant acme, key batch", ""][1] is None
    web = ApiKey("web", b"another digest")
    acme = attrs.evolve(before.tenants["acme"], keys=(web, ApiKey("batch", b"batch")))
    (change,) = difference(before, attrs.evolve(before, tenants={"acme": acme}))
    assert (change.what, change.field, change.before, change.after) == (
        "tenant acme, key web", "secret", "one", "another one",
    )  # fmt: skip
