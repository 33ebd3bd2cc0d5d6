"""
Rate policy: may this scope be admitted now, and if not, when exactly?

The state is a log of admission times, oldest first, never longer than the limit.

Rule 1: admit iff fewer than ``limit`` entries lie in ``(at - window, at]``. An entry exactly one window
        old has left. Equivalently: the ``limit``-th newest entry is missing or at least one window old.
Rule 2: an admission appends ``at`` and keeps the newest ``limit`` entries. Those hold every entry of the
        window, because never more than ``limit`` are in it; so a limit changed later stays exact.
Rule 3: ``at`` is the store's clock, but never before the newest entry of any log the call touches: when
        the clock goes back, the log does not. One ``at`` for all logs of a call.
Rule 4: the wait is ``edge + window - now``, with ``edge`` the ``limit``-th newest entry and ``now`` the
        unclamped clock: waiting exactly that long admits, 1 µs less does not. A limit of 0 waits one window.
Rule 5: of several refusing limits the one with the longest wait is named; the first among equals.
Rule 6: giving a slot back removes one entry equal to the call's ``at``, or nothing when it has gone.

A scope occurs at most once among the limits of one call.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import attrs

from perpetuo.domain.model.admission import RateLimit, RateReading, RateRefused


@attrs.frozen
class RateLog:
    """Admission times of one scope, µs, ascending."""

    times: tuple[int, ...] = ()


EMPTY = RateLog()


def instant(logs: Iterable[RateLog], now_us: int) -> int:
    """The time an admission gets: *now*, or the newest entry when the clock has gone back (rule 3)."""
    return max([now_us, *(log.times[-1] for log in logs if log.times)])


def used(log: RateLog, at_us: int, window_us: int) -> int:
    """How many admissions lie in the window that ends at *at*."""
    return len(log.times) - bisect_right(log.times, at_us - window_us)


def wait_us(log: RateLog, limit: RateLimit, at_us: int, now_us: int) -> int:
    """0: there is room. Otherwise how long exactly until there is (rules 1 and 4)."""
    if limit.limit <= 0:
        return limit.window_us
    if len(log.times) < limit.limit:
        return 0
    edge = log.times[-limit.limit]
    return 0 if at_us - edge >= limit.window_us else edge + limit.window_us - now_us


def refusal(limits: Sequence[RateLimit], logs: Mapping[str, RateLog], at_us: int, now_us: int) -> RateRefused | None:
    """The refusal with the longest wait, or ``None`` when every limit has room (rule 5)."""
    waits = [(wait_us(logs.get(limit.scope, EMPTY), limit, at_us, now_us), limit) for limit in limits]
    wait, limit = max(waits, key=lambda pair: pair[0], default=(0, None))
    return RateRefused(limit.scope, limit.limit, wait) if limit and wait > 0 else None


def enter(log: RateLog, limit: RateLimit, at_us: int) -> RateLog:
    """Record an admission (rule 2)."""
    return RateLog((*log.times, at_us)[-limit.limit :])


def reading(log: RateLog, limit: RateLimit, at_us: int, now_us: int) -> RateReading:
    """The limit as it stands right after an admission at *at*."""
    return RateReading(
        scope=limit.scope,
        limit=limit.limit,
        remaining=max(0, limit.limit - used(log, at_us, limit.window_us)),
        reset_us=at_us + limit.window_us - now_us,
    )


def take(log: RateLog, limit: RateLimit, now_us: int) -> RateRefused | RateLog:
    """Enter something that this limit alone decides: the log with it, or why not."""
    at = instant([log], now_us)
    return refusal([limit], {limit.scope: log}, at, now_us) or enter(log, limit, at)


def give_back(log: RateLog, at_us: int) -> RateLog:
    """Take one admission at *at* out again (rule 6)."""
    if at_us not in log.times:
        return log
    index = log.times.index(at_us)
    return RateLog(log.times[:index] + log.times[index + 1 :])
