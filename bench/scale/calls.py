"""
What does a call cost with more tenants, more workers, more events in SQL?

CPU of the gateway's process tree for each answered call, as `bench` counts it, with the calls of all tenants in turn.
"""

import time

import attrs

from bench import machine
from bench.load import run
from bench.scale import stage
from bench.scale.fill import fill
from bench.upstream import Nginx
from perpetuo.adapters.sql import migrate
from tests import servers

TENANTS = (1, 100, 1_000, 10_000)
WORKERS = (1, 2, 4)
USUAL = 1_000
"""Tenants where it is something else that grows."""
ROWS = 1_000_000
WARM_UP, SECONDS = 2, 5
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


def by_tenants(upstream: Nginx, stores: stage.Stores) -> list[Cost]:
    return [measure(upstream, stores, tenants, of=tenants) for tenants in TENANTS]


def by_workers(upstream: Nginx, stores: stage.Stores) -> list[Cost]:
    return [measure(upstream, stores, USUAL, of=workers, workers=workers) for workers in WORKERS]


def by_rows(upstream: Nginx, stores: stage.Stores, filled: str) -> list[Cost]:
    return [
        measure(upstream, stores, USUAL, of=0),
        measure(upstream, stores, USUAL, of=ROWS, database=filled),
    ]


def filled_database(stores: stage.Stores) -> str:
    """A million events in a database of its own."""
    url = servers.new_database(stores.postgres.url)
    migrate.upgrade(url)
    fill(url, ROWS)
    return url


def measure(
    upstream: Nginx, stores: stage.Stores, tenants: int, *, of: int, workers: int = 1, database: str | None = None
) -> Cost:
    """A gateway of its own: warm up, measure, and count its rows."""
    database = database or servers.new_database(stores.postgres.url)
    load, many = stage.chat(tenants), CONNECTIONS * workers
    with stage.gateway(stage.config(tenants, upstream.port), stores.redis, database, workers=workers) as live:
        assert live.process is not None
        had = _rows(database)
        warm = run(
            live.port, load, max(WARM_UP, tenants // 1_000), core=stage.OTHER_CORE, connections=many
        )  # each tenant's first call
        before = machine.cpu_seconds(live.process.pid)
        measured = run(live.port, load, SECONDS, core=stage.OTHER_CORE, connections=many)
        cpu = machine.cpu_seconds(live.process.pid) - before
        rss = machine.rss_mib(live.process.pid)
        wrote = _settled(database) - had
    lost = warm.wrong + measured.wrong + max(0, warm.answers + measured.answers - wrote)
    return Cost(of, cpu * 1e6 / max(1, measured.answers), measured.rate, measured.p99, rss, lost)


def _rows(database: str) -> int:
    return int(servers.sql(database, "select count(*) from events")[0][0])


def _settled(database: str) -> int:
    """Rows in ``events`` once they stop growing."""
    last = -1
    while (now := _rows(database)) != last:
        last = now
        time.sleep(1.5)
    return now
