"""Each row of the contract's error table, provoked on a live gateway; then through OpenAI's own SDK."""

import contextlib
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.errors import TABLE
from tests.integration.gateway.contract import ROWS, check
from tests.live import KEY, LiveGateway, eventually
from tests.servers import RedisServer

KEYS = {
    name: f"sk-test-{name}-0123456789"
    for name in ("expired", "narrow", "rated", "crowded", "spent", "reserved", "month")
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
retry: {{maxBackoff: 1s, backoff: 10ms}}
idempotency: {{maxBytes: 2KiB}}
server: {{requestMaxBytes: 64KiB, bodyTimeout: 1s, drainDelay: 0s}}
redis: {{timeout: 500ms}}
"""


@pytest.fixture(scope="module")
def gateway(redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here) as running:
        yield running


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


# --- how each row is provoked --------------------------------------------------------------------

Provoke = Callable[[LiveGateway, RedisServer], httpx.Response]


def asking(key: str | None = None, headers: dict[str, str] | None = None, **body: Any) -> Provoke:
    return lambda gateway, redis: gateway.chat(KEYS.get(key or "", KEY), headers=headers, **{"max_tokens": 50, **body})


def twice(key: str) -> Provoke:
    def provoke(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
        gateway.chat(KEYS[key], max_tokens=5)
        return gateway.chat(KEYS[key], max_tokens=5)

    return provoke


def beside(key: str) -> Provoke:
    def provoke(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
        with in_flight(gateway, KEYS[key]):
            return gateway.chat(KEYS[key], max_tokens=50)

    return provoke


def same_key(first: dict[str, Any], second: dict[str, Any]) -> Provoke:
    def provoke(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
        headers = {"x-idempotency-key": hashlib.sha256(repr(first).encode()).hexdigest()}
        assert gateway.chat(headers=headers, **first).status_code == 200
        return gateway.chat(headers=headers, **second)

    return provoke


def in_progress(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    key = {"x-idempotency-key": "running"}
    with in_flight(gateway, headers=key):
        return gateway.chat(headers=key, model="stall", max_tokens=50, stream=True)


def bare(method: str, path: str, key: str | None = KEY) -> Provoke:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return lambda gateway, redis: httpx.request(method, gateway.url + path, headers=headers, timeout=10, verify=False)


def half_a_body(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99\r\n\r\n{{"
    )
    return raw(gateway, head.encode())


def raw(gateway: LiveGateway, data: bytes) -> httpx.Response:
    """Bytes out, one answer in."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(data)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := sock.recv(65_536):
                received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    return httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)  # type: ignore[arg-type]


def breaker_open(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    """An operator opens the breaker by hand: every worker knows within 500 ms."""
    with redis.client() as client:
        client.set("perpetuo:cb:shut", "by hand", px=20_000)
        return until(gateway, 503, model="shut")


def until(gateway: LiveGateway, status: int, **body: Any) -> httpx.Response:
    """Ask until this status comes."""

    def look() -> httpx.Response | None:
        answer = gateway.chat(**{"max_tokens": 5, **body})
        return answer if answer.status_code == status else None

    answer: httpx.Response = eventually(look)
    return answer


def store_frozen(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    redis.pause()
    try:
        return gateway.chat(max_tokens=5)
    finally:
        redis.resume()
        until(gateway, 200)


def store_full(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    """Redis at more than 85 % of its memory: settlements still fit, admissions stop."""
    with redis.client() as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", int(used / 0.9))
        try:
            return until(gateway, 503)
        finally:
            client.config_set("maxmemory", "256mb")
            until(gateway, 200)


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://host/cat.png"}}]}]
Case = tuple[Reason, Provoke, str | None]
CASES: list[Case] = [
    (Reason.INVALID_API_KEY, bare("POST", "/v1/chat/completions", None), None),
    (Reason.INVALID_API_KEY, bare("POST", "/v1/embeddings", "sk-nobody"), None),
    (Reason.INVALID_API_KEY, bare("GET", "/v1/models", "sk-nobody"), None),
    (Reason.API_KEY_EXPIRED, asking("expired"), None),
    (Reason.MODEL_NOT_FOUND, asking(model="no-such"), "model"),
    (Reason.MODEL_NOT_FOUND, bare("GET", "/v1/models/no-such"), "model"),
    (Reason.MODEL_NOT_ALLOWED, asking("narrow"), "model"),
    (Reason.RATE_LIMIT_EXCEEDED, twice("rated"), None),
    (Reason.CONCURRENCY_LIMIT_EXCEEDED, beside("crowded"), None),
    (Reason.BUDGET_EXCEEDED, asking("spent"), None),
    (Reason.BUDGET_RESERVED, beside("reserved"), None),
    (Reason.MODEL_NOT_PRICED, asking(model="unpriced"), "model"),
    (Reason.COST_NOT_BOUNDED, asking(service_tier="priority"), "service_tier"),
    (Reason.COST_NOT_BOUNDED, asking(messages=IMAGE), "messages"),
    (Reason.REQUEST_TIMEOUT, half_a_body, None),
    (Reason.INVALID_REQUEST, asking(messages=None), "messages"),
    (Reason.INVALID_REQUEST, asking(n_predict=9), "n_predict"),
    (Reason.INVALID_REQUEST, asking(headers={"x-api-key": "sk-another"}), None),
    (Reason.INVALID_REQUEST, asking(headers={"x-request-timeout-ms": "soon"}), "x-request-timeout-ms"),
    (Reason.INVALID_REQUEST, asking(headers={"x-perpetuo-tag": "t" * 65}), "x-perpetuo-tag"),
    (Reason.REQUEST_TOO_LARGE, asking(more="x" * 70_000), None),
    (Reason.UNSUPPORTED_ENCODING, asking(headers={"content-encoding": "gzip"}), None),
    (Reason.IDEMPOTENCY_KEY_INVALID, asking(headers={"x-idempotency-key": "two words"}), None),
    (Reason.IDEMPOTENCY_KEY_INVALID, asking(headers={"x-idempotency-key": "a", "idempotency-key": "a"}), None),
    (Reason.IDEMPOTENCY_KEY_REUSED, same_key({"max_tokens": 5}, {"max_tokens": 6}), None),
    (Reason.IDEMPOTENCY_NOT_STORED, same_key({"n": 20, "max_tokens": 50}, {"n": 20, "max_tokens": 50}), None),
    (Reason.IDEMPOTENCY_IN_PROGRESS, in_progress, None),
    (Reason.UPSTREAM_CREDENTIALS, asking(model="cred"), None),
    (Reason.UPSTREAM_ERROR, asking(model="broken"), None),
    (Reason.UPSTREAM_RATE_LIMITED, asking(model="limited"), None),
    (Reason.UPSTREAM_TIMEOUT, asking(model="silent"), None),
    (Reason.NO_HEALTHY_UPSTREAM, breaker_open, None),
    (Reason.NOT_FOUND, bare("POST", "/v1/completions"), None),
    (Reason.NOT_FOUND, bare("GET", "/v1/requests/never-seen"), None),
    (Reason.METHOD_NOT_ALLOWED, bare("GET", "/v1/chat/completions"), None),
    (Reason.METHOD_NOT_ALLOWED, bare("DELETE", "/v1/models"), None),
    (Reason.STORE_UNAVAILABLE, store_frozen, None),
    (Reason.AUDIT_UNAVAILABLE, store_full, None),
]
ELSEWHERE = {Reason.IDEMPOTENCY_OUTCOME_UNKNOWN, Reason.SHUTTING_DOWN}
"""Need a dead worker and a draining one: test_crashes.py and test_drain.py, by the same `check`."""


@pytest.mark.parametrize(
    ("reason", "provoke", "param"), CASES, ids=[f"{r.value}-{i}" for i, (r, _, _) in enumerate(CASES)]
)
def test_each_row_of_the_error_table(
    gateway: LiveGateway, redis_here: RedisServer, reason: Reason, provoke: Provoke, param: str | None
) -> None:
    """Status, type, code, param, source, should-retry, the wait, and one request id."""
    check(provoke(gateway, redis_here), reason, param)


def test_the_error_table_is_complete() -> None:
    """Every reason there is has a row in the code, a row in the contract, and a test; and both rows agree."""
    assert set(TABLE) == set(Reason) == set(ROWS)
    assert {reason for reason, _, _ in CASES} | ELSEWHERE == set(Reason)
    assert {r: (row.status, row.type, row.retry) for r, row in TABLE.items()} == {
        r: (row.status, row.type, row.retry) for r, row in ROWS.items()
    }


# --- what a message may and may not say ----------------------------------------------------------


def test_messages_say_which_limit_what_remains_and_when(gateway: LiveGateway) -> None:
    """The figures an application's developer needs are in the text."""
    budget = gateway.chat(KEYS["spent"], max_tokens=50).json()["error"]["message"]
    assert "0.01 USD" in budget
    assert "starts anew in" in budget
    assert "GET /v1/models" in gateway.chat(model="no-such").json()["error"]["message"]
    unknown = httpx.post(gateway.url + "/v1/completions", verify=False).json()["error"]["message"]
    assert "/v1/chat/completions" in unknown


def test_a_sane_request_id_is_echoed_and_another_one_replaced(gateway: LiveGateway) -> None:
    """Also on refusals, so that a support case has something to name."""
    assert gateway.chat("sk-nobody", headers={"x-request-id": "order-17"}).headers["x-request-id"] == "order-17"
    odd = gateway.chat("sk-nobody", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert len(odd) == 36


def test_the_providers_own_refusal_comes_through_with_its_source(gateway: LiveGateway) -> None:
    """Its status, type and code; ``source`` says who refused; no retry."""
    answer = gateway.chat(model="refusing", max_tokens=5)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "The demo provider refuses on purpose.",
        "type": "invalid_request_error",
        "param": None,
        "code": "bad_request",
        "source": "provider",
    }
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-perpetuo-provider"] == "demo"


def test_budget_status_can_be_changed(gateway: LiveGateway) -> None:
    """``errors.budgetStatus: 402``, after a reload; everything else stays."""
    gateway.config_path.write_text(CONFIG + "errors: {budgetStatus: 402}\n")
    try:
        answer = eventually(lambda: (a := gateway.chat(KEYS["spent"], max_tokens=50)).status_code == 402 and a)
        assert answer.json()["error"]["code"] == "budget_exceeded"
    finally:
        gateway.config_path.write_text(CONFIG)
        eventually(lambda: gateway.chat(KEYS["spent"], max_tokens=50).status_code == 403)


# --- the official SDK ----------------------------------------------------------------------------

SDK: list[tuple[Provoke | str, type[openai.APIStatusError], int, dict[str, Any]]] = [
    ("nobody", openai.AuthenticationError, 1, {}),
    ("acme", openai.NotFoundError, 1, {"model": "no-such"}),
    ("narrow", openai.PermissionDeniedError, 1, {}),
    ("spent", openai.PermissionDeniedError, 1, {"max_tokens": 50}),
    ("acme", openai.BadRequestError, 1, {"extra_body": {"n_predict": 5}}),
    ("acme", openai.BadRequestError, 1, {"model": "refusing"}),
    ("acme", openai.InternalServerError, 1, {"model": "broken"}),
    ("acme", openai.InternalServerError, 1, {"model": "cred"}),
    ("acme", openai.InternalServerError, 1, {"model": "silent"}),
]


class Counting:
    """OpenAI's client against a gateway; counts its requests."""

    def __init__(self, gateway: LiveGateway, key: str, retries: int = 2) -> None:
        self.requests = 0
        self.client = openai.OpenAI(
            base_url=gateway.url + "/v1",
            api_key=key,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._count]}),
        )

    def _count(self, _: object) -> None:
        self.requests += 1

    def chat(self, **more: Any) -> Any:
        return self.client.chat.completions.create(
            **{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **more}
        )


@pytest.mark.parametrize(("who", "error", "requests", "body"), SDK)
def test_openai_sdk_raises_the_right_class_and_does_not_retry(
    gateway: LiveGateway, who: str, error: type[openai.APIStatusError], requests: int, body: dict[str, Any]
) -> None:
    """``x-should-retry: false`` is obeyed: one request, also for 5xx that the gateway has retried itself."""
    sdk = Counting(gateway, KEYS.get(who, KEY if who == "acme" else "sk-nobody"))
    with pytest.raises(error) as raised:
        sdk.chat(**body)
    assert type(raised.value) is error
    assert sdk.requests == requests
    assert raised.value.code
    assert raised.value.request_id


def test_openai_sdk_waits_and_retries_where_it_should(gateway: LiveGateway) -> None:
    """Too many at once: the SDK comes back after a second by itself, and gives up after its retries."""
    sdk = Counting(gateway, KEYS["crowded"], retries=1)
    with in_flight(gateway, KEYS["crowded"]), pytest.raises(openai.RateLimitError) as raised:
        sdk.chat()
    assert raised.value.code == "concurrency_limit_exceeded"
    assert sdk.requests == 2


def test_openai_sdk_calls_streams_embeds_and_lists(gateway: LiveGateway) -> None:
    """The plain way through every endpoint."""
    sdk = Counting(gateway, KEY)
    answer = sdk.chat()
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 5
    chunks = list(sdk.chat(stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)
    with_usage = list(sdk.chat(stream=True, stream_options={"include_usage": True}))
    assert with_usage[-1].usage.completion_tokens == 5
    assert len(sdk.client.embeddings.create(model="m", input="hi").data[0].embedding) == 1_536
    assert "m" in [model.id for model in sdk.client.models.list()]
    assert sdk.client.models.retrieve("m").id == "m"


def test_a_key_sees_its_own_standing_and_its_own_calls(gateway: LiveGateway) -> None:
    """``/v1/key`` and ``/v1/requests/{id}``, streams and refusals too; nobody else's."""
    standing = gateway.get("/v1/key").json()
    assert (standing["tenant"], standing["plan"]) == ("acme", "pro")
    assert [b["period"] for b in standing["budgets"]] == ["day", "month"] * 2  # the tenant's, the key's
    called = gateway.chat(max_tokens=5).headers["x-request-id"]
    found = eventually(lambda: (a := gateway.get(f"/v1/requests/{called}")).status_code == 200 and a.json())
    assert (found["outcome"], found["usage"]["output_tokens"]) == ("completed", 5)
    assert gateway.get(f"/v1/requests/{called}", KEYS["rated"]).status_code == 404
    refused = gateway.chat(model="no-such").headers["x-request-id"]
    note = eventually(lambda: (a := gateway.get(f"/v1/requests/{refused}")).status_code == 200 and a.json())
    assert (note["outcome"], note["error_code"]) == ("refused", "model_not_found")


def test_a_call_in_flight_can_be_asked_for(gateway: LiveGateway) -> None:
    """Found: a running call was looked up by another id than the one its client knows."""
    with in_flight(gateway) as request_id:
        answer = gateway.get(f"/v1/requests/{request_id}")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["outcome"], answer.json()["status"]) == ("in_progress", None)


def test_json_of_the_error_is_what_the_sdk_shows(gateway: LiveGateway) -> None:
    """``error.body`` of the SDK is our envelope's inside, with ``source``."""
    sdk = Counting(gateway, "sk-nobody")
    with pytest.raises(openai.AuthenticationError) as raised:
        sdk.chat()
    assert json.loads(json.dumps(raised.value.body))["source"] == "gateway"
