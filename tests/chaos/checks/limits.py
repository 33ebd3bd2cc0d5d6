"""Was any limit passed, and was anybody refused too early (R1, R2, B1)?"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.chaos.checks import Violation
from tests.chaos.evidence import STOPS, Evidence
from tests.chaos.history import Answered, Asked

MINUTE_US = 60_000_000
RELOADED = 5.0
"""Seconds in which every worker that is not stopped has heard of a raised limit."""
INSTANT = 2.0
"""Seconds by which the time of an instant in Redis's journal may be too early."""


def admissions_by_scope(evidence: Evidence, *, cancelled: bool = False) -> Mapping[str, Sequence[int]]:
    """When calls of each tenant and key were let in, µs of Redis's clock, ascending."""
    times: dict[str, list[int]] = defaultdict(list)
    for one in evidence.ledger.admissions.values():
        if cancelled or not one.cancelled:
            times[one.tenant].append(one.at_us)
            times[f"{one.tenant}/{one.key}"].append(one.at_us)
    return {scope: sorted(found) for scope, found in times.items()}


def rates(evidence: Evidence) -> Iterator[Violation]:
    """R1: in no 60 s of Redis time more than the limit. Each loss of Redis's data may begin the minute anew."""
    for scope, times in admissions_by_scope(evidence).items():
        for count, at in enumerate(times, 1):
            limit = evidence.rate_limit(scope, at / 1e6)
            if limit is None:
                continue
            inside = count - bisect_right(times, at - MINUTE_US, hi=count)
            losses = sum(at / 1e6 - 60 <= lost <= at / 1e6 for lost in evidence.ledger.losses)
            if inside > limit * (1 + losses):
                yield Violation("rate_limit_passed", f"{scope}: {inside} in the minute up to {at} µs, limit {limit}")


def refusals(evidence: Evidence) -> Iterator[Violation]:
    """R2: who hears that the rate is used up, it is. Cancelled admissions had a slot while they lasted."""
    times = admissions_by_scope(evidence, cancelled=True)
    for exchange in evidence.exchanges:
        asked, answered = exchange.asked, exchange.answered
        if answered is None or answered.code != "rate_limit_exceeded" or asked.idem is not None:
            continue  # with a key it may be the limit of replays
        scopes = (asked.tenant, f"{asked.tenant}/{asked.key}")
        if not any(_is_full(evidence, scope, times.get(scope, ()), asked, answered) for scope in scopes):
            yield Violation("refused_too_early", f"{asked.id} of {asked.tenant}: its rate was not used up")


def _is_full(evidence: Evidence, scope: str, times: Sequence[int], asked: Asked, answered: Answered) -> bool:
    stopped = evidence.faults_at(STOPS, asked.at - RELOADED, answered.at, asked.gateway)
    limit = evidence.rate_limit(scope, min([asked.at, *(fault.began for fault in stopped)]) - RELOADED)
    if limit is None:
        return False
    since, until = round(asked.at * 1e6) - MINUTE_US, round(answered.at * 1e6)
    return bisect_right(times, until) - bisect_right(times, since) >= limit


def budgets(evidence: Evidence) -> Iterator[Violation]:
    """
    B1: spent and held together never passed a budget, at no instant.

    After a loss holds come back with their workers, and one that was stopped comes late: not for a minute after it.
    """
    for height in evidence.ledger.heights:
        limit = evidence.budget_limit(height.scope, height.at + INSTANT) if len(height.window) > 7 else None
        if limit is None or height.amount <= limit or evidence.lost_between(height.at - 60, height.at):
            continue
        yield Violation(
            "budget_passed", f"{height.scope} {height.window}: {height.amount} spent and held, limit {limit}"
        )
