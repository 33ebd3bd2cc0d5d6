"""Does the what-if refuse what the ledger would have refused, and nothing that the same configuration admitted?"""

import time
from collections import deque

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.domain.model.admission import AdmitRequest, Admitted, RateLimit, Settlement
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.models import Model, ModelTable, Target
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.money import Rate as TokenRate
from perpetuo.domain.model.pricing import Price, Rates
from perpetuo.domain.model.recorded import Recorded
from perpetuo.domain.model.settings import IdempotencySettings, Settings
from perpetuo.domain.model.tenants import ApiKey, Caller, Limits, Tenant
from perpetuo.domain.model.usage import Usage
from perpetuo.domain.policy import rate
from perpetuo.domain.policy.difference import difference
from perpetuo.domain.policy.whatif import Rate, Replay, in_order
from perpetuo.domain.policy.windows import limits_of
from tests.patience import best

SECOND = 1_000_000
START = 1_764_000_000 * SECOND
PRICE = Price(Rates(TokenRate(1_000_000_000), TokenRate(2_000_000_000), TokenRate(500_000_000)))
LIMITS = Limits(rate_per_minute=3, concurrency=2, budget_day=Nano(300_000), budget_month=Nano(900_000))


def configured(limits: Limits = LIMITS, *, key: str = "k", price: Price = PRICE, model: str = "m") -> Settings:
    tenant = Tenant("acme", "", limits, keys=(ApiKey(key, key.encode(), limits=Limits(rate_per_minute=2)),))
    models = ModelTable({model: Model(model, (Target("demo", model, price=price),))})
    return Settings({}, models, {"acme": tenant})


def replayed(before: Settings, after: Settings, rows: list[Recorded]) -> Replay:
    replay = Replay(before, after)
    for row in in_order(rows):
        replay.judge(row)
    return replay


CALL = st.tuples(st.integers(0, 40 * SECOND), st.integers(0, 30 * SECOND), st.integers(0, 120), st.integers(0, 120))
"""The wait before it, how long it takes, tokens in and out."""


async def history(settings: Settings, calls: list[tuple[int, int, int, int]]) -> list[Recorded]:
    """What a ledger in memory admits of ``calls``, as its rows would tell it."""
    now = START
    ledger = MemoryLedger(lambda: now)
    caller = Caller(settings.tenants["acme"], settings.tenants["acme"].keys[0])
    running: list[tuple[int, int, Settlement]] = []
    rows: list[Recorded] = []
    for number, (wait, takes, given_tokens, output) in enumerate(calls):
        at = now + wait
        for end, _, settlement in sorted((r for r in running if r[0] <= at), key=lambda r: r[:2]):
            now = end
            await ledger.settle(settlement, IdempotencySettings())
        running = [r for r in running if r[0] > at]
        now = at
        limits, hold = limits_of(caller, now), PRICE.at_most(given_tokens, output)
        event = Event(
            id=str(number), occurred_at_us=now, tenant_id="acme", key_name="k", kind="chat", model="m",
            request_id="r", status=200, outcome="completed", budget_day=limits.day,
        )  # fmt: skip
        request = AdmitRequest(
            str(number), "acme", limits.rates, limits.concurrency, limits.budgets, hold, hold, None, event
        )
        decision = await ledger.admit(request)
        if isinstance(decision, Admitted):
            cost = PRICE.charge(Usage(given_tokens, output // 2))
            end = now + min(takes, 29 * SECOND)
            running.append((end, number, Settlement(decision.hold, cost, event)))
            rows.append(
                Recorded(now, now, end, "acme", "k", "m", "demo", "m", given_tokens, output // 2, 0, True, cost,
                         decision.hold.amount, limits.day)
            )  # fmt: skip
    return rows


@pytest.mark.anyio
@given(st.lists(CALL, max_size=40))
async def test_b1_r2_the_same_configuration_refuses_nothing_and_costs_the_same(
    calls: list[tuple[int, int, int, int]],
) -> None:
    """Whatever a ledger admitted under a configuration passes it again, at the same cost."""
    settings = configured()
    rows = await history(settings, calls)
    outcome = replayed(settings, settings, rows).outcome
    assert (outcome.calls, outcome.refused, outcome.refusals) == (len(rows), 0, {})
    assert all(one.before == one.after for one in outcome.costs.values())
    assert difference(settings, configured()) == ()


@given(st.lists(st.integers(0, 30 * SECOND), max_size=60), st.integers(1, 6))
def test_r1_the_queue_refuses_what_the_log_refuses(waits: list[int], most: int) -> None:
    """The rate's faster form decides as `rate.refusal` does, call by call."""
    limit = RateLimit("acme", most)
    fast, log, at = Rate(limit, deque()), rate.EMPTY, START
    for wait in waits:
        at += wait
        refused = rate.refusal([limit], {"acme": log}, at, at) is not None
        assert fast.refuses(at) == refused
        if not refused:
            fast.enter(at)
            log = rate.enter(log, limit, at)
    assert tuple(fast.times) == log.times


ROWS = [
    Recorded(START + n * SECOND, START + n * SECOND, START + n * SECOND + 10, "acme", "k", "m", "demo", "m", 100, 10, 0,
             True, 120_000, 150_000, "2025-11-24")
    for n in range(4)
]  # fmt: skip
WIDE = configured(attrs.evolve(LIMITS, rate_per_minute=100, budget_day=Nano(10**9), budget_month=None))

CHANGED = [
    (configured(key="other"), "invalid_api_key", 4),
    (configured(model="n"), "model_not_found", 4),
    (configured(attrs.evolve(LIMITS, rate_per_minute=1, budget_day=None, budget_month=None)), "rate_limit_exceeded", 3),
    (configured(attrs.evolve(LIMITS, rate_per_minute=None, budget_month=None)), "budget_exceeded", 2),
]


@pytest.mark.parametrize(("after", "reason", "number"), CHANGED, ids=[reason for _, reason, _ in CHANGED])
def test_a_tighter_configuration_says_what_it_would_have_refused(after: Settings, reason: str, number: int) -> None:
    """By which limit, how many, from when until when; refused calls cost nothing."""
    after = attrs.evolve(
        after, tenants={"acme": attrs.evolve(after.tenants["acme"], keys=tuple(
            attrs.evolve(key, limits=Limits()) for key in after.tenants["acme"].keys))})  # fmt: skip
    outcome = replayed(WIDE, after, ROWS).outcome
    found = {key[2]: one for key, one in outcome.refusals.items()}
    assert {name: one.count for name, one in found.items()} == {reason: number}
    assert found[reason].last_us == ROWS[-1].arrived_us
    assert difference(WIDE, after)
    (cost,) = outcome.costs.values()
    assert (cost.calls, cost.refused, cost.after) == (4, number, (4 - number) * 120_000)


def test_new_prices_are_charged_on_recorded_tokens() -> None:
    """Known usage exactly; unknown usage at what its price has changed by; digests are never shown."""
    dear = Price(Rates(TokenRate(2_000_000_000), TokenRate(4_000_000_000), TokenRate(1_000_000_000)))
    loose = attrs.evolve(WIDE.tenants["acme"], keys=(ApiKey("k", b"k"),))
    before = attrs.evolve(WIDE, tenants={"acme": loose})
    after = attrs.evolve(before, models=configured(price=dear).models)
    rows = [ROWS[0], ROWS[1]._replace(is_reported=False)]
    (cost,) = replayed(before, after, rows).outcome.costs.values()
    assert (cost.before, cost.after) == (240_000, 480_000)
    (change,) = difference(before, after)
    assert (change.what, change.after) == ("model m", "2 in, 4 out, 1 cached")
    rotated = attrs.evolve(before, tenants={"acme": attrs.evolve(loose, keys=(ApiKey("k", b"another-digest"),))})
    assert "another-digest" not in str(difference(before, rotated))
    assert replayed(before, rotated, rows).outcome.refused == 2


@pytest.mark.alone
def test_a_hundred_thousand_calls_a_second_go_through_the_policies() -> None:
    """Measured in CPU time, with all four limits; half of it on the slowest machine of CI."""
    limits = Limits(rate_per_minute=10_000, concurrency=1_000, budget_day=Nano(10**15), budget_month=Nano(10**15))
    settings = configured(limits)
    settings = attrs.evolve(
        settings, tenants={"acme": attrs.evolve(settings.tenants["acme"], keys=(ApiKey("k", b"k"),))}
    )
    rows = [ROWS[0]._replace(arrived_us=START + n * 10_000, admitted_us=START + n * 10_000 + 900,
                             ended_us=START + n * 10_000 + 500_000) for n in range(100_000)]  # fmt: skip

    def took() -> float:
        replay, begun = Replay(settings, settings), time.process_time()
        for _ in replay.run(in_order(rows)):
            pass
        assert replay.outcome.refused == 0
        return time.process_time() - begun

    best(len(rows) / 50_000, took)
