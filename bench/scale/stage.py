"""
Where is scale measured? A gateway on one core (or two), its stores, its provider and its clients on the other.

Everything is on, as in `bench`: keys, a rate, a concurrency, two budgets, events into PostgreSQL, metrics.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from bench import machine
from bench.load import Load
from bench.scale.fill import LARGE
from tests import servers
from tests.live import LiveGateway

GATEWAY_CORE, OTHER_CORE = 0, 1
KEY = "sk-scale-{:05d}-0123456789abcdef"
BODY = '{"model":"%s","max_tokens":100,%s"messages":[{"role":"user","content":"%s"}]}'
EVERY_KEY = """
local nth = 0
request = function()
  nth = (nth + 7919) %% %d
  wrk.headers["Authorization"] = string.format("Bearer sk-scale-%%05d-0123456789abcdef", nth)
  return wrk.format()
end
"""


def tenant(number: int) -> str:
    return f"t{number:04d}" if number else LARGE


def config(tenants: int, port: int, budget: int = 1_000_000) -> str:
    """So many tenants, each with one key, every limit set and none met; the provider is at ``port``."""
    listed = "\n".join(
        f'  - {{id: {tenant(number)}, plan: pro, apiKeys: ["{KEY.format(number)}"]}}' for number in range(tenants)
    )
    timeouts = "{firstToken: 900s, idle: 900s, total: 1800s}"
    price = "price: {inputPerMTok: 0.5, outputPerMTok: 1.5}"
    return f"""
providers:
  - {{id: chat, kind: openai, baseUrl: "http://127.0.0.1:{port}/chat/v1", apiKey: sk-up, timeouts: {timeouts}}}
  - {{id: stream, kind: openai, baseUrl: "http://127.0.0.1:{port}/stream/v1", apiKey: sk-up, timeouts: {timeouts}}}
models:
  - {{name: chat, targets: [{{provider: chat, model: m}}], maxOutputTokens: 4096, {price}}}
  - {{name: stream, targets: [{{provider: stream, model: m}}], maxOutputTokens: 4096, {price}}}
plans:
  - {{id: pro, limits: {{rateLimitMin: 1000000, concurrency: 10000, budgetDay: {budget}, budgetMonth: {budget}}}}}
tenants:
{listed}
redis: {{timeout: 1s}}
"""


def chat(tenants: int) -> Load:
    """Calls of all tenants in turn."""
    body = BODY % ("chat", "", "a" * 220)
    return Load("/v1/chat/completions", KEY.format(0), body, 200, "bench-model", lua=EVERY_KEY % tenants)


@attrs.frozen
class Stores:
    """A Redis and a PostgreSQL of our own."""

    redis: servers.RedisServer
    postgres: servers.PostgresServer


@contextmanager
def stores() -> Iterator[Stores]:
    """Both on the other core, as they would be on other machines."""
    redis, postgres = servers.RedisServer(), servers.PostgresServer()
    try:
        redis.start()
        postgres.start()
        machine.pin(redis.pid, OTHER_CORE)
        machine.pin(postgres.pid, OTHER_CORE)
        yield Stores(redis, postgres)
    finally:
        redis.close()
        postgres.close()


@contextmanager
def redis() -> Iterator[servers.RedisServer]:
    """One more, for a gateway that runs beside others."""
    server = servers.RedisServer()
    try:
        server.start()
        machine.pin(server.pid, OTHER_CORE)
        yield server
    finally:
        server.close()


@contextmanager
def gateway(text: str, redis: servers.RedisServer, database: str, *, workers: int = 1) -> Iterator[LiveGateway]:
    """All workers on one core: what a call costs them is asked, not how many calls two cores take."""
    redis.flush()
    live = LiveGateway(
        text, redis_url=redis.url, database_url=database, workers=workers, environ={"LOG_LEVEL": "warning"}
    )
    with live:
        assert live.process is not None
        machine.pin(live.process.pid, GATEWAY_CORE)
        yield live
        live.stop()
