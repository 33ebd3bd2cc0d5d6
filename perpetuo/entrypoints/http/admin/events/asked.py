"""
Which events does an address ask for?

Rule 1: a script hears of what can't be meant, as a 400. A page shows what is left of the question, and says what it
        did not understand: a filter that is dropped without a word answers another question.
Rule 2: an instant is ISO 8601 (UTC where it names no zone), or how long ago: ``30s``, ``15m``, ``2h``, ``7d``.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from perpetuo.domain.model.events import EventFilter, Outcome
from perpetuo.entrypoints.http.admin.asked import Query, text, wrong

OUTCOMES = tuple(outcome.value for outcome in Outcome)
KINDS = ("call", "admin", "chat", "embeddings")
STATUS = re.compile(r"[1-9][0-9]{2}")
SPAN = re.compile(r"([0-9]{1,6})([smhd])")
SPAN_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
DATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*")
MOST_TEXT = 200
MOST_ROWS = 500
INSTANT = "must be an instant such as 2026-11-26T10:30Z, or how long ago, such as 30m, 2h or 7d"


@attrs.frozen
class Asked:
    """``chosen``: the filters that are set, as they were written, for addresses and fields."""

    where: EventFilter
    before: str | None
    chosen: dict[str, str]
    not_understood: tuple[str, ...] = ()


def instant_us(given: str, now_us: int) -> int:
    """µs since the epoch; raises `ValueError`."""
    ago = SPAN.fullmatch(given)
    if ago:
        return max(0, now_us - int(ago[1]) * SPAN_US[ago[2]])
    if not DATED.fullmatch(given):
        raise ValueError(INSTANT)
    try:
        # a plus sign that nobody escaped arrives as a space
        found = datetime.fromisoformat(re.sub(r" (?=[0-9]{2}:?[0-9]{2}$)(?<=:.{3})", "+", given))
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    except (ValueError, OverflowError) as error:
        raise ValueError(INSTANT) from error


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, int], str]:
    def read(given: str, _: int) -> str:
        if given not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return given

    return read


def _status(given: str, _: int) -> int:
    if not STATUS.fullmatch(given):
        raise ValueError("must be an HTTP status such as 429")
    return int(given)


def _any(given: str, _: int) -> str:
    return given


FILTERS: dict[str, tuple[str, Callable[[str, int], Any]]] = {
    "tenant_id": ("tenant_id", _any),
    "key_name": ("key_name", _any),
    "model": ("model", _any),
    "provider": ("provider", _any),
    "request_id": ("request_id", _any),
    "tag": ("tag", _any),
    "status": ("status", _status),
    "outcome": ("outcome", _one_of(OUTCOMES)),
    "kind": ("kind", _one_of(KINDS)),
    "since": ("since_us", instant_us),
    "until": ("until_us", instant_us),
}
"""Parameter to field of `EventFilter`, and how it is read."""


def event_filter(query: Query, now_us: int) -> Asked:
    """What a script asks for; raises `RefusedError`."""
    chosen = {name: given for name in FILTERS if (given := text(query, name)) is not None}
    values = {}
    for name, given in chosen.items():
        field, read = FILTERS[name]
        try:
            values[field] = read(given, now_us)
        except ValueError as error:
            raise wrong(name, str(error)) from error
    try:
        before = _cursor(text(query, "before"))
    except ValueError as error:
        raise wrong("before", "must be the `next` of the page before") from error
    return Asked(EventFilter(**values), before, chosen)


def lenient_filter(query: Mapping[str, str], now_us: int) -> Asked:
    """What a page's address asks for, as far as it can be meant."""
    chosen, values, strange = {}, {}, []
    for name, (field, read) in FILTERS.items():
        given = query.get(name, "").strip()[:MOST_TEXT]
        if not given:
            continue
        chosen[name] = given
        try:
            values[field] = read(given, now_us)
        except ValueError as error:
            strange.append(f"{name.removesuffix('_id').replace('_', ' ').capitalize()} {error}.")
    try:
        before = _cursor(query.get("before") or None)
    except ValueError:
        before = None
    return Asked(EventFilter(**values), before, chosen, tuple(strange))


def rows_asked(query: Query, default: int) -> int:
    """``limit``: how many rows a page has."""
    given = text(query, "limit")
    if given is None:
        return default
    if not re.fullmatch(r"[0-9]{1,4}", given) or not 1 <= int(given) <= MOST_ROWS:
        raise wrong("limit", f"must be a number from 1 to {MOST_ROWS}")
    return int(given)


def _cursor(given: str | None) -> str | None:
    return None if given is None else str(uuid.UUID(given))
