"""What an operator reads: what is wrong first, every page with a store away, nothing secret, nothing inline."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from perpetuo.adapters.memory.ledger import MemoryLedger
from tests.unit.admin.conftest import (
    ADMIN_KEY,
    CONFIG,
    HOSTILE,
    PROVIDER_KEY,
    READ_KEY,
    TENANT_KEY,
    Desk,
    Markup,
    open_desk,
)

pytestmark = pytest.mark.anyio
PAGES = (
    "/admin",
    "/admin/tenants",
    "/admin/tenants/acme",
    "/admin/events",
    "/admin/refusals",
    "/admin/providers",
    "/admin/providers/paid",
    "/admin/providers/paid/open",
    "/schema",
)
HEADERS = {
    "content-security-policy": "default-src 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


async def all_pages(desk: Desk) -> dict[str, httpx.Response]:
    """Every page there is, after some traffic."""
    await desk.sign_in()
    events = (await desk.api("events"))["items"]
    paths = [*PAGES, *(f"/admin/events/{event['id']}" for event in events), "/admin/login"]
    return {path: await desk.browser.get(path) for path in paths}


async def test_the_overview_says_at_once_what_is_wrong(desk: Desk) -> None:
    """An open breaker is the first thing there, with its time; then the page title counts it."""
    await desk.container.stores.breakers.force("paid", open_for_us=600_000_000)
    await desk.sign_in()
    page = await desk.page("/admin")
    assert "(1) Overview" in page
    alert = page.index("Provider paid gets no calls for")
    assert alert < page.index("<h2>Providers</h2>")
    paid = next(p for p in (await desk.api("providers"))["items"] if p["id"] == "paid")
    assert paid["breaker"]["state"] == "open"
    assert 300 <= paid["breaker"]["seconds_left"] <= 600
    assert paid["breaker"]["cause"] == "operator"


async def test_a_call_is_seen_with_its_decision(desk: Desk) -> None:
    """In the list within two seconds, and as facts: candidates, limits, hold and charge, attempts, time."""
    answer = await desk.call(**{"x-perpetuo-tag": "nightly"})
    await desk.sign_in()
    page = await desk.page("/admin/events?request_id=" + answer.headers["x-request-id"])
    (link,) = set(re.findall(r'href="(/admin/events/[0-9a-f-]{36})"', page))
    seen = await desk.page(link)
    for fact in (
        "demo/gpt-3.5-turbo", "Attempt 1", "nightly", "Requests a minute", "Held",
        f"${answer.headers['x-perpetuo-cost-usd']}",
        "Waiting for providers", "Budget of the day",
    ):  # fmt: skip
        assert fact in seen, fact
    rate, day = (await desk.api(link.removeprefix("/admin/")))["trace"]["limits"][:2]
    assert (rate["left"], rate["allowed"], day["allowed"]) == (99, 100, "1")
    api = await desk.api(link.removeprefix("/admin/"))
    assert api["cost_usd"] == answer.headers["x-perpetuo-cost-usd"]
    assert api["decision"]["budgets"][0]["limit_usd"] == "1"


async def test_a_failed_call_and_refusals_are_seen(desk: Desk) -> None:
    """What failed has its code; what was refused is there by the minute."""
    assert (await desk.call(model="nothing")).status_code == 404
    await desk.container.stores.breakers.force("paid", open_for_us=60_000_000)
    assert (await desk.call(model="away")).status_code == 503
    await desk.sign_in()
    page = await desk.page("/admin")
    assert "model_not_found" in page
    assert "1 calls were refused in the last 5 minutes: no_healthy_upstream." in page


async def test_a_tenants_budgets_are_seen_against_their_limits(desk: Desk) -> None:
    """Spent, held, left, and what a key has for itself."""
    cost = (await desk.call()).headers["x-perpetuo-cost-usd"]
    seen = await desk.api("tenants/acme")
    day = seen["budgets"][0]
    assert (day["period"], day["limit_usd"], day["spent_usd"], day["held_usd"]) == ("day", "1", cost, "0")
    assert seen["requests_last_minute"] == 1
    batch = next(key for key in seen["keys"] if key["name"] == "batch")
    assert batch["budgets"][0]["limit_usd"] == "0.5"
    await desk.sign_in()
    page = await desk.page("/admin/tenants/acme")
    assert f"${cost} spent" in page
    assert "batch" in page


async def test_what_comes_from_outside_is_shown_as_text(desk: Desk) -> None:
    """Markup in tenant ids, model names, request ids and searches."""
    await desk.call("sk-test-hostile-0123456789", HOSTILE)
    answers = await all_pages(desk)
    answers["search"] = await desk.browser.get("/admin/tenants", params={"q": HOSTILE})
    answers["filter"] = await desk.browser.get("/admin/events", params={"model": HOSTILE, "key_name": '"><script>'})
    answers["tenant"] = await desk.browser.get(f"/admin/tenants/{HOSTILE.replace(' ', '%20')}")
    answers["nowhere"] = await desk.browser.get("/admin/<script>alert(1)</script>")
    for path, answer in answers.items():
        assert answer.status_code == (404 if path == "nowhere" else 200), path
        assert all(source.startswith("/admin/static/") for source in Markup(answer.text).images), path
        assert "<script>" not in answer.text, path
    assert "&lt;img src=x" in answers["/admin"].text


async def test_s7_every_answer_has_the_policy_and_obeys_it(desk: Desk) -> None:
    """Pages, redirects, refusals, JSON; nothing inline, nothing from elsewhere."""
    await desk.call()
    answers = await all_pages(desk)
    for path in (
        "/admin/nowhere",
        "/admin/events/xyz",
        "/admin/tenants/none",
        "/admin/api/overview",
        "/admin/api/none",
    ):
        answers[path] = await desk.browser.get(path)
    answers["signed out"] = await desk.another().get("/admin")
    answers["wrong key"] = await desk.sign_in("wrong", desk.another())
    answers["json"] = await desk.ask("overview")
    for path, answer in answers.items():
        for name, value in HEADERS.items():
            assert value in answer.headers[name], (path, name)
        assert "unsafe" not in answer.headers["content-security-policy"]
        markup = Markup(answer.text if answer.headers["content-type"].startswith("text/html") else "")
        assert markup.inline == [], path
        assert [link for link in markup.links if not link.startswith(("/", "#"))] == [], path


async def test_static_files_are_served_and_have_the_policy(desk: Desk) -> None:
    """Under names that change with their content, so that they may be kept for ever."""
    page = (await desk.browser.get("/admin/login")).text
    links = [link for link in Markup(page).links if link.startswith("/admin/static/")]
    assert len(links) >= 2
    for link in links:
        answer = await desk.browser.get(link)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await desk.browser.get("/admin/static/../sessions.py")).status_code != 200
    assert (await desk.browser.get("/admin/static/%2e%2e/sessions.py")).status_code == 404


async def test_a5_no_page_shows_a_secret_or_a_prompt(desk: Desk) -> None:
    """Keys by name only, providers by host only."""
    await desk.call()
    await desk.sign_in("a-wrong-key-canary")
    answers = await all_pages(desk)
    texts = {path: answer.text for path, answer in answers.items()}
    for path in ("overview", "tenants/acme", "events", "refusals", "providers", "providers/paid", "system"):
        texts["api " + path] = (await desk.ask(path)).text
    digests = [key.digest.hex() for tenant in desk.container.settings.tenants.values() for key in tenant.keys]
    digests += [key.digest.hex() for key in desk.container.settings.admin_keys]
    canaries = [ADMIN_KEY, READ_KEY, TENANT_KEY, PROVIDER_KEY, "canary-prompt", "a-wrong-key-canary"]
    for path, text in texts.items():
        for secret in (*digests, *canaries):
            assert secret not in text, (path, secret)


async def test_every_page_works_with_the_event_table_away(blind_desk: Desk) -> None:
    """It says so where the rows would be; an action is done all the same."""
    await blind_desk.sign_in()
    for path in PAGES[:-1]:
        page = await blind_desk.page(path)
        if path not in {"/admin/tenants", "/admin/providers/paid/open"}:
            assert "Not known now." in page, path
    assert "PostgreSQL is away:" in await blind_desk.page("/admin")
    assert (await blind_desk.browser.get("/admin/events/01a20ad6-e788-7af0-8991-5886f6bcef03")).status_code == 503
    done = await blind_desk.ask("breaker", provider="paid", action="open", seconds=60)
    assert done.json()["recorded"] is False
    assert done.json()["everywhere"] is True
    assert blind_desk.container.stores.breakers.view("paid").phase.value == "open"


async def test_an_action_is_an_event_with_its_actor(desk: Desk) -> None:
    """Who, what, where from, what was before; among the calls, and not counted as one."""
    await desk.sign_in()
    order = {"provider": "paid", "action": "open", "seconds": "300", "token": await desk.token()}
    answer = await desk.browser.post("/admin/breaker", data=order)
    assert answer.status_code == 303
    page = await desk.page(answer.headers["location"])
    assert "The breaker of paid was opened on all workers." in page
    assert "PERPETUO_ADMIN_KEY opened the breaker of paid for 300 s" in page
    (event,) = (await desk.api("events"))["items"]
    assert (event["kind"], event["tenant"], event["model"], event["cost_usd"]) == ("admin", "", "", "0")
    assert event["request_id"] == answer.headers["x-request-id"]
    closed = await desk.ask("breaker", provider="paid", action="close")
    assert closed.json() == {
        "message": "The breaker of paid was closed on all workers.", "everywhere": True, "recorded": True,
    }  # fmt: skip
    newest = (await desk.api("events"))["items"][0]
    seen = await desk.page(f"/admin/events/{newest['id']}")
    assert "closed the breaker of paid" in seen
    assert "open" in (await desk.api(f"events/{newest['id']}"))["decision"]["before"]


@pytest.mark.parametrize(
    "order",
    [
        {"provider": "paid", "action": "open"},
        {"provider": "paid", "action": "open", "seconds": 0},
        {"provider": "paid", "action": "open", "seconds": 86_401},
        {"provider": "paid", "action": "open", "seconds": "1e3"},
        {"provider": "paid", "action": "explode"},
        {"provider": ["paid"], "action": "close"},
        {"provider": "nobody", "action": "close"},
    ],
)
async def test_an_order_that_can_not_be_meant_is_refused(still_desk: Desk, order: dict[str, object]) -> None:
    """In the envelope, with nothing done."""
    answer = await still_desk.ask("breaker", **order)
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["source"] == "gateway"
    assert (await still_desk.api("events"))["items"] == []


async def test_what_can_not_be_meant_in_an_address_is_no_error(desk: Desk) -> None:
    """Garbage in filters, pages and ids."""
    await desk.sign_in()
    for path in ("/admin/events?before=x&status=abc&outcome=%00", "/admin/tenants?page=99", "/admin/tenants?page=-1"):
        assert (await desk.browser.get(path)).status_code == 200, path
    for path in (
        "/admin/events/x",
        "/admin/events/ffffffff-ffff-ffff-ffff-ffffffffffff",
        "/admin/tenants/none",
        "/admin/x/y",
    ):
        assert (await desk.browser.get(path)).status_code == 404, path
    assert (await desk.browser.get("/admin/tenants?page=x")).status_code == 400
    assert (await desk.ask("events/x")).status_code == 404
    assert (await desk.ask("none")).json()["error"]["code"] == "not_found"
    answer = await desk.another().post(
        "/admin/api/breaker", headers={"authorization": f"Bearer {ADMIN_KEY}"}, content=b"[1]"
    )
    assert answer.status_code == 400


async def test_events_are_paged_by_id(desk: Desk) -> None:
    """Each once, newest first."""
    for _ in range(52):
        await desk.call()
    first = await desk.api("events")
    second = await desk.api(f"events?before={first['next']}")
    ids = [event["id"] for event in (*first["items"], *second["items"])]
    assert len(ids) == 52
    assert ids == sorted(set(ids), reverse=True)
    assert second["next"] is None
    await desk.sign_in()
    assert f"before={first['next']}" in await desk.page("/admin/events?model=m")


@pytest.fixture
def crowd(environ: dict[str, str]) -> dict[str, str]:
    """10,000 tenants more."""
    line = "  - {{id: customer-{0:05d}, plan: pro, apiKeys: [sk-customer-key-{0:05d}-0123456789]}}"
    many = "\n".join(map(line.format, range(10_000)))
    Path(environ["PERPETUO_CONFIG_PATH"]).write_text(CONFIG.replace("tenants:\n", f"tenants:\n{many}\n"))
    return environ


@pytest.fixture
async def crowded(crowd: dict[str, str]) -> AsyncIterator[Desk]:
    made = await open_desk(crowd)
    yield made
    await made.close()


async def test_ten_thousand_tenants_are_paged_and_searched(crowded: Desk) -> None:
    """Only the tenants of a page are asked for."""
    asked = CountedLedger(crowded.container.ledger)
    found = await crowded.api("tenants?q=CUSTOMER-099")
    assert (found["total"], found["pages"], len(found["items"])) == (100, 2, 50)
    assert (await crowded.api("tenants?q=customer-099&page=2"))["items"][-1]["id"] == "customer-09999"
    await crowded.api("overview")
    assert asked.reads < 120
    await crowded.sign_in()
    assert "All 10,002 tenants" in await crowded.page("/admin")


class CountedLedger:
    """Counts what is read of a ledger."""

    def __init__(self, ledger: object) -> None:
        assert isinstance(ledger, MemoryLedger)
        self.reads = 0
        read = ledger.read_budgets

        async def counted(*arguments: object) -> object:
            self.reads += 1
            return await read(*arguments)  # type: ignore[arg-type]

        ledger.read_budgets = counted  # type: ignore[assignment, method-assign]


async def test_a_broken_configuration_is_told_with_its_problems(desk: Desk) -> None:
    """The one in force stays, and the page says since when."""
    path = desk.container.environment.config_path
    path.write_text(path.read_text().replace("plan: pro", "plan: por"))
    await desk.container.reload()
    await desk.sign_in()
    page = await desk.page("/admin")
    assert page.count("The configuration file is not valid") == 1
    assert page.count("por is not") + page.count(": por") == 1, "once, where it is live, with the first problem"
    assert 'href="/admin/system#configuration"' in page
    seen = {"/schema": 200, "/admin/nowhere": 404, "/admin/tenants/none": 404, "/admin/breaker": 200}
    for place, status in seen.items():
        answer = await desk.browser.get(place, follow_redirects=True)
        assert answer.status_code == status
        assert "The configuration file is not valid" in answer.text, place
    assert (await desk.page("/admin/banner")).count("The configuration file is not valid") == 1
    assert (await desk.another().get("/admin/banner")).status_code == 303
    for place in ("/schema", "/admin/login"):
        assert "The configuration file is not valid" not in (await desk.another().get(place)).text
    assert (await desk.api("system"))["config"]["problems"]
    path.write_text(path.read_text().replace("plan: por", "plan: pro"))
    await desk.container.reload()
    assert not (await desk.page("/admin/banner")).strip()


async def test_a_defect_is_a_page_without_a_traceback(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And 503; the log has where."""
    monkeypatch.setattr(desk.container.stores.breakers, "all_views", lambda: 1 / 0)
    await desk.sign_in()
    answer = await desk.browser.get("/admin")
    assert answer.status_code == 503
    assert "Traceback" not in answer.text
    assert "division" not in answer.text
    assert "content-security-policy" in answer.headers


async def test_a_worker_that_drains_says_so(desk: Desk) -> None:
    """For the operator who happens to reach it."""
    desk.container.stage = "draining"
    await desk.sign_in()
    assert "This worker is draining." in await desk.page("/admin")
