"""How long does a worker's drain take? On a loop whose clock jumps to whatever is due next. (O1)"""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from perpetuo import bootstrap
from perpetuo.adapters.environment import read
from perpetuo.entrypoints.http.app import call_path, public_app
from perpetuo.entrypoints.worker import FINISH_SECONDS, OWING_SECONDS, Worker

KEY = "sk-acme-of-the-tests"
CONFIG = f"""\
providers: [{{id: demo, kind: demo}}]
models:
  - {{name: m, targets: [{{provider: demo, model: m}}]}}
  - {{name: stall, targets: [{{provider: demo, model: demo-stall}}], free: true}}
tenants: [{{id: acme, limits: {{budgetDay: unlimited}}, apiKeys: ["{KEY}"]}}]
server: {{drainDelay: 5s}}
"""


class JumpingLoop(asyncio.SelectorEventLoop):
    """
    An event loop that never waits: when nothing is ready, it is as late as the next timer wants it.

    Time does not pass otherwise, so that a busy machine takes no longer.
    """

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


async def worker_of(directory: Path) -> tuple[Worker, bootstrap.Container, httpx.AsyncClient]:
    """A worker that is ready, in memory, and a client of its application; no loop runs beside them."""
    path = directory / "perpetuo.config.yaml"
    path.write_text(CONFIG)
    environ = {"PERPETUO_CONFIG_PATH": str(path), "REDIS_URL": "memory://", "PERPETUO_ADMIN_KEY": "k" * 32}
    container = await bootstrap.build(read({**environ, "DATABASE_URL": f"sqlite:///{directory}/events.db"}))
    container.stage = "ready"
    transport = httpx.ASGITransport(app=public_app(container, call_path(container), management=False))  # type: ignore[arg-type]
    return Worker(container), container, httpx.AsyncClient(transport=transport, base_url="http://x", timeout=1_000)


async def ask(client: httpx.AsyncClient, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], **more}
    return await client.post("/v1/chat/completions", headers={"authorization": f"Bearer {KEY}"}, json=body)


async def drained(directory: Path, *models: str) -> tuple[float, list[httpx.Response], list[int]]:
    """Seconds of a drain with streams of these models in flight; what they got; statuses before and after its delay."""
    worker, container, client = await worker_of(directory)
    calls = [asyncio.create_task(ask(client, model, stream=True)) for model in models]
    while len(container.gateway.in_flight) < len(models):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.001)
    loop = asyncio.get_running_loop()
    began = loop.time()
    drain = asyncio.create_task(worker.drain())
    await asyncio.sleep(0.1)
    statuses = [(await client.get("/health/ready")).status_code, (await ask(client, "m")).status_code]
    await asyncio.sleep(began + 5.1 - loop.time())
    statuses.append((await ask(client, "m")).status_code)
    await drain
    seconds = loop.time() - began
    answers = await asyncio.gather(*calls)
    await container.stop()
    return seconds, answers, statuses


def on_a_jumping_loop(directory: Path, *models: str) -> tuple[float, list[httpx.Response], list[int]]:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(drained(directory, *models))


def test_o1_streams_get_an_error_event_when_58_seconds_after_the_delay_are_over(tmp_path: Path) -> None:
    """Not earlier; ready says no at once, calls are taken for the delay and refused after it; 70 s are not reached."""
    seconds, answers, statuses = on_a_jumping_loop(tmp_path, "stall", "stall")
    assert statuses == [503, 200, 503]
    for answer in answers:
        assert answer.text.rstrip().rpartition("data: ")[2].count('"code":"shutting_down"') == 1
        assert "[DONE]" not in answer.text
    assert 5 + FINISH_SECONDS <= seconds <= 5 + FINISH_SECONDS + OWING_SECONDS < 70


def test_o1_a_drain_ends_when_nothing_is_in_flight(tmp_path: Path) -> None:
    """After the delay, without waiting for anything else."""
    seconds, _, _ = on_a_jumping_loop(tmp_path)
    assert 5 <= seconds < 6
