"""
Canaries in every input: is one of them ever written down where it must not be? (A5, S1, S6)

One gateway with a secret in every place of its configuration that takes one, asked with a canary in every header, body
member, path and query that a client can fill, through good calls, bad ones and outages of both stores. Then everything
that rests or is shown is searched: all tables, Redis, the log at its most talkative, metrics, `/admin`.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import httpx
import pytest
from redis import Redis

from tests.evil import Evil
from tests.integration.faults.upstreams import Upstreams, complete, say
from tests.integration.gateway.test_upstreams import chunked
from tests.live import ADMIN_KEY, KEY, OTHER_KEY, LiveGateway, config_text, eventually, rows
from tests.patience import PATIENCE
from tests.servers import PostgresServer, RedisServer

CANARY = "canary7f3a"
"""Part of everything that a client or provider may say in confidence."""
SECRETS = {
    name: f"secret-{name}-{CANARY}-0123456789"
    for name in ("provider", "tenant", "metrics", "redis", "sql", "cookie", "bearer", "reader")
}
HELLO = {"role": "user", "content": f"hello {CANARY}"}
IMAGE = {"url": f"data:image/png;base64,{base64.b64encode(CANARY.encode()).decode()}"}
ANSWER = json.dumps(
    {
        "id": "x",
        "choices": [{"message": {"content": f"answer {CANARY}"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
).encode()


def config(origin: str) -> str:
    price = "price: {inputPerMTok: 1, outputPerMTok: 1}, maxOutputTokens: 100, bound: {imageTokens: 100}"
    names = ("good", "refusing", "quoting", "broken", "embedding")
    return config_text(
        providers="\n".join(
            f'  - {{id: {name}, kind: openai, baseUrl: "{origin}/v1", apiKey: "${{PROVIDER_KEY}}"}}' for name in names
        ),
        models="\n".join(
            f"  - {{name: {name}, targets: [{{provider: {name}, model: {name}}}], {price}}}" for name in names
        ),
        more=f"""
  - {{id: third, plan: pro, apiKeys: ["{SECRETS["tenant"]}"]}}
admin: {{keys: [{{name: reader, hash: "sha256:{hashlib.sha256(SECRETS["reader"].encode()).hexdigest()}", role: read}}]}}
idempotency: {{ttl: 24h}}
retry: {{attempts: 1}}
redis: {{timeout: 10s}}""",
    )


@attrs.frozen
class Stage:
    gateway: LiveGateway
    redis: RedisServer
    postgres: PostgresServer
    said: list[str]
    """Every head and body that clients got."""

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = httpx.request(method, self.gateway.url + path, timeout=2 * PATIENCE, verify=False, **more)
        if not path.startswith("/admin"):  # operators may see which hosts there are
            self.said.append(f"{answer.headers} {answer.text}")
        return answer


@pytest.fixture(scope="module")
def stage(_postgres_template: Any) -> Iterator[Stage]:
    upstreams = Upstreams()
    quoted = f'{{"error":{{"message":"bad key {SECRETS["provider"]}, you said {CANARY}","code":"{CANARY}"}}}}'.encode()
    headers = [f"set-cookie: a={SECRETS['cookie']}".encode(), f"x-secret: {CANARY}".encode()]
    upstreams.acts |= {
        "good": complete(ANSWER, b"200 OK", *headers),
        "refusing": complete(quoted, b"401 No", *headers),
        "quoting": complete(quoted, b"500 Oops", *headers),
        "broken": say(chunked(f"data: {CANARY}\n\n".encode())),
        "embedding": complete(b'{"data":[],"usage":{"prompt_tokens":1}}'),
    }
    redis = RedisServer("--maxmemory", "64mb", "--requirepass", SECRETS["redis"])
    postgres = PostgresServer(_postgres_template)
    with contextlib.closing(redis), contextlib.closing(postgres), Evil(upstreams) as evil:
        redis.start()
        postgres.start()
        environ = {
            "PROVIDER_KEY": SECRETS["provider"],
            "PERPETUO_METRICS_TOKEN": SECRETS["metrics"],
            "LOG_LEVEL": "debug",
        }
        with LiveGateway(
            config(evil.origin),
            redis_url=redis.url,
            database_url=postgres.url.replace("postgres@", f"postgres:{SECRETS['sql']}@"),
            environ=environ,
        ) as gateway:
            yield Stage(gateway, redis, postgres, [])


# --- every input ---------------------------------------------------------------------------------

HEADERS = {
    "cookie": SECRETS["cookie"],
    "proxy-authorization": f"Bearer {SECRETS['bearer']}",
    "openai-organization": CANARY,
    "user-agent": CANARY,
    "referer": f"https://{CANARY}/",
    "origin": f"https://{CANARY}",
    "x-forwarded-for": CANARY,
    "x-stainless-lang": CANARY,
    "prefer": f"wait=0; {CANARY}",
    "traceparent": CANARY,
    "accept-language": CANARY,
}
FUNCTION = {"name": CANARY, "description": CANARY, "parameters": {}}
CALL = {"id": CANARY, "type": "function", "function": {"name": "f", "arguments": CANARY}}
BODY: dict[str, Any] = {
    "max_tokens": 5,
    "messages": [
        HELLO,
        {"role": "user", "content": [{"type": "text", "text": CANARY}, {"type": "image_url", "image_url": IMAGE}]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": CANARY, "content": CANARY},
    ],
    "user": CANARY,
    "metadata": {CANARY: CANARY},
    "stop": [CANARY],
    "tools": [{"type": "function", "function": FUNCTION}],
    CANARY: CANARY,
}
ODD: list[dict[str, Any]] = [
    {"max_tokens": CANARY},
    {"messages": CANARY},
    {"stream": CANARY},
    {"n": CANARY},
    {"web_search_options": {CANARY: 1}},
]
CHAT = "/v1/chat/completions"


def calls(stage: Stage) -> None:
    """Good and bad ones, of every kind."""
    key = {"authorization": f"Bearer {KEY}"}
    good = {**BODY, "model": "good"}
    for model, stream in itertools.product(("good", "refusing", "quoting", "broken", CANARY), (False, True)):
        for more in ({}, {"x-idempotency-key": f"{CANARY}-{model}-{stream}"}):
            body = {**BODY, "model": model, "stream": stream}
            stage.ask("POST", CHAT, headers={**HEADERS, **key, **more}, json=body)
    stage.ask("POST", "/v1/embeddings", headers={**HEADERS, **key}, json={"model": "embedding", "input": [CANARY]})
    for who in (SECRETS["bearer"], f"sk-{CANARY}", CANARY):
        stage.ask("POST", CHAT, headers={"authorization": f"Bearer {who}"}, json=good)
        stage.ask("POST", CHAT, headers={"x-api-key": who, **key}, json=good)
    for odd in ODD:
        stage.ask("POST", CHAT, headers=key, json={**good, **odd})
    for text in (f'{{"model": "{CANARY}', f'{{"a":"{CANARY}","a":1}}', CANARY):
        stage.ask("POST", CHAT, headers=key, content=text)
    for header in ("x-perpetuo-tag", "x-request-timeout-ms", "content-encoding", "idempotency-key"):
        stage.ask("POST", CHAT, headers={**key, header: f"{CANARY} " * 30 + "."}, json=good)


def paths(stage: Stage) -> None:
    """Canaries in paths, queries, forms and raw bytes."""
    bearer, key = {"authorization": f"Bearer {SECRETS['bearer']}"}, {"authorization": f"Bearer {KEY}"}
    for path in (f"/v1/{CANARY}", f"/v1/models/{CANARY}", f"/v1/requests/{CANARY}", "/v1/models", f"/{CANARY}"):
        stage.ask("GET", f"{path}?api_key={SECRETS['bearer']}", headers=key)
    stage.ask("POST", "/admin/login", data={"key": SECRETS["bearer"], "next": f"//{CANARY}"})
    stage.ask("GET", "/admin", headers={"cookie": f"perpetuo_admin={SECRETS['cookie']}"})
    stage.ask("GET", "/admin/api/overview", headers=bearer)
    stage.ask("GET", "/metrics", headers=bearer)
    for raw in (f"{CANARY}\r\n\r\n", f"GET / HTTP/1.1\r\nhost: {CANARY}\r\n{CANARY}\r\n\r\n"):
        with (
            socket.create_connection(("127.0.0.1", stage.gateway.port), PATIENCE) as sock,
            contextlib.suppress(OSError),
        ):
            sock.sendall(raw.encode())
            sock.recv(65_536)


def outages(stage: Stage) -> None:
    """Both stores go away in the middle: whatever their drivers say of it."""
    headers, good = {"authorization": f"Bearer {KEY}", **HEADERS}, {**BODY, "model": "good"}
    for server in (stage.redis, stage.postgres):
        server.kill()
        for _ in range(3):
            stage.ask("POST", CHAT, headers=headers, json=good)
            stage.ask("GET", "/health/ready")
            stage.ask("GET", f"/v1/requests/{CANARY}", headers=headers)
            stage.ask("GET", "/admin/api/overview", headers={"authorization": f"Bearer {ADMIN_KEY}"})
        server.start()
        eventually(lambda: stage.ask("POST", CHAT, headers=headers, json=good).status_code == 200)
    right = stage.gateway.config_path.read_text()
    rotten = f"providers: [{{id: x, kind: demo, apiKey: {SECRETS['provider']}, apiKeys: {CANARY}}}]"
    stage.gateway.config_path.write_text(rotten)
    eventually(lambda: "config_rejected" in stage.gateway.log())
    stage.gateway.config_path.write_text(right)
    eventually(lambda: "config_accepted" in stage.gateway.log())


@pytest.fixture(scope="module")
def asked(stage: Stage) -> Stage:
    """Everything above has been said, and is written down as far as it will be."""
    for scene in (calls, paths, outages):
        scene(stage)
    body = {"model": "good", "max_tokens": 2, "messages": [HELLO]}
    last = stage.ask("POST", CHAT, headers={"authorization": f"Bearer {KEY}"}, json=body)
    query = f"select 1 from events where request_id = '{last.headers['x-request-id']}'"  # noqa: S608
    eventually(lambda: rows(stage.postgres.url, query))
    eventually(lambda: rows(stage.postgres.url, "select 1 from refusals where reason = 'invalid_api_key'"))
    return stage


# --- everything that rests or is shown -----------------------------------------------------------


def leaks(text: str) -> set[str]:
    """What stands around a canary or a key, wherever one is."""
    needles = [CANARY, KEY, OTHER_KEY, ADMIN_KEY, base64.b64encode(CANARY.encode()).decode()]
    return {found for needle in needles for found in re.findall(f".{{0,60}}{re.escape(needle)}.{{0,20}}", text)}


def tables(stage: Stage) -> str:
    names = [
        name for (name,) in rows(stage.postgres.url, "select tablename from pg_tables where schemaname = 'public'")
    ]
    return "\n".join(str(rows(stage.postgres.url, f'select t::text from "{name}" t')) for name in names)  # noqa: S608


def log(stage: Stage) -> str:
    return stage.gateway.log()


def metrics(stage: Stage) -> str:
    bearer = {"authorization": f"Bearer {SECRETS['metrics']}"}
    answer = httpx.get(stage.gateway.url + "/metrics", headers=bearer, timeout=2 * PATIENCE)
    assert answer.status_code == 200
    return answer.text


def pages(stage: Stage) -> str:
    """All of `/admin`, for people and for programs."""
    text = []
    with httpx.Client(base_url=stage.gateway.url, timeout=2 * PATIENCE, verify=False) as browser:
        assert browser.post("/admin/login", data={"key": ADMIN_KEY}).status_code == 303
        for page in ("", "/tenants", "/tenants/acme", "/tenants/third", "/events", "/refusals"):
            answer = browser.get("/admin" + page)
            assert answer.status_code == 200, page
            text.append(answer.text)
        bearer = {"authorization": f"Bearer {SECRETS['reader']}"}
        for name in ("overview", "system", "tenants", "tenants/acme", "providers", "events", "refusals"):
            answer = browser.get(f"/admin/api/{name}", headers=bearer)
            assert answer.status_code == 200, name
            text.append(answer.text)
    return "\n".join(text)


PLACES: dict[Callable[[Stage], str], str] = {
    tables: "acme",
    log: '"event":"call"',
    metrics: 'perpetuo_requests_total{model="good"',
    pages: "acme",
}
"""Where to look, and what has to be there, or nothing was looked at."""


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a5_no_canary_rests_in_tables_log_metrics_or_pages(asked: Stage, place: Callable[[Stage], str]) -> None:
    """Nothing of what clients or providers said, and no secret of the configuration."""
    text = place(asked)
    assert PLACES[place] in text
    assert leaks(text) == set()


def test_a5_redis_keeps_answers_and_nothing_else(asked: Stage) -> None:
    """Stored answers are the one place where output rests; prompts, keys and idempotency keys are nowhere."""
    with Redis.from_url(asked.redis.url) as client:
        found = {name: client.dump(name) for name in client.scan_iter("*")}
    assert len(found) > 10
    for name, value in found.items():
        assert CANARY.encode() not in name
        if b":idem:" not in name:
            assert CANARY.encode() not in value
        for secret in (*SECRETS.values(), KEY, "hello"):
            assert secret.encode() not in value


def test_s1_clients_see_no_secret_of_ours_and_no_header_of_the_providers(asked: Stage) -> None:
    """In no head and no body: not our keys, not the provider's cookie, not a traceback, not a host."""
    text = "\n".join(asked.said)
    for name in ("provider", "tenant", "metrics", "redis", "sql", "cookie", "reader"):
        assert SECRETS[name] not in text, name
    for never in ("Traceback", "x-secret", "set-cookie: a", "asyncpg", "127.0.0.1"):
        assert never not in text
