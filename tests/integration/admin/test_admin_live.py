"""The dashboard over two workers on a real Redis and PostgreSQL, and with each of them gone."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.live import ADMIN_KEY, LiveGateway, config_text, eventually, rows
from tests.servers import PostgresServer, RedisServer

CONFIG = config_text(
    providers="""  - {id: demo, kind: demo}
  - {id: dead, kind: openai, baseUrl: "http://127.0.0.1:9/v1", apiKey: sk-dead, breaker: {openFor: 600s}}""",
    models="""  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}]}
  - {name: dead, free: true, targets: [{provider: dead, model: x}]}""",
    limits="{rateLimitMin: 100, budgetDay: 50, concurrency: 10}",
)
BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture(scope="module")
def gateway(redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here, workers=2) as running:
        yield running


def browser(gateway: LiveGateway) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, timeout=60, verify=False)


def signed_in(gateway: LiveGateway) -> httpx.Client:
    made = browser(gateway)
    assert made.post("/admin/login", data={"key": ADMIN_KEY}).status_code == 303
    return made


def ask(gateway: LiveGateway, path: str, **order: object) -> httpx.Response:
    """``/admin/api`` over a connection of its own, so that any worker may answer."""
    url = f"{gateway.url}/admin/api/{path}"
    if order:
        return httpx.post(url, headers=BEARER, json=order, timeout=60, verify=False)
    return httpx.get(url, headers=BEARER, timeout=60, verify=False)


def breaker_states(gateway: LiveGateway) -> set[str]:
    """What the breaker of ``dead`` is to whichever workers answer ten times."""
    found = set()
    for _ in range(10):
        items = ask(gateway, "providers").json()["items"]
        found |= {one["breaker"]["state"] for one in items if one["id"] == "dead"}
    return found


def test_s7_a_session_is_good_at_every_worker(gateway: LiveGateway) -> None:
    """Signed in at one, believed by all; over fresh connections."""
    cookie = signed_in(gateway).cookies.get("perpetuo_admin", path="/admin")
    statuses = {
        httpx.get(
            gateway.url + "/admin", headers={"cookie": f"perpetuo_admin={cookie}"}, timeout=60, verify=False
        ).status_code
        for _ in range(12)
    }
    assert statuses == {200}


def test_the_overview_shows_traffic_of_all_workers(gateway: LiveGateway) -> None:
    """Calls, refusals, tenants against limits, both workers, an opened breaker as the first thing."""
    assert {gateway.chat(max_tokens=5).status_code for _ in range(10)} == {200}
    eventually(lambda: gateway.chat(model="dead").status_code == 503)  # each worker counts failures for itself
    seen = eventually(
        lambda: (
            (found := ask(gateway, "overview").json())["refusals"]["items"]
            and len(found["system"]["workers"]["items"]) == 2
            and found["alerts"]
            and found
        )
    )
    workers = seen["system"]["workers"]
    assert (workers["running"], workers["configured"]) == (2, 2)
    assert [(one["worker"], one["same_as_this"]) for one in workers["items"]] == [(1, True), (2, True)]
    assert seen["alerts"][0]["level"] == "bad"
    assert "Provider dead gets no calls" in seen["alerts"][0]["text"]
    acme = next(tenant for tenant in seen["tenants"]["items"] if tenant["id"] == "acme")
    assert acme["requests_last_minute"] >= 10
    assert {event["model"] for event in seen["events"]["items"]} == {"m", "dead"}
    page = signed_in(gateway).get("/admin")
    assert page.status_code == 200
    assert page.text.index("Provider dead gets no calls") < page.text.index("<h2>Providers</h2>")


def test_c4_the_button_opens_and_closes_a_breaker_on_all_workers(gateway: LiveGateway, database_here: str) -> None:
    """Within half a second, by form and by JSON; each time one row says who it was."""
    operator = signed_in(gateway)
    token = re.search(r'name="token" value="(\w+)"', operator.get("/admin").text)
    assert token
    order = {"provider": "dead", "action": "open", "seconds": "600", "token": token.group(1)}
    assert operator.post("/admin/breaker", data=order).status_code == 303
    eventually(lambda: breaker_states(gateway) == {"open"})
    refused = gateway.chat(model="dead")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_healthy_upstream")
    assert ask(gateway, "breaker", provider="dead", action="close").json()["everywhere"] is True
    eventually(lambda: breaker_states(gateway) == {"closed"})
    found = rows(
        database_here,
        "select kind, tenant_id, key_name, provider, decision->>'action' from events where kind = 'admin' order by id",
    )
    assert [tuple(row) for row in found] == [
        ("admin", "", "PERPETUO_ADMIN_KEY", "dead", "breaker_open"),
        ("admin", "", "PERPETUO_ADMIN_KEY", "dead", "breaker_close"),
    ]


def test_what_was_done_through_one_worker_is_shown_at_once_by_all(gateway: LiveGateway) -> None:
    """Each answer comes from whichever worker took the connection; none shows what was before."""
    for n in range(1, 11):
        for action, state in (("open", "open"), ("close", "closed")):
            assert ask(gateway, "breaker", provider="dead", action=action, seconds=600).status_code == 200
            assert {ask(gateway, "providers/dead").json()["breaker"]["state"] for _ in range(2)} == {state}
        order = {"tenant": "acme", "usd": "1", "until": "1h", "reason": "a test"}
        assert ask(gateway, "budget/raise", **order).status_code == 200
        shown = ask(gateway, "tenants/acme").json()
        assert (len(shown["raises"]), shown["budgets"][0]["limit_usd"]) == (n, str(50 + n))
        assert len(ask(gateway, "budget/raises").json()["items"]) == n


def test_s7_wrong_keys_are_counted_over_all_workers(gateway: LiveGateway) -> None:
    """Five, whichever worker is asked; whoever signs in from here after it has to wait."""
    statuses = [
        httpx.post(gateway.url + "/admin/login", data={"key": "wrong"}, timeout=60, verify=False).status_code
        for _ in range(8)
    ]
    assert statuses == [401] * 5 + [429] * 3
    assert ask(gateway, "system").status_code == 200


PAGES = ("/admin", "/admin/tenants", "/admin/tenants/acme", "/admin/events", "/admin/refusals", "/admin/login")


def test_pages_and_signing_in_work_with_redis_away(
    new_redis_server: Callable[..., RedisServer], postgres_url: str
) -> None:
    """They say so where the figures would be; a forced breaker holds for one worker, and says that."""
    redis = new_redis_server()
    with LiveGateway(CONFIG, redis_url=redis.url, database_url=postgres_url, workers=2) as gateway:
        assert gateway.chat(max_tokens=5).status_code == 200
        eventually(lambda: rows(postgres_url, "select 1 from events"))
        redis.kill()
        operator = signed_in(gateway)
        for path in PAGES:
            answer = operator.get(path)
            assert answer.status_code == 200, (path, answer.text)
        assert "Redis is away:" in operator.get("/admin").text
        assert "Not known now." in operator.get("/admin/tenants/acme").text
        assert ask(gateway, "events").json()["items"], "events come from PostgreSQL, which is there"
        done = ask(gateway, "breaker", provider="dead", action="open", seconds=60).json()
        assert done["everywhere"] is False
        assert "one worker only" in done["message"]
        statuses = [operator.post("/admin/login", data={"key": "wrong"}).status_code for _ in range(6)]
        assert statuses == [401] * 5 + [429]  # one connection, one worker: each counts for itself


def test_pages_work_with_postgres_away(redis_url: str, new_postgres_server: Callable[[], PostgresServer]) -> None:
    """They say so where the rows would be; an action is done, on all workers, and logged."""
    postgres = new_postgres_server()
    with LiveGateway(CONFIG, redis_url=redis_url, database_url=postgres.url, workers=2) as gateway:
        assert gateway.chat(max_tokens=5).status_code == 200
        postgres.kill()
        operator = signed_in(gateway)
        for path in PAGES:
            answer = operator.get(path)
            assert answer.status_code == 200, (path, answer.text)
        assert "Not known now." in operator.get("/admin/events").text
        assert ask(gateway, "tenants/acme").json()["requests_last_minute"] == 1
        done = ask(gateway, "breaker", provider="dead", action="open", seconds=60).json()
        assert (done["everywhere"], done["recorded"]) == (True, False)
        eventually(lambda: '"event":"admin_action"' in gateway.log())
        eventually(lambda: breaker_states(gateway) == {"open"})
