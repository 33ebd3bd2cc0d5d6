"""Which events does an address ask for? A page leaves out what can't be meant, a script hears of it."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from perpetuo.domain.model.events import EventFilter, Outcome
from perpetuo.entrypoints.http.admin.asked import Query, text, wrong

TEXTS = ("tenant_id", "key_name", "model", "provider", "request_id")
OUTCOMES = tuple(outcome.value for outcome in Outcome)
STATUS = re.compile(r"[1-9][0-9]{2}")
FILTERS = ("tenant_id", "key_name", "model", "provider", "outcome", "request_id")
MOST_TEXT = 200


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


def lenient_filter(query: Mapping[str, str]) -> tuple[EventFilter, str | None]:
    """What an address asks for, and before which id; what can't be meant is left out."""
    chosen: dict[str, Any] = {name: query[name].strip()[:MOST_TEXT] for name in FILTERS if query.get(name, "").strip()}
    status = query.get("status", "").strip()
    if status.isascii() and status.isdigit() and len(status) == 3:
        chosen["status"] = int(status)
    try:
        before = str(uuid.UUID(query["before"])) if query.get("before") else None
    except ValueError:
        before = None
    return EventFilter(**chosen), before
