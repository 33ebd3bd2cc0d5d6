"""
What is known of a run when it is over? Five witnesses who do not know of each other, and what was done to them.

    exchanges   the clients' history
    entries     the provider's own journal
    rows        the table ``events``
    ledger      Redis's own journal, its append-only file
    counters    what Redis has in the end
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from tests.chaos.history import Exchange
from tests.chaos.ledger_log import Admission, LedgerLog
from tests.journal_process import Entry

Window = tuple[str, str]
"""Scope (``acme``, ``acme/batch``) and day or month."""


@attrs.frozen
class Row:
    """One row of ``events``. Its id is the call's; money is nano-USD."""

    id: str
    revision: int
    occurred_at: float
    tenant: str
    key: str
    request: str
    model: str
    upstream_model: str | None
    status: int
    outcome: str
    error_code: str | None
    attempts: int
    cost: int
    hold: int
    basis: str
    budget_day: str | None
    idempotency: str
    latency: float
    """Seconds until it was settled; 0 for a row nobody finished."""

    @property
    def ended(self) -> float:
        return self.occurred_at + self.latency


@attrs.frozen
class Fault:
    """Something that was done to the system, from ``began`` to ``ended`` (the same for what takes no time)."""

    what: str
    began: float
    ended: float
    gateway: int | None = None
    """Which gateway's processes it was done to."""
    about: str = ""

    def touches(self, since: float, until: float) -> bool:
        return self.began <= until and self.ended >= since


DEATHS = frozenset({"kill_worker", "kill_gateway"})
STOPS = frozenset({"stop_worker"})
STORES = frozenset({"stop_redis", "kill_redis", "flush_all", "kill_postgres", "lock_table"})


@attrs.frozen
class Limit:
    """From ``at`` on this much may have been allowed; limits are only ever raised during a run."""

    at: float
    scope: str
    rate: int | None = None
    budget: int | None = None
    """Nano-USD a day."""


@attrs.frozen
class Price:
    """Nano-USD a token."""

    input: int
    output: int


@attrs.frozen(kw_only=True)
class Evidence:
    """All there is to judge by."""

    exchanges: Sequence[Exchange]
    entries: Sequence[Entry]
    rows: Sequence[Row]
    ledger: LedgerLog
    counters: Mapping[Window, tuple[int, int]]
    """Spent and held in the end."""
    limits: Sequence[Limit]
    faults: Sequence[Fault] = ()
    prices: Mapping[str, Price] = attrs.field(factory=dict)
    """By the model's name at the provider."""
    left: Mapping[str, int] = attrs.field(factory=dict)
    """What should be nothing in the end: holds, calls in flight, events not in SQL, rows set aside."""
    defects: Sequence[str] = ()
    """Lines in the gateways' logs that no fault explains."""
    lease: float = 5.0
    """Seconds an idempotency key's run is believed in without a sign of life."""
    deadline: float = 10.0
    """Seconds a call may take by the gateway's own clock."""

    @cached_property
    def by_request(self) -> Mapping[str, Exchange]:
        return {exchange.asked.id: exchange for exchange in self.exchanges}

    @cached_property
    def by_id(self) -> Mapping[str, Row]:
        return {row.id: row for row in self.rows}

    @cached_property
    def rows_of(self) -> Mapping[str, Sequence[Row]]:
        """Rows by the request they were made for."""
        return _grouped((row.request, row) for row in self.rows)

    @cached_property
    def entries_of(self) -> Mapping[str, Sequence[Entry]]:
        """What reached the provider, by call."""
        return _grouped((entry.call, entry) for entry in self.entries)

    @cached_property
    def admitted(self) -> Sequence[Admission]:
        """Calls that were let in and not taken back, by Redis's clock."""
        let_in = [one for one in self.ledger.admissions.values() if not one.cancelled]
        return sorted(let_in, key=lambda one: one.at_us)

    def cost_upstream(self, entry: Entry) -> int:
        """What the provider charges: nothing for a request it refused, input for one it failed at."""
        if 400 <= entry.status <= 499:
            return 0
        price = self.prices[entry.model]
        return entry.input_tokens * price.input + entry.output_tokens * price.output

    def rate_limit(self, scope: str, at: float) -> int | None:
        """The highest that may have been in force at ``at``; ``None``: no limit."""
        return max((one.rate for one in self._limits(scope, at) if one.rate is not None), default=None)

    def budget_limit(self, scope: str, at: float) -> int | None:
        return max((one.budget for one in self._limits(scope, at) if one.budget is not None), default=None)

    def _limits(self, scope: str, at: float) -> Iterable[Limit]:
        return (one for one in self.limits if one.scope == scope and one.at <= at)

    def faults_at(self, kinds: frozenset[str], since: float, until: float, gateway: int | None = None) -> list[Fault]:
        """Those of some kinds that touch a span of time."""
        return [
            fault
            for fault in self.faults
            if fault.what in kinds and fault.touches(since, until) and gateway in (None, fault.gateway)
        ]

    def lost_between(self, since: float, until: float) -> bool:
        """Did Redis lose its data in this time?"""
        return any(since <= at <= until for at in self.ledger.losses)


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for name, one in pairs:
        groups[name].append(one)
    return dict(groups)
