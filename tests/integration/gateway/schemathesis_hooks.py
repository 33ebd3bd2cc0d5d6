"""
What has schemathesis to know that an OpenAPI document can't say? Loaded by ``st`` through ``SCHEMATHESIS_HOOKS``.

Each request comes from an address of its own: wrong admin keys are throttled by address, and it sends many.
"""

import random
from typing import Any

import schemathesis

NAMES = frozenset(
    {"model", "messages", "input", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "dimensions"}
)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    octets = (random.randrange(256) for _ in range(3))
    case.headers = {**(case.headers or {}), "X-Forwarded-For": ".".join(["10", *map(str, octets)])}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """
    No two keys that only differ in case; no ``1.0`` for an integer, which JSON Schema takes for one.

    A model's name is printable, which no pattern says as Unicode does; the breaker that is opened is one nobody needs.
    """
    if not isinstance(body, dict):
        return body
    kept: dict[str, Any] = {}
    folded = set(NAMES)
    for name, value in body.items():
        if name in NAMES or name.casefold() not in folded:
            folded.add(name.casefold())
            kept[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(kept.get("model"), str):
        kept["model"] = "".join(char if char.isprintable() else "x" for char in kept["model"])
    if isinstance(kept.get("provider"), str) and "action" in kept:
        kept["provider"] = "spare"
    return kept
