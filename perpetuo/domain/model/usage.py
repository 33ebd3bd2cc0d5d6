"""What did a call use, and how do we know?"""

from enum import StrEnum

from perpetuo.domain.model.records import record


class Basis(StrEnum):
    """How the tokens of a charge are known."""

    REPORTED = "reported"
    """The provider said so."""
    ESTIMATED = "estimated"
    """Bounded from bytes we counted, because the provider said nothing (or not for every attempt)."""
    BOUND = "bound"
    """The hold itself: the worker died and nobody knows."""


@record
class Usage:
    """Tokens of one call. ``cached_tokens`` are part of ``input_tokens``."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
