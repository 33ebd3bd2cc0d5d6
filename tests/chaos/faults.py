"""
The evil neighbour: what goes wrong, and when?

`plan` is a pure function of the seed. Hands work at the same time: one on processes and stores, one on the provider.
Each has a deck of faults, shuffled and dealt again and again, so that even a short run has every kind. In a long run a
third one now and then stops a worker for longer than a call's lease.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count

import attrs

HAND = (
    "kill_worker", "kill_gateway", "restart_gateway", "stop_worker", "stop_redis", "script_flush", "kill_redis",
    "kill_postgres", "lock_table", "raise_limits", "take_key_away", "delete_breaker",
)  # fmt: skip
LOSSY = (*HAND, "flush_all")
STORMS = {
    "storm": "status=503,chance=0.8",
    "failures": "status=500",
    "hiccups": "status=502,chance=0.2",
    "resets": "end=reset,chance=0.6",
    "stalls": "end=stall,after=2,chance=0.5",
    "truncated": "end=truncate,after=3,chance=0.5",
    "no_usage": "usage=no",
    "slow": "delay=0.8,gap=0.05",
    "busy": "status=429,retry_after=1,chance=0.5",
}
"""What the provider does to everybody for a while."""
LASTS = {
    "stop_worker": (1.0, 8.0), "stop_redis": (0.3, 3.0), "kill_redis": (0.2, 1.5), "kill_postgres": (0.5, 4.0),
    "lock_table": (1.0, 5.0), "take_key_away": (4.0, 12.0), "kill_gateway": (0.0, 2.0),
}  # fmt: skip
"""Seconds from … to, for those that last."""


@attrs.frozen
class Planned:
    """A fault to come. ``draw`` in [0, 1) says to whom, for those that have a choice."""

    at: float
    """Seconds after the beginning; later if the one before still lasts."""
    what: str
    seconds: float
    draw: float


def plan(seed: int, seconds: float, deck: Sequence[str] = HAND) -> Sequence[Sequence[Planned]]:
    """
    What each hand does; ``deck`` is that of the one for processes and stores.

    Nothing begins in the last tenth, so that there is time to see what becomes of it.
    """
    until = seconds * 0.9
    processes = _dealt(random.Random(f"{seed}/processes"), deck, until, (0.5, 4.0))
    provider = _dealt(random.Random(f"{seed}/provider"), tuple(STORMS), until, (0.5, 5.0))
    return [list(processes), list(provider), list(_long_stops(random.Random(f"{seed}/long"), deck, seconds))]


def _long_stops(draw: random.Random, deck: Sequence[str], seconds: float) -> Iterator[Planned]:
    """A worker stopped for longer than its calls' leases; its settlements come after the reaper's."""
    at = draw.uniform(20.0, 60.0)
    while "stop_worker" in deck and at < seconds - 60:
        yield Planned(round(at, 3), "stop_worker", round(draw.uniform(33.0, 45.0), 3), draw.random())
        at += draw.uniform(90.0, 150.0)


def _dealt(draw: random.Random, deck: Sequence[str], until: float, pause: tuple[float, float]) -> Iterator[Planned]:
    at = 2.0
    for what in _shuffled(draw, deck):
        seconds = draw.uniform(*LASTS.get(what, (1.0, 5.0) if what in STORMS else (0.0, 0.0)))
        if at >= until:
            return
        yield Planned(round(at, 3), what, round(seconds, 3), draw.random())
        at += seconds + draw.uniform(*pause)


def _shuffled(draw: random.Random, deck: Sequence[str]) -> Iterator[str]:
    for _ in count():
        yield from draw.sample(deck, len(deck))
