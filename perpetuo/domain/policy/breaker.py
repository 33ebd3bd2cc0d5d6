"""
Circuit breaker policy: may the next attempt reach this provider?

    Closed    --failures reach the threshold-->        Open
    Open      --open time is over, somebody asks-->    HalfOpen
    HalfOpen  --the probe succeeds-->                  Closed
    HalfOpen  --the probe fails-->                     Open
"""

from enum import Enum

import attrs


class BreakerPhase(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen
class BreakerView:
    """A breaker as a worker last saw it. ``until_us`` (µs since the epoch) only while open."""

    phase: BreakerPhase = BreakerPhase.CLOSED
    until_us: int = 0
    generation: int = 0
