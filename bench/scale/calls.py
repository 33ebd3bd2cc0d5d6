"""
What does a call cost with more tenants, more workers, more events in SQL?

CPU of the gateway's process tree for each answered call, as `bench` counts it, with the calls of all tenants in turn.

Rule 1: what is compared runs at the same time, each gateway with a Redis of its own, and is asked in turn, round after
round: the same gateway takes a sixth more in one minute than in the next.
Rule 2: what a call costs is the least of the rounds: a neighbour can only add.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack

import attrs

from bench import machine
from bench.load import Load, Measured, run
from bench.scale import stage
from bench.scale.fill import fill
from bench.upstream import Nginx
from perpetuo.adapters.sql import migrate
from tests import servers
from tests.live import LiveGateway

TENANTS = (1, 100, 1_000, 10_000)
WORKERS = (1, 2, 4)
USUAL = 1_000
"""Tenants where it is something else that grows."""
ROWS = 1_000_000
WARM_UP, SECONDS, ROUNDS = 2, 1, 12
SETTLED_SECONDS = 30.0
"""Rows are in SQL a second or so after their calls; on a busy machine later."""
CONNECTIONS = 64
"""For each worker: what a call costs depends on how many share a write to Redis, so on the load of its worker."""


@attrs.frozen
class Cost:
    """``of`` so many of what grows."""

    of: int
    cpu_us: float
    rate: float
    p99: float
    rss: float
    lost: int
    """Answers that were wrong, and calls that have no row."""


@attrs.frozen
class Setup:
    """``of`` so many of what grows; ``database`` ``None``: a new one."""

    of: int
    tenants: int = USUAL
    workers: int = 1
    database: str | None = None


def by_tenants(upstream: Nginx, stores: stage.Stores) -> list[Cost]:
    return side_by_side(upstream, stores, [Setup(tenants, tenants=tenants) for tenants in TENANTS])


def by_workers(upstream: Nginx, stores: stage.Stores) -> list[Cost]:
    return side_by_side(upstream, stores, [Setup(workers, workers=workers) for workers in WORKERS])


def by_rows(upstream: Nginx, stores: stage.Stores, filled: str) -> list[Cost]:
    return side_by_side(upstream, stores, [Setup(0), Setup(ROWS, database=filled)])


def filled_database(stores: stage.Stores) -> str:
    """A million events in a database of its own."""
    url = servers.new_database(stores.postgres.url)
    migrate.upgrade(url)
    fill(url, ROWS)
    return url


def side_by_side(upstream: Nginx, stores: stage.Stores, setups: Sequence[Setup]) -> list[Cost]:
    with ExitStack() as stack:
        measured = [_Asked.start(stack, upstream, stores, setup) for setup in setups]
        for one in measured:
            one.ask(max(WARM_UP, one.setup.tenants // 1_000))  # each tenant's first call
            one.rounds.clear()
        for _ in range(ROUNDS):
            for one in measured:
                one.ask(SECONDS)
        return [one.cost() for one in measured]


@attrs.define(eq=False)
class _Asked:
    """One gateway, and what was seen of it so far."""

    setup: Setup
    live: LiveGateway
    database: str
    load: Load
    had: int
    """Rows before the first call."""
    answers: int = 0
    wrong: int = 0
    rounds: list[tuple[float, Measured]] = attrs.field(factory=list)
    """µs of CPU a call."""

    @classmethod
    def start(cls, stack: ExitStack, upstream: Nginx, stores: stage.Stores, setup: Setup) -> "_Asked":
        redis = stack.enter_context(stage.redis())
        database = setup.database or servers.new_database(stores.postgres.url)
        config = stage.config(setup.tenants, upstream.port)
        live = stack.enter_context(stage.gateway(config, redis, database, workers=setup.workers))
        return cls(setup, live, database, stage.chat(setup.tenants), _rows(database))

    @property
    def pid(self) -> int:
        assert self.live.process is not None
        return self.live.process.pid

    def ask(self, seconds: int) -> None:
        before = machine.cpu_seconds(self.pid)
        many = CONNECTIONS * self.setup.workers
        seen = run(self.live.port, self.load, seconds, core=stage.OTHER_CORE, connections=many)
        cpu = machine.cpu_seconds(self.pid) - before
        self.answers += seen.answers
        self.wrong += seen.wrong
        self.rounds.append((cpu * 1e6 / max(1, seen.answers), seen))

    def cost(self) -> Cost:
        cpu_us, seen = min(self.rounds, key=lambda one: one[0])
        rss = machine.rss_mib(self.pid)
        lost = self.wrong + max(0, self.answers + self.had - _settled(self.database, self.answers + self.had))
        return Cost(self.setup.of, cpu_us, seen.rate, seen.p99, rss, lost)


def _rows(database: str) -> int:
    return int(servers.sql(database, "select count(*) from events")[0][0])


def _settled(database: str, expected: int) -> int:
    """Rows in ``events`` once there are as many as expected, or have had time to be."""
    until = time.monotonic() + SETTLED_SECONDS
    while (now := _rows(database)) < expected and time.monotonic() < until:
        time.sleep(0.5)
    return now
