"""
How is money written down, without ever rounding it the wrong way?

Rule 1: an amount is an ``int`` of nano-USD (10⁻⁹ USD). No float is ever an amount.
Rule 2: a rate is an ``int`` of nano-USD per million tokens, so that $0.0375 per million
        (37.5 nano-USD a token) stays a whole number.
Rule 3: there is one rounding, `ceil_per_million`, and it rounds up, once per charge.
"""

from decimal import Decimal, InvalidOperation
from typing import NewType

Nano = NewType("Nano", int)
"""An amount in nano-USD."""

Rate = NewType("Rate", int)
"""A price in nano-USD per million tokens."""

NANO_PER_USD = 1_000_000_000
TOKENS_PER_RATE = 1_000_000
ZERO = Nano(0)

MAX_BUDGET = Nano(1_000_000 * NANO_PER_USD)
"""The largest budget a config may name: 10¹⁵ nano-USD, safely below the 2⁵³ of a Lua number."""


def nano_from_usd(amount: str | int | Decimal) -> Nano:
    """Read an amount of USD exactly; `ValueError` when it is finer than a nano-USD or no number."""
    try:
        scaled = Decimal(amount) * NANO_PER_USD
        exact = int(scaled)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ValueError(f"{amount!r} is not an amount of money") from error
    if exact != scaled:
        raise ValueError(f"{amount} USD is finer than a nano-USD (9 decimals)")
    return Nano(exact)


def usd(amount: int) -> str:
    """Write an amount as plain decimal USD: no exponent, no trailing zeros (``1500`` -> ``0.0000015``)."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), NANO_PER_USD)
    return f"{sign}{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


def ceil_per_million(token_rates: int) -> Nano:
    """Turn a sum of tokens × rate into nano-USD, rounded up: the one rounding there is."""
    return Nano(-(-token_rates // TOKENS_PER_RATE))
