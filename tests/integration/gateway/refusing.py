"""
A gateway that refuses in every way of the contract's error table, and how to bring it there.

What a refusal needs for as long as it lasts is a context manager here: a call in flight, a frozen Redis, a full one.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import httpx

from tests.live import KEY, LiveGateway, eventually
from tests.servers import RedisServer

KEYS = {
    name: f"sk-test-{name}-0123456789"
    for name in ("expired", "narrow", "rated", "crowded", "spent", "reserved", "held")
}


def digest(name: str) -> str:
    return hashlib.sha256(KEYS[name].encode()).hexdigest()


PRICE = "price: {inputPerMTok: 1000, outputPerMTok: 1000}, maxOutputTokens: 100"
CONFIG = f"""
providers:
  - {{id: demo, kind: demo}}
  - {{id: cred, kind: demo}}
  - {{id: broken, kind: demo}}
  - {{id: limited, kind: demo}}
  - {{id: silent, kind: demo}}
  - {{id: shut, kind: demo}}
  - {{id: local, kind: openai, baseUrl: "http://127.0.0.1:9"}}
models:
  - {{name: m, targets: [{{provider: demo, model: m}}], {PRICE}}}
  - {{name: stall, targets: [{{provider: demo, model: demo-stall}}], {PRICE}}}
  - {{name: unpriced, targets: [{{provider: local, model: nobody-knows-this}}]}}
  - {{name: refusing, targets: [{{provider: demo, model: demo-400}}], {PRICE}}}
  - {{name: cred, targets: [{{provider: cred, model: demo-401}}], {PRICE}}}
  - {{name: broken, targets: [{{provider: broken, model: demo-error-500}}], {PRICE}}}
  - {{name: limited, targets: [{{provider: limited, model: demo-429}}], {PRICE}}}
  - {{name: silent, targets: [{{provider: silent, model: demo-timeout}}], {PRICE}, timeouts: {{total: 300ms}}}}
  - {{name: shut, targets: [{{provider: shut, model: m}}], {PRICE}}}
plans:
  - {{id: pro, limits: {{budgetDay: 100000}}}}
tenants:
  - {{id: acme, plan: pro, apiKeys: ["{KEY}"]}}
  - {{id: expired, plan: pro, apiKeys: [{{hash: "sha256:{digest("expired")}", expires: 2020-01-01}}]}}
  - {{id: narrow, plan: pro, apiKeys: [{{hash: "sha256:{digest("narrow")}", models: ["gpt-*"]}}]}}
  - {{id: rated, plan: pro, limits: {{rateLimitMin: 1}}, apiKeys: ["{KEYS["rated"]}"]}}
  - {{id: crowded, plan: pro, limits: {{concurrency: 1}}, apiKeys: ["{KEYS["crowded"]}"]}}
  - {{id: spent, plan: pro, limits: {{budgetDay: 0.01}}, apiKeys: ["{KEYS["spent"]}"]}}
  - {{id: reserved, plan: pro, limits: {{budgetDay: 2}}, apiKeys: ["{KEYS["reserved"]}"]}}
  - {{id: held, plan: pro, limits: {{budgetDay: 2}}, apiKeys: ["{KEYS["held"]}"]}}
retry: {{maxBackoff: 1s, backoff: 10ms}}
idempotency: {{maxBytes: 2KiB}}
server: {{requestMaxBytes: 64KiB, bodyTimeout: 1s, drainDelay: 0s}}
redis: {{timeout: 500ms}}
"""
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://host/cat.png"}}]}]


@contextlib.contextmanager
def in_flight(gateway: LiveGateway, key: str = KEY, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A stream that has begun and goes nowhere; its request id."""
    body = {"model": "stall", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    with (
        httpx.Client(timeout=10, verify=False) as client,
        client.stream(
            "POST",
            gateway.url + "/v1/chat/completions",
            headers={"authorization": f"Bearer {key}", **(headers or {})},
            json=body,
        ) as stream,
    ):
        assert stream.status_code == 200, stream.read()
        arriving = stream.iter_bytes()  # has a name, because forgetting it closes the connection
        assert next(arriving)
        yield stream.headers["x-request-id"]


@contextlib.contextmanager
def shut(gateway: LiveGateway, redis: RedisServer, seconds: int = 20) -> Iterator[httpx.Response]:
    """An operator opens a breaker by hand, and every worker knows within 500 ms: the answer that shows it."""
    with redis.client() as client:
        client.set("perpetuo:cb:shut", "by hand", px=seconds * 1_000)
        try:
            yield until(gateway, 503, "shut")
        finally:
            client.delete("perpetuo:cb:shut")
            until(gateway, 200, "shut")


@contextlib.contextmanager
def frozen(gateway: LiveGateway, redis: RedisServer) -> Iterator[httpx.Response]:
    """Redis is there and says nothing."""
    redis.pause()
    try:
        yield gateway.chat(max_tokens=5)
    finally:
        redis.resume()
        until(gateway, 200)


@contextlib.contextmanager
def full(gateway: LiveGateway, redis: RedisServer) -> Iterator[httpx.Response]:
    """Redis at more than 85 % of its memory: settlements still fit, admissions stop."""
    with redis.client() as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", int(used / 0.9))
        try:
            yield until(gateway, 503)
        finally:
            client.config_set("maxmemory", "256mb")
            until(gateway, 200)


def until(gateway: LiveGateway, status: int, model: str = "m") -> httpx.Response:
    """Ask until this status comes."""

    def look() -> httpx.Response | None:
        answer = gateway.chat(model=model, max_tokens=5)
        return answer if answer.status_code == status else None

    answer: httpx.Response = eventually(look)
    return answer
