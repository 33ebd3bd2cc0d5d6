"""
The dashboard, for an operator with a pager: what is wrong, in seconds, and the buttons that help.

    sessions   who is signed in: a signed cookie, no store
    door       who may come in, how often one may try
    signing    the sign-in page, and who asks on every other
    topics     overview events refusals tenants providers system: in each
                 routes   its pages, and the same as JSON
                 look     what is seen: each part asks one store, and says when it is away
                 facts    domain values as dictionaries: JSON, and what templates show
                 acting   what can be changed
    overview   also  watched  one look for all who watch
                     viewer   how one of them hears of it
    pages api  the routers
"""

from typing import Any

from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.admin.api import api_router
from perpetuo.entrypoints.http.admin.door import Door
from perpetuo.entrypoints.http.admin.overview.watched import Watch
from perpetuo.entrypoints.http.admin.pages import pages_router
from perpetuo.entrypoints.http.admin.rendering import static_files


def admin_handlers(container: Container, door: Door) -> list[Any]:
    """Everything below ``/admin``."""
    return [static_files, pages_router(door, Watch(container)), api_router(door)]
