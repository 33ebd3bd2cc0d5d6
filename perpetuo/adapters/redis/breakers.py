"""
How do all workers share one breaker per provider without a round trip per call?

Rule 1: the truth is in Redis and changes only in ``breaker.lua``. A worker keeps a *mirror* of each breaker, which a
task refreshes every 100 ms; `view` and `record` touch only that.
Rule 2: results are counted here and go out as one delta: with failures in it within 50 ms, else every 250 ms.
Rule 3: Redis away: the mirror and this worker's own counts decide, by the pure policy. When Redis is back, its
breaker counts again. A delta that could not be delivered is not sent later: it would be old news.
Rule 4: times of Redis are translated to this machine's clock by the ``now`` in every answer.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from redis.exceptions import ResponseError

from perpetuo.adapters.redis import keys, scripts
from perpetuo.adapters.redis.resp import pack_call
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.adapters.system import RealSystem
from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy import breaker as policy
from perpetuo.domain.policy.breaker import (
    Breaker,
    BreakerChange,
    BreakerPhase,
    BreakerReading,
    BreakerView,
    Cause,
    Change,
    Closed,
    Delta,
    HalfOpen,
    Open,
    Probe,
    Verdict,
)
from perpetuo.domain.ports import StoreUnavailable

POLL_SECONDS = 0.1
GAP_SECONDS = 0.04
"""Between two rounds at least: a burst of failures goes out together, and still within 50 ms."""
SUCCESSES_US = 250_000
NOTHING = Delta()


@attrs.frozen
class Answer:
    """What ``breaker.lua`` answers, its times on this machine's clock."""

    breaker: Breaker
    buckets: bytes
    streak: int
    granted: bool


def parse(reply: Sequence[bytes], local_now_us: int) -> Answer:
    phase, until, generation, changed, cause, buckets, streak, granted, call, lease, by_hand, now = reply
    ahead = local_now_us - int(now)
    since = Change(
        int(generation), int(changed) + ahead if changed else 0, Cause(cause.decode()) if cause else Cause.NEVER_CHANGED
    )
    breaker: Breaker = Closed(since)
    if phase == b"open":
        breaker = Open(since, int(until) + ahead, by_hand=bool(by_hand))
    elif phase == b"half_open":
        breaker = HalfOpen(since, Probe(call.decode(), int(lease) + ahead) if call else None)
    return Answer(breaker, buckets, int(streak or 0), granted == b"1")


def _change(line: str) -> BreakerChange | None:
    """A line of a history; ``None``: not ours."""
    try:
        generation, at, cause, phase, until = line.split(" ")
        return BreakerChange(int(generation), int(at), Cause(cause), BreakerPhase(phase), int(until))
    except ValueError:
        return None


@attrs.define(eq=False)
class _Mirror:
    """One provider as this worker knows it."""

    provider: str
    policy: BreakerPolicy
    breaker: Breaker = Closed()
    """As Redis last said; its tally is this worker's own."""
    pending: Delta = NOTHING
    flushed_us: int = 0
    probes: dict[str, int] = attrs.field(factory=dict)
    """Calls let through as probes here, with the generation they began under."""
    buckets: bytes = b""
    streak: int = 0

    @property
    def keys(self) -> tuple[str, str, str]:
        provider = self.provider
        return keys.breaker(provider), keys.breaker_state(provider), keys.breaker_history(provider)

    def reading(self) -> BreakerReading:
        """The whole cluster's counts, as of the last poll."""
        counted = [bucket.split(b":") for bucket in self.buckets.split()]
        return attrs.evolve(
            policy.reading(self.provider, self.breaker),
            outcomes=sum(int(n) for _, n, _ in counted),
            failures=sum(int(f) for _, _, f in counted),
            connect_streak=self.streak,
        )


class RedisBreakerBoard:
    """
    `perpetuo.domain.ports.BreakerBoard` over one Redis. ``on_change`` hears of every change, ``on_error`` when Redis
    can't run the script (it being away is the store's to tell). ``clock`` is for tests and then rules in Redis too.
    """

    def __init__(
        self,
        store: RedisStore,
        policies: Mapping[str, BreakerPolicy],
        *,
        clock: Callable[[], int] | None = None,
        on_change: Callable[[BreakerReading], None] = lambda _: None,
        on_error: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._script = scripts.load("breaker")
        system = RealSystem()
        self._now_us = clock or system.now_us
        self._script_now: Callable[[], int | str] = clock or (lambda: "")
        self._on_change = on_change
        self._on_error = on_error
        self._mirrors: dict[str, _Mirror] = {}
        self._away = False
        self._urgent = asyncio.Event()
        self._deltas = map(f"{system.new_id()[-12:]}.{{:x}}".format, itertools.count())
        self._judging: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.configure(policies)

    def configure(self, policies: Mapping[str, BreakerPolicy]) -> None:
        """Take over a new configuration; breakers of providers that stay keep their state."""
        before = self._mirrors
        self._mirrors = {p: before.get(p) or _Mirror(p, rules) for p, rules in policies.items()}
        for provider, rules in policies.items():
            self._mirrors[provider].policy = rules

    async def start(self) -> None:
        """Read all breakers once, then keep them fresh in the background."""
        await self.refresh()
        self._task = asyncio.create_task(self._run(), name="breakers")

    async def close(self) -> None:
        """Stop refreshing; what is pending goes out if Redis is there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._judging)
        await self.refresh(everything=True)

    # --- the port --------------------------------------------------------------------------------

    def view(self, provider: str) -> BreakerView:
        mirror = self._mirrors.get(provider)
        if mirror is None:
            return BreakerView()
        breaker = mirror.breaker
        if isinstance(breaker, Closed):
            return policy.closed_view(breaker.since.generation)
        return policy.view(self._current(mirror))

    async def try_probe(self, provider: str, call: str) -> bool:
        mirror = self._mirrors.get(provider)
        if mirror is None:
            return True
        granted, after = policy.ask_probe(self._current(mirror), call, mirror.policy, self._now_us())
        if not isinstance(after, HalfOpen) or not granted:
            return granted  # closed, open or somebody has the probe: known here, no round trip
        try:
            answer = await self._step(mirror, "probe", call, mirror.policy.probe_lease_us)
        except StoreUnavailable:
            granted, mirror.breaker = policy.ask_probe(self._current(mirror), call, mirror.policy, self._now_us())
        else:
            granted = answer.granted
        if granted and isinstance(mirror.breaker, HalfOpen):
            mirror.probes[call] = mirror.breaker.since.generation
        return granted

    def record(self, provider: str, fault: Fault | None, *, generation: int, probe: str | None) -> None:
        mirror = self._mirrors.get(provider)
        if mirror is None:
            return
        begun = mirror.probes.pop(probe, None) if probe is not None else None
        if probe is not None and begun is not None:
            task = asyncio.create_task(self._judge(mirror, probe, begun, policy.verdict(fault)))
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)
        elif mirror.breaker.since.generation == generation and policy.counts(fault):
            mirror.pending = mirror.pending.plus(fault)
            if fault is not None:
                self._urgent.set()
            if self._away:
                self._absorb(mirror, self._take(mirror))

    async def force(self, provider: str, *, open_for_us: int | None) -> None:
        """Raises `StoreUnavailable` when Redis is away; then it holds for this worker alone, until Redis is back."""
        mirror = self._mirrors.get(provider)
        if mirror is None:
            return
        try:
            await self._step(mirror, *(("close",) if open_for_us is None else ("open", open_for_us)))
        except StoreUnavailable:
            self._put(mirror, policy.force(mirror.breaker, open_for_us, self._now_us()))
            raise

    def all_views(self) -> Sequence[BreakerReading]:
        """Every breaker as operators see it, by provider."""
        return [self._mirrors[provider].reading() for provider in sorted(self._mirrors)]

    async def history(self, provider: str) -> Sequence[BreakerChange]:
        """Its latest changes, newest first, by Redis's clock; raises `StoreUnavailable`."""
        try:
            lines = await self._store.execute(b"LRANGE", keys.breaker_history(provider), 0, -1)
        except ResponseError as error:  # no list: somebody's own
            raise StoreUnavailable(str(error)) from error
        return [change for line in lines if (change := _change(line.decode())) is not None]

    # --- in the background -----------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._until_due()
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - whatever it is, breakers must not stand still from here on
                self._on_error(f"the breakers could not be refreshed: {error!r}")

    async def _until_due(self) -> None:
        """For `POLL_SECONDS`, or until something is urgent; for `GAP_SECONDS` at least."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GAP_SECONDS
        timer = loop.call_later(POLL_SECONDS, self._urgent.set)
        try:
            await self._urgent.wait()
        finally:
            timer.cancel()
        if (left := until - loop.time()) > 0:
            await asyncio.sleep(left)

    async def refresh(self, *, everything: bool = False) -> None:
        """One round over all breakers: deltas that are due go out, mirrors become what Redis says."""
        self._urgent.clear()
        mirrors = list(self._mirrors.values())
        telling = [self._sync(mirror, everything) for mirror in mirrors if mirror.pending.outcomes]
        seeing = self._see([mirror for mirror in mirrors if not mirror.pending.outcomes])
        await (asyncio.gather(seeing, *telling) if telling else seeing)

    async def _see(self, mirrors: Sequence[_Mirror]) -> None:
        """What Redis says of those about which there is nothing to tell; most of the time that is all."""
        told = [(self._script_now(), "see")]
        try:
            replies = await self._store.ask_each(
                [pack_call(b"EVALSHA", self._script.sha, [mirror.keys], told) for mirror in mirrors]
            )
        except StoreUnavailable:
            self._away = True
            for mirror in mirrors:
                self._absorb(mirror, self._take(mirror))
            return
        for mirror, reply in zip(mirrors, replies, strict=True):
            if isinstance(reply, ResponseError):
                await self._sync(mirror, everything=False)  # by itself: the server may not know the script yet
            else:
                self._take_over(mirror, reply)

    async def _sync(self, mirror: _Mirror, everything: bool) -> None:
        waited = self._now_us() - mirror.flushed_us >= SUCCESSES_US
        due = mirror.pending.outcomes and (everything or waited or mirror.pending.failures)
        delta = self._take(mirror) if due else NOTHING
        try:
            await self._step(mirror, *(self._count(mirror, delta) if due else ("see",)))
        except StoreUnavailable:
            self._absorb(mirror, delta)
            self._absorb(mirror, self._take(mirror))
        else:
            self._absorb(mirror, delta)

    def _count(self, mirror: _Mirror, delta: Delta) -> Sequence[Any]:
        rules = mirror.policy
        return (
            "count", mirror.breaker.since.generation,
            delta.outcomes, delta.failures, int(delta.connected), delta.streak,
            repr(rules.failure_rate), rules.minimum_calls, rules.window_us, rules.consecutive_connect_failures,
            rules.open_us, next(self._deltas),
        )  # fmt: skip

    async def _judge(self, mirror: _Mirror, call: str, generation: int, found: Verdict) -> None:
        try:
            await self._step(mirror, "judge", call, generation, found.value, mirror.policy.open_us)
        except StoreUnavailable:
            now_us = self._now_us()
            self._put(mirror, policy.judge(self._current(mirror), call, generation, found, mirror.policy, now_us))

    async def _step(self, mirror: _Mirror, step: str, *arguments: Any) -> Answer:
        """Run one step in Redis and mirror its outcome."""
        try:
            reply = await self._store.run(self._script, [mirror.keys], [(self._script_now(), step, *arguments)])
        except ResponseError as error:
            if not self._away:
                self._on_error(f"Redis can't run the breaker's script: {error}")
            self._away = True
            raise StoreUnavailable(str(error)) from error
        except StoreUnavailable:
            self._away = True
            raise
        return self._take_over(mirror, reply)

    def _take_over(self, mirror: _Mirror, reply: Sequence[bytes]) -> Answer:
        self._away = False
        answer = parse(reply, self._now_us())
        mirror.buckets, mirror.streak = answer.buckets, answer.streak
        self._put(mirror, answer.breaker)
        return answer

    # --- the mirror ------------------------------------------------------------------------------

    def _current(self, mirror: _Mirror) -> Breaker:
        """The mirror at this moment: open time may have ended since the last poll."""
        breaker = mirror.breaker
        if isinstance(breaker, Closed):
            return breaker
        now_us = self._now_us()
        if isinstance(breaker, Open) and breaker.by_hand and (now_us < breaker.until_us or not self._away):
            return breaker  # its key says when it ends, and only Redis knows
        return policy.seen(breaker, now_us)

    def _take(self, mirror: _Mirror) -> Delta:
        delta, mirror.pending = mirror.pending, NOTHING
        mirror.flushed_us = self._now_us()
        return delta

    def _absorb(self, mirror: _Mirror, delta: Delta) -> None:
        """Count ``delta`` here too; it decides something only while Redis is away."""
        breaker, now_us = mirror.breaker, self._now_us()
        if not delta.outcomes or not isinstance(breaker, Closed):
            return
        if self._away:
            self._put(mirror, policy.count(breaker, delta, breaker.since.generation, mirror.policy, now_us))
        else:
            mirror.breaker = Closed(breaker.since, breaker.tally.plus(delta, mirror.policy, now_us))

    def _put(self, mirror: _Mirror, after: Breaker) -> None:
        before = mirror.breaker
        same = before.since.generation == after.since.generation
        closed = isinstance(before, Closed) and isinstance(after, Closed)
        if isinstance(after, Closed) and closed and same and not after.tally.buckets:
            return  # Redis says nothing new: keep this worker's own counts
        mirror.breaker = after
        if not same:
            mirror.pending = NOTHING
            mirror.probes.clear()
        if not same and not closed:  # closed as before: what happened in between was before this worker's time
            self._on_change(policy.reading(mirror.provider, after))
