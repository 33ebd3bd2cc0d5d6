"""Is every amount the same wherever it is written down (B2, B4, B7, B9)?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal

from tests.chaos.checks import Violation
from tests.chaos.evidence import Evidence, Window


def sums_of_rows(evidence: Evidence) -> Mapping[Window, int]:
    """What the rows say was spent, by window."""
    sums: dict[Window, int] = defaultdict(int)
    for row in evidence.rows:
        if row.budget_day is not None:
            for scope in (row.tenant, f"{row.tenant}/{row.key}"):
                for window in (row.budget_day, row.budget_day[:7]):
                    sums[scope, window] += row.cost
    return sums


def counters(evidence: Evidence) -> Iterator[Violation]:
    """B7: counter = Σ events in the end. After a loss a counter may be too high, never too low."""
    sums, losses = sums_of_rows(evidence), bool(evidence.ledger.losses)
    for window in sorted({*sums, *evidence.counters}):
        spent, total = evidence.counters.get(window, (0, 0))[0], sums.get(window, 0)
        if spent < total or (spent > total and not losses):
            yield Violation("counter_disagrees", f"{' '.join(window)}: counter {spent}, Σ events {total}")


def instants(evidence: Evidence) -> Iterator[Violation]:
    """B7: and at every instant before, as Redis wrote it down."""
    for drift in evidence.ledger.drifts:
        yield Violation(
            "counter_drifted",
            f"{drift.scope} {drift.window}: counter {drift.spent}, Σ events {drift.events} at {drift.at:.0f}",
        )


def holds(evidence: Evidence) -> Iterator[Violation]:
    """B4: nothing is held in the end."""
    for window, (_, held) in evidence.counters.items():
        if held:
            yield Violation("hold_left", f"{' '.join(window)}: {held} held")
    for what in ("holds", "in_flight"):
        if evidence.left.get(what):
            yield Violation("hold_left", f"{evidence.left[what]} {what}")


def costs(evidence: Evidence) -> Iterator[Violation]:
    """B2, B9: what a row says a call cost is what the provider charges for it, or, where it is a bound, not less."""
    for row in evidence.rows:
        upstream = sum(evidence.cost_upstream(entry) for entry in evidence.entries_of.get(row.id, ()))
        about = f"{row.id} of {row.tenant} ({row.outcome}, {row.basis}): {row.cost}, at the provider {upstream}"
        if row.basis == "reported" and row.cost != upstream:
            yield Violation("cost_disagrees", about)
        elif row.basis != "reported" and row.cost < upstream:
            yield Violation("cost_too_low", about)
        if row.cost > row.hold and evidence.budget_limit(row.tenant, row.ended) is not None:
            yield Violation("cost_above_hold", f"{row.id} of {row.tenant}: {row.cost}, held {row.hold}")


def told(evidence: Evidence) -> Iterator[Violation]:
    """What a client was told that its call cost is what its row says, to the nano."""
    for exchange in evidence.exchanges:
        answered, rows = exchange.answered, evidence.rows_of.get(exchange.asked.id, ())
        cost = answered.headers.get("x-perpetuo-cost-usd") if answered is not None else None
        if cost is None or not rows or rows[0].outcome == "abandoned":
            continue
        if Decimal(cost) * 1_000_000_000 != rows[0].cost:
            yield Violation("cost_told_disagrees", f"{rows[0].id} of {rows[0].tenant}: {rows[0].cost}, told {cost} USD")
