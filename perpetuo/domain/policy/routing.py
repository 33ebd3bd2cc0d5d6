"""
Which target is asked next, and when is a call given up?

Rule 1: targets go by priority; equal priorities are shuffled by weight. `candidates` orders once per call
        and leaves out what is not worth asking: open breakers, cooled-down targets and credentials.
Rule 2: one attempt budget for the whole call. Every other target is asked, at once, before one is asked again.
Rule 3: asking again waits: exponential backoff with full jitter, never less than Retry-After, never past the deadline,
        and only while the provider's retry budget has a token.
Rule 4: a target that stayed silent is not asked again, nor is a credential that was refused.
Rule 5: a refusal of the request is an answer, passed on as it is; a too long input goes to the larger model, if any.
Rule 6: nothing is sent once the call's time is over, not even for the first time.
Rule 7: once a byte has gone to the client there is no further attempt.

Times are µs since the epoch. No clock and no randomness in here: ``now_us`` and draws from [0, 1) are passed in.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import ClassVar, TypeVar

import attrs

from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import Model, RetryPolicy, Target
from perpetuo.domain.model.records import record
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerView

SECOND_US = 1_000_000
DEFAULT_RETRY_AFTER_US = SECOND_US
"""For a 429 that names no time."""
CREDENTIAL_COOLDOWN_US = 60 * SECOND_US
COOLDOWNS_KEPT = 1_000
"""A catch-all model makes targets of names that clients invent; beyond this the soonest to end are forgotten."""


K = TypeVar("K")


# --- cooldowns -----------------------------------------------------------------------------------


@attrs.frozen
class Cooldowns:
    """Until when not to ask: (provider, model) pairs that answered 429, and providers that refused our credential."""

    targets: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    credentials: Mapping[str, int] = attrs.field(factory=dict)

    def after(self, target: Target, fault: Fault | None, retry_after_us: int | None, now_us: int) -> "Cooldowns":
        """The cooldowns once ``target`` has answered so; most faults change nothing and return ``self``."""
        if fault is Fault.RATE_LIMITED:
            until = now_us + (DEFAULT_RETRY_AFTER_US if retry_after_us is None else retry_after_us)
            return attrs.evolve(self, targets=_cooled(self.targets, (target.provider, target.model), until, now_us))
        if fault is Fault.CREDENTIAL:
            until = now_us + CREDENTIAL_COOLDOWN_US
            return attrs.evolve(self, credentials=_cooled(self.credentials, target.provider, until, now_us))
        return self

    def without_credentials(self, providers: Collection[str]) -> "Cooldowns":
        """``providers`` have other credentials from now on, which nobody has refused yet."""
        return attrs.evolve(self, credentials={p: u for p, u in self.credentials.items() if p not in providers})


def _cooled(untils: Mapping[K, int], key: K, until: int, now_us: int) -> Mapping[K, int]:
    """``untils`` with ``key`` added; a longer time stays, what has passed is dropped."""
    alive = {k: u for k, u in untils.items() if u > now_us}
    alive[key] = max(until, alive.get(key, 0))
    if len(alive) > COOLDOWNS_KEPT:
        del alive[min(alive, key=alive.__getitem__)]
    return alive


# --- candidates ----------------------------------------------------------------------------------


class Why(Enum):
    """Why a target is left out; the value is shown in the decision view."""

    OPEN = "breaker_open"
    PROBING = "breaker_probing"
    """Half-open, and another call has the probe."""
    COOLING = "rate_limited"
    CREDENTIAL = "credential_rejected"


@attrs.frozen
class Skipped:
    """A target not worth asking before ``until_us``."""

    target: Target
    why: Why
    until_us: int


@record
class Route:
    """The targets of one call in the order to ask them, and those left out."""

    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...] = ()

    def without(self, skipped: Skipped) -> "Route":
        """Leave out a target that turned out blocked when its turn came (see `blocked`), or whose probe was lost."""
        kept = tuple(t for t in self.targets if t != skipped.target)
        return Route(kept, (*self.skipped, skipped))


def candidates(
    model: Model,
    view: Callable[[str], BreakerView],
    cooldowns: Cooldowns,
    now_us: int,
    draws: Sequence[float],
) -> Route:
    """
    Order the targets of ``model`` and leave out the blocked ones.

    ``view`` is `BreakerBoard.view`; ``draws`` has one number in [0, 1) per target. A half-open target stays in:
    take its probe (`BreakerBoard.try_probe`) when its turn comes, and `probing` + `Route.without` if that is refused.
    """
    kept, skipped = [], []
    for target in _ordered(model.targets, draws):
        found = blocked(target, view(target.provider), cooldowns, now_us)
        if found is None:
            kept.append(target)
        else:
            skipped.append(found)
    return Route(tuple(kept), tuple(skipped))


def blocked(target: Target, view: BreakerView, cooldowns: Cooldowns, now_us: int) -> Skipped | None:
    """Why not to ask ``target`` now, if so. Ask again right before each attempt: much can happen in a wait."""
    if view.phase is BreakerPhase.OPEN:
        return Skipped(target, Why.OPEN, view.until_us)
    until = cooldowns.credentials.get(target.provider, 0)
    if until > now_us:
        return Skipped(target, Why.CREDENTIAL, until)
    until = cooldowns.targets.get((target.provider, target.model), 0)
    if until > now_us:
        return Skipped(target, Why.COOLING, until)
    return None


def probing(target: Target, now_us: int) -> Skipped:
    """``target`` is half-open and another call has its probe: nobody knows for how long, so look again in a second."""
    return Skipped(target, Why.PROBING, now_us + SECOND_US)


def _ordered(targets: tuple[Target, ...], draws: Sequence[float]) -> Sequence[Target]:
    """By priority, then a weighted shuffle: each pick takes one of those left with odds by weight."""
    if len(targets) == 1:
        return targets
    left, ordered = sorted(targets, key=lambda t: t.priority), []
    for draw in draws[: len(targets)]:
        peers = [t for t in left if t.priority == left[0].priority]
        picked = _pick(peers, draw)
        left.remove(picked)
        ordered.append(picked)
    return ordered


def _pick(peers: Sequence[Target], draw: float) -> Target:
    point = draw * sum(t.weight for t in peers)
    for target in peers:
        point -= target.weight
        if point < 0:
            return target
    return peers[-1]


# --- after an attempt ----------------------------------------------------------------------------


@record
class Tried:
    """One attempt that did not give a usable answer, as `next_step` needs it. ``at_us``: when it ended."""

    target: Target
    fault: Fault
    at_us: int
    retry_after_us: int | None = None


@record
class Try:
    """
    Ask ``target`` after ``wait_us``; then check `blocked` again, and take the probe if it is half-open.

    ``again``: its provider was asked before in this call: withdraw a token of its `RetryBudget`.
    """

    target: Target
    wait_us: int = 0
    again: bool = False


@attrs.frozen
class LargerContext:
    """The input is too long: make a new route for the model's ``larger_context``; attempts so far still count."""


@attrs.frozen
class PassOn:
    """The provider's answer is the answer: pass it on as it is."""


@attrs.frozen
class GiveUp:
    """No further attempt. ``retry_after_us``: how long until it makes sense again, where known."""

    reason: Reason
    retry_after_us: int | None = None


Step = Try | LargerContext | PassOn | GiveUp


def next_step(
    route: Route,
    tried: Sequence[Tried],
    retry: RetryPolicy,
    *,
    now_us: int,
    deadline_us: int,
    draw: float,
    committed: bool = False,
    larger: bool = False,
    may_repeat: Callable[[str], bool] = lambda _: True,
) -> Step:
    """
    What to do now. ``tried`` has the call's attempts so far, oldest first; none: where to begin.

    ``committed``: a byte has gone to the client. ``larger``: the model has a ``larger_context`` that this call has not
    gone to yet. ``may_repeat(provider)``: does the provider's retry budget have a token (`RetryBudget.allows`)?
    """
    if not tried and route.targets:
        return Try(route.targets[0]) if now_us < deadline_us else GiveUp(Reason.UPSTREAM_TIMEOUT)
    if not tried:
        return unavailable(route, now_us)
    last = tried[-1]
    spent = len(tried) >= retry.attempts or now_us >= deadline_us
    if committed or last.fault is Fault.ABORTED:
        return _final(last, now_us)
    if last.fault is Fault.CONTEXT_LENGTH and larger and not spent:
        return LargerContext()
    if last.fault is Fault.CONTEXT_LENGTH and route.targets and last.target not in route.targets and not spent:
        return Try(route.targets[0])  # the route is the larger model's, and nothing of it was asked yet
    if last.fault in (Fault.CLIENT_ERROR, Fault.CONTEXT_LENGTH):
        return PassOn()
    if spent:
        return _final(last, now_us)
    step = _fresh(route, tried, may_repeat)
    if step is None:
        step = _repeat([t for t in route.targets if may_repeat(t.provider)], tried, retry, now_us, draw)
    return step if step is not None and now_us + step.wait_us < deadline_us else _final(last, now_us)


def _fresh(route: Route, tried: Sequence[Tried], may_repeat: Callable[[str], bool]) -> Try | None:
    """The first target not asked yet, unless it would use a refused credential."""
    asked = [t.target for t in tried]
    refused = {t.target.provider for t in tried if t.fault is Fault.CREDENTIAL}
    for target in route.targets:
        again = any(a.provider == target.provider for a in asked)
        if target not in asked and target.provider not in refused and (not again or may_repeat(target.provider)):
            return Try(target, again=again)
    return None


def _repeat(
    targets: Sequence[Target], tried: Sequence[Tried], retry: RetryPolicy, now_us: int, draw: float
) -> Try | None:
    """The target that can be asked once more soonest."""
    soonest: Try | None = None
    for target in targets:
        wait = _wait_us([t for t in tried if t.target == target], retry, now_us, draw)
        if wait is not None and (soonest is None or wait < soonest.wait_us):
            soonest = Try(target, wait, again=True)
    return soonest


def _wait_us(faults: Sequence[Tried], retry: RetryPolicy, now_us: int, draw: float) -> int | None:
    """How long to wait before asking the target of ``faults`` once more; ``None``: do not."""
    if not faults or any(t.fault in (Fault.TIMEOUT, Fault.CREDENTIAL) for t in faults):
        return None
    retry_after = _retry_after_us(faults[-1])
    if retry_after > retry.max_backoff * SECOND_US:
        return None
    wait = max(backoff_us(len(faults), retry, draw), retry_after) - (now_us - faults[-1].at_us)
    return max(wait + wait // 1_000 + 1_000, 0) if retry_after else max(wait, 0)


def backoff_us(failures: int, retry: RetryPolicy, draw: float) -> int:
    """Exponential with full jitter: anything up to ``backoff * 2 ** (failures - 1)``, at most ``max_backoff``."""
    return int(draw * min(retry.backoff * 2.0 ** (failures - 1), retry.max_backoff) * SECOND_US)


def _retry_after_us(tried: Tried) -> int:
    if tried.retry_after_us is not None:
        return tried.retry_after_us
    return DEFAULT_RETRY_AFTER_US if tried.fault is Fault.RATE_LIMITED else 0


# --- giving up -----------------------------------------------------------------------------------


def unavailable(route: Route, now_us: int) -> GiveUp:
    """Nothing can be asked and nothing was: whose turn comes soonest? Also the check before a call is admitted."""
    if not route.skipped:
        return GiveUp(Reason.NO_HEALTHY_UPSTREAM)
    reasons = {s.why for s in route.skipped}
    if reasons == {Why.CREDENTIAL}:
        return GiveUp(Reason.UPSTREAM_CREDENTIALS)
    reason = Reason.UPSTREAM_RATE_LIMITED if reasons == {Why.COOLING} else Reason.NO_HEALTHY_UPSTREAM
    return GiveUp(reason, max(min(s.until_us for s in route.skipped) - now_us, 0))


def _final(last: Tried, now_us: int) -> GiveUp:
    match last.fault:
        case Fault.CREDENTIAL:
            return GiveUp(Reason.UPSTREAM_CREDENTIALS)
        case Fault.RATE_LIMITED:
            return GiveUp(Reason.UPSTREAM_RATE_LIMITED, max(last.at_us + _retry_after_us(last) - now_us, 0))
        case Fault.TIMEOUT:
            return GiveUp(Reason.UPSTREAM_TIMEOUT)
        case _:
            return GiveUp(Reason.UPSTREAM_ERROR)


# --- the retry budget ----------------------------------------------------------------------------


@record
class RetryBudget:
    """
    How often may one provider be asked again? At most 0.1 × its first requests, and 3 in any second (C6).

    A bucket of tokens per provider and worker: each first request of a call adds ``RetryPolicy.budget``, time adds
    ``share`` a second (``1 / workers``), `BURST` are kept at most; asking again takes one. So a lone call
    can use all its attempts, and an outage multiplies nothing.
    """

    BURST: ClassVar[float] = 2.0

    share: float = 1.0
    tokens: float = BURST
    at_us: int = 0

    def requested(self, retry: RetryPolicy, now_us: int) -> "RetryBudget":
        """A call asks the provider for the first time."""
        if self.tokens == self.BURST:
            return self  # full stays full, whatever the time
        return RetryBudget(self.share, min(self._at(now_us) + retry.budget, self.BURST), now_us)

    def allows(self, now_us: int) -> bool:
        """Is there a token?"""
        return self._at(now_us) >= 1

    def repeated(self, now_us: int) -> "RetryBudget":
        """A call asks the provider again: takes a token; only after `allows`."""
        return RetryBudget(self.share, self._at(now_us) - 1, now_us)

    def _at(self, now_us: int) -> float:
        return min(self.tokens + self.share * max(now_us - self.at_us, 0) / SECOND_US, self.BURST)
