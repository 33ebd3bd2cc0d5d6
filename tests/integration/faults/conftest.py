"""
Real stores for faults, and in front of them one gateway of two workers for the whole folder: a start takes seconds.

Model ``m`` answers at once, ``slow`` after a moment; ``stormy`` has a breaker that opens for a second, and ``covered``
is the same with somebody behind it. Each upstream fault has a model and a provider of its name, so that
their breakers know nothing of each other.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from perpetuo.domain.model.errors import Reason
from tests import servers
from tests.evil import Blackhole, Evil
from tests.integration.faults.upstreams import FAULTS, Upstreams, late
from tests.live import LiveGateway, config_text
from tests.stores import running_redis

PRICE = "price: {inputPerMTok: 1000, outputPerMTok: 1000}, maxOutputTokens: 100"
TIMES = "timeouts: {connect: 20s, firstToken: 1s, idle: 1s, total: 2s}"
PATIENT = "timeouts: {connect: 20s, firstToken: 20s, idle: 20s, total: 40s}"
TIMES_OF = {
    "black-hole": PATIENT.replace("connect: 20s", "connect: 500ms"),
    "stalls-in-the-stream": "timeouts: {connect: 10s, firstToken: 10s, idle: 1s, total: 10s}",
}
"""Of those that need a time longer than others: to fail in the way that they are there for."""
FOR_EVER = "timeouts: {connect: 5s, idle: 600s, total: 600s}"
ALWAYS = "breaker: {minimumCalls: 1000000, consecutiveConnectFailures: 1000000}"
STORMY = ", breaker: {openFor: 1s}"
BEHIND = "{provider: demo, model: m, priority: 1}"
MORE = """
redis: {timeout: 10s}
retry: {backoff: 10ms, maxBackoff: 500ms}
server: {bodyTimeout: 20s, drainDelay: 500ms}"""


def provider(name: str, origin: str, more: str, times: str) -> str:
    return f'  - {{id: {name}, kind: openai, baseUrl: "{origin}/v1", {times}{more}}}'


def times_of(fault: str) -> str:
    """Short where the fault is about them: a busy machine would find time-outs elsewhere, too."""
    found = FAULTS.get(fault)
    if fault in TIMES_OF:
        return TIMES_OF[fault]
    if found is None:
        return PATIENT
    return TIMES if found.long or Reason.UPSTREAM_TIMEOUT in (found.plain, found.stream) else PATIENT


def config(origin: str, hole: str, *, price: str = PRICE) -> str:
    """Every fault at ``origin``, and two that need no script: nobody there, and a port that swallows."""
    origins = {**dict.fromkeys(FAULTS, origin), "refusing": "http://127.0.0.1:9", "black-hole": hole}
    others = [
        provider("slow", origin, f", {ALWAYS}", PATIENT),
        provider("endless", origin, f", {ALWAYS}", FOR_EVER),
        provider("stormy", origin, STORMY, PATIENT),
    ]
    providers = [provider(name, where, f", {ALWAYS}", times_of(name)) for name, where in origins.items()]
    models = [f"  - {{name: {name}, targets: [{{provider: {name}, model: {name}}}], {price}}}" for name in origins]
    return config_text(
        providers="\n".join(["  - {id: demo, kind: demo}", *others, *providers]),
        models="\n".join(
            [
                f"  - {{name: m, targets: [{{provider: demo, model: m}}], {price}}}",
                f"  - {{name: slow, targets: [{{provider: slow, model: slow}}], {price}}}",
                f"  - {{name: endless, targets: [{{provider: endless, model: endless}}], {price}}}",
                f"  - {{name: stormy, targets: [{{provider: stormy, model: stormy}}], {price}}}",
                f"  - {{name: covered, targets: [{{provider: stormy, model: stormy}}, {BEHIND}], {price}}}",
                *models,
            ]
        ),
        limits="{rateLimitMin: 100000, budgetDay: 100000}",
        more=MORE,
    )


@pytest.fixture(scope="package")
def redis() -> Iterator[servers.RedisServer]:
    """A Redis to stop, freeze, fill and empty; a test leaves it running and mended."""
    with running_redis("--maxmemory", "256mb", "--appendonly", "yes", "--appendfsync", "everysec") as server:
        yield server


@pytest.fixture(scope="package")
def postgres(_postgres_template: Any) -> Iterator[servers.PostgresServer]:
    """A PostgreSQL to stop, lock and freeze; a test leaves it running and mended."""
    server = servers.PostgresServer(_postgres_template)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="package")
def upstreams() -> Upstreams:
    made = Upstreams()
    made.acts["slow"] = late(0.3)
    return made


@pytest.fixture(scope="package")
def evil(upstreams: Upstreams) -> Iterator[Evil]:
    with Evil(upstreams) as server:
        yield server


@pytest.fixture(scope="package")
def configured(evil: Evil) -> Iterator[str]:
    """The configuration of the gateways here."""
    with Blackhole() as hole:
        yield config(evil.origin, hole.origin)


@pytest.fixture(scope="package")
def shared(redis: servers.RedisServer, postgres: servers.PostgresServer, configured: str) -> Iterator[LiveGateway]:
    with LiveGateway(configured, redis_url=redis.url, database_url=postgres.url, workers=2) as running:
        yield running


@pytest.fixture
def gateway(shared: LiveGateway) -> Iterator[LiveGateway]:
    """After every test the same two workers are alive, and nothing in them broke."""
    before = shared.worker_pids()
    yield shared
    assert shared.worker_pids() == before
    assert "Traceback" not in shared.log()
    assert "loop_broken" not in shared.log()
    assert "panicked" not in shared.log()
