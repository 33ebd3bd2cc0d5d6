"""
One soak: real Redis and PostgreSQL, a gateway of two workers, a provider that misbehaves, applications that leave.

    before   a short warm-up, then idle until pools are empty: what a gateway that has worked occupies at rest
    during   the traffic, and a look every second
    after    idle again, until everything is given back or a minute has passed
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.soak.traffic import Heard, traffic
from bench.soak.verdict import Run
from bench.soak.watch import Sample, Watch
from tests import servers
from tests.live import KEY, OTHER_KEY, LiveGateway, config_text, eventually

ROOT = Path(__file__).parents[2]
WARM_UP = 1.5
REST = 120.0
NEVER = "{minimumCalls: 1000000, consecutiveConnectFailures: 1000000}"
"""Breakers stay closed: the faults are there to be met, by as many calls as possible."""


def config(port: int, patience: float) -> str:
    """Budgets, concurrency and keys are on; two ids for one provider, so that there is somewhere to fail over to."""
    timeouts = f"{{connect: 2s, firstToken: {patience / 4}s, idle: {patience / 4}s, total: {patience}s}}"
    provider = f'kind: openai, baseUrl: "http://127.0.0.1:{port}/v1", timeouts: {timeouts}, breaker: {NEVER}'
    return config_text(
        providers=f"  - {{id: one, {provider}}}\n  - {{id: two, {provider}}}",
        models="""
  - {name: m, maxOutputTokens: 100, price: {inputPerMTok: 1, outputPerMTok: 1},
     targets: [{provider: one, model: m}, {provider: two, model: m}]}""",
        limits="{rateLimitMin: 1000000, concurrency: 10000, budgetDay: 100000, budgetMonth: 1000000}",
        more="idempotency: {ttl: 60s}\nredis: {timeout: 10s}",
    )


@contextlib.contextmanager
def provider(seed: int) -> Iterator[int]:
    """The provider in a process of its own; its port."""
    port = servers.free_port()
    command = [sys.executable, "-m", "bench.soak.provider", str(port), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
    finally:
        process.terminate()
        process.wait(30)


def soak(
    seconds: float, clients: int, seed: int, redis: servers.RedisServer, database: str, patience: float = 3.0
) -> Run:
    """Everything, from a start to a rest; ``patience`` is how long the gateway gives a provider that is silent."""
    with (
        provider(seed) as port,
        LiveGateway(
            config(port, patience),
            redis_url=redis.url,
            database_url=database,
            workers=2,
            environ={"LOG_LEVEL": "warning"},
        ) as gateway,
    ):
        eventually(lambda: len(gateway.worker_pids()) == 2)
        watch = Watch(gateway.url, gateway.worker_pids(), redis.url)
        with contextlib.closing(watch):
            asyncio.run(traffic(gateway.port, (KEY, OTHER_KEY), clients, WARM_UP, seed + 1, Heard()))
            before = _rest(watch, None)
            heard, during = asyncio.run(_watched(watch, gateway.port, clients, seconds, seed))
            after = _rest(watch, before)
            problems = _problems(gateway, watch)
        return Run(seconds, before, during, after, heard, _journal(port), problems)


async def _watched(watch: Watch, port: int, clients: int, seconds: float, seed: int) -> tuple[Heard, list[Sample]]:
    heard, samples = Heard(), []
    watch.began = time.monotonic()
    asking = asyncio.ensure_future(traffic(port, (KEY, OTHER_KEY), clients, seconds, seed, heard))
    while not asking.done():
        samples.append(await asyncio.to_thread(watch.look))
        await asyncio.wait({asking}, timeout=max(0.0, len(samples) - samples[-1].at))
    await asking
    return heard, samples


def _rest(watch: Watch, before: Sample | None) -> Sample:
    """The first look at which nothing is in use any more, and as much is open as ``before``; else the last one."""
    until, last = time.monotonic() + REST, watch.look()
    while time.monotonic() < until:
        sample = watch.look()
        quiet = not (sample.busy or sample.idle or sample.in_flight or sample.holds or sample.backlog)
        settled = sample.tasks == last.tasks and sample.files() == last.files()
        as_before = before is None or (sample.tasks == before.tasks and sample.files() <= before.files())
        if quiet and settled and as_before:
            return sample
        last = sample
        time.sleep(1.1)  # workers tell once a second what they occupy
    return last


def _problems(gateway: LiveGateway, watch: Watch) -> list[str]:
    found = []
    if gateway.worker_pids() != watch.pids:
        found.append("a worker died")
    if watch.total("hold_exceeded_total"):
        found.append("a call cost more than its hold")
    for key in (KEY, OTHER_KEY):
        held = [b["held_usd"] for b in gateway.get("/v1/key", key).json()["budgets"] if b["held_usd"] != "0"]
        found += [f"money still held: {amount} USD" for amount in held]
    return found + [f"in the log: {line}" for line in gateway.log().splitlines() if '"level":"error"' in line][:5]


def _journal(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/journal", timeout=30) as answer:
        counts: dict[str, int] = json.loads(answer.read())
    return counts
