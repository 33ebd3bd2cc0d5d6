"""Traffic of all kinds, a fifth left by its clients, a twentieth spoilt by the provider: what stays (O4, C10)?"""

import os
import random

import pytest

from bench.soak.run import soak
from bench.soak.verdict import broken
from tests.servers import RedisServer

SEED = int(os.environ.get("SOAK_SEED", "0")) or random.randrange(1 << 30)


@pytest.mark.parametrize(
    ("seconds", "clients"), [(2.0, 16), pytest.param(30.0, 24, marks=[pytest.mark.slow, pytest.mark.timeout(200)])]
)
def test_o4_after_the_traffic_nothing_is_busy_held_or_open(
    redis_here: RedisServer, database_here: str, seconds: float, clients: int
) -> None:
    """Slots, holds, tasks, descriptors and events are as before; `make soak` adds memory over ten minutes."""
    print(f"SOAK_SEED={SEED}")
    run = soak(seconds, clients, SEED, redis_here, database_here, patience=6.0)
    print(run.before, run.after, run.heard.statuses, run.faults, sep="\n")
    assert list(broken(run)) == []
    assert run.heard.enough
