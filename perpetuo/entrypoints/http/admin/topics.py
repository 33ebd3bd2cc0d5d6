"""The topics of the dashboard: each has its pages (``PAGES``) and the same as JSON (``API``)."""

from typing import Any

from perpetuo.entrypoints.http.admin.events import routes as events
from perpetuo.entrypoints.http.admin.overview import routes as overview
from perpetuo.entrypoints.http.admin.providers import routes as providers
from perpetuo.entrypoints.http.admin.refusals import routes as refusals
from perpetuo.entrypoints.http.admin.system import routes as system
from perpetuo.entrypoints.http.admin.tenants import budget_routes as budgets
from perpetuo.entrypoints.http.admin.tenants import routes as tenants

PAGES: tuple[Any, ...] = (
    *overview.PAGES, *events.PAGES, *refusals.PAGES, *tenants.PAGES, *budgets.PAGES, *providers.PAGES, *system.PAGES,
)  # fmt: skip
API: tuple[Any, ...] = (
    *overview.API, *events.API, *refusals.API, *tenants.API, *budgets.API, *providers.API, *system.API,
)  # fmt: skip
