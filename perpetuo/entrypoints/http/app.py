"""
Which application answers which path?

The public one serves ``/v1`` and health; the management one ``/admin``, ``/metrics``, ``/schema``
and health. Without ``MANAGEMENT_PORT`` one application serves both.
"""

from typing import Any

from litestar import Litestar, asgi
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from perpetuo import __version__
from perpetuo.bootstrap import Container
from perpetuo.domain.model.chat import Kind
from perpetuo.entrypoints.http.account import account_router
from perpetuo.entrypoints.http.calls import Calls
from perpetuo.entrypoints.http.health import live, metrics, ready
from perpetuo.entrypoints.http.refusals import EXCEPTION_HANDLERS
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware


def public_app(container: Container, *, management: bool) -> Litestar:
    """``/v1`` and health; with ``management`` also what operators use."""
    handlers: list[Any] = [*(_calls(kind, container) for kind in Kind), account_router, live, ready]
    if management:
        handlers += _management_handlers()
    return _litestar(container, handlers, documented=management)


def management_app(container: Container) -> Litestar:
    """What operators use, for a port of its own."""
    return _litestar(container, [*_management_handlers(), live, ready], documented=True)


def _management_handlers() -> list[Any]:
    return [metrics]


def _calls(kind: Kind, container: Container) -> Any:
    calls = Calls(kind, container.gateway, container.journal, container.system)

    @asgi(kind.path, copy_scope=False, name=kind.value)
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await calls(scope, receive, send)

    return handler


def _litestar(container: Container, handlers: list[Any], *, documented: bool) -> Litestar:
    return Litestar(
        handlers,
        state=State({"container": container}),
        dependencies={"container": Provide(lambda: container, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[RequestIdMiddleware],
        openapi_config=OpenAPIConfig(title="Perpetuo", version=__version__) if documented else None,
        logging_config=None,
        request_max_body_size=1_048_576,
    )
