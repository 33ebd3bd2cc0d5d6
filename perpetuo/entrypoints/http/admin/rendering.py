"""
How does a page become HTML, and with which headers does it leave?

Rule 1: every value is escaped; a name that a template does not know is an error, not an empty place.
Rule 2: nothing inline and nothing from elsewhere, so that the policy can say ``'self'`` and mean it.
Rule 3: pages are never cached; what they are made of is, under a name that changes with its content.
"""

from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response
from litestar.datastructures import CacheControlHeader
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.static_files import create_static_files_router

from perpetuo import __version__
from perpetuo.entrypoints.http.admin.compiled import Kept
from perpetuo.entrypoints.http.admin.facts import span

HERE = Path(__file__).parent
STATIC = "/admin/static"
SECURITY = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
NOT_CACHED = {"cache-control": "no-store"}


def page(name: str, status: int = 200, headers: dict[str, str] | None = None, **context: Any) -> Response[str]:
    """The template ``name`` as a whole answer."""
    text = _templates.get_template(name).render(context)
    own = {**SECURITY, **NOT_CACHED, **(headers or {})}
    return Response(text, status_code=status, media_type="text/html", headers=own)


def macro(template: str, name: str, *given: Any) -> str:
    """One piece of a page: what the macro ``name`` of a template makes of what it is given."""
    return str(getattr(_templates.get_template(template).module, name)(*given))


class GuardedMiddleware(ASGIMiddleware):
    """The headers of `SECURITY` on whatever a router answers, JSON, redirects and refusals too."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Any, receive: Any, send: Any, next_app: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                have = {name.lower() for name, _ in message["headers"]}
                add = {**SECURITY, **NOT_CACHED}
                missing = [(n.encode(), v.encode()) for n, v in add.items() if n.encode() not in have]
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        await next_app(scope, receive, with_headers)


static_files = create_static_files_router(
    path=STATIC,
    directories=[HERE / "static"],
    cache_control=CacheControlHeader(max_age=31_536_000, public=True, immutable=True),
    middleware=[GuardedMiddleware()],
    name="admin-static",
)


# --- what templates can do -----------------------------------------------------------------------


def static(name: str) -> str:
    """The address of a file in ``static/``; another content has another address."""
    return f"{STATIC}/{name}?v={_VERSIONS[name]}"


def clock(instant: str) -> str:
    """``14:03:22`` of an ISO instant, UTC."""
    return instant[11:19]


def moment(instant: str) -> str:
    """``2026-11-23 14:03:22`` of an ISO instant, UTC."""
    return instant[:19].replace("T", " ")


def ago(instant: str, now: str) -> str:
    seconds = round((datetime.fromisoformat(now) - datetime.fromisoformat(instant)).total_seconds())
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def ms(value: float | None) -> str:
    """Milliseconds, or seconds when there are many of them."""
    if value is None:
        return "–"
    return f"{value / 1_000:.2f} s" if value >= 1_000 else f"{value:.1f} ms"


def words(code: str) -> str:
    """A code as words: ``half_open`` → ``half open``."""
    return code.replace("_", " ")


def address(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="")


def environment(templates: Path = HERE / "templates") -> Environment:
    mark = sha256(Path(__file__).read_bytes() + jinja2.__version__.encode()).hexdigest()[:10]
    made = Environment(
        loader=FileSystemLoader(templates),
        bytecode_cache=Kept(templates / "__pycache__", mark),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {f.__name__: f for f in (clock, moment, ago, span, ms, words, address)}
    made.globals |= {"static": static, "version": __version__}
    return made


_VERSIONS = {
    path.relative_to(HERE / "static").as_posix(): sha256(path.read_bytes()).hexdigest()[:10]
    for path in (HERE / "static").rglob("*.*")
    if path.is_file()
}
_templates = environment()


def compile_all() -> None:
    """For an image whose files nobody can write later."""
    for name in _templates.list_templates(extensions=["html"]):
        _templates.get_template(name)
