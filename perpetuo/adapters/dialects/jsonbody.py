"""
Is this body one JSON object that every parser reads alike?

Rule 1: the whole body is checked, members nobody looks at too: syntax, UTF-8, lone surrogates, NaN, depth.
Rule 2: a top-level key stands once, however it is spelt; otherwise two parsers may see two requests.
Rule 3: servers that ignore the case of keys (Go's encoding/json: Ollama, LocalAI, one-api) are parsers too.
Rule 4: values stay the client's bytes.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY = re.compile(rb'\s*"(?:[^"\\]|\\.)*"\s*:\s*')
_COMMA = re.compile(rb"\s*,")
_END = re.compile(rb"\s*\}\s*")
_CANONICAL = msgspec.json.Encoder(order="deterministic")


class BadRequest(Exception):  # noqa: N818 - names the refusal it becomes
    """The client's body can't be accepted. ``param`` is the member at fault, named as OpenAI names it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def members(body: bytes, what: str = "The request body") -> dict[str, bytes]:
    """The top-level members in the client's order, each still JSON. Raises `BadRequest`, about ``what``."""
    check_utf8(body)
    try:
        raw = _MEMBERS.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{what} must be a JSON object: {error}.") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"{what} is not valid JSON: {error}. It is {len(body)} bytes long.") from None
    except RecursionError:
        raise BadRequest(f"{what} is nested too deeply.") from None
    fields = {key: bytes(value) for key, value in raw.items()}
    _check_once(body, fields, what)
    return fields


def refuse_look_alikes(keys: Collection[str], watched: frozenset[str], what: str, param: str | None = None) -> None:
    """
    Raise `BadRequest` for a key that a server which ignores case takes for a ``watched`` one or for another key.

    ``casefold`` goes as far as such servers do: for Go's the long s is an s and the Kelvin sign is a k.
    """
    together = "".join(keys)
    if together.islower() and together.isascii():
        return  # each key is its own folding
    seen: dict[str, str] = {}
    for key in keys:
        folded = key.casefold()
        other = folded if folded in watched else seen.setdefault(folded, key)
        if other != key:
            message = f"{what} has the key {key[:64]!r}, which some servers take for {other[:64]!r}"
            raise BadRequest(f"{message}: only the case of letters differs.", param or key[:64])


def check_utf8(body: bytes) -> None:
    """Raise `BadRequest` unless all of ``body`` is UTF-8."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"The request body is not valid UTF-8 (byte {error.start}).") from None


def _check_once(body: bytes, fields: Mapping[str, bytes], what: str) -> None:
    # braces, commas, and for each member two quotes and a colon: a compact body of exactly this size has room for
    # nothing else. A key that is escaped or not ASCII makes the body longer than the sum, and is walked.
    least = 1 + sum(map(len, fields)) + sum(map(len, fields.values())) + 4 * len(fields)
    if least != len(body) and not _each_stands_once(body, fields):
        name = _first_repeated(body)
        raise BadRequest(f"{what} has the key {name!r} twice.", name)


def _each_stands_once(body: bytes, fields: Mapping[str, bytes]) -> bool:
    """Walk the top level: a body that is valid and has no more members than ``fields`` repeats none."""
    at = body.index(b"{") + 1
    last = len(fields) - 1
    for position, value in enumerate(fields.values()):
        key = _KEY.match(body, at)
        if key is None or not body.startswith(value, key.end()):
            return False
        at = key.end() + len(value)
        if position < last:
            comma = _COMMA.match(body, at)
            if comma is None:
                return False
            at = comma.end()
    return last < 0 or _END.fullmatch(body, at) is not None


def _first_repeated(body: bytes) -> str:
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        times = Counter(key for key, _ in pairs)
        # the outermost object is closed last, so its finding is the one that stays
        repeated[:] = [key for key, n in times.items() if n > 1]

    with contextlib.suppress(ValueError, RecursionError):
        json.loads(body.decode(), object_pairs_hook=look, parse_int=len, parse_float=len)
    return repeated[0][:64] if repeated else ""


def canonical(body: bytes) -> bytes:
    """The body with sorted keys, no spacing and one spelling of every string; numbers as written."""
    try:
        value = json.loads(body.decode(), parse_int=msgspec.Raw, parse_float=msgspec.Raw)
        return _CANONICAL.encode(value)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The request body can't be read as JSON: {error}.") from None
