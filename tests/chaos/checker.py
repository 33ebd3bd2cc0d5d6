"""
Did the run keep every promise? All checks over the evidence, and the sums they were made with.

Pure: it looks at nothing but the evidence, so that it can be tested on histories that never happened.
"""

from collections import Counter
from collections.abc import Sequence

import attrs

from tests.chaos.checks import Check, Violation, answers, calls, limits, money, runs
from tests.chaos.evidence import Evidence
from tests.chaos.history import Answered

CHECKS: tuple[Check, ...] = (
    limits.rates,
    limits.refusals,
    limits.budgets,
    money.counters,
    money.instants,
    money.holds,
    money.costs,
    money.told,
    calls.rows,
    calls.provider,
    calls.answers,
    calls.leavers,
    runs.claims,
    runs.fences,
    runs.runs,
    runs.replays,
    answers.contract,
    answers.times,
    answers.losses,
    answers.outages,
    answers.strangers,
    answers.revoked,
    answers.defects,
)


def check(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong with a run; nothing: it kept what was promised."""
    return [violation for one in CHECKS for violation in one(evidence)]


@attrs.frozen
class Sums:
    """What the checks were made with. Money is nano-USD, over all tenants."""

    requests: int
    answered: Counter[str]
    """Answers by ``ok``, ``replay``, an error's code, or how they were lost."""
    admitted: int
    rows: int
    outcomes: Counter[str]
    cost_upstream: int
    """Of calls whose usage was reported, and of the others."""
    bound_upstream: int
    cost_events: int
    bound_events: int
    counter: int
    """Spent by all tenants' days, in Redis."""
    faults: Counter[str]

    def lines(self) -> Sequence[str]:
        """For people."""
        return [
            f"requests        {self.requests}: {_counts(self.answered)}",
            f"admitted        {self.admitted}",
            f"rows            {self.rows}: {_counts(self.outcomes)}",
            f"cost upstream   {self.cost_upstream + self.bound_upstream}: "
            f"{self.cost_upstream} of reported calls, {self.bound_upstream} of the others",
            f"cost in events  {self.cost_events + self.bound_events}: "
            f"{self.cost_events} reported, {self.bound_events} estimated or bound",
            f"counter         {self.counter}",
            f"faults          {sum(self.faults.values())}: {_counts(self.faults)}",
        ]


def sums(evidence: Evidence) -> Sums:
    reported = {row.id for row in evidence.rows if row.basis == "reported"}
    upstream = [(entry.call in reported, evidence.cost_upstream(entry)) for entry in evidence.entries]
    days = {window: spent for window, (spent, _) in evidence.counters.items() if len(window[1]) > 7}
    return Sums(
        requests=len(evidence.exchanges),
        answered=Counter(_told(exchange.answered) for exchange in evidence.exchanges),
        admitted=len(evidence.admitted),
        rows=len(evidence.rows),
        outcomes=Counter(row.outcome for row in evidence.rows),
        cost_upstream=sum(cost for known, cost in upstream if known),
        bound_upstream=sum(cost for known, cost in upstream if not known),
        cost_events=sum(row.cost for row in evidence.rows if row.basis == "reported"),
        bound_events=sum(row.cost for row in evidence.rows if row.basis != "reported"),
        counter=sum(spent for (scope, _), spent in days.items() if "/" not in scope),
        faults=Counter(fault.what for fault in evidence.faults),
    )


def _told(answered: Answered | None) -> str:
    if answered is None:
        return "unanswered"
    if answered.what == "ok":
        return "replay" if answered.replayed else "ok"
    return answered.code or "error" if answered.what == "fail" else f"lost: {answered.how}"


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in found.most_common()) or "none"
