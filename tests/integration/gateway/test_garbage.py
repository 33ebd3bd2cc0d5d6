"""
Is a call's memory free the moment the call is over (O4)?

Python frees at once what nobody refers to any more; only what refers to itself waits for the collector, which in a
worker comes by seldom (`perpetuo/entrypoints/worker.py`). A whole worker in this process, and one provider that ends
calls in every way. (Where HTTP/2 or a proxy is asked for, httpx makes such rings for each call; they wait.)
"""

import asyncio
import contextlib
import gc
import json
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from perpetuo import bootstrap
from perpetuo.adapters.environment import read
from perpetuo.adapters.sql import migrate
from perpetuo.domain.gateway.relay import relay
from perpetuo.domain.model.events import RefusalNote
from perpetuo.entrypoints.http.app import call_path, public_app
from tests.evil import Evil, Peer, Script, saying, silent_after
from tests.integration.gateway.test_upstreams import EVENT, FINISH, GOOD, chunked, whole
from tests.live import KEY, config_text

pytestmark = pytest.mark.anyio
CALLS = 2


def resetting(peer: Peer) -> None:
    peer.request()
    peer.reset()


ENDINGS: dict[str, tuple[Script, dict[str, Any], int | None]] = {
    "answered": (saying(whole(GOOD)), {}, 200),
    "streamed": (saying(chunked(EVENT, FINISH, b"data: [DONE]\n\n")), {"stream": True}, 200),
    "refused by the provider": (saying(whole(b'{"error":{"message":"no"}}', b"400 Bad Request")), {}, 400),
    "broken": (saying(whole(b"{}", b"500 Internal Server Error")), {}, 502),
    "reset": (resetting, {}, 502),
    "cut short": (saying(whole(GOOD)[:-9]), {}, 502),
    "a stream cut short": (saying(chunked(EVENT, end=False)), {"stream": True}, 200),
    "a stream that falls silent": (silent_after(chunked(EVENT, end=False)), {"stream": True, "model": "gaps"}, 200),
    "silent": (silent_after(b""), {"model": "hurried"}, 504),
    "no HTTP": (saying(b"hello\r\n\r\n"), {}, 502),
    "left": (silent_after(b""), {"leaves": 0.02}, None),
    "a stream that is left": (silent_after(chunked(EVENT, end=False)), {"stream": True, "leaves": None}, 200),
    "no such model": (saying(b""), {"model": "none"}, 404),
    "nobody listening": (saying(b""), {"model": "nobody"}, 502),
    "no JSON": (saying(b""), {"body": b"{"}, 400),
}


class Worker:
    """A worker without a server around it."""

    def __init__(self, container: bootstrap.Container) -> None:
        self.container = container
        self.app = public_app(container, call_path(container), management=False)

    async def call(self, *, leaves: float | None = 0, body: bytes | None = None, **members: Any) -> int | None:
        """
        One call; its status, or none when nothing was said to a client that had left.

        ``leaves``: after so many seconds; none: when the first piece of an answer has come; 0: it stays.
        """
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, **members}
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        inbox.put_nowait({"type": "http.request", "body": body or json.dumps(asked).encode(), "more_body": False})
        if leaves:
            asyncio.get_running_loop().call_later(leaves, inbox.put_nowait, {"type": "http.disconnect"})
        said: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            said.append(message)
            if leaves is None and message.get("body"):
                inbox.put_nowait({"type": "http.disconnect"})

        headers = [(b"host", b"x"), (b"authorization", b"Bearer " + KEY.encode())]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1), "extensions": {}, "state": {},
        }  # fmt: skip
        await self.app(scope, inbox.get, send)  # type: ignore[arg-type]
        return next((int(message["status"]) for message in said if "status" in message), None)


class Stage:
    """The provider's script; each test sets its own."""

    def __init__(self) -> None:
        self.script: Script = saying(b"")

    def __call__(self, peer: Peer) -> None:
        self.script(peer)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="module")
def settings(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a worker whose model ``m`` is at the stage, and ``nobody`` where nobody listens."""
    directory = tmp_path_factory.mktemp("garbage")
    patient = "timeouts: {connect: 10s, firstToken: 20s, idle: 20s, total: 60s}"
    hurried, gaps = patient.replace("firstToken: 20s", "firstToken: 100ms"), patient.replace("idle: 20s", "idle: 100ms")
    never = "breaker: {minimumCalls: 1000000, consecutiveConnectFailures: 1000000}"
    model = "maxOutputTokens: 99, price: {inputPerMTok: 1, outputPerMTok: 1}"
    with Evil(stage) as provider:
        config = config_text(
            providers=f"""
  - {{id: up, kind: openai, baseUrl: "{provider.origin}/v1", {patient}, {never}}}
  - {{id: hurried, kind: openai, baseUrl: "{provider.origin}/v1", {hurried}, {never}}}
  - {{id: gaps, kind: openai, baseUrl: "{provider.origin}/v1", {gaps}, {never}}}
  - {{id: away, kind: openai, baseUrl: "http://127.0.0.1:9", {never}}}""",
            models=f"""
  - {{name: m, targets: [{{provider: up, model: m}}], {model}}}
  - {{name: hurried, targets: [{{provider: hurried, model: m}}], {model}, timeouts: {{total: 200ms}}}}
  - {{name: gaps, targets: [{{provider: gaps, model: m}}], {model}}}
  - {{name: nobody, targets: [{{provider: away, model: m}}], {model}}}""",
            more="retry: {backoff: 1ms}",
        )
        (directory / "perpetuo.config.yaml").write_text(config)
        database = f"sqlite:///{directory}/events.sqlite3"
        migrate.upgrade(database)
        yield {
            "PERPETUO_CONFIG_PATH": f"{directory}/perpetuo.config.yaml", "REDIS_URL": "memory://",
            "DATABASE_URL": database, "PERPETUO_ADMIN_KEY": "admin-key-of-the-tests-0123456789", "LOG_LEVEL": "error",
        }  # fmt: skip


@pytest.fixture(scope="module")
async def worker(settings: dict[str, str]) -> AsyncIterator[Worker]:
    container = await bootstrap.build(read(settings))
    await container.start()
    container.stage = "ready"
    stream, store = container.stores.stream, container.store
    carrying = asyncio.create_task(relay(stream, store, container.journal, container.system))
    gc.collect()
    gc.freeze()  # the collector looks at what is made from here on only
    yield Worker(container)
    carrying.cancel()
    await container.stop()


def ours(found: list[Any]) -> set[str]:
    """Frames, and objects of classes, that are the gateway's."""
    frames = {one.f_code.co_qualname for one in found if isinstance(one, types.FrameType) and _is_ours(one)}
    classes = (type(one) for one in found)
    return frames | {kind.__qualname__ for kind in classes if str(kind.__module__).startswith("perpetuo")}


def _is_ours(frame: types.FrameType) -> bool:
    return "/perpetuo/" in frame.f_code.co_filename and "/site-packages/" not in frame.f_code.co_filename


async def left_for_the_collector(worker: Worker, arguments: dict[str, Any], status: int | None) -> set[str]:
    """What a few calls leave that only the collector can free."""
    assert await worker.call(**arguments) == status  # what is made once for all calls
    await asyncio.sleep(0.05)
    gc.collect()
    with collected() as found:
        for _ in range(CALLS):
            await worker.call(**arguments)
        await asyncio.sleep(0.1)
    return ours(found)


@contextlib.contextmanager
def collected() -> Iterator[list[Any]]:
    """Filled, when the block is over, with what only the collector could free."""
    found: list[Any] = []
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("ending", ENDINGS)
async def test_o4_a_call_leaves_nothing_to_the_collector(worker: Worker, stage: Stage, ending: str) -> None:
    """Each failed attempt kept its call, 150 objects, until the collector came by: memory crept up."""
    stage.script, arguments, status = ENDINGS[ending]
    assert await left_for_the_collector(worker, arguments, status) == set()


async def test_o4_writing_refusals_down_leaves_nothing_to_the_collector(worker: Worker) -> None:
    """Once a second while there are any; each time it left a statement of a hundred objects."""
    store, note = (
        worker.container.store,
        RefusalNote(
            at_us=0, request_id="r", tenant_id="acme", key_name="key-1", reason="replayed", status=200, model="m"
        ),
    )
    await store.write_refusals([note])
    gc.collect()
    with collected() as found:
        await store.write_refusals([note])
    assert not [one for one in found if type(one).__module__.startswith("sqlalchemy")]
