"""The checker of `make chaos` on doctored histories: each lie, planted once, is found and called by its name."""

import attrs
import pytest

from tests.chaos.checker import CHECKS, check, sums
from tests.chaos.evidence import Evidence, Fault, Limit
from tests.chaos.history import Exchange
from tests.chaos.ledger_log import Claimed, Drift, Height, Overwritten
from tests.unit.chaos.sample import (
    DAY,
    T0,
    WAIT,
    Lie,
    all_of,
    asked,
    clean,
    entry,
    ok,
    refused,
    row,
    with_admission,
    with_answer,
    with_entry,
    with_evidence,
    with_ledger,
    with_row,
    without_row,
)

US = round(T0 * 1e6)
REPLAYED = {"idempotent-replayed": "true"}
NO_RETRY = {"x-should-retry": "false"}


def more_exchanges(*found: Exchange) -> Lie:
    return lambda e: attrs.evolve(e, exchanges=[*e.exchanges, *found])


def more_limits(*found: Limit) -> Lie:
    return lambda e: attrs.evolve(e, limits=[*e.limits, *found])


def a_second_row(e: Evidence) -> Evidence:
    rows = [*e.rows, row(e.by_request["r1"].asked, "c12", cost=0, basis="estimated")]
    return with_admission("c12", request="r1", revision=1)(attrs.evolve(e, rows=rows))


def a_run_of_a_kept_key(e: Evidence) -> Evidence:
    again = asked("r12", 3, idem="k1")
    rows = [*e.rows, row(again, "c12", cost=0, basis="estimated", idempotency="stored")]
    admitted = with_admission("c12", request="r12", at_us=US + 3_000_000, revision=1)
    return more_exchanges(Exchange(again, ok(again, "c12")))(admitted(attrs.evolve(e, rows=rows)))


def many_attempts(e: Evidence) -> Evidence:
    more = [entry("c8", 14.2, "error", input_tokens=0, output_tokens=0) for _ in range(3)]
    return attrs.evolve(e, entries=[*e.entries, *more])


def a_replay_of_another_run(e: Evidence) -> Evidence:
    late = asked("r13", 20, idem="k1")
    return more_exchanges(Exchange(late, ok(late, "c99", headers=REPLAYED)))(e)


def an_unasked_call(e: Evidence) -> Evidence:
    return attrs.evolve(e, entries=[*e.entries, entry("c13", 18)])


def an_answer_out_of_nothing(e: Evidence) -> Evidence:
    late = asked("r14", 20)
    return more_exchanges(Exchange(late, ok(late, "c14")))(e)


def a_key_that_was_taken_away(e: Evidence) -> Evidence:
    return attrs.evolve(e, faults=[*e.faults, Fault("take_key_away", T0 + 10, T0 + 20, about="main")])


def no_store(e: Evidence) -> Evidence:
    asks = [asked(f"r2{n}", 20) for n in range(5)]
    refusals = [Exchange(one, refused(one, 503, "store_error", "store_unavailable", WAIT)) for one in asks]
    return more_exchanges(*refusals)(e)


def no_answer(e: Evidence) -> Evidence:
    return attrs.evolve(
        e, exchanges=[Exchange(x.asked, None if x.asked.id == "r9" else x.answered) for x in e.exchanges]
    )


def a_counter(spent: int, held: int) -> Lie:
    return lambda e: attrs.evolve(e, counters={**e.counters, ("acme", DAY): (spent, held)})


LIES: list[tuple[str, Lie]] = [
    ("rate_limit_passed", more_limits(Limit(T0 - 60, "acme", rate=6))),
    ("rate_limit_passed", more_limits(Limit(T0 - 60, "acme/main", rate=6), Limit(T0 + 20, "acme/main", rate=9))),
    ("refused_too_early", more_limits(Limit(T0 - 60, "tight", rate=2))),
    ("budget_passed", with_ledger(heights=[Height("acme", DAY, 200_001, T0 + 18)])),
    ("counter_disagrees", a_counter(86_999, 0)),
    ("counter_disagrees", a_counter(87_001, 0)),
    ("counter_drifted", with_ledger(drifts=[Drift("acme", DAY, 1, 2, T0)])),
    ("hold_left", a_counter(87_000, 1)),
    ("hold_left", with_evidence(left={"in_flight": 1})),
    ("cost_disagrees", with_entry("c1", output_tokens=6)),
    ("cost_disagrees", with_entry("c1", output_tokens=4)),
    ("cost_too_low", with_entry("c11", output_tokens=9)),
    ("cost_above_hold", with_row("c1", hold=5_999)),
    ("cost_told_disagrees", with_answer("r1", headers={"x-perpetuo-cost-usd": "0.000006001"})),
    ("cancelled_with_a_key", with_row("c6", outcome="cancelled")),
    ("not_stopped", with_entry("c10", ended=T0 + 22)),
    ("admission_without_row", with_admission("c12", revision=1)),
    ("row_out_of_date", with_admission("c6", revision=2)),
    ("row_without_admission", with_admission("c1", cancelled=True)),
    ("row_of_another", with_admission("c1", key="another")),
    ("two_rows", a_second_row),
    ("call_without_row", an_unasked_call),
    ("too_many_attempts", many_attempts),
    ("answer_without_row", an_answer_out_of_nothing),
    ("row_disagrees", with_answer("r11", what="fail", status=502, code="upstream_error", type="upstream_error",
                                  source="gateway", headers=NO_RETRY)),
    ("row_disagrees", with_answer("r8", status=504, code="upstream_timeout")),
    ("row_disagrees", with_row("c1", outcome="failed")),
    ("refusal_with_row", with_answer("r8", status=429, code="concurrency_limit_exceeded", type="rate_limit_error",
                                     headers=WAIT)),
    ("row_for_a_replay", with_answer("r1", headers=REPLAYED)),
    ("replay_differs", with_answer("r3", digest="other bytes")),
    ("replay_differs", a_replay_of_another_run),
    ("claimed_twice", with_ledger(claims=[Claimed("k2", "c7", US, "R", "c6", US + 1)])),
    ("claimed_twice", with_ledger(claims=[Claimed("k2", "c7", US, "D", "", US + 1)])),
    ("stored_over", with_ledger(overwritten=[Overwritten("k2", 1, 2)])),
    ("ran_twice", a_run_of_a_kept_key),
    ("ran_twice", with_admission("c7", at_us=US + 9_000_000)),
    ("ran_twice", with_row("c7", idempotency="stored")),
    ("not_in_the_contract", with_answer("r9", status=500, code="internal_error")),
    ("not_in_the_contract", with_answer("r9", headers={**WAIT, "retry-after-ms": "1001"})),
    ("not_in_the_contract", with_answer("r8", source="provider")),
    ("unanswered", no_answer),
    ("late", with_answer("r1", at=T0 + 17)),
    ("lost_without_a_fault", with_answer("r10", how="reset")),
    ("unavailable_without_a_fault", no_store),
    ("foreign_answer", with_answer("r1", canaries=("acme", "tight"))),
    ("foreign_answer", with_answer("r5", call="c1", digest="of c1")),
    ("revoked_key_worked", a_key_that_was_taken_away),
    ("wrong_answer", with_answer("r1", said="canary-acme-of another")),
    ("wrong_answer", with_answer("r1", call="c11", digest="of c11")),
    ("defect_logged", with_evidence(defects=["Traceback"])),
    ("event_left", with_evidence(left={"events": 1})),
    ("event_set_aside", with_evidence(left={"set_aside": 1})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lie"), LIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(LIES)])
def test_a_lie_is_called_by_its_name(name: str, lie: Lie) -> None:
    """One thing changed in a clean history: that violation is reported, and no other kind."""
    assert {violation.name for violation in check(lie(clean()))} == {name}


def test_every_check_has_a_lie() -> None:
    """No check is there that no lie has ever set off."""
    lies = [lie(clean()) for _, lie in LIES]
    assert [one.__name__ for one in CHECKS if not any(any(one(evidence)) for evidence in lies)] == []


def test_a_clean_history_passes() -> None:
    """Kills, refusals, replays and a client that leaves are no violations; the sums are what went in."""
    evidence = clean()
    assert check(evidence) == []
    found = sums(evidence)
    assert (found.requests, found.admitted, found.rows) == (11, 8, 8)
    assert (found.cost_events + found.bound_events, found.counter) == (93_000, 93_000)
    assert (found.cost_upstream, found.bound_upstream) == (24_000, 16_000)
    assert found.answered["replay"] == 1
    assert "93000: 24000 reported" in "\n".join(found.lines())


def test_a_row_missing_everywhere_is_missed_by_everyone() -> None:
    """A call that vanished: its admission, its provider call, its client and the counter each miss its row."""
    found = {violation.name for violation in check(without_row("c1")(clean()))}
    assert found == {"admission_without_row", "call_without_row", "answer_without_row", "counter_disagrees"}


def test_a_stopped_process_excuses_as_long_a_wait() -> None:
    """Seven seconds late is late; unless a worker of that gateway was stopped for eight."""
    late = with_answer("r1", at=T0 + 23)
    stopped = [*clean().faults, Fault("stop_worker", T0 + 1, T0 + 9, 0)]
    elsewhere = [*clean().faults, Fault("stop_worker", T0 + 1, T0 + 9, 1)]
    assert check(all_of(late, with_evidence(faults=stopped))(clean())) == []
    assert [v.name for v in check(all_of(late, with_evidence(faults=elsewhere))(clean()))] == ["late"]


def test_a_refused_request_costs_nothing() -> None:
    """The provider's 400 is not charged, so a row that says nothing was charged is right."""
    refusal = with_row("c8", status=400, basis="reported", cost=0)
    told = with_answer("r8", status=400, code="ordered", source="provider", headers=NO_RETRY)
    right = all_of(refusal, told, with_entry("c8", status=400), a_counter(86_000, 0))
    others = {window: (86_000, 0) for window in clean().counters if window[0].startswith("acme")}
    assert check(all_of(right, lambda e: attrs.evolve(e, counters={**e.counters, **others}))(clean())) == []


def test_an_orderly_restart_excuses_only_who_came_after_it_began() -> None:
    """Whose call was there before SIGTERM gets its answer."""
    broken = with_answer("r10", how="reset")
    before, after = (Fault("restart_gateway", T0 + at, T0 + 20, 0) for at in (15.9, 16.1))
    assert check(all_of(broken, with_evidence(faults=[*clean().faults, before]))(clean())) == []
    found = check(all_of(broken, with_evidence(faults=[*clean().faults, after]))(clean()))
    assert [v.name for v in found] == ["lost_without_a_fault"]


def test_an_outage_excuses_refusals_for_some_seconds() -> None:
    """Redis was away until ten seconds ago; longer ago is no excuse."""
    for ended, names in ((11, []), (9, ["unavailable_without_a_fault"])):
        faults = [*clean().faults, Fault("kill_redis", T0 + 8, T0 + ended)]
        assert [v.name for v in check(all_of(no_store, with_evidence(faults=faults))(clean()))] == names


def test_a_raised_limit_counts_from_when_it_was_written() -> None:
    """An admission after that may be the seventh; one before may not."""
    low, before, after = (Limit(T0 + at, "acme", rate=n) for at, n in ((-60, 6), (17, 7), (18, 7)))
    assert check(more_limits(low, before)(clean())) == []
    assert [v.name for v in check(more_limits(low, after)(clean()))] == ["rate_limit_passed"]


def test_what_redis_lost_with_its_data_is_known() -> None:
    """After FLUSHALL: a call just before may have no row, a counter may be too high; never too low."""
    lost = with_ledger(losses=[T0 + 18])
    gone = all_of(lost, without_row("c11"), a_counter(87_000, 0))
    assert check(gone(clean())) == []
    assert {v.name for v in check(all_of(lost, a_counter(86_999, 0))(clean()))} == {"counter_disagrees"}
    long_before = with_ledger(losses=[T0 + 60])
    assert "admission_without_row" in {v.name for v in check(all_of(long_before, without_row("c1"))(clean()))}
