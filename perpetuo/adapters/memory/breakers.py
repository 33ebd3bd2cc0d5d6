"""
Where do breakers live when there is one process? Here: the pure policy itself, step by step.

Rule: one event loop, no awaits inside a step, so every step is atomic as it stands.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from perpetuo.adapters.system import RealSystem
from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy import breaker as policy
from perpetuo.domain.policy.breaker import Breaker, BreakerChange, BreakerReading, BreakerView, Closed, Delta


class MemoryBreakerBoard:
    """`perpetuo.domain.ports.BreakerBoard` for one process. ``on_change`` hears of every change, for the log."""

    def __init__(
        self,
        policies: Mapping[str, BreakerPolicy],
        *,
        clock: Callable[[], int] | None = None,
        on_change: Callable[[BreakerReading], None] = lambda _: None,
    ) -> None:
        self._now_us = clock or RealSystem().now_us
        self._on_change = on_change
        self._policies: Mapping[str, BreakerPolicy] = {}
        self._breakers: dict[str, Breaker] = {}
        self._changes: dict[str, deque[BreakerChange]] = defaultdict(lambda: deque(maxlen=policy.CHANGES_KEPT))
        self.configure(policies)

    def configure(self, policies: Mapping[str, BreakerPolicy]) -> None:
        """Take over a new configuration; breakers of providers that stay keep their state."""
        self._policies = dict(policies)
        self._breakers = {provider: self._breakers.get(provider, Closed()) for provider in policies}

    def view(self, provider: str) -> BreakerView:
        found = self._breakers.get(provider)
        if found is None:
            return BreakerView()
        return policy.view(self._seen(provider) if not isinstance(found, Closed) else found)

    async def try_probe(self, provider: str, call: str) -> bool:
        if provider not in self._breakers:
            return True
        granted, after = policy.ask_probe(self._seen(provider), call, self._policies[provider], self._now_us())
        self._put(provider, after)
        return granted

    def record(self, provider: str, fault: Fault | None, *, generation: int, probe: str | None) -> None:
        if provider not in self._breakers:
            return
        rules, now_us = self._policies[provider], self._now_us()
        after = self._seen(provider)
        if probe is not None:
            after = policy.judge(after, probe, generation, policy.verdict(fault), rules, now_us)
        elif policy.counts(fault):
            after = policy.count(after, Delta().plus(fault), generation, rules, now_us)
        self._put(provider, after)

    async def refresh(self) -> None:
        """There are no others."""

    async def force(self, provider: str, *, open_for_us: int | None) -> None:
        if provider in self._breakers:
            self._put(provider, policy.force(self._seen(provider), open_for_us, self._now_us()))

    def all_views(self) -> Sequence[BreakerReading]:
        """Every breaker as operators see it, by provider."""
        return [policy.reading(provider, self._seen(provider)) for provider in sorted(self._breakers)]

    async def history(self, provider: str) -> Sequence[BreakerChange]:
        """Its latest changes, newest first."""
        return tuple(self._changes.get(provider, ()))

    def _seen(self, provider: str) -> Breaker:
        return policy.seen(self._breakers[provider], self._now_us())

    def _put(self, provider: str, after: Breaker) -> None:
        before, self._breakers[provider] = self._breakers[provider], after
        if after.since != before.since:
            self._changes[provider].appendleft(policy.change_of(after))
            self._on_change(policy.reading(provider, after))
