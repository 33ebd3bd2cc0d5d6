"""
Does a ledger agree, over random histories, with the most naive bookkeeping there is?

The model keeps every call and its fate in a list and counts from scratch: no logs, no counters, no windows moved.
A test class inherits `LedgerMachine` and says how to make a `World` and how to run its coroutines.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perpetuo.domain.model.admission import (
    LEASE_US,
    AdmitDecision,
    AdmitRefused,
    AdmitRequest,
    Admitted,
    BudgetRefused,
    ClaimRefused,
    ConcurrencyRefused,
    Extended,
    Hold,
    Keep,
    RateRefused,
    Replay,
    StoredAnswer,
)
from perpetuo.domain.model.budgets import Adjusted, Uncovered
from perpetuo.domain.model.money import Nano
from tests.contract.ledger_world import (
    DAY,
    KEEPING,
    MIDNIGHT,
    MINUTE,
    REPLAYS,
    SECOND,
    TENANT,
    Row,
    World,
    adjustment,
    answer,
    at_once,
    claim,
    day,
    month,
    rate,
    request,
    rows,
    settlement,
)

T = TypeVar("T")
RATE, AT_ONCE, BUDGET, MOST_REPLAYS = 4, 3, 300, 3
BATCH = f"{TENANT}/batch"
LIMITS = (rate(RATE), rate(2, BATCH), at_once(AT_ONCE), day(BUDGET), month(None))
AMOUNTS = st.integers(0, 150)


@attrs.define
class Call:
    """One admitted call and what became of it: open, settled, reaped or cancelled."""

    asked: AdmitRequest
    hold: Hold
    amount: int
    lease_end: int
    fate: str = "open"
    charge: int = 0

    @property
    def key(self) -> str | None:
        return self.asked.claim.key if self.asked.claim else None


# Functions, not lambdas: Hypothesis parses the source of a lambda at every step, and Python 3.11 fails at that now and
# then ("AST constructor recursion depth mismatch").
def _some_are_open(machine: Any) -> bool:
    return bool(machine.open())


def _some_can_be_settled(machine: Any) -> bool:
    return bool(machine.open()) or any(c.fate == "reaped" for c in machine.calls.values())


class LedgerMachine(RuleBasedStateMachine):
    """Admits, extends, settles, cancels, renews and reaps at random."""

    world: World

    def make_world(self) -> World:
        raise NotImplementedError

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, Call] = {}
        self.count = 0
        self.stored: dict[str, tuple[StoredAnswer, int]] = {}
        self.replays: list[int] = []
        self.rows: dict[str, Row] = {}
        self.adjusted: dict[str, tuple[int, str]] = {}
        """By id: the amount, and the day."""
        self.world = self.make_world()
        self.world.clock.now_us = MIDNIGHT - 5 * MINUTE
        self.stamp = self.now
        self.quiet_until = self.now + LEASE_US

    @initialize()
    def first_stamp(self) -> None:
        self.run(self.world.ledger.renew([]))

    # --- the model -------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.world.clock.now_us

    def open(self) -> list[Call]:
        return [c for c in self.calls.values() if c.fate == "open"]

    def in_last_minute(self, scope: str) -> list[int]:
        ours = (c for c in self.calls.values() if c.fate != "cancelled" and scope in c.hold.rates)
        return sorted(c.hold.at_us for c in ours if self.now - c.hold.at_us < MINUTE)

    def alive(self) -> int:
        return sum(c.lease_end > self.now for c in self.open())

    def money(self, window: str) -> tuple[int, int]:
        mine = [c for c in self.calls.values() if window in {read.window for read in c.hold.budgets}]
        adjusted = sum(amount for amount, day in self.adjusted.values() if day.startswith(window))
        return sum(c.charge for c in mine) + adjusted, sum(c.amount for c in mine if c.fate == "open")

    def today(self) -> str:
        return "2025-11-24" if self.now < MIDNIGHT else "2025-11-25"

    def beat(self) -> None:
        if self.now - self.stamp > 10 * SECOND:
            self.quiet_until = self.now + LEASE_US
        self.stamp = self.now

    def pick(self, index: int, fates: set[str]) -> Call | None:
        among = [c for c in self.calls.values() if c.fate in fates]
        return among[index % len(among)] if among else None

    # --- time ------------------------------------------------------------------------------------

    @rule(us=st.one_of(st.integers(0, 70 * SECOND), st.sampled_from([1, SECOND, LEASE_US, MINUTE - 1, MINUTE])))
    def tick(self, us: int) -> None:
        self.world.clock.advance(us)

    @rule(steps=st.integers(1, 8), alive=st.sets(st.integers(0, 5)))
    def work(self, steps: int, alive: set[int]) -> None:
        """A worker renews some of its calls every 5 s."""
        for _ in range(steps):
            self.world.clock.advance(5 * SECOND)
            chosen = [c for n, c in enumerate(self.calls.values()) if n % 6 in alive]
            reaped = self.run(self.world.ledger.renew([c.hold for c in chosen]))
            self.beat()
            assert reaped == {c.hold.call for c in chosen if c.fate == "reaped"}
            for one in chosen:
                one.lease_end = self.now + LEASE_US if one.fate == "open" else one.lease_end

    # --- steps -----------------------------------------------------------------------------------

    @rule(
        hold=AMOUNTS,
        short=st.integers(0, 100),
        key=st.sampled_from([None, None, "a", "b"]),
        fingerprint=st.sampled_from("fg"),
        batch=st.booleans(),
    )
    def admit(self, hold: int, short: int, key: str | None, fingerprint: str, batch: bool) -> None:
        self.count += 1
        limits = LIMITS if batch else tuple(one for one in LIMITS if one.scope != BATCH)
        least = max(0, hold - short)
        named = claim(key, fingerprint) if key else None
        asked = request(f"c{self.count}", *limits, hold=hold, hold_min=least, claim=named, replays=MOST_REPLAYS)
        decision = self.run(self.world.ledger.admit(asked))
        self.check(asked, decision)
        if isinstance(decision, Admitted):
            one = Call(asked, decision.hold, decision.hold.amount, self.now + LEASE_US)
            self.calls[asked.call] = one
            assert self.run(self.world.ledger.admit(asked)) == decision

    def check(self, asked: AdmitRequest, decision: AdmitDecision) -> None:
        """Is this the decision the model would have made?"""
        expected: Replay | ClaimRefused | RateRefused | None = self.expected_claim(asked)
        if isinstance(expected, Replay):
            expected = self.expected_replay(expected)
        if expected is not None:
            assert decision == expected
            return
        waits = {r.scope: self.wait(r.scope, r.limit) for r in asked.rates}
        if longest := max(waits.values()):
            assert isinstance(decision, RateRefused)
            assert (waits[decision.scope], decision.retry_after_us) == (longest, longest)
        elif self.alive() >= AT_ONCE:
            assert decision == ConcurrencyRefused(TENANT, AT_ONCE)
        else:
            self.check_money(asked, decision)

    def check_money(self, asked: AdmitRequest, decision: AdmitDecision) -> None:
        spent, held = self.money(self.today())
        left = BUDGET - spent - held
        if left < asked.hold_min:
            assert isinstance(decision, BudgetRefused)
            assert decision.reserved == (spent + asked.hold_min <= BUDGET)
        else:
            assert isinstance(decision, Admitted)
            assert decision.hold.amount == min(asked.hold, left)
            assert decision.hold.budgets[0].window == self.today()

    def wait(self, scope: str, limit: int) -> int:
        times = self.in_last_minute(scope)
        return times[-limit] + MINUTE - self.now if len(times) >= limit else 0

    def expected_claim(self, asked: AdmitRequest) -> Replay | ClaimRefused | None:
        if asked.claim is None:
            return None
        runs = [c for c in self.calls.values() if c.key == asked.claim.key]
        last = runs[-1] if runs else None
        if last is None or last.hold.claim is None or (last.fate in {"settled", "cancelled"} and not self.kept(last)):
            return None
        if last.hold.claim.fingerprint != asked.claim.fingerprint:
            return ClaimRefused.REUSED
        if kept := self.kept(last):
            return Replay(kept)
        trusted = self.now - self.stamp <= 10 * SECOND and self.now >= self.quiet_until
        return ClaimRefused.IN_PROGRESS if last.lease_end > self.now or not trusted else None

    def expected_replay(self, replay: Replay) -> Replay | RateRefused:
        times = [at for at in self.replays if self.now - at < MINUTE]
        if len(times) >= MOST_REPLAYS:
            return RateRefused(REPLAYS, MOST_REPLAYS, times[-MOST_REPLAYS] + MINUTE - self.now)
        self.replays.append(self.now)
        return replay

    def kept(self, call: Call) -> StoredAnswer | None:
        kept, until = self.stored.get(call.hold.call, (None, 0))
        return kept if self.now < until else None

    @precondition(_some_are_open)
    @rule(index=st.integers(0, 99), extra=st.integers(0, 80))
    def extend(self, index: int, extra: int) -> None:
        one = self.pick(index, {"open"})
        assert one is not None
        known = attrs.evolve(one.hold, amount=Nano(one.amount))
        spent, held = self.money(one.hold.budgets[0].window)
        decision = self.run(self.world.ledger.extend(known, Nano(extra)))
        if extra and spent + held + extra > BUDGET:
            assert isinstance(decision, BudgetRefused)
            return
        assert decision == Extended(Nano(one.amount + extra))
        assert self.run(self.world.ledger.extend(known, Nano(extra))) == decision
        one.amount += extra
        one.lease_end = self.now + LEASE_US

    @precondition(_some_can_be_settled)
    @rule(index=st.integers(0, 99), share=st.integers(0, 100), keep=st.sampled_from([Keep.STORE, Keep.FREE]))
    def settle(self, index: int, share: int, keep: Keep) -> None:
        one = self.pick(index, {"open", "reaped"})
        assert one is not None
        charge = one.amount * share // 100
        kept = answer(one.hold.call.encode())
        done = settlement(one.hold, charge, keep, kept)
        settled = self.run(self.world.ledger.settle(done, KEEPING))
        newest = [c for c in self.calls.values() if c.key == one.key][-1] is one
        store = one.fate == "open" and one.key is not None and newest and keep is Keep.STORE
        assert (settled.stored, settled.revision) == (store, 2 if one.fate == "reaped" else 1)
        if store:
            self.stored[one.hold.call] = (kept, self.now + DAY)
        one.fate = "settled" if one.fate == "open" else "corrected"
        one.charge = charge
        again = self.run(self.world.ledger.settle(done, KEEPING))
        assert (again.repeated, again.stored, again.budgets) == (True, store, settled.budgets)

    @precondition(_some_are_open)
    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        one = self.pick(index, {"open"})
        assert one is not None
        self.run(self.world.ledger.cancel(one.asked if index % 2 else one.hold))
        one.fate = "cancelled"
        assert self.run(self.world.ledger.admit(one.asked)) is AdmitRefused.CANCELLED

    @rule()
    def reap(self) -> None:
        reaped = self.run(self.world.ledger.reap())
        self.beat()
        ended = [c for c in self.open() if c.lease_end <= self.now] if self.now >= self.quiet_until else []
        assert {(a.call, a.charge) for a in reaped} == {(c.hold.call, c.amount) for c in ended}
        for one in ended:
            one.fate, one.charge = "reaped", one.amount

    @rule(amount=st.integers(-200, 60))
    def adjust(self, amount: int) -> None:
        asked = adjustment(f"a{len(self.adjusted)}", amount, day(BUDGET), month(None), at_us=self.now)
        spent, held = self.money(self.today())
        least = min(spent, self.money("2025-11")[0])
        if spent + held + amount > BUDGET:
            return  # an operator may do that; then b1 below does not hold
        decision = self.run(self.world.ledger.adjust(asked))
        if amount < -least:
            assert isinstance(decision, Uncovered)
            return
        assert isinstance(decision, Adjusted)
        assert not decision.repeated
        self.adjusted[asked.id] = (amount, self.today())
        again = self.run(self.world.ledger.adjust(asked))
        assert again == attrs.evolve(decision, repeated=True)

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def b1_money_is_what_the_calls_say(self) -> None:
        readings = self.run(self.world.ledger.read_budgets([day(BUDGET), month(None)], TENANT))
        for read in readings:
            assert (read.spent, read.held) == self.money(read.window)
        assert readings[0].spent + readings[0].held <= BUDGET

    @invariant()
    def r1_the_rate_is_what_the_calls_say(self) -> None:
        usage = self.run(self.world.ledger.read_usage(TENANT, [TENANT, BATCH]))
        for one, limit in zip(usage, (RATE, 2), strict=True):
            assert one.admitted_last_minute == len(self.in_last_minute(one.scope)) <= limit
        assert usage[0].in_flight == self.alive()  # more than the limit only when an ended lease was renewed

    @invariant()
    def b7_the_counter_is_the_sum_of_events(self) -> None:
        for name, row in self.run(rows(self.world)).items():
            if name not in self.rows or self.rows[name].revision < row.revision:
                self.rows[name] = row
        over = {c.hold.call: c for c in self.calls.values() if c.fate not in {"open", "cancelled"}}
        assert self.rows.keys() == over.keys() | self.adjusted.keys()
        for name, adjusted in self.adjusted.items():
            assert (self.rows[name].cost, self.rows[name].budget_day) == adjusted
        for name, row in ((name, row) for name, row in self.rows.items() if name in over):
            assert (row.cost, row.budget_day) == (over[name].charge, over[name].hold.budgets[0].window)
