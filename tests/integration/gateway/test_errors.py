"""Each row of the contract's error table, provoked on a live gateway. (What an SDK makes of it: test_sdk.py.)"""

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.errors import TABLE
from tests.integration.gateway.contract import ROWS, check
from tests.integration.gateway.refusing import CONFIG, IMAGE, KEYS, frozen, full, in_flight, shut
from tests.live import KEY, LiveGateway, eventually
from tests.patience import PATIENCE
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def gateway(redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here) as running:
        yield running


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
    return lambda gateway, redis: httpx.request(
        method, gateway.url + path, headers=headers, timeout=PATIENCE, verify=False
    )


def half_a_body(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99\r\n\r\n{{"
    )
    return raw(gateway, head.encode())


def raw(gateway: LiveGateway, data: bytes) -> httpx.Response:
    """Bytes out, one answer in."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE) as sock:
        sock.sendall(data)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := sock.recv(65_536):
                received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    return httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)  # type: ignore[arg-type]


def shut_one(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    with shut(gateway, redis) as answer:
        return answer


def frozen_store(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    with frozen(gateway, redis) as answer:
        return answer


def full_store(gateway: LiveGateway, redis: RedisServer) -> httpx.Response:
    with full(gateway, redis) as answer:
        return answer


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
    (Reason.NO_HEALTHY_UPSTREAM, shut_one, None),
    (Reason.NOT_FOUND, bare("POST", "/v1/completions"), None),
    (Reason.NOT_FOUND, bare("GET", "/v1/requests/never-seen"), None),
    (Reason.METHOD_NOT_ALLOWED, bare("GET", "/v1/chat/completions"), None),
    (Reason.METHOD_NOT_ALLOWED, bare("DELETE", "/v1/models"), None),
    (Reason.STORE_UNAVAILABLE, frozen_store, None),
    (Reason.AUDIT_UNAVAILABLE, full_store, None),
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
    unknown = httpx.post(gateway.url + "/v1/completions", timeout=PATIENCE, verify=False).json()["error"]["message"]
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


# --- what a key can ask about itself --------------------------------------------------------------


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


# --- what HTTP clients do ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/models", "/v1/models/m", "/v1/models/no-such"])
def test_head_is_get_without_the_body(gateway: LiveGateway, path: str) -> None:
    """Found: 405. Load balancers and monitors ask with HEAD, which RFC 9110 wants wherever there is GET."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=PATIENCE, verify=False) as client:
        head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]


def test_head_of_a_call_is_no_call(gateway: LiveGateway) -> None:
    """405 with what is possible there."""
    answer = bare("HEAD", "/v1/chat/completions")(gateway, None)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert bare("DELETE", "/v1/models")(gateway, None).headers["allow"] == "GET, HEAD"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/json", "text/plain", ""])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/chat/completions/", "/v1/chat/completions?api-version=1"]
)
def test_what_else_stands_around_a_call_does_not_matter(gateway: LiveGateway, kind: str, path: str) -> None:
    """Content types, a slash at the end, a query: the body is the call."""
    body = b'{"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}'
    headers = {"authorization": f"bearer {KEY}", "content-type": kind, "accept": "text/event-stream"}
    answer = httpx.post(gateway.url + path, content=body, headers=headers, timeout=PATIENCE, verify=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
