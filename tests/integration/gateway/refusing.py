"""
A gateway that refuses in every way of the contract's error table, and how to bring it there.

What a refusal needs for as long as it lasts is a context manager here: a call in flight, a frozen Redis, a full one.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx

from perpetuo.domain.model.errors import Reason
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
server: {{requestMaxBytes: 64KiB, bodyTimeout: 5s, drainDelay: 0s}}
redis: {{timeout: 5s}}
"""
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://host/cat.png"}}]}]


@contextlib.contextmanager
def in_flight(gateway: LiveGateway, key: str = KEY, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A stream that has begun and goes nowhere; its request id."""
    body = {"model": "stall", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    with (
        httpx.Client(timeout=60, verify=False) as client,
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
def shut(gateway: LiveGateway, redis: RedisServer, seconds: int = 100) -> Iterator[httpx.Response]:
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


# --- each refusal an SDK can meet ------------------------------------------------------------------

Scene = Callable[[LiveGateway, RedisServer], AbstractContextManager[Any]]


def nothing(gateway: LiveGateway, redis: RedisServer) -> AbstractContextManager[Any]:
    return contextlib.nullcontext()


def before(key: str = "", headers: dict[str, str] | None = None, **body: Any) -> Scene:
    """An earlier call, which has ended."""

    def scene(gateway: LiveGateway, redis: RedisServer) -> AbstractContextManager[Any]:
        assert gateway.chat(KEYS.get(key, KEY), headers=headers, **body).status_code in {200, 429}
        return contextlib.nullcontext()

    return scene


def beside(key: str = "", headers: dict[str, str] | None = None) -> Scene:
    """Another call, which goes on."""
    return lambda gateway, redis: in_flight(gateway, KEYS.get(key, KEY), headers)


def named(key: str) -> dict[str, Any]:
    return {"extra_headers": {"x-idempotency-key": key}}


KEPT, RUNNING = {"x-idempotency-key": "kept"}, {"x-idempotency-key": "running"}
NOT_KEPT = {"x-idempotency-key": "not-kept"}
Row = tuple[Reason, Scene, str, dict[str, Any]]
TABLE: list[Row] = [
    (Reason.INVALID_API_KEY, nothing, "sk-nobody", {}),
    (Reason.API_KEY_EXPIRED, nothing, "expired", {}),
    (Reason.MODEL_NOT_FOUND, nothing, "", {"model": "no-such"}),
    (Reason.MODEL_NOT_ALLOWED, nothing, "narrow", {}),
    (Reason.RATE_LIMIT_EXCEEDED, before("rated", max_tokens=5), "rated", {}),
    (Reason.CONCURRENCY_LIMIT_EXCEEDED, beside("crowded"), "crowded", {}),
    (Reason.BUDGET_EXCEEDED, nothing, "spent", {"max_tokens": 50}),
    (Reason.BUDGET_RESERVED, beside("reserved"), "reserved", {"max_tokens": 50}),
    (Reason.MODEL_NOT_PRICED, nothing, "", {"model": "unpriced"}),
    (Reason.COST_NOT_BOUNDED, nothing, "", {"messages": IMAGE}),
    (Reason.COST_NOT_BOUNDED, nothing, "", {"service_tier": "priority"}),
    (Reason.INVALID_REQUEST, nothing, "", {"messages": None}),
    (Reason.INVALID_REQUEST, nothing, "", {"extra_body": {"n_predict": 5}}),
    (Reason.INVALID_REQUEST, nothing, "", {"extra_headers": {"x-api-key": "sk-another"}}),
    (Reason.REQUEST_TOO_LARGE, nothing, "", {"user": "x" * 70_000}),
    (Reason.UNSUPPORTED_ENCODING, nothing, "", {"extra_headers": {"content-encoding": "gzip"}}),
    (Reason.IDEMPOTENCY_KEY_INVALID, nothing, "", named("two words")),
    (Reason.IDEMPOTENCY_KEY_REUSED, before(headers=KEPT, max_tokens=5), "", {"max_tokens": 6, "extra_headers": KEPT}),
    (
        Reason.IDEMPOTENCY_NOT_STORED,
        before(headers=NOT_KEPT, max_tokens=50, n=20),
        "",
        {"max_tokens": 50, "n": 20, "extra_headers": NOT_KEPT},
    ),
    (
        Reason.IDEMPOTENCY_IN_PROGRESS,
        beside(headers=RUNNING),
        "",
        {"model": "stall", "max_tokens": 50, "stream": True, "extra_headers": RUNNING},
    ),
    (Reason.UPSTREAM_CREDENTIALS, nothing, "", {"model": "cred"}),
    (Reason.UPSTREAM_ERROR, nothing, "", {"model": "broken"}),
    (Reason.UPSTREAM_RATE_LIMITED, nothing, "", {"model": "limited"}),
    (Reason.UPSTREAM_TIMEOUT, nothing, "", {"model": "silent"}),
    (Reason.NO_HEALTHY_UPSTREAM, shut, "", {"model": "shut"}),
    (Reason.STORE_UNAVAILABLE, frozen, "", {}),
    (Reason.AUDIT_UNAVAILABLE, full, "", {}),
]
"""A reason, what has to be so first, who asks (a name in `KEYS`, a key, or acme), and what it asks for."""
