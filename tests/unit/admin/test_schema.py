"""The API's document: complete, its references hold, and what is answered is as it says."""

from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.openapi import document, follow, operations
from tests.unit.admin.conftest import TENANT_KEY, Desk

pytestmark = pytest.mark.anyio
ALIASES = {"/healthz", "/readyz"}
NOT_PART = ("/schema", "/admin")


def references(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if isinstance(found.get("$ref"), str):
            yield found["$ref"]
        for inner in found.values():
            yield from references(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from references(inner)


def schema(name: str) -> dict[str, Any]:
    return {**document()["components"]["schemas"][name], "components": document()["components"]}


def served(desk: Desk) -> set[tuple[str, str]]:
    """Every route of the application, as the document would write it."""
    found: set[tuple[str, str]] = set()
    for route in desk.app.routes:
        path = getattr(route, "path_format", route.path).replace("{model_id}", "{model}")
        path = (
            path.replace("{tenant_id}", "{tenant}")
            .replace("{event_id}", "{event}")
            .replace("{provider_id}", "{provider}")
        )
        methods = getattr(route, "methods", {"POST"})
        if path in {kind.path for kind in Kind}:
            methods = {"POST"}
        found |= {(method.lower(), path) for method in methods if method in {"GET", "POST"}}
    return {(m, p) for m, p in found if p not in ALIASES and "{rest}" not in p}


async def test_every_route_is_in_the_document_and_nothing_else(desk: Desk) -> None:
    """Nobody adds a route and forgets to say so."""
    documented = {(operation["method"], operation["path"]) for operation in operations()}
    routes = {(m, p) for m, p in served(desk) if not p.startswith(NOT_PART) or p.startswith("/admin/api")}
    assert documented == routes


def test_every_reference_holds_and_every_operation_has_its_name() -> None:
    """For generators of clients."""
    for reference in set(references(document())):
        assert follow({"$ref": reference}), reference
    names = [operation["operationId"] for operation in operations()]
    assert len(names) == len(set(names))


def test_every_reason_is_documented() -> None:
    """All codes of the error table, under their statuses."""
    text = "".join(one["description"] for one in document()["components"]["responses"].values())
    for reason in Reason:
        assert f"`{reason.value}`" in text, reason


async def test_answers_are_as_the_document_says(desk: Desk) -> None:
    """Account routes, health, a call, and errors, against their schemas."""
    answer = await desk.call()
    key = {"authorization": f"Bearer {TENANT_KEY}"}
    asked = {
        "/v1/models": "ModelList", "/v1/models/m": "Model", "/v1/key": "Key", "/health/live": "Health",
        "/health/ready": "Health", f"/v1/requests/{answer.headers['x-request-id']}": "Request",
        "/v1/requests/none": "Error", "/v1/models/none": "Error", "/v1/none": "Error", "/admin/api/none": "Error",
    }  # fmt: skip
    jsonschema.validate(answer.json(), schema("ChatCompletion"))
    for path, name in asked.items():
        got = await desk.another().get(path, headers=key)
        jsonschema.validate(got.json(), schema(name), jsonschema.Draft202012Validator)


async def test_headers_of_an_answer_are_documented(desk: Desk) -> None:
    """Every header of ours on a call."""
    answer = await desk.call(**{"x-idempotency-key": "k"})
    operation = document()["paths"]["/v1/chat/completions"]["post"]
    documented = set(operation["responses"]["200"]["headers"])
    ours = {name for name in answer.headers if name.startswith("x-")}
    assert ours <= documented, ours - documented


async def test_the_page_and_the_document_are_served(desk: Desk) -> None:
    """HTML for people, JSON for tools, by address or by what they accept."""
    browser = desk.another()
    page = await browser.get("/schema", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    for operation in operations():
        assert f'id="{operation["operationId"]}"' in page.text
    answer = await browser.get("/schema", headers={"accept": "application/json"})
    assert answer.headers["location"] == "/schema/openapi.json"
    found = (await browser.get("/schema/openapi.json")).json()
    assert found["openapi"] == "3.1.0"
    assert found["servers"] == [{"url": "http://localhost:3000"}]
