"""
Is every admitted call exactly one row, and every row a call (A1, A2)?

What Redis lost with its data may be missing (semantics 15, 16): calls that were in its keeping at that moment.
"""

from collections.abc import Iterator

from tests.chaos.checks import Violation
from tests.chaos.evidence import DEATHS, STOPS, Evidence, Row
from tests.chaos.history import Exchange

KEPT_BY_REDIS = 3.0
"""Seconds in which a finished call reaches SQL when nothing is in the way."""
REAPED = 90.0
"""Seconds in which a call of a dead worker does."""
ATTEMPTS = 3
STOPPED = 4.0
"""Seconds in which the provider's call ends when its client has gone: one is promised, a busy machine has the rest."""
BEFORE_ADMISSION = frozenset(
    {
        "invalid_api_key", "rate_limit_exceeded", "concurrency_limit_exceeded", "budget_exceeded", "budget_reserved",
        "idempotency_key_reused", "idempotency_in_progress", "idempotency_not_stored", "idempotency_outcome_unknown",
        "store_unavailable", "audit_unavailable",
    }
)  # fmt: skip
"""Refusals that no call goes with."""


def rows(evidence: Evidence) -> Iterator[Violation]:
    """One row for each admitted call, at the revision Redis gave out last."""
    admissions = evidence.ledger.admissions
    for one in evidence.admitted:
        row = evidence.by_id.get(one.call)
        if row is None:
            if not _lost_with_redis(evidence, one.call, one.at_us / 1e6):
                yield Violation("admission_without_row", f"{one.call} of {one.tenant}, admitted at {one.at_us}")
        elif row.revision != one.revision and not evidence.ledger.losses:
            about = f"{row.id}: revision {row.revision} in SQL, {one.revision} sent there"
            yield Violation("row_out_of_date", about)
    for row in evidence.rows:
        known = admissions.get(row.id)
        if known is None or (known.cancelled and not known.reaped):
            yield Violation("row_without_admission", f"{row.id} of {row.tenant} ({row.outcome})")
        elif (known.tenant, known.key, known.request) != (row.tenant, row.key, row.request):
            yield Violation("row_of_another", f"{row.id}: admitted for {known.tenant}, written for {row.tenant}")
    for request, several in evidence.rows_of.items():
        if len(several) > 1:
            yield Violation("two_rows", f"{request}: {', '.join(row.id for row in several)}")


def provider(evidence: Evidence) -> Iterator[Violation]:
    """What reached the provider has a row, and not more attempts than are allowed."""
    for call, entries in evidence.entries_of.items():
        row = evidence.by_id.get(call)
        if row is None and not _lost_with_redis(evidence, call, entries[0].started):
            yield Violation("call_without_row", f"{call} reached the provider at {entries[0].started:.3f}")
        if len(entries) > ATTEMPTS:
            yield Violation("too_many_attempts", f"{call}: {len(entries)}")


def leavers(evidence: Evidence) -> Iterator[Violation]:
    """I8: a client that leaves stops its call, unless it has an idempotency key: then the call is finished."""
    for exchange in evidence.exchanges:
        asked, answered = exchange.asked, exchange.answered
        for row in evidence.rows_of.get(asked.id, ()):
            if row.outcome == "cancelled" and asked.idem is not None:
                yield Violation("cancelled_with_a_key", f"{row.id} of {asked.tenant}, key {asked.idem}")
            if answered is None or answered.how != "left" or asked.idem is not None:
                continue
            last = max((entry.ended for entry in evidence.entries_of.get(row.id, ())), default=0.0)
            late = last - answered.at
            if late > STOPPED and not evidence.faults_at(STOPS, answered.at, last, asked.gateway):
                yield Violation("not_stopped", f"{row.id} of {asked.tenant}: {late:.1f} s after its client had left")


def _lost_with_redis(evidence: Evidence, call: str, began: float) -> bool:
    """Was the call in Redis's keeping when its data was lost?"""
    if not evidence.ledger.losses:
        return False
    ended = max((entry.ended for entry in evidence.entries_of.get(call, ())), default=began)
    kept = REAPED if evidence.faults_at(DEATHS, began, ended + KEPT_BY_REDIS) else KEPT_BY_REDIS
    outages = [f for f in evidence.faults if f.what in {"kill_postgres", "lock_table"} and f.touches(began, ended)]
    kept += max((f.ended - ended for f in outages), default=0.0)
    return evidence.lost_between(began, ended + kept)


def answers(evidence: Evidence) -> Iterator[Violation]:
    """What a client was told and what its row says are the same story."""
    for exchange in evidence.exchanges:
        if exchange.answered is None:
            continue
        rows_here = evidence.rows_of.get(exchange.asked.id, ())
        row = rows_here[0] if rows_here else None
        wrong = _wrong(evidence, exchange, row)
        if wrong is not None:
            yield wrong


def _wrong(evidence: Evidence, exchange: Exchange, row: Row | None) -> Violation | None:
    asked, answered = exchange.asked, exchange.answered
    assert answered is not None
    about = f"{asked.id} of {asked.tenant}: {answered.what} {answered.status} {answered.code or answered.how}"
    about += f", row {row.outcome} {row.status} {row.error_code}" if row is not None else ", no row"
    if exchange.is_run:
        if row is None:
            lost = _lost_with_redis(evidence, answered.call, asked.at)
            return None if lost else Violation("answer_without_row", about)
        ended = row.outcome == "completed" or (row.outcome == "abandoned" and _died(evidence, exchange))
        return None if ended else Violation("row_disagrees", about)
    if answered.what == "ok":
        return None if row is None else Violation("row_for_a_replay", about)
    if answered.what == "lost" or row is None or row.outcome == "abandoned":
        return None
    if answered.code in BEFORE_ADMISSION:
        return Violation("refusal_with_row", about)
    agrees = row.outcome != "completed" and (answered.status == 200 or row.status == answered.status)
    kept_refusal = answered.source == "provider" and row.status == answered.status
    return None if agrees or kept_refusal else Violation("row_disagrees", about)


def _died(evidence: Evidence, exchange: Exchange) -> bool:
    """Did a worker of its gateway die before it can have settled?"""
    assert exchange.answered is not None
    return bool(evidence.faults_at(DEATHS, exchange.asked.at, exchange.answered.at + 30, exchange.asked.gateway))
