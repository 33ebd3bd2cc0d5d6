"""
What does a gateway occupy, second by second?

From outside: memory and descriptors of each worker from ``/proc``, calls that hold money from Redis, tasks and
connections to providers from ``/metrics``.
"""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import httpx
import redis

from perpetuo.adapters.redis import keys

PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE = re.compile(r"^perpetuo_(\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", re.MULTILINE)


@attrs.frozen
class Worker:
    """One worker at one moment."""

    rss: int
    files: int


@attrs.frozen
class Sample:
    """One moment. ``at`` is in seconds since the traffic began; ``tasks`` are by worker, in no known order."""

    at: float
    workers: dict[int, Worker]
    tasks: tuple[int, ...]
    busy: int
    idle: int
    in_flight: int
    holds: int
    backlog: int

    def files(self) -> int:
        return sum(worker.files for worker in self.workers.values())


class Watch:
    """Looks at one gateway."""

    def __init__(self, url: str, pids: Sequence[int], redis_url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=60)
        self.pids = list(pids)
        self.began = time.monotonic()

    def look(self) -> Sample:
        metrics = self._metrics()
        by_name: dict[str, float] = {}
        for (name, _), value in metrics.items():
            by_name[name] = by_name.get(name, 0.0) + value
        pools = {state: sum(v for (n, labels), v in metrics.items() if n == "upstream_connections" and state in labels)
                 for state in ("busy", "idle")}  # fmt: skip
        return Sample(
            at=time.monotonic() - self.began,
            workers={pid: _worker(pid) for pid in self.pids},
            tasks=tuple(sorted(int(v) for (n, _), v in metrics.items() if n == "worker_tasks")),
            busy=int(pools["busy"]),
            idle=int(pools["idle"]),
            in_flight=int(by_name["in_flight_requests"]),
            holds=self._holds(),
            backlog=int(by_name.get("events_backlog", -1)),
        )

    def total(self, name: str) -> float:
        """Sum over a metric's labels; the name without its prefix."""
        return sum(value for (found, _), value in self._metrics().items() if found == name)

    def _metrics(self) -> dict[tuple[str, str], float]:
        text = self._client.get("/metrics").text
        return {(name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)}

    def _holds(self) -> int:
        with self._redis.pipeline(transaction=False) as pipeline:
            for shard in range(keys.SHARDS):
                pipeline.zcard(keys.holds(keys.shard_prefix(shard)))
            return sum(pipeline.execute())

    def close(self) -> None:
        self._client.close()
        self._redis.close()


def _worker(pid: int) -> Worker:
    rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return Worker(rss, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
