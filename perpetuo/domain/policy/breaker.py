"""
Circuit breaker policy: may the next attempt reach this provider?

    Closed    --failures reach the threshold------------>  Open
    Open      --its time is over------------------------>  HalfOpen
    HalfOpen  --a probe shows the provider alive-------->  Closed
    HalfOpen  --the probe fails------------------------->  Open
    any       --an operator sets the key by hand-------->  Open until the key goes, then Closed
    Open      --an operator deletes the key------------->  Closed

Rule 1: a breaker is a value. Each step takes one and returns the next; storing it atomically is the adapter's job
        (``perpetuo/adapters/redis/breaker.lua`` is the same policy, step by step).
Rule 2: every change begins a *generation*. Results of attempts begun under an earlier one do not count.
Rule 3: the client's errors, 429, refused credentials and clients leaving say nothing about health: they are not
        counted. As the answer to a probe they show that the provider is alive (but for a client leaving, which
        shows nothing and frees the probe). Neither do attempts that ended for a reason of our own: see `evidence`.
Rule 4: one probe in the whole cluster, under a lease, so that a dead prober blocks nobody for long. A prober that is
        slower than its lease may still find the provider alive; only the holder may find it dead.

Times are µs since the epoch, on the clock of whatever stores the breaker.
"""

from enum import Enum
from functools import lru_cache
from typing import assert_never

import attrs

from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.upstream import Fault

BUCKETS = 20
"""A window is counted in so many parts: at least the last ``window_us`` counts, at most a part more."""


class BreakerPhase(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen
class BreakerView:
    """A breaker as a worker last saw it. ``until_us`` (µs since the epoch) only while open."""

    phase: BreakerPhase = BreakerPhase.CLOSED
    until_us: int = 0
    generation: int = 0


class Cause(Enum):
    """Why a breaker is as it is, for operators."""

    NEVER_CHANGED = "never_changed"
    FAILURE_RATE = "failure_rate"
    CONNECT_FAILURES = "connect_failures"
    PROBE_FAILED = "probe_failed"
    PROBE_SUCCEEDED = "probe_succeeded"
    OPERATOR = "operator"


@attrs.frozen
class BreakerReading:
    """A breaker as operators see it: its view, what it has counted in the window, and its last change."""

    provider: str
    view: BreakerView
    outcomes: int = 0
    failures: int = 0
    connect_streak: int = 0
    changed_us: int = 0
    cause: Cause = Cause.NEVER_CHANGED


@attrs.frozen
class BreakerChange:
    """A change as operators see it later. ``until_us`` only where it opened, and 0 where a key was set by hand."""

    generation: int
    at_us: int
    cause: Cause
    phase: BreakerPhase
    until_us: int = 0


CHANGES_KEPT = 50
"""Of each breaker; the oldest goes first."""


# --- what an attempt says about health -----------------------------------------------------------


class Verdict(Enum):
    """What one attempt shows of its provider. ``SILENT``: nothing at all."""

    ALIVE = "alive"
    FAILED = "failed"
    SILENT = "silent"


FAILURES = frozenset({Fault.SERVER_ERROR, Fault.TIMEOUT, Fault.RESET, Fault.PROTOCOL, Fault.CONNECT})


def counts(fault: Fault | None) -> bool:
    """Is this the result of an attempt that says something about health (rule 3)?"""
    return fault is None or fault in FAILURES


def evidence(fault: Fault | None, *, sent: bool = True, cut_short: bool = False) -> Fault | None:
    """
    What an attempt that ended with ``fault`` is to be counted as.

    One that never left says nothing, unless there was nobody to connect to. Nor does waiting that ended because the
    call's time was over before the provider had its own (``cut_short``): whoever is impatient would open it for all.
    """
    if cut_short and fault in (Fault.TIMEOUT, Fault.CONNECT):
        return Fault.ABORTED
    return fault if sent or fault in (None, Fault.CONNECT) else Fault.ABORTED


def verdict(fault: Fault | None) -> Verdict:
    """What this says when the attempt was the probe."""
    if fault is Fault.ABORTED:
        return Verdict.SILENT
    return Verdict.FAILED if fault in FAILURES else Verdict.ALIVE


@attrs.frozen
class Delta:
    """
    Results since the last count, oldest to newest: so many outcomes, so many of them failures.

    ``connected``: at least one reached the provider. ``streak``: connect failures since the last that did.
    """

    outcomes: int = 0
    failures: int = 0
    connected: bool = False
    streak: int = 0

    def plus(self, fault: Fault | None) -> "Delta":
        """One more result, of a kind that `counts`."""
        return Delta(
            self.outcomes + 1,
            self.failures + (fault is not None),
            self.connected or fault is not Fault.CONNECT,
            self.streak + 1 if fault is Fault.CONNECT else 0,
        )


# --- the states ----------------------------------------------------------------------------------


@attrs.frozen
class Bucket:
    """Results of one part of the window; ``number`` is its time in units of that part."""

    number: int
    outcomes: int
    failures: int


@attrs.frozen
class Tally:
    """What a closed breaker has counted, oldest bucket first, and the connect failures in a row."""

    buckets: tuple[Bucket, ...] = ()
    streak: int = 0

    @property
    def outcomes(self) -> int:
        return sum(b.outcomes for b in self.buckets)

    @property
    def failures(self) -> int:
        return sum(b.failures for b in self.buckets)

    def plus(self, delta: Delta, policy: BreakerPolicy, now_us: int) -> "Tally":
        """Count ``delta`` in the bucket of now and forget what has left the window."""
        number = now_us // (policy.window_us // BUCKETS)
        kept = [b for b in self.buckets if number - BUCKETS <= b.number < number]
        current = next((b for b in self.buckets if b.number == number), Bucket(number, 0, 0))
        added = Bucket(number, current.outcomes + delta.outcomes, current.failures + delta.failures)
        streak = delta.streak if delta.connected else self.streak + delta.streak
        return Tally((*kept, added), streak)


@attrs.frozen
class Change:
    """The last change of a breaker: it began ``generation``."""

    generation: int = 0
    at_us: int = 0
    cause: Cause = Cause.NEVER_CHANGED

    def then(self, cause: Cause, now_us: int) -> "Change":
        return Change(self.generation + 1, now_us, cause)


@attrs.frozen
class Probe:
    """The one call that may reach a half-open provider, until its lease ends."""

    call: str
    until_us: int


@attrs.frozen
class Closed:
    since: Change = Change()
    tally: Tally = Tally()


@attrs.frozen
class Open:
    """``by_hand``: an operator set the key; it says how long, and ``until_us`` is what it says now."""

    since: Change
    until_us: int
    by_hand: bool = False


@attrs.frozen
class HalfOpen:
    since: Change
    probe: Probe | None = None


Breaker = Closed | Open | HalfOpen


class Key(Enum):
    """What became of the key that says a breaker is open."""

    AS_LEFT = "as_left"
    """There for as long as we said, and gone from then on."""
    DELETED = "deleted"
    """Gone before its time."""
    BY_HAND = "by_hand"
    """There, and not set by us."""


# --- the steps -----------------------------------------------------------------------------------


def seen(breaker: Breaker, now_us: int, key: Key = Key.AS_LEFT, by_hand_until_us: int = 0) -> Breaker:
    """The breaker at ``now_us``, after what time and operators did to it. Every other step begins with this."""
    if key is Key.BY_HAND:
        held = isinstance(breaker, Open) and breaker.by_hand
        since = breaker.since if held else breaker.since.then(Cause.OPERATOR, now_us)
        return Open(since, by_hand_until_us, by_hand=True)
    match breaker:
        case Open(by_hand=True):
            return Closed(breaker.since.then(Cause.OPERATOR, now_us))
        case Open(until_us=until) if now_us >= until:
            return HalfOpen(breaker.since)
        case Open() if key is Key.DELETED:
            return Closed(breaker.since.then(Cause.OPERATOR, now_us))
        case Closed() | Open() | HalfOpen():
            return breaker
        case _:
            assert_never(breaker)


def count(breaker: Breaker, delta: Delta, generation: int, policy: BreakerPolicy, now_us: int) -> Breaker:
    """Count results of attempts begun under ``generation``; opens when they reach a threshold."""
    if not isinstance(breaker, Closed) or breaker.since.generation != generation:
        return breaker
    tally = breaker.tally.plus(delta, policy, now_us)
    cause = tripped(tally, policy)
    if cause is None:
        return Closed(breaker.since, tally)
    return Open(breaker.since.then(cause, now_us), now_us + policy.open_us)


def tripped(tally: Tally, policy: BreakerPolicy) -> Cause | None:
    """Which threshold is reached, if any?"""
    if tally.streak >= policy.consecutive_connect_failures:
        return Cause.CONNECT_FAILURES
    if tally.outcomes >= policy.minimum_calls and tally.failures >= policy.failure_rate * tally.outcomes:
        return Cause.FAILURE_RATE
    return None


def ask_probe(breaker: Breaker, call: str, policy: BreakerPolicy, now_us: int) -> tuple[bool, Breaker]:
    """May ``call`` reach the provider? Half-open: takes the probe if nobody has it (asking twice is harmless)."""
    match breaker:
        case Closed():
            return True, breaker
        case Open():
            return False, breaker
        case HalfOpen(probe=Probe(call=holder, until_us=until)) if holder != call and now_us < until:
            return False, breaker
        case HalfOpen():
            return True, HalfOpen(breaker.since, Probe(call, now_us + policy.probe_lease_us))
        case _:
            assert_never(breaker)


def judge(breaker: Breaker, call: str, generation: int, found: Verdict, policy: BreakerPolicy, now_us: int) -> Breaker:
    """
    What the probe ``call``, let through under ``generation``, has found.

    Only probes begin under the generation of a half-open breaker, so that any of them that was answered shows
    the provider alive, also after its lease; that it is dead is for the holder alone to say.
    """
    if not isinstance(breaker, HalfOpen) or breaker.since.generation != generation:
        return breaker
    if found is Verdict.ALIVE:
        return Closed(breaker.since.then(Cause.PROBE_SUCCEEDED, now_us))
    if breaker.probe is None or breaker.probe.call != call:
        return breaker
    if found is Verdict.SILENT:
        return HalfOpen(breaker.since)
    return Open(breaker.since.then(Cause.PROBE_FAILED, now_us), now_us + policy.open_us)


def force(breaker: Breaker, open_for_us: int | None, now_us: int) -> Breaker:
    """An operator opens the breaker for so long, or closes it (``None``)."""
    since = breaker.since.then(Cause.OPERATOR, now_us)
    return Closed(since) if open_for_us is None else Open(since, now_us + open_for_us)


# --- looking -------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def closed_view(generation: int) -> BreakerView:
    """What a caller needs to know of a closed breaker; nearly all are, and each call looks twice."""
    return BreakerView(BreakerPhase.CLOSED, generation=generation)


def view(breaker: Breaker) -> BreakerView:
    """What a caller needs to know."""
    generation = breaker.since.generation
    match breaker:
        case Closed():
            return closed_view(generation)
        case Open(until_us=until):
            return BreakerView(BreakerPhase.OPEN, until, generation)
        case HalfOpen():
            return BreakerView(BreakerPhase.HALF_OPEN, generation=generation)
        case _:
            assert_never(breaker)


def change_of(breaker: Breaker) -> BreakerChange:
    """The change that made it what it is. Half-open is no change: it comes with time."""
    since, seen_as = breaker.since, view(breaker)
    return BreakerChange(since.generation, since.at_us, since.cause, seen_as.phase, seen_as.until_us)


def reading(provider: str, breaker: Breaker) -> BreakerReading:
    """What an operator wants to know."""
    tally = breaker.tally if isinstance(breaker, Closed) else Tally()
    since = breaker.since
    return BreakerReading(
        provider, view(breaker), tally.outcomes, tally.failures, tally.streak, since.at_us, since.cause
    )
