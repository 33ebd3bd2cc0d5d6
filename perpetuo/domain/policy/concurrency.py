"""
Concurrency policy: is this scope allowed one more call at once?

The state is the set of calls in flight with the end of each one's lease, never a bare counter: what a
dead worker left behind counts no longer than its lease.

Rule 1: a member whose lease has ended (``end <= now``) does not count, and is dropped at the next admission.
Rule 2: admit iff fewer than ``limit`` members are left; the first limit in the list that is full refuses.
Rule 3: renewing sets the end anew (never earlier), also for a member that had been dropped.
"""

from collections.abc import Mapping, Sequence

import attrs

from perpetuo.domain.model.admission import ConcurrencyLimit, ConcurrencyRefused


@attrs.frozen
class Leases:
    """Calls in flight of one scope: call id → end of its lease, µs."""

    ends: Mapping[str, int] = attrs.field(factory=dict)


EMPTY = Leases()


def alive(leases: Leases, now_us: int) -> int:
    """How many calls are in flight (rule 1)."""
    return sum(end > now_us for end in leases.ends.values())


def refusal(limits: Sequence[ConcurrencyLimit], scopes: Mapping[str, Leases], now_us: int) -> ConcurrencyRefused | None:
    """The first limit that is full, or ``None`` (rule 2)."""
    for limit in limits:
        if alive(scopes.get(limit.scope, EMPTY), now_us) >= limit.limit:
            return ConcurrencyRefused(limit.scope, limit.limit)
    return None


def enter(leases: Leases, call: str, end_us: int, now_us: int) -> Leases:
    """Admit a call; those whose lease has ended go (rule 1)."""
    return Leases({c: end for c, end in leases.ends.items() if end > now_us} | {call: end_us})


def renew(leases: Leases, call: str, end_us: int) -> Leases:
    return Leases({**leases.ends, call: max(end_us, leases.ends.get(call, end_us))})


def leave(leases: Leases, call: str) -> Leases:
    return Leases({c: end for c, end in leases.ends.items() if c != call})
