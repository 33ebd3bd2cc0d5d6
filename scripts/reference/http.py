"""What can be asked over HTTP, and which headers go with it?"""

from collections.abc import Iterator
from typing import Any

from perpetuo.entrypoints.http.openapi import document
from scripts.reference.markdown import GENERATED, table

METHODS = ("get", "post", "put", "delete")


def lines() -> Iterator[str]:
    yield from ["# HTTP: paths and headers", "", GENERATED, ""]
    yield "A running gateway has all of it at `/schema`, and as OpenAPI at `/schema/openapi.json`."
    paths = document()["paths"]
    for tag in document()["tags"]:
        yield from ["", f"## {tag['name']}", "", tag["description"], ""]
        yield from table(("", "Path", ""), list(_operations(paths, tag["name"])))
    yield from ["", "## Request headers", ""]
    asked = document()["components"]["parameters"].values()
    yield from table(
        ("Header", "Meaning"), [(f"`{p['name']}`", p["description"]) for p in asked if p["in"] == "header"]
    )
    yield from ["", "## Response headers", ""]
    yield from table(("Header", "Meaning"), list(_answered(paths)))


def _operations(paths: dict[str, Any], tag: str) -> Iterator[tuple[str, ...]]:
    for path, item in paths.items():
        for method in METHODS:
            if tag in item.get(method, {}).get("tags", ()):
                yield method.upper(), f"`{path}`", item[method]["summary"]


def _answered(paths: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every header of any answer once, in the order in which they are met."""
    known = document()["components"]
    found: dict[str, str] = {}
    operations = [item[method] for item in paths.values() for method in METHODS if method in item]
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    for answer in [*answers, *known["responses"].values()]:
        for name, header in answer.get("headers", {}).items():
            reference = header.get("$ref", "").rpartition("/")[2]
            found.setdefault(name, (known["headers"][reference] if reference else header)["description"])
    yield from ((f"`{name}`", text) for name, text in found.items())
