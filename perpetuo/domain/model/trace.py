"""
Of which trace is a call, and what are its spans called?

Rule 1: span ids are not drawn but follow from the call's id and the attempt's number (0 is the call itself), so that
what a provider was told and what is exported after the call agree, with nothing kept in between.
Rule 2: what goes on to a provider is a child: the caller's trace id and flags, a span id of ours (W3C Trace Context).
"""

from hashlib import sha256

from perpetuo.domain.model.records import record

SAMPLED = 0x01
KNOWN_FLAGS = 0x03
"""``sampled`` and, since level 2, ``random``; the others are sent on as zero, as the standard asks."""
VERSION = "00"


@record
class Trace:
    """A call's place in a trace."""

    id: str
    """32 hexadecimal digits."""
    parent: str | None = None
    """The caller's span, 16 hexadecimal digits; ``None``: the trace begins here."""
    flags: int = SAMPLED
    state: str | None = None
    """``tracestate`` for the provider, within its limits."""

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def child(self, call: str, attempt: int) -> str:
        """``traceparent`` for an attempt, counted from 1."""
        return f"{VERSION}-{self.id}-{span_of(call, attempt)}-{self.flags & KNOWN_FLAGS:02x}"


def span_of(call: str, attempt: int) -> str:
    """A span's id: 16 hexadecimal digits. ``attempt`` 0 is the call's own span."""
    return sha256(f"{call}/{attempt}".encode()).hexdigest()[:16]
