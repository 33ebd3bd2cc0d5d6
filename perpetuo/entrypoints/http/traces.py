"""
Which trace does a request say it is part of? (W3C Trace Context: ``traceparent``, ``tracestate``)

Rule 1: what is malformed is ignored, never a reason to refuse. Two `traceparent` headers are malformed.
Rule 2: a later version is read as far as version 00 goes; ``ff`` and ids of zeros are invalid.
Rule 3: ``tracestate`` counts only beside a valid ``traceparent``. It goes on whole up to 512 characters; beyond that,
entries over 128 characters go first, then the last ones. One malformed entry, a key twice or more than 32 entries:
none of it goes on.
"""

import re

from perpetuo.domain.model.trace import Trace

TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-[\x21-\x2b\x2d-\x7e]*)?\Z"
)
ENTRY = re.compile(
    r"(?P<key>[a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]\Z"
)
MOST_ENTRIES = 32
MOST_CHARACTERS = 512
LONG_ENTRY = 128


def trace_of(traceparent: str | None, tracestate: str | None) -> Trace | None:
    """The caller's trace; ``None`` when it named none that is valid."""
    match = TRACEPARENT.match(traceparent) if traceparent else None
    if match is None or (match["more"] is not None and match["version"] == "00"):
        return None
    state = state_of(tracestate) if tracestate else None
    return Trace(match["trace"], match["span"], int(match["flags"], 16), state)


def state_of(text: str) -> str | None:
    """What of a ``tracestate`` goes on."""
    entries = [entry for part in text.split(",") if (entry := part.strip(" \t"))]
    matches = [ENTRY.match(entry) for entry in entries]
    keys = {match["key"] for match in matches if match is not None}
    if not entries or len(entries) > MOST_ENTRIES or len(keys) < len(entries):
        return None
    if len(",".join(entries)) > MOST_CHARACTERS:
        entries = [entry for entry in entries if len(entry) <= LONG_ENTRY]
    while len(",".join(entries)) > MOST_CHARACTERS:
        entries.pop()
    return ",".join(entries) or None
