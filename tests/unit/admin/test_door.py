"""S7: who gets in, how, and how often one may try."""

import re

import httpx
import pytest

from perpetuo.entrypoints.http.admin.sessions import SESSION_SECONDS, Sessions, keys_of, secret_of
from perpetuo.entrypoints.http.admin.signing import KEPT_SECONDS
from tests.unit.admin.conftest import ADMIN_KEY, READ_KEY, TENANT_KEY, Desk

pytestmark = pytest.mark.anyio


async def test_s7_the_session_cookie_is_closed_to_scripts_and_other_sites(desk: Desk) -> None:
    """HttpOnly, SameSite=Strict, never sent with calls; Secure but on loopback, where a browser would not keep it."""
    answer = await desk.sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin")
    for cookie, path in zip(answer.headers.get_list("set-cookie"), ("/admin", "/schema"), strict=True):
        parts = cookie.lower().split("; ")
        assert {"httponly", "samesite=strict", f"max-age={KEPT_SECONDS}", f"path={path}"} < set(parts)
        assert "secure" not in parts
    assert "Everything works." in await desk.page("/admin")


@pytest.mark.parametrize(
    ("base", "headers"),
    [
        ("https://gw.example", {}),
        ("http://10.0.0.5:3000", {}),
        ("http://127.0.0.1:3000", {"x-forwarded-proto": "https"}),
    ],
)
async def test_s7_the_cookie_is_secure_off_loopback(desk: Desk, base: str, headers: dict[str, str]) -> None:
    """Also behind a proxy that asks under a name of its own."""
    browser = desk.another(base)
    answer = await browser.post("/admin/login", data={"key": ADMIN_KEY, "next": "/admin/events"}, headers=headers)
    assert "secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["location"] == "/admin/login?why=not_kept&next=%2Fadmin%2Fevents"


async def test_s7_a_browser_that_keeps_no_cookie_is_told_why(desk: Desk) -> None:
    """Plain HTTP from afar: a sentence instead of the same question again; with HTTPS on to the page."""
    path = "/admin/login?why=not_kept&next=%2Fadmin%2Fevents"
    assert "did not keep the session" in (await desk.another("http://10.0.0.5").get(path)).text
    kept = desk.another("https://gw.example")
    await desk.sign_in(browser=kept)
    assert (await kept.get(path)).headers["location"] == "/admin/events"


async def test_s7_without_a_session_every_page_leads_to_the_sign_in_page(desk: Desk) -> None:
    """And back to where one wanted to go."""
    answer = await desk.another().get("/admin/events?status=502")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/admin/login?why=none&next=%2Fadmin%2Fevents%3Fstatus%3D502"
    page = (await desk.another().get(answer.headers["location"])).text
    assert 'name="next" value="/admin/events?status=502"' in page


async def test_s7_a_part_of_a_page_without_a_session_sends_the_whole_page_to_sign_in(desk: Desk) -> None:
    """And back to the page that was open, not to the part; an address elsewhere is not followed."""
    headers = {"hx-request": "true", "hx-current-url": "http://127.0.0.1:3000/admin/events?status=502"}
    answer = await desk.another().get("/admin/events?part=rows", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/admin/login?why=none&next=%2Fadmin%2Fevents%3Fstatus%3D502"
    headers["hx-current-url"] = "https://elsewhere.example/steal"
    answer = await desk.another().get("/admin/events", headers=headers)
    assert answer.headers["hx-redirect"] == "/admin/login?why=none&next=%2Fadmin"


async def test_s7_an_expired_session_is_told_so(desk: Desk) -> None:
    """The sign-in page has a sentence for it."""
    sessions = Sessions(secret_of(desk.container.environment))
    key = keys_of(desk.container.environment, desk.container.settings)[0]
    long_ago = desk.container.system.now_us() // 1_000_000 - SESSION_SECONDS
    browser = desk.another()
    answer = await browser.get("/admin", headers={"cookie": f"perpetuo_admin={sessions.begin(key, long_ago).text}"})
    assert answer.headers["location"].startswith("/admin/login?why=expired")
    assert "Your session has ended" in (await browser.get(answer.headers["location"])).text


async def test_s7_what_is_sent_signed_out_is_not_done_and_one_is_told_so(desk: Desk) -> None:
    """Signed out in another tab: a sentence, and back to the page it was sent from, if that is one of ours."""
    order, browser = {"provider": "paid", "action": "open", "seconds": "60"}, desk.another()
    for referer, page in (
        ("http://localhost:3000/admin/providers/paid/open?x=1", "%2Fadmin%2Fproviders%2Fpaid%2Fopen%3Fx%3D1"),
        ("http://elsewhere.example/", "%2Fadmin"),
        ("", "%2Fadmin"),
    ):
        answer = await browser.post("/admin/breaker", data=order, headers={"referer": referer})
        assert answer.headers["location"] == f"/admin/login?why=undone&next={page}"
    assert "so nothing was done" in (await browser.get("/admin/login?why=undone")).text
    assert desk.container.stores.breakers.view("paid").phase.value == "closed"
    assert (await browser.post("/admin/logout")).headers["location"] == "/admin/login?why=out"


async def test_s7_signing_out_ends_it(desk: Desk) -> None:
    """The cookie is taken away."""
    await desk.sign_in()
    answer = await desk.browser.post("/admin/logout", data={"token": await desk.token()})
    assert answer.headers["location"] == "/admin/login?why=out"
    assert (await desk.browser.get("/admin")).status_code == 303


async def test_s7_five_wrong_keys_a_minute_then_429(desk: Desk) -> None:
    """With the wait, by address; the form then refuses right keys too, a right bearer is never throttled."""
    statuses = [(await desk.sign_in("wrong")).status_code for _ in range(5)]
    assert statuses == [401] * 5
    blocked = await desk.sign_in(ADMIN_KEY)
    assert blocked.status_code == 429
    assert 0 < int(blocked.headers["retry-after"]) <= 60
    assert "set-cookie" not in blocked.headers
    assert (await desk.ask("system")).status_code == 200
    assert (await desk.ask("system", "wrong")).status_code == 429
    assert (await desk.sign_in(browser=desk.another(client="10.1.2.3"))).status_code == 303


async def test_s7_right_keys_do_not_add_up(desk: Desk) -> None:
    """Ten operators behind one address sign in within a minute."""
    assert {(await desk.sign_in()).status_code for _ in range(10)} == {303}
    for _ in range(3):
        assert [(await desk.sign_in("wrong")).status_code for _ in range(4)] == [401] * 4
        assert (await desk.sign_in()).status_code == 303


async def test_s7_an_ipv6_network_counts_as_one_address(desk: Desk) -> None:
    """Whoever has one address of a /64 has all of them."""
    answers = [await desk.sign_in("wrong", desk.another(client=f"2001:db8::{i:x}")) for i in range(6)]
    assert [a.status_code for a in answers] == [401] * 5 + [429]


@pytest.mark.usefixtures("within_a_minute")
async def test_s7_wrong_keys_are_kept_by_the_minute(desk: Desk) -> None:
    """With the client's address as the configuration wants it kept, and without the key."""
    for _ in range(3):
        await desk.sign_in("a-wrong-key-canary")
    await desk.written()
    (row,) = (await desk.api("refusals"))["items"]
    assert (row["reason"], row["client_ip"], row["count"]) == ("invalid_api_key", "127.0.0.0", 3)


@pytest.mark.parametrize("token", [None, "", "0" * 64])
async def test_s7_a_form_without_its_token_does_nothing(desk: Desk, token: str | None) -> None:
    """Also when the session is right."""
    await desk.sign_in()
    order = {"provider": "paid", "action": "open", "seconds": "60"} | ({} if token is None else {"token": token})
    answer = await desk.browser.post("/admin/breaker", data=order)
    assert answer.status_code == 403
    assert desk.container.stores.breakers.view("paid").phase.value == "closed"


async def test_s7_a_form_of_another_session_does_nothing(desk: Desk) -> None:
    """The token is bound to the session."""
    await desk.sign_in()
    stolen = await desk.token()
    await desk.sign_in()
    answer = await desk.browser.post(
        "/admin/breaker",
        data={"provider": "paid", "action": "open", "seconds": "60", "token": stolen},
        headers={"referer": "http://localhost:3000/admin/providers/paid/open"},
    )
    assert answer.status_code == 403
    assert "Nothing was done; you are signed in as PERPETUO_ADMIN_KEY now." in answer.text
    assert '<a href="/admin/providers/paid/open">Back to the page</a>' in answer.text


async def test_s7_what_another_site_sends_is_refused(desk: Desk) -> None:
    """By what the browser says, on top of cookie and token; signing in as well."""
    await desk.sign_in()
    token = await desk.token()
    foreign = {"sec-fetch-site": "cross-site"}
    order = {"provider": "paid", "action": "open", "seconds": "60", "token": token}
    assert (await desk.browser.post("/admin/breaker", data=order, headers=foreign)).status_code == 403
    assert (await desk.browser.post("/admin/login", data={"key": ADMIN_KEY}, headers=foreign)).status_code == 403
    own = {"sec-fetch-site": "same-origin"}
    assert (await desk.browser.post("/admin/breaker", data=order, headers=own)).status_code == 303


async def test_s7_the_role_read_looks_and_does_not_act(desk: Desk) -> None:
    """No button, and 403 for whoever sends the form or the JSON anyway."""
    await desk.sign_in(READ_KEY)
    page = await desk.page("/admin")
    assert "bob (read)" in page
    assert "/admin/breaker" not in page
    order = {"provider": "paid", "action": "open", "seconds": "60", "token": await desk.token()}
    assert (await desk.browser.post("/admin/breaker", data=order)).status_code == 403
    refused = await desk.ask("breaker", READ_KEY, provider="paid", action="open", seconds=60)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
    assert (await desk.ask("overview", READ_KEY)).status_code == 200
    assert desk.container.stores.breakers.view("paid").phase.value == "closed"


async def test_s7_the_api_takes_bearers_only(desk: Desk) -> None:
    """No key, a tenant's key, a session: 401 in the envelope."""
    await desk.sign_in()
    assert (await desk.browser.get("/admin/api/overview")).status_code == 401
    answer = await desk.ask("overview", TENANT_KEY)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.json()["error"]["source"] == "gateway"


async def test_s7_pages_take_a_bearer_too(desk: Desk) -> None:
    """For a script that wants the HTML."""
    answer = await desk.another().get("/admin", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 200
    wrong = await desk.another().get("/admin", headers={"authorization": "Bearer wrong"})
    assert wrong.status_code == 401


async def test_s7_a_removed_key_ends_its_sessions(desk: Desk) -> None:
    """As soon as the configuration without it is in force."""
    await desk.sign_in(READ_KEY)
    await desk.page("/admin")
    path = desk.container.environment.config_path
    path.write_text(re.sub(r"(?s)\nadmin:.*", "\n", path.read_text()))
    await desk.container.reload()
    assert (await desk.browser.get("/admin")).headers["location"].startswith("/admin/login?why=invalid")


async def test_management_port_has_it_and_the_public_one_has_not(apart: tuple[Desk, httpx.AsyncClient]) -> None:
    """With MANAGEMENT_PORT nothing of the operators' is on PORT."""
    public, management = apart
    for path in ("/admin", "/admin/login", "/admin/api/overview", "/admin/static/admin.css", "/schema", "/metrics"):
        assert (await public.another().get(path)).status_code == 404, path
        assert (await management.get(path)).status_code != 404, path
    assert (await management.post("/v1/chat/completions")).status_code == 404
    assert "http://localhost:3000" in (await management.get("/schema/openapi.json")).text
