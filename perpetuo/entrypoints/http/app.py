"""
Which application answers which path?

The public one serves ``/v1`` and health; the management one ``/admin``, ``/metrics``, ``/schema``
and health. Without ``MANAGEMENT_PORT`` one application serves both.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from litestar import Litestar, asgi
from litestar.datastructures import State
from litestar.di import Provide
from litestar.plugins import PluginProtocol

from perpetuo.adapters.environment import Environment
from perpetuo.adapters.environment import read as read_environment
from perpetuo.bootstrap import Container, build
from perpetuo.domain.model.chat import Kind
from perpetuo.entrypoints.http.account import account_router
from perpetuo.entrypoints.http.admin import admin_handlers
from perpetuo.entrypoints.http.admin.door import Door
from perpetuo.entrypoints.http.calls import Calls
from perpetuo.entrypoints.http.health import live, metrics, ready
from perpetuo.entrypoints.http.openapi import schema_router
from perpetuo.entrypoints.http.refusals import EXCEPTION_HANDLERS, check_host
from perpetuo.entrypoints.process.management import ManagementListener
from perpetuo.entrypoints.process.stalled import cut_stalled
from perpetuo.entrypoints.process.worker import obey
from perpetuo.entrypoints.worker import Worker


def call_path(container: Container) -> dict[str, Calls]:
    """What takes calls in, by path."""
    return {kind.path: Calls(kind, container.gateway, container.journal, container.system) for kind in Kind}


def public_app(container: Container, calls: dict[str, Calls], *, management: bool) -> Litestar:
    """``/v1`` and health; with ``management`` also what operators use."""
    handlers: list[Any] = [*(_route(path, taken) for path, taken in calls.items()), account_router, live, ready]
    if management:
        handlers += _management_handlers(container)
    return _litestar(container, handlers)


def management_app(container: Container) -> Litestar:
    """What operators use, for a port of its own."""
    return _litestar(container, [*_management_handlers(container), live, ready])


def _management_handlers(container: Container) -> list[Any]:
    door = Door(container)
    return [metrics, *admin_handlers(container, door), schema_router(door)]


def _route(path: str, calls: Calls) -> Any:
    @asgi(path, copy_scope=False)
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await calls(scope, receive, send)

    return handler


class _Lean(Litestar):
    """
    Litestar without the plugins that it adds by itself. Our handlers need none of them, and to look for pydantic is to
    import it where anything else has installed it: 100 ms of a worker's start and 10 MiB of its memory.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins


def _litestar(container: Container, handlers: list[Any]) -> Litestar:
    return _Lean(
        handlers,
        state=State({"container": container}),
        dependencies={"container": Provide(lambda: container, sync_to_thread=False)},
        before_request=check_host,
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=1_048_576,
    )


def as_get(scope: Any) -> Any:
    """A HEAD as the GET whose head it asks for: the server itself sends no body (RFC 9110, 9.3.2)."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


class Application:
    """
    The ASGI application of one worker.

    Everything is opened when the lifespan starts, in the loop it will run in. Requests then go to Litestar, but for
    calls at their usual path: its router and its layers around an `@asgi` handler are 36 of the 578 Python functions
    that a call entered (counted; decision 0022), and do nothing for it.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._public: Litestar | None = None
        self._calls: dict[str, Calls] = {}
        self._worker: Worker | None = None
        self._management: ManagementListener | None = None
        self._cutting: asyncio.Task[None] | None = None

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """No coroutine of its own: a call would pass through it each time it goes on."""
        if self._public is not None and scope["type"] == "http":
            calls = self._calls.get(scope["path"])
            return self._public(as_get(scope), receive, send) if calls is None else calls(scope, receive, send)
        return self._lifespan(scope, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            return
        await receive()
        try:
            await self._start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server has to say why it does not start
            await self._stop()  # a connection's thread would keep the process from ending
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        environment = self._environment
        container = await build(environment)
        self._worker = Worker(container)
        await self._worker.start()
        self._calls = call_path(container)
        self._public = public_app(container, self._calls, management=environment.management_port is None)
        if environment.management_port is not None:
            app = management_app(container)

            async def managed(scope: Any, receive: Any, send: Any) -> None:
                await app(as_get(scope), receive, send)

            self._management = ManagementListener(managed, environment.host, environment.management_port)
            await self._management.start()
        self._worker.ready()
        obey(environment.run_dir, self._worker.drain, container.reload)
        ports = {port for port in (environment.port, environment.management_port) if port is not None}
        self._cutting = asyncio.create_task(cut_stalled(ports), name="cut-stalled")

    async def _stop(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
        if self._management is not None:
            await self._management.stop()
        if self._worker is not None:
            await self._worker.stop()


def create() -> Application:
    """What a worker process runs."""
    return Application(read_environment())
