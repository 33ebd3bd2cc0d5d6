"""
What does ``/metrics`` say?

Rule 1: counters are the sums over all slots, held or not; so nothing falls when a worker goes.
Rule 2: a gauge counts while its worker keeps setting it: one not set for 5 s belongs to a worker that is gone.
Rule 3: what a store knows (breakers, budgets, backlog) is asked at most once a second, by whichever
worker is scraped, and left out while the store is away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from perpetuo.adapters.telemetry.cells import Cells, Name, read_all
from perpetuo.adapters.telemetry.metrics import (
    AT,
    ATTEMPTS,
    BACKLOG,
    BREAKER,
    BUDGET,
    BUDGET_LIMIT,
    CONFIGURATIONS,
    CONNECTIONS,
    FILES,
    IN_FLIGHT,
    METRICS,
    RESIDENT,
    SUM,
    TASKS,
    Kind,
    Metric,
    name_of,
)
from perpetuo.domain.model.money import NANO_PER_USD, Nano
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerReading
from perpetuo.domain.ports import StoreUnavailable

OCCUPIED = frozenset({metric.name for metric in (CONNECTIONS, TASKS, RESIDENT, FILES)})
STALE_SECONDS = 5.0
CACHED_SECONDS = 1.0


@attrs.frozen
class Standing:
    """
    What stores know at this moment; ``None``: unknown.

    ``budgets``: tenant, ``day`` or ``month``, what is left, and the limit.
    """

    breakers: Sequence[BreakerReading] = ()
    budgets: Sequence[tuple[str, str, Nano, Nano]] = ()
    backlog: int | None = None


class MetricsPage:
    """
    Renders the metrics of all workers: ``body, content_type = await page.render()``.

    ``directory`` is where the slots are, ``None`` for a lone process; ``monotonic`` the clock of `Metrics.in_flight`.
    """

    def __init__(
        self,
        cells: Cells,
        directory: Path | None,
        standing: Callable[[], Awaitable[Standing]],
        monotonic: Callable[[], float],
    ) -> None:
        self._cells = cells
        self._directory = directory
        self._standing = standing
        self._monotonic = monotonic
        self._cached = Standing()
        self._cached_until = 0.0
        self._asking = asyncio.Lock()

    async def render(self) -> tuple[bytes, str]:
        standing = await self._ask()
        return await asyncio.to_thread(self._text, standing), CONTENT_TYPE_LATEST

    async def _ask(self) -> Standing:
        async with self._asking:
            if self._monotonic() >= self._cached_until:
                try:
                    self._cached = await self._standing()
                except StoreUnavailable:
                    self._cached = Standing()
                self._cached_until = self._monotonic() + CACHED_SECONDS
            return self._cached

    def _text(self, standing: Standing) -> bytes:
        slots = read_all(self._directory) if self._directory is not None else [self._cells.snapshot()]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page(slots, standing, self._monotonic() - STALE_SECONDS))
        return generate_latest(registry)


def versions(alive: Iterable[Mapping[Name, float]]) -> int:
    """By how many different configurations these workers go."""
    name = name_of(CONFIGURATIONS)
    return len({slot[name] for slot in alive if name in slot})


class _Page:
    """A prometheus-client collector over numbers already read."""

    def __init__(self, slots: Sequence[dict[Name, float]], standing: Standing, since: float) -> None:
        self._slots = slots
        self._standing = standing
        at = name_of(IN_FLIGHT, part=AT)
        self._alive = [slot for slot in slots if slot.get(at, 0.0) > since]

    def collect(self) -> Iterator[Family]:
        counted = _by_metric(_summed(self._slots))
        for metric in METRICS:
            if metric.kind is Kind.COUNTER:
                yield _counters(metric, [*counted.get(metric.name, []), *self._zeros(metric)])
            elif metric.kind is Kind.HISTOGRAM:
                yield _histograms(metric, counted.get(metric.name, []))
            else:
                yield _gauges(metric, self._gauge(metric))

    def _zeros(self, metric: Metric) -> Iterator[tuple[str, Sequence[str], float]]:
        """Series that are there before anything was counted in them: see `Metric.always`."""
        always: Iterable[Sequence[str]] = metric.always
        if metric is ATTEMPTS:
            always = [(reading.provider, Fault.CREDENTIAL.value) for reading in self._standing.breakers]
        for labels in always:
            yield "", labels, 0.0

    def _gauge(self, metric: Metric) -> Iterable[tuple[Sequence[str], float]]:
        standing = self._standing
        if metric is IN_FLIGHT:
            value = name_of(metric)
            return [((), sum(slot.get(value, 0.0) for slot in self._alive))]
        if metric is CONFIGURATIONS:
            return [((), versions(self._alive))]
        if metric.name in OCCUPIED:
            return self._occupied(metric)
        if metric is BREAKER:
            return [
                ((reading.provider, phase.value), float(reading.view.phase is phase))
                for reading in standing.breakers
                for phase in BreakerPhase
            ]
        if metric is BUDGET:
            return [((tenant, window), left / NANO_PER_USD) for tenant, window, left, _ in standing.budgets]
        if metric is BUDGET_LIMIT:
            return [((tenant, window), limit / NANO_PER_USD) for tenant, window, _, limit in standing.budgets]
        if metric is BACKLOG and standing.backlog is not None:
            return [((), standing.backlog)]
        return ()

    def _occupied(self, metric: Metric) -> Iterable[tuple[Sequence[str], float]]:
        found: dict[Sequence[str], float] = {}
        for slot in self._alive:
            for name, value in slot.items():
                if name[0] == metric.name:
                    found[name[2:]] = found.get(name[2:], 0.0) + value
        return found.items()


Counted = Sequence[tuple[str, Sequence[str], float]]
"""Part, label values and number of each cell of a metric."""


def _summed(slots: Sequence[dict[Name, float]]) -> dict[Name, float]:
    if len(slots) == 1:
        return slots[0]
    total: dict[Name, float] = {}
    for slot in slots:
        for name, value in slot.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _by_metric(total: dict[Name, float]) -> dict[str, list[tuple[str, Sequence[str], float]]]:
    found: dict[str, list[tuple[str, Sequence[str], float]]] = {}
    for name, value in total.items():
        if len(name) > 1:
            found.setdefault(name[0], []).append((name[1], name[2:], value))
    return found


def _counters(metric: Metric, counted: Counted) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    total: dict[tuple[str, ...], float] = {}
    for _, labels, value in counted:
        total[tuple(labels)] = total.get(tuple(labels), 0.0) + value
    for one, value in total.items():
        family.add_metric(one, value / metric.unit)
    return family


def _histograms(metric: Metric, counted: Counted) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    series: dict[Sequence[str], dict[str, float]] = {}
    for part, labels, value in counted:
        series.setdefault(labels, {})[part] = value
    for labels, parts in series.items():
        buckets, below = [], 0.0
        for bound in (*map(repr, metric.buckets), "+Inf"):
            below += parts.get(bound, 0.0)
            buckets.append((bound, below))
        family.add_metric(labels, buckets, parts.get(SUM, 0.0))
    return family


def _gauges(metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
