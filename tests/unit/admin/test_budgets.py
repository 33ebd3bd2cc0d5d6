"""Can an operator raise and adjust budgets, by JSON and by form, and is everything else refused with a reason?"""

import re
from typing import Any

import pytest

from perpetuo.adapters.system import RealSystem
from tests.unit.admin.conftest import HOSTILE, READ_KEY, TENANT_KEY, Desk

pytestmark = pytest.mark.anyio
RAISE = {"tenant": "acme", "usd": "20", "until": "midnight"}
ADJUST = {"tenant": "acme", "usd": "3", "reason": "an invoice"}


async def day_budget(desk: Desk) -> dict[str, Any]:
    """What the key itself is told."""
    answer = await desk.another().get("/v1/key", headers={"authorization": f"Bearer {TENANT_KEY}"})
    found: dict[str, Any] = answer.json()["budgets"][0]
    return found


async def order(desk: Desk, path: str, /, **fields: Any) -> dict[str, Any]:
    answer = await desk.ask(f"budget/{path}", **fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_b1_a_raise_lets_calls_through_until_it_ends(desk: Desk) -> None:
    """The budget of 1 USD is used up; raised, the next call passes; ended, it is refused again. The key is told."""
    await order(desk, "adjust", **ADJUST)
    assert (await desk.call()).status_code == 403
    made = await order(desk, "raise", **RAISE, reason="a launch")
    assert (made["usd"], made["window"], made["repeated"]) == ("20", "day", False)
    told = await day_budget(desk)
    assert (told["limit_usd"], told["raised_usd"], told["raised_until"]) == ("21", "20", made["until"])
    assert (await desk.call()).status_code == 200
    (listed,) = (await desk.api("budget/raises"))["items"]
    assert (listed["id"], listed["actor"], listed["reason"]) == (made["id"], "PERPETUO_ADMIN_KEY", "a launch")
    await order(desk, "end", **{"raise": made["id"]})
    assert (await desk.api("budget/raises"))["items"] == []
    assert (await desk.call()).status_code == 403
    assert (await day_budget(desk))["raised_usd"] is None


async def test_each_is_an_event_with_who_and_why(desk: Desk) -> None:
    """In the tenant's list; the adjustment's cost is the adjustment, so that the sums agree."""
    made = await order(desk, "raise", **RAISE, reason="a launch")
    await order(desk, "end", **{"raise": made["id"]})
    await order(desk, "adjust", **ADJUST)
    await desk.written()
    events = (await desk.api("events?tenant_id=acme"))["items"]
    assert [(e["actor"], e["action"], e["cost_usd"]) for e in events] == [
        ("PERPETUO_ADMIN_KEY", "adjusted what acme spent by 3 USD: an invoice", "3"),
        ("PERPETUO_ADMIN_KEY", "ended the raise of the day budget of acme by 20 USD", "0"),
        ("PERPETUO_ADMIN_KEY", "raised the day budget of acme by 20 USD: a launch", "0"),
    ]


async def test_a1_by_its_id_each_is_done_once(desk: Desk) -> None:
    """A lost reply, asked again; also when the ledger has forgotten, since the event table knows."""
    name = RealSystem().new_id()
    first = await order(desk, "adjust", **ADJUST, id=name)
    assert [b["spent_usd"] for b in first["budgets"]] == ["3", "3"]
    assert (await order(desk, "adjust", **ADJUST, id=name))["repeated"]
    await desk.written()
    desk.container.ledger._calls.clear()  # type: ignore[attr-defined]
    again = await order(desk, "adjust", **ADJUST, id=name)
    assert again["repeated"]
    assert again["message"].startswith("It had been done before")
    other = await desk.ask("budget/adjust", **{**ADJUST, "usd": "4"}, id=name)
    assert (other.status_code, other.json()["error"]["param"]) == (400, "id")
    assert (await day_budget(desk))["used_usd"] == "3"
    name = RealSystem().new_id()
    assert not (await order(desk, "raise", **RAISE, id=name))["repeated"]
    assert (await order(desk, "raise", **RAISE, id=name))["repeated"]
    assert (await day_budget(desk))["raised_usd"] == "20"


async def test_a_key_s_budget_is_raised_alone(desk: Desk) -> None:
    """The tenant's stays; adjusting a key adjusts its tenant with it."""
    await order(desk, "raise", **RAISE, key="batch")
    await order(desk, "adjust", **ADJUST, key="batch")
    facts = await desk.api("tenants/acme")
    batch = next(key for key in facts["keys"] if key["name"] == "batch")
    assert [b["limit_usd"] for b in facts["budgets"]] == ["1", "10"]
    assert [b["spent_usd"] for b in facts["budgets"]] == ["3", "3"]
    assert [(b["limit_usd"], b["raised_usd"], b["spent_usd"]) for b in batch["budgets"]] == [
        ("20.5", "20", "3"), (None, None, "3"),
    ]  # fmt: skip


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown tenant": ("raise", {**RAISE, "tenant": "nobody"}, "has no tenant nobody"),
    "unknown key": ("raise", {**RAISE, "key": "x"}, "its keys: "),
    "no amount": ("raise", {"tenant": "acme", "until": "2h"}, "`usd` is an amount"),
    "a float": ("raise", {**RAISE, "usd": 12.5}, "`usd` is an amount"),
    "too fine": ("raise", {**RAISE, "usd": "0.0000000001"}, "at most 9 decimals"),
    "an exponent": ("raise", {**RAISE, "usd": "1e99999999"}, "`usd` is an amount"),
    "below zero": ("raise", {**RAISE, "usd": "-5"}, "must be above 0"),
    "too much": ("raise", {**RAISE, "usd": "1000001"}, "at most 1000000 USD"),
    "no until": ("raise", {"tenant": "acme", "usd": "1"}, "`until` is `midnight`"),
    "a bad until": ("raise", {**RAISE, "until": "tomorrow"}, "it is tomorrow"),
    "in the past": ("raise", {**RAISE, "until": "2020-01-01"}, "ends in the future"),
    "too far": ("raise", {**RAISE, "until": "32d"}, "within 31 days"),
    "year 9999": ("raise", {**RAISE, "until": "9999-12-31T23:59:59-12:00"}, "within 31 days"),
    "a window": ("raise", {**RAISE, "window": "week"}, "`window` is `day` or `month`"),
    "no limit there": ("raise", {**RAISE, "key": "batch", "window": "month"}, "Its budget is by the day"),
    "no JSON text": ("raise", {**RAISE, "reason": 5}, "`reason` must be text"),
    "a long reason": ("raise", {**RAISE, "reason": "x" * 201}, "at most 200"),
    "a second line": ("raise", {**RAISE, "reason": "a\nb"}, "one line"),
    "a NUL": ("raise", {**RAISE, "reason": "a\0b"}, "one line"),
    "an odd id": ("raise", {**RAISE, "id": "1"}, "UUIDv7"),
    "an old id": ("raise", {**RAISE, "id": "01890000-0000-7000-8000-000000000000"}, "within the last hour"),
    "a field": ("raise", {**RAISE, "amount": "1"}, "is not known here"),
    "no such raise": ("end", {"raise": "x"}, "There is no raise x"),
    "no reason": ("adjust", {"tenant": "acme", "usd": "1"}, "needs a `reason`"),
    "nothing": ("adjust", {**ADJUST, "usd": "0"}, "must not be 0"),
    "more than there is": ("adjust", {**ADJUST, "usd": "-0.5"}, "0 USD was spent there"),
    "a day to come": ("adjust", {**ADJUST, "day": "2999-01-01"}, "must be a date from"),
    "a day long ago": ("adjust", {**ADJUST, "day": "2020-01-01"}, "must be a date from"),
    "no day": ("adjust", {**ADJUST, "day": "yesterday!"}, "must be a date from"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_makes_no_sense_is_refused_with_a_reason(still_desk: Desk, case: str) -> None:
    """The value seen, what is allowed, and nothing is changed."""
    path, fields, said = WRONG[case]
    answer = await still_desk.ask(f"budget/{path}", **fields)
    assert answer.status_code in {400, 404}, answer.text
    assert said in answer.json()["error"]["message"]
    assert (await still_desk.api("budget/raises"))["items"] == []
    assert (await day_budget(still_desk))["used_usd"] == "0"


async def test_who_only_reads_changes_nothing(desk: Desk) -> None:
    """By JSON and by form; the page offers no form then."""
    for path, fields in (("raise", RAISE), ("end", {"raise": "x"}), ("adjust", ADJUST)):
        headers = {"authorization": f"Bearer {READ_KEY}"}
        answer = await desk.another().post(f"/admin/api/budget/{path}", headers=headers, json=fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only_key")
    await desk.sign_in(READ_KEY)
    page = await desk.page("/admin/tenants/acme")
    assert "/admin/budget/" not in page
    answer = await desk.browser.post("/admin/budget/raise", data={**RAISE, "token": await desk.token()})
    assert answer.status_code == 403
    assert (await desk.api("budget/raises", READ_KEY))["items"] == []


async def test_a_form_is_confirmed_and_then_done(desk: Desk) -> None:
    """The page says what it means, with the limit before and after; sent twice, it is done once."""
    await desk.sign_in()
    asked = await desk.browser.post("/admin/budget/raise", data={**RAISE, "token": await desk.token()})
    assert asked.status_code == 200
    assert "Its limit is then 21 USD instead of 1 USD" in asked.text
    assert (await desk.api("budget/raises"))["items"] == []
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', asked.text.split("<main", 1)[1]))
    done = await desk.browser.post("/admin/budget/raise", data=fields)
    assert (done.status_code, done.headers["location"]) == (303, "/admin/tenants/acme?done=raise")
    again = await desk.browser.post("/admin/budget/raise", data=fields)
    assert again.headers["location"] == "/admin/tenants/acme?done=again"
    page = await desk.page(done.headers["location"])
    assert "The budget is raised." in page
    assert "raised by $20" in page


async def test_a_wrong_form_comes_back_with_what_was_typed(desk: Desk) -> None:
    """The problem is said, the field marked, the text escaped; an unknown tenant has no form to come back to."""
    await desk.sign_in()
    token = await desk.token()
    typed = {**RAISE, "usd": HOSTILE, "token": token}
    answer = await desk.browser.post("/admin/budget/raise", data=typed)
    assert answer.status_code == 400
    assert "“By how many USD” is an amount such as 20 or -12.50, with at most 9 decimals; it is" in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert HOSTILE not in answer.text
    for path, wrong in (("raise", {**RAISE, "usd": "-5"}), ("adjust", {**ADJUST, "day": "2999-01-01"})):
        answer = await desk.browser.post(f"/admin/budget/{path}", data={**wrong, "token": token})
        assert (answer.status_code, "confirmed" in answer.text) == (400, False), "asks to confirm what can't be done"
    answer = await desk.browser.post("/admin/budget/adjust", data={**ADJUST, "tenant": "nobody", "token": token})
    assert answer.status_code == 404


async def test_s7_a_form_without_its_token_does_nothing(desk: Desk) -> None:
    """Neither asked nor done."""
    await desk.sign_in()
    for path, fields in (("raise", RAISE), ("adjust", ADJUST), ("end", {"raise": "x"})):
        answer = await desk.browser.post(f"/admin/budget/{path}", data={**fields, "confirmed": "yes"})
        assert answer.status_code == 403
    assert (await desk.api("budget/raises"))["items"] == []


async def test_what_was_spent_can_t_be_adjusted_blindly(blind_desk: Desk) -> None:
    """SQL is away: it could not say whether it was done before, so nothing is; a raise is made all the same."""
    answer = await blind_desk.ask("budget/adjust", **ADJUST)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert (await blind_desk.ask("budget/raise", **RAISE)).status_code == 200
