"""
How do facts become YAML for people?

Rule 1: what is nothing is left out, also lists and mappings that have nothing in them.
Rule 2: a text stands bare only when no reader could take it for something else; else in double quotes.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*|[0-9]+m?s")
MEANT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that some reader takes for a value of another kind."""


def as_yaml(facts: dict[str, Any]) -> str:
    return "".join(f"{line}\n" for line in _lines(facts))


def _lines(value: Any) -> Iterator[str]:
    """Of a mapping or a list that has something in it."""
    if isinstance(value, dict):
        for name, member in value.items():
            if _is_something(member):
                yield from _member(_scalar(name), member)
        return
    for item in filter(_is_something, value):
        if isinstance(item, dict | list):
            for number, line in enumerate(_lines(item)):
                yield f"{'  ' if number else '- '}{line}"
        else:
            yield f"- {_scalar(item)}"


def _member(name: str, member: Any) -> Iterator[str]:
    if not isinstance(member, dict | list):
        yield f"{name}: {_scalar(member)}"
        return
    yield f"{name}:"
    for line in _lines(member):
        yield f"  {line}"


def _is_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_something(member) for member in value.values())
    return any(map(_is_something, value)) if isinstance(value, list) else value is not None


def _scalar(value: Any) -> str:
    if isinstance(value, str) and BARE.fullmatch(value) and value.casefold() not in MEANT:
        return value
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
    return json.dumps(value)
