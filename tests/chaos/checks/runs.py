"""Was each idempotency key run once, and its answer given out unchanged (I2, I5, I7)?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tests.chaos.checks import Violation
from tests.chaos.evidence import DEATHS, STOPS, Evidence, Row
from tests.chaos.history import Exchange

CLOCKS = 0.1
"""Seconds by which a worker's own clock may differ from Redis's (the same machine's, read at another moment)."""
FREES = frozenset({"failed", "cancelled", "truncated"})
KEPT = frozenset({400, 404, 413, 422})
"""Refusals of the provider's are answers, and kept (I6)."""
Key = tuple[str, str]


def claims(evidence: Evidence) -> Iterator[Violation]:
    """I5, as Redis wrote it down: nobody takes a key that is running or kept before its time is over."""
    for one in evidence.ledger.claims:
        if one.at_us < one.until_us:
            what = "is running" if one.before == "R" else "is done"
            about = f"{one.key}: {one.call} took it at {one.at_us}, {one.before_call or 'the run before'} {what}"
            yield Violation("claimed_twice", f"{about} until {one.until_us}")


def fences(evidence: Evidence) -> Iterator[Violation]:
    """I5: a run that lost its key neither stores over the one that has it, nor over its answer, nor sets it free."""
    for one in evidence.ledger.overwritten:
        yield Violation("stored_over", f"{one.key}: by run {one.fence}, after run {one.before}")


def runs(evidence: Evidence) -> Iterator[Violation]:
    """I5, I7: a second run only after one that kept nothing, or a lease after one whose worker was dead or stopped."""
    for key, found in _runs_by_key(evidence).items():
        for first, second in pairwise(found):
            why = _not_allowed(evidence, first, second)
            if why is not None:
                yield Violation("ran_twice", f"{' '.join(key)}: {first.id}, then {second.id}: {why}")


def _runs_by_key(evidence: Evidence) -> Mapping[Key, Sequence[Row]]:
    keys: dict[Key, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        exchange = evidence.by_request.get(row.request)
        if exchange is not None and exchange.asked.idem is not None:
            keys[row.tenant, exchange.asked.idem].append(row)
    return {key: sorted(found, key=lambda row: _began(evidence, row)) for key, found in keys.items()}


def _began(evidence: Evidence, row: Row) -> float:
    admission = evidence.ledger.admissions.get(row.id)
    return row.occurred_at if admission is None else admission.at_us / 1e6


def _not_allowed(evidence: Evidence, first: Row, second: Row) -> str | None:
    since, until = _began(evidence, first), _began(evidence, second)
    if evidence.lost_between(since, until):
        return None
    if first.outcome in FREES and first.status not in KEPT and until >= first.ended - CLOCKS:
        return None
    exchange = evidence.by_request[first.request]
    silent = evidence.faults_at(DEATHS | STOPS, since, until, exchange.asked.gateway)
    if not silent:
        return f"the first was {first.outcome}, and its worker was well"
    if until < since + evidence.lease:
        return f"only {until - since:.2f} s after it"
    if second.idempotency != "reexecuted" and second.outcome != "abandoned":
        return f"the second says {second.idempotency}"
    return None


def replays(evidence: Evidence) -> Iterator[Violation]:
    """I2: one answer for a key, the same bytes for everybody."""
    by_call: dict[str, set[str]] = defaultdict(set)
    by_key: dict[Key, list[Exchange]] = defaultdict(list)
    for exchange in evidence.exchanges:
        answered = exchange.answered
        if answered is None or answered.what != "ok":
            continue
        by_call[answered.call].add(answered.digest)
        if answered.replayed:
            by_key[exchange.asked.tenant, exchange.asked.idem or ""].append(exchange)
    for call, digests in by_call.items():
        if len(digests) > 1:
            yield Violation("replay_differs", f"{call}: {len(digests)} different answers")
    for key, found in by_key.items():
        made_by = {exchange.answered.call for exchange in found if exchange.answered is not None}
        first, last = found[0].asked.at, max(e.answered.at for e in found if e.answered is not None)
        if len(made_by) > 1 and not evidence.lost_between(first, last):
            yield Violation("replay_differs", f"{' '.join(key)}: answers of {', '.join(sorted(made_by))}")
