"""
What does an address under ``/admin/api`` ask for?

A page for people leaves out what can't be meant (`pages.event_filter`). A script has to hear of it: a filter that is
silently dropped answers another question.
"""

import re
import uuid
from typing import Any

import msgspec
from litestar.datastructures import MultiDict

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import EventFilter, Outcome
from perpetuo.entrypoints.http.admin.acting import LONGEST_OPEN
from perpetuo.entrypoints.http.refusals import RefusedError

TEXTS = ("tenant_id", "key_name", "model", "provider", "request_id")
OUTCOMES = tuple(outcome.value for outcome in Outcome)
PAGE = re.compile(r"0{0,9}[1-9][0-9]{0,8}")
STATUS = re.compile(r"[1-9][0-9]{2}")
Query = MultiDict[Any]


def text(query: Query, name: str) -> str | None:
    """A parameter that stands at most once."""
    values = query.getall(name, [])
    if len(values) > 1:
        raise wrong(name, "is there more than once")
    return str(values[0]) if values else None


def page_number(query: Query) -> int:
    """``page``, from 1."""
    given = text(query, "page")
    if given is None:
        return 1
    if not PAGE.fullmatch(given):
        raise wrong("page", "must be a whole number from 1 on")
    return int(given)


def event_filter(query: Query) -> tuple[EventFilter, str | None]:
    """Which events, and before which id."""
    chosen: dict[str, Any] = {name: text(query, name) for name in TEXTS}
    outcome, status, before = (text(query, name) for name in ("outcome", "status", "before"))
    if outcome is not None and outcome not in OUTCOMES:
        raise wrong("outcome", f"must be one of {', '.join(OUTCOMES)}")
    if status is not None and not STATUS.fullmatch(status):
        raise wrong("status", "must be an HTTP status such as 429")
    try:
        cursor = None if before is None else str(uuid.UUID(before))
    except ValueError as error:
        raise wrong("before", "must be the `next` of the page before") from error
    return EventFilter(**chosen, outcome=outcome, status=None if status is None else int(status)), cursor


def breaker_fields(body: bytes) -> dict[str, Any]:
    """The JSON of an order; what its members may be is for `acting.breaker_order`, but ``"5"`` is no number here."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError(Refusal(Reason.INVALID_REQUEST, f"The body is no JSON object: {error}")) from error
    seconds = found.get("seconds", 1)
    if type(seconds) is not int or not 1 <= seconds <= LONGEST_OPEN:
        raise wrong("seconds", f"must be an integer from 1 to {LONGEST_OPEN}")
    return found


def wrong(name: str, what: str) -> RefusedError:
    return RefusedError(Refusal(Reason.INVALID_REQUEST, f"The parameter `{name}` {what}.", name))
