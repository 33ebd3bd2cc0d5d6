"""
What does an address under ``/admin/api`` ask for?

A page for people leaves out what can't be meant. A script has to hear of it: a filter that is silently dropped answers
another question.
"""

import re
from typing import Any

import msgspec
from litestar.datastructures import MultiDict

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.refusals import RefusedError

PAGE = re.compile(r"0{0,9}[1-9][0-9]{0,8}")
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


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON of an order."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError(Refusal(Reason.INVALID_REQUEST, f"The body is no JSON object: {error}")) from error


def wrong(name: str, what: str) -> RefusedError:
    return RefusedError(Refusal(Reason.INVALID_REQUEST, f"The parameter `{name}` {what}.", name))
