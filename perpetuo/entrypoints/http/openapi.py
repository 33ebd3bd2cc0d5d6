"""
What is the gateway's API, for people and for tools? ``/schema`` and ``/schema/openapi.json``.

Rule 1: ``openapi.yaml`` says what can be asked; what can be refused comes from the error table and is in no second
        place. A test walks all routes and finds each in the document.
Rule 2: the page is made here, of the document alone: no script, nothing from elsewhere.

Written by hand, because what a framework can derive from ``dict[str, Any]`` and from plain ASGI tells nobody much.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from litestar import Request, Response, Router, get
from litestar.di import Provide

from perpetuo import __version__
from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.admin.door import Door
from perpetuo.entrypoints.http.admin.rendering import GuardedMiddleware, page
from perpetuo.entrypoints.http.admin.signing import TheDoor
from perpetuo.entrypoints.http.errors import TABLE
from perpetuo.entrypoints.http.wired import Container

Json = dict[str, Any]
SOURCE = Path(__file__).with_name("openapi.yaml")
ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
REFUSAL_HEADERS = {
    "x-request-id": {"$ref": "#/components/headers/requestId"},
    "retry-after": {"$ref": "#/components/headers/retryAfter"},
    "retry-after-ms": {"$ref": "#/components/headers/retryAfterMs"},
    "x-should-retry": {"$ref": "#/components/headers/shouldRetry"},
}


@cache
def document() -> Json:
    """The whole OpenAPI document, but for where it is served."""
    found: Json = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    found["info"]["version"] = __version__
    found["components"]["responses"] = _refusals()
    return found


def _refusals() -> Json:
    """A response for each status of the error table, named ``e429``, with the codes it can have."""
    codes: defaultdict[int, list[Reason]] = defaultdict(list)
    for reason, row in TABLE.items():
        codes[row.status].append(reason)
    return {
        f"e{status}": {
            "description": "`code`: " + ", ".join(f"`{reason.value}`" for reason in reasons) + ".",
            "headers": REFUSAL_HEADERS,
            "content": ERROR,
        }
        for status, reasons in codes.items()
    }


@get("/openapi.json", include_in_schema=False, middleware=[GuardedMiddleware()], sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any], container: Container) -> Response[bytes]:
    served = {**document(), "servers": [{"url": _server(request, container)}]}
    return Response(msgspec.json.encode(served), media_type="application/json")


@get("/", include_in_schema=False, sync_to_thread=False)
def openapi_page(request: Request[Any, Any, Any], door: TheDoor, container: Container) -> Response[Any]:
    """For everybody; whoever is signed in has the dashboard's head above it."""
    if request.headers.get("accept", "").startswith("application/json"):
        return Response("", status_code=303, headers={"location": "/schema/openapi.json"}, media_type="text/plain")
    errors = [(reason.value, row) for reason, row in TABLE.items()]
    server = _server(request, container)
    return page(
        "schema.html", doc=document(), operations=list(operations()), errors=errors, server=server,
        operator=door.signed_in(request), section="schema",
    )  # fmt: skip


def schema_router(door: Door) -> Router:
    return Router(
        path="/schema",
        route_handlers=[openapi_page, openapi_json],
        dependencies={"door": Provide(lambda: door, sync_to_thread=False)},
        include_in_schema=False,
    )


def _server(request: Request[Any, Any, Any], container: Container) -> str:
    """Calls are taken on PORT, which need not be where this is read."""
    environment = container.environment
    if environment.management_port is None:
        return f"{request.url.scheme}://{request.url.netloc}"
    return f"{request.url.scheme}://{request.url.hostname}:{environment.port}"


# --- for the page --------------------------------------------------------------------------------


def operations() -> Iterator[Json]:
    """Every operation, its references followed, its fields as rows."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            yield {
                **operation,
                "path": path,
                "method": method,
                "description": operation.get("description", ""),
                "parameters": [{"required": False, **follow(one)} for one in operation.get("parameters", ())],
                "fields": list(fields(body.get("schema", {}))),
                "example": _example(body.get("example")),
                "responses": {status: _response(one) for status, one in operation["responses"].items()},
            }


def _response(found: Mapping[str, Any]) -> Json:
    response = follow(found)
    content = response.get("content", {})
    schema: Json = next((one["schema"] for one in content.values()), {})
    return {
        "description": response["description"],
        "media": list(content),
        "fields": [] if found.get("$ref") else list(fields(schema)),
        "headers": {} if found.get("$ref") else {n: follow(h) for n, h in response.get("headers", {}).items()},
    }


def follow(found: Mapping[str, Any]) -> Json:
    """What a reference refers to."""
    target: Any = found
    while "$ref" in target:
        steps = target["$ref"].removeprefix("#/").split("/")
        target = document()
        for step in steps:
            target = target[step]
    return dict(target)


def fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[Json]:
    """Name, type, need and meaning of each field, those of inner objects under ``outer.inner``."""
    whole = follow(schema)
    for name, given in whole.get("properties", {}).items():
        inner = follow(given)
        item = follow(inner.get("items", {}))
        yield {
            "name": prefix + name,
            "type": type_of(inner),
            "required": name in whole.get("required", ()),
            "description": inner.get("description", ""),
        }
        yield from fields(inner, f"{prefix}{name}.")
        yield from fields(item, f"{prefix}{name}[].")


def type_of(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _example(body: Any) -> str | None:
    return None if body is None else msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
