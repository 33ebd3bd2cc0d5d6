"""
Has every control of every page been used by a test of this folder? Runs last, and only if all the others ran.

A new button, field or form fails here until a test uses it; a new link is followed here.
"""

from pathlib import Path

import httpx
import pytest

from tests.browser.driven import Record
from tests.browser.site import Site

HERE = Path(__file__)


@pytest.fixture
def whole(request: pytest.FixtureRequest, record: Record) -> Record:
    """What was recorded, if nothing was left out of this run."""
    ran = {Path(item.path).name for item in request.session.items}
    if request.config.option.keyword or {path.name for path in HERE.parent.glob("test_*.py")} - ran:
        pytest.skip("only a part of this folder runs")
    return record


def test_every_button_and_field_was_used(whole: Record) -> None:
    """By a click or a key, on a page that the gateway made."""
    assert not whole.not_used(), "\n".join(["no test uses:", *whole.not_used()])


def test_everything_in_a_template_was_seen(whole: Record) -> None:
    """A button that no test has come across is in no page that the tests open."""
    assert not whole.not_seen(), "\n".join(["on no page of these tests:", *whole.not_seen()])


def test_no_link_leads_nowhere(whole: Record, site: Site) -> None:
    """One of each kind: what differs only in an id or in numbers is one kind."""
    cookie = site.cookies("PERPETUO_ADMIN_KEY")[0]
    kinds = whole.links()
    assert len(kinds) > 20
    with httpx.Client(base_url=site.url, cookies={cookie["name"]: cookie["value"]}, follow_redirects=True) as browser:
        answers = {href: browser.get(href) for href in kinds}
    bad = [f"{href}: {a.status_code} {a.text[-400:]}" for href, a in answers.items() if a.status_code != 200]
    bad += [f"{href}: signed out" for href, answer in answers.items() if "/login" in str(answer.url)]
    assert not bad, "\n".join(bad)
