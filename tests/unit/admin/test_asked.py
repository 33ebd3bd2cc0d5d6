"""What ``/admin/api`` makes of addresses and orders that can't be meant: a 400 that names the parameter."""

import pytest

from tests.unit.admin.conftest import ADMIN_KEY, Desk

pytestmark = pytest.mark.anyio
BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest.mark.parametrize(
    ("address", "param"),
    [
        ("tenants?page=0", "page"),
        ("tenants?page=-1", "page"),
        ("tenants?page=null", "page"),
        ("tenants?page=9999999999", "page"),
        ("tenants?page=1&page=2", "page"),
        ("tenants?q=a&q=b", "q"),
        ("events?status=null", "status"),
        ("events?status=20", "status"),
        ("events?outcome=fine", "outcome"),
        ("events?before=yesterday", "before"),
        ("events?model=a&model=b", "model"),
        ("refusals?tenant_id=a&tenant_id=b", "tenant_id"),
    ],
)
async def test_a_filter_that_can_not_be_meant_is_refused_by_name(still_desk: Desk, address: str, param: str) -> None:
    """It was left out without a word, and the answer was another question's."""
    answer = await still_desk.browser.get(f"/admin/api/{address}", headers=BEARER)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert param in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "address", ["tenants?page=1&q=acme", "events?status=429&outcome=failed", "refusals?tenant_id=x"]
)
async def test_filters_that_are_right_are_taken(still_desk: Desk, address: str) -> None:
    """So that the others fail for the right reason."""
    assert (await still_desk.browser.get(f"/admin/api/{address}", headers=BEARER)).status_code == 200


@pytest.mark.parametrize(
    "seconds", ["true", '"5"', "5.5", "0", "-5", "86401", "1" + "0" * 5_000, "[" * 8_000, '"00008640099"']
)
async def test_a_breaker_is_opened_for_a_day_at_most(still_desk: Desk, seconds: str) -> None:
    """Zeros in front led past the limit: a provider was off for a hundred days."""
    body = f'{{"provider": "demo", "action": "open", "seconds": {seconds}}}'
    answer = await still_desk.browser.post("/admin/api/breaker", headers=BEARER, content=body)
    assert answer.status_code == 400, answer.text


async def test_a_form_can_not_open_a_breaker_for_longer_either(desk: Desk) -> None:
    """The page's own field says 86,400 at most, but a form can be sent by hand."""
    await desk.sign_in()
    form = {"provider": "demo", "action": "open", "seconds": "00008640099", "token": await desk.token()}
    assert (await desk.browser.post("/admin/breaker", data=form)).status_code == 400
