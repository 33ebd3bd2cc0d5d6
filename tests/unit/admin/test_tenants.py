"""What an operator sees of tenants: who is near a limit, and what one of them did in the last day."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.admin.conftest import CONFIG, HOSTILE, READ_KEY, TENANT_KEY, Desk, Markup, open_desk, settings_for

pytestmark = pytest.mark.anyio
SPENDER = "sk-test-spender-0123456789"


@pytest.fixture
async def desk(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[Desk]:
    """With a tenant that is near its limit of calls, and one without any."""
    more = f"""
  - {{id: zz-near, plan: pro, limits: {{rateLimitMin: 2}}, apiKeys: ["{SPENDER}"]}}
  - {{id: aa-idle, plan: pro, apiKeys: ["sk-test-idle-0123456789"]}}
"""
    config = CONFIG.replace("admin:\n", f"{more.lstrip(chr(10))}admin:\n")
    made = await open_desk(environ | settings_for(tmp_path, config=config))
    yield made
    await made.close()


async def ids(desk: Desk, query: str = "") -> list[str]:
    return [one["id"] for one in (await desk.api(f"tenants{query}"))["items"]]


async def test_tenants_near_a_limit_stand_first(desk: Desk) -> None:
    """Whatever the limit is; those who use nothing stand behind by id."""
    assert await ids(desk) == [HOSTILE, "aa-idle", "acme", "zz-near"]
    await desk.call(SPENDER)
    assert await ids(desk) == ["zz-near", HOSTILE, "aa-idle", "acme"]
    first = (await desk.api("tenants"))["items"][0]
    assert first["nearest"] == {"limit": "rate_per_minute", "key": None, "percent": 50.0}
    assert await ids(desk, "?sort=id") == [HOSTILE, "aa-idle", "acme", "zz-near"]
    assert await ids(desk, "?q=a") == ["zz-near", HOSTILE, "aa-idle", "acme"]


@pytest.mark.parametrize("path", ["", "/tenants", "/tenants?sort=id", "/tenants/acme", "/tenants/acme?done=raise"])
async def test_raises_of_others_are_looked_for_once_an_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Each look is 16 commands to Redis; what one answer says of raises is of the same look."""
    looks: list[str] = []

    async def refresh() -> None:
        looks.append(path)

    monkeypatch.setattr(desk.container.stores.raises, "refresh", refresh)
    await desk.sign_in()
    await desk.page(f"/admin{path}")
    assert looks == [path]
    await desk.api(path.lstrip("/") or "overview")
    assert looks == [path] * 2


async def test_a_limit_of_a_key_counts_as_its_tenants(desk: Desk) -> None:
    """And the page says whose it is."""
    order = {"tenant": "acme", "key": "batch", "usd": "0.45", "reason": "a correction"}
    assert (await desk.ask("budget/adjust", **order)).status_code == 200
    first = (await desk.api("tenants"))["items"][0]
    assert (first["id"], first["nearest"]) == ("acme", {"limit": "budget_day", "key": "batch", "percent": 90.0})
    await desk.sign_in()
    assert "day budget of the key batch" in re.sub(r"<[^>]+>|\s+", " ", await desk.page("/admin/tenants"))


async def test_an_order_that_is_not_known_is_an_error_for_scripts_and_nothing_for_people(desk: Desk) -> None:
    """The page shows its usual order."""
    answer = await desk.ask("tenants?sort=size")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "sort")
    assert "near, id" in answer.json()["error"]["message"]
    await desk.sign_in()
    assert 'value="near" selected' in await desk.page("/admin/tenants?sort=size")


async def test_a_tenants_page_tells_its_day(desk: Desk) -> None:
    """By the hour, by model and by key, in tokens and in money; sums are those of its events."""
    for _ in range(2):
        await desk.call(TENANT_KEY)
    await desk.call(TENANT_KEY, model=HOSTILE)
    await desk.call(TENANT_KEY, model="nowhere")
    events = [one for one in (await desk.api("events?tenant_id=acme"))["items"] if one["kind"] == "chat"]
    told = (await desk.api("tenants/acme"))["usage"]
    assert told["total"]["calls"] == len(events) == 3
    assert len(told["hours"]) == 24
    assert sum(hour["calls"] for hour in told["hours"]) == 3
    assert {one["name"]: one["calls"] for one in told["models"]["items"]} == {"m": 2, HOSTILE: 1}
    assert [(one["name"], one["calls"]) for one in told["keys"]["items"]] == [("key-1", 3)]
    assert told["keys"]["items"][0]["cost_usd"] == told["total"]["cost_usd"]
    assert sum(one["input_tokens"] for one in told["models"]["items"]) == told["total"]["input_tokens"] > 0


async def test_the_day_is_a_chart_and_a_table(desk: Desk) -> None:
    """Nothing inline, names are text, and whoever sees no chart has the table."""
    await desk.call(TENANT_KEY, model=HOSTILE)
    await desk.sign_in(READ_KEY)
    page = await desk.page("/admin/tenants/acme")
    assert Markup(page).inline == []
    assert HOSTILE not in page
    table = page.partition('id="steps"')[2].partition("</table>")[0]
    assert table.count("<tr>") == 25
    assert page.count("data-chart=") == 2


async def test_without_sql_the_rest_of_a_tenant_is_shown(blind_desk: Desk) -> None:
    """Its day is not known; its limits are."""
    told = await blind_desk.api("tenants/acme")
    assert told["usage"]["unavailable"]
    assert told["usage"]["models"] is None
    assert told["nearest"]["percent"] == 0.0
    await blind_desk.sign_in()
    assert "Not known now" in await blind_desk.page("/admin/tenants/acme")
