"""
What is counted, under which names?

Rule 1: this is the one table of metric names; the page renders it and `Metrics` counts into it.
Rule 2: labels are names of the configuration, never a client's text: the first 2,000 tenants of the file, its models
(``*`` is one), its providers; whatever else is ``other``, and ``none`` where there is none.
Rule 3: a call costs some additions. Which cells they go to is looked up once per tenant, model, provider and status.
Rule 4: money is counted in whole nano-USD and becomes USD on the page.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import islice

import attrs

from perpetuo.adapters.telemetry.cells import Cells, Name
from perpetuo.domain.model.events import Event, RefusalNote

MOST_TENANTS = 2_000
MOST_CACHED = 20_000
OTHER = "other"
NONE = "none"
REPLAYED = "replayed"
IDEMPOTENCY_PREFIX = "idempotency_"


class Kind(Enum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@attrs.frozen
class Metric:
    """
    ``buckets`` are upper bounds in seconds, for histograms; ``unit`` divides what was counted.

    ``always``: label values that are shown with 0 before anything was counted. Prometheus sees no rise in a series that
    begins at 1, and an alert on it would stay silent the first time.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    unit: int = 1
    always: tuple[tuple[str, ...], ...] = ()


def _counter(name: str, text: str, *labels: str, unit: int = 1, always: tuple[str, ...] = ()) -> Metric:
    from_the_start = tuple((value,) for value in always) if labels else ((),)
    return Metric(name, Kind.COUNTER, text, labels, unit=unit, always=from_the_start)


_MOMENTS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SPANS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)

REQUESTS = _counter(
    "perpetuo_requests_total", "Calls answered, refusals and replays included.", "tenant", "model", "provider", "status"
)
DURATION = Metric(
    "perpetuo_request_duration_seconds",
    Kind.HISTOGRAM,
    "From the request to the end of its answer, for admitted calls.",
    ("model",),
    _SPANS,
)
OVERHEAD = Metric(
    "perpetuo_overhead_seconds",
    Kind.HISTOGRAM,
    "Time spent in the gateway itself: duration less the time spent waiting for providers.",
    (),
    _MOMENTS,
)
FIRST_TOKEN = Metric(
    "perpetuo_time_to_first_token_seconds", Kind.HISTOGRAM, "Until the first event of a stream.", ("model",), _SPANS
)
TOKENS = _counter(
    "perpetuo_tokens_total", "Tokens charged; `direction` is `input` or `output`.", "tenant", "model", "direction"
)
COST = _counter("perpetuo_cost_usd_total", "Money charged, in USD.", "tenant", "model", unit=1_000_000_000)
REFUSALS = _counter(
    "perpetuo_refusals_total", "Calls refused by the gateway; `reason` is the code.", "tenant", "reason"
)
AUTH_FAILURES = _counter("perpetuo_auth_failures_total", "Requests without a valid key.")
IN_FLIGHT = Metric("perpetuo_in_flight_requests", Kind.GAUGE, "Admitted calls that are not settled yet.")
ATTEMPTS = _counter(
    "perpetuo_upstream_attempts_total",
    "Attempts at providers; `success`, or what went wrong: `connect`, `timeout`, `reset`, `protocol`, "
    "`server_error`, `rate_limited`, `credential_rejected`, `client_error`, `context_length`, `aborted`.",
    "provider",
    "outcome",
)
BREAKER = Metric(
    "perpetuo_breaker_state",
    Kind.GAUGE,
    "1 for the state it is in: `closed`, `open`, `half_open`.",
    ("provider", "state"),
)
BUDGET = Metric(
    "perpetuo_budget_remaining_usd",
    Kind.GAUGE,
    "Neither spent nor held; `window` is `day` or `month`. Tenants with a budget only.",
    ("tenant", "window"),
)
BUDGET_LIMIT = Metric(
    "perpetuo_budget_limit_usd", Kind.GAUGE, "The budget in force, for the share that is used.", ("tenant", "window")
)
IDEMPOTENCY = _counter(
    "perpetuo_idempotency_total",
    "Calls with a key: `stored`, `not_stored`, `reexecuted`, `replayed`, `in_progress`, `key_reused`, and so on.",
    "result",
)
BACKLOG = Metric("perpetuo_events_backlog", Kind.GAUGE, "Finished events that SQL does not have yet.")
ABANDONED = _counter("perpetuo_abandoned_total", "Calls settled because their worker died.")
HOLD_EXCEEDED = _counter("perpetuo_hold_exceeded_total", "Calls that cost more than their hold. Should stay 0.")
STORE_ERRORS = _counter(
    "perpetuo_store_errors_total",
    "Failed steps: `ledger`, `stream`, `sql`, `breakers`.",
    "store",
    always=("ledger", "stream", "sql", "breakers"),
)
RELOADS = _counter(
    "perpetuo_config_reloads_total",
    "Loads of a changed configuration: `success` or `failure`.",
    "result",
    always=("success", "failure"),
)
CONFIGURATIONS = Metric(
    "perpetuo_config_versions",
    Kind.GAUGE,
    "Different configurations that this gateway's workers go by: 1; for a moment 2, while they take a new one over.",
)
SPANS_EXPORTED = _counter("perpetuo_trace_spans_exported_total", "Spans that the collector of traces took.")
SPANS_DROPPED = _counter(
    "perpetuo_trace_spans_dropped_total",
    "Spans that it will not see: `queue_full`, `export_failed`, `rejected` by it, `shutdown`.",
    "reason",
    always=("queue_full", "export_failed", "rejected", "shutdown"),
)
CONNECTIONS = Metric(
    "perpetuo_upstream_connections",
    Kind.GAUGE,
    "Connections to providers: `busy` with a call, or `idle` and kept for the next.",
    ("provider", "state"),
)
TASKS = Metric(
    "perpetuo_worker_tasks",
    Kind.GAUGE,
    "Tasks in the worker's event loop: a dozen of its own, and some for each call.",
    ("worker",),
)
RESIDENT = Metric(
    "perpetuo_worker_resident_bytes", Kind.GAUGE, "Memory of the worker that is in RAM (Linux).", ("worker",)
)
FILES = Metric(
    "perpetuo_worker_open_files",
    Kind.GAUGE,
    "Open descriptors of the worker: connections of clients and to providers, stores, files (Linux).",
    ("worker",),
)

METRICS = (
    REQUESTS, DURATION, OVERHEAD, FIRST_TOKEN, TOKENS, COST, REFUSALS, AUTH_FAILURES, IN_FLIGHT, ATTEMPTS, BREAKER,
    BUDGET, BUDGET_LIMIT, IDEMPOTENCY, BACKLOG, ABANDONED, HOLD_EXCEEDED, STORE_ERRORS, RELOADS, CONFIGURATIONS,
    SPANS_EXPORTED, SPANS_DROPPED, CONNECTIONS, TASKS, RESIDENT, FILES,
)  # fmt: skip

SUM = "sum"
AT = "at"
"""Beside a gauge: when it was set, in monotonic seconds. All processes of a machine share that clock."""


@attrs.frozen
class Usage:
    """
    What a worker occupies at this moment.

    ``resident`` bytes and open ``files`` are ``None`` where the system does not tell; ``connections`` are busy and
    idle ones by provider.
    """

    tasks: int
    resident: int | None
    files: int | None
    connections: Mapping[str, tuple[int, int]]


@attrs.frozen
class Labels:
    """The names that may stand in labels."""

    tenants: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, tenants: Iterable[str], models: Iterable[str], providers: Iterable[str], most: int = MOST_TENANTS
    ) -> "Labels":
        return cls(frozenset(islice(tenants, most)), frozenset(models), frozenset(providers))

    def tenant(self, name: str) -> str:
        return _known(name, self.tenants)

    def model(self, name: str) -> str:
        return _known(name, self.models)

    def provider(self, name: str | None) -> str:
        return _known(name or "", self.providers)


def _known(name: str, names: frozenset[str]) -> str:
    if name in names:
        return name
    return OTHER if name else NONE


def name_of(metric: Metric, labels: Sequence[str] = (), part: str = "") -> Name:
    """The name of a cell: metric, part of it (a bucket's bound, `SUM`, `AT`), label values."""
    return (metric.name, part, *labels)


@attrs.frozen
class _Histogram:
    """Cells of one histogram: one per bucket, the last one for what is above all, and the sum."""

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    total: int

    def observe(self, values: "memoryview[float]", seconds: float) -> None:
        values[self.buckets[bisect_left(self.bounds, seconds)]] += 1
        values[self.total] += seconds


@attrs.frozen
class _CallCells:
    """Where the numbers of calls of one tenant, model, provider and status go."""

    requests: int
    input: int
    output: int
    cost: int
    duration: _Histogram
    first_token: _Histogram


class Metrics:
    """Counts what happens in this worker. No method blocks or fails."""

    def __init__(self, cells: Cells, labels: Labels) -> None:
        self.cells = cells
        self._values = cells.values
        self._labels = labels
        self._calls: dict[tuple[str, str, str | None, int], _CallCells] = {}
        self._one: dict[tuple[str, ...], int] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._overhead = self._histogram(OVERHEAD)
        for metric in (AUTH_FAILURES, ABANDONED, HOLD_EXCEEDED, IN_FLIGHT):
            cells.cell(name_of(metric))
        for result in ("success", "failure"):
            cells.cell(name_of(RELOADS, (result,)))
        self._in_flight = cells.cell(name_of(IN_FLIGHT)), cells.cell(name_of(IN_FLIGHT, part=AT))
        self._values[self._in_flight[0]] = 0.0
        self._occupied: set[Name] = set()

    def configure(self, labels: Labels) -> None:
        """Take over the names of a new configuration."""
        self._labels = labels
        self._calls.clear()
        self._one.clear()
        self._attempts.clear()

    def goes_by(self, version: str, read_us: int) -> None:
        """This worker goes by the configuration of this version, hexadecimal digits, since it was read."""
        self._values[self.cells.cell(name_of(CONFIGURATIONS))] = int(version or "0", 16)
        self._values[self.cells.cell(name_of(CONFIGURATIONS, part=AT))] = read_us

    def finished(self, event: Event) -> None:
        key = (event.tenant_id, event.model, event.provider, event.status)
        cells = self._calls.get(key) or self._call_cells(key)
        values = self._values
        values[cells.requests] += 1
        values[cells.input] += event.input_tokens
        values[cells.output] += event.output_tokens
        values[cells.cost] += event.cost_nano_usd
        cells.duration.observe(values, event.latency_ms / 1_000)
        self._overhead.observe(values, event.overhead_ms / 1_000)
        if event.first_token_ms is not None:
            cells.first_token.observe(values, event.first_token_ms / 1_000)
        if event.idempotency != NONE:
            self.add(IDEMPOTENCY, event.idempotency)

    def refused(self, note: RefusalNote) -> None:
        """A refusal or a replay."""
        tenant = self._labels.tenant(note.tenant_id)
        self.add(REQUESTS, tenant, self._labels.model(note.model), NONE, str(note.status), by=note.count)
        if note.reason == REPLAYED:
            self.add(IDEMPOTENCY, REPLAYED, by=note.count)
            return
        self.add(REFUSALS, tenant, note.reason, by=note.count)
        if not note.tenant_id:
            self.add(AUTH_FAILURES, by=note.count)
        if note.reason.startswith(IDEMPOTENCY_PREFIX):
            self.add(IDEMPOTENCY, note.reason.removeprefix(IDEMPOTENCY_PREFIX), by=note.count)

    def attempted(self, provider: str, outcome: str) -> None:
        index = self._attempts.get((provider, outcome))
        if index is None:
            labels = (self._labels.provider(provider), outcome)
            index = self._attempts[provider, outcome] = self.cells.cell(name_of(ATTEMPTS, labels))
        self._values[index] += 1

    def in_flight(self, calls: int, now: float) -> None:
        """How many calls this worker has in flight at ``now``, in monotonic seconds."""
        value, at = self._in_flight
        self._values[value], self._values[at] = calls, now

    def occupies(self, usage: Usage) -> None:
        """What this worker occupies; shown for as long as `in_flight` is being told."""
        worker = (str(self.cells.slot),)
        found = {name_of(TASKS, worker): usage.tasks}
        if usage.resident is not None and usage.files is not None:
            found |= {name_of(RESIDENT, worker): usage.resident, name_of(FILES, worker): usage.files}
        for provider, numbers in usage.connections.items():
            for state, number in zip(("busy", "idle"), numbers, strict=True):
                name = name_of(CONNECTIONS, (self._labels.provider(provider), state))
                found[name] = found.get(name, 0) + number
        for name in self._occupied - found.keys():
            self._values[self.cells.cell(name)] = 0.0  # a provider that is no longer configured
        for name, number in found.items():
            self._values[self.cells.cell(name)] = number
        self._occupied |= found.keys()

    def add(self, metric: Metric, *labels: str, by: int = 1) -> None:
        """Add to a counter, under labels that are fit to be labels."""
        key = (metric.name, *labels)
        index = self._one.get(key)
        if index is None:
            if len(self._one) >= MOST_CACHED:
                self._one.clear()
            index = self._one[key] = self.cells.cell(name_of(metric, labels))
        self._values[index] += by

    def _call_cells(self, key: tuple[str, str, str | None, int]) -> _CallCells:
        tenant, model = self._labels.tenant(key[0]), self._labels.model(key[1])
        cell = self.cells.cell
        cells = _CallCells(
            cell(name_of(REQUESTS, (tenant, model, self._labels.provider(key[2]), str(key[3])))),
            cell(name_of(TOKENS, (tenant, model, "input"))),
            cell(name_of(TOKENS, (tenant, model, "output"))),
            cell(name_of(COST, (tenant, model))),
            self._histogram(DURATION, model),
            self._histogram(FIRST_TOKEN, model),
        )
        if len(self._calls) >= MOST_CACHED:
            self._calls.clear()
        self._calls[key] = cells
        return cells

    def _histogram(self, metric: Metric, *labels: str) -> _Histogram:
        parts = [repr(bound) for bound in metric.buckets] + ["+Inf"]
        buckets = tuple(self.cells.cell(name_of(metric, labels, part)) for part in parts)
        return _Histogram(metric.buckets, buckets, self.cells.cell(name_of(metric, labels, SUM)))
