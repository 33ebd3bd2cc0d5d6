"""What does a row tell of a call that was admitted, for another configuration to judge it?"""

from typing import NamedTuple


class Recorded(NamedTuple):
    """
    One admitted call, as its row tells it; or money that an operator took off or put on (`is_adjustment`).

    Instants are µs, money is nano-USD.
    """

    arrived_us: int
    admitted_us: int
    """The latest instant at which it can have been admitted."""
    ended_us: int
    tenant: str
    key: str
    model: str
    provider: str | None
    upstream_model: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    is_reported: bool
    """Did the provider say what was used, for every attempt?"""
    cost: int
    hold: int
    budget_day: str | None
    is_adjustment: bool = False
