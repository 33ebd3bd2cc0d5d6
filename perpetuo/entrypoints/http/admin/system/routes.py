"""``/admin/system`` and ``/admin/api/system``."""

import asyncio

from litestar import Response, get

from perpetuo.adapters.system import giving_way
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.rendering import NOT_CACHED, SECURITY
from perpetuo.entrypoints.http.admin.shown import now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.admin.system import look
from perpetuo.entrypoints.http.admin.system.configuration import configuration
from perpetuo.entrypoints.http.admin.system.facts import in_force
from perpetuo.entrypoints.http.admin.system.yaml import as_yaml
from perpetuo.entrypoints.http.wired import Container

TENANTS_SHOWN = 200


@get("/system")
async def system_page(operator: TheOperator, container: Container) -> Response[str]:
    seen, software = await asyncio.gather(look.system(container), look.software(container))
    return operator_page(
        "system", operator, state=seen, software=software, now=now_of(container), in_force=in_force(container.settings)
    )


@get("/system")
async def system(operator: TheOperator, container: Container) -> Facts:
    seen, software = await asyncio.gather(look.system(container), look.software(container))
    return {**seen, "software": software, "in_force": in_force(container.settings)}


# --- all of the configuration --------------------------------------------------------------------


@get("/system/configuration")
async def configuration_page(operator: TheOperator, container: Container) -> Response[str]:
    text = await asyncio.to_thread(_text, container, TENANTS_SHOWN)
    return operator_page(
        "system_configuration", operator, text=text, shown=TENANTS_SHOWN, version=container.settings.version,
        left_out=max(0, len(container.settings.tenants) - TENANTS_SHOWN), now=now_of(container),
        read_at=iso(container.config.loaded_at_us),
    )  # fmt: skip


@get("/system/configuration.yaml")
async def configuration_file(operator: TheOperator, container: Container) -> Response[str]:
    name = f"perpetuo-configuration-{container.settings.version}.yaml"
    headers = {"content-disposition": f'attachment; filename="{name}"', **SECURITY, **NOT_CACHED}
    text = await asyncio.to_thread(_text, container)
    return Response(text, media_type="application/yaml", headers=headers)


@get("/system/configuration")
async def configuration_facts(operator: TheOperator, container: Container) -> Facts:
    return {
        "version": container.settings.version,
        "read_at": iso(container.config.loaded_at_us),
        "configuration": await asyncio.to_thread(_configuration, container),
    }


def _configuration(container: Container, most_tenants: int | None = None) -> Facts:
    """In a thread: 10,000 tenants take long."""
    with giving_way:
        return configuration(container.settings, container.config.variables, most_tenants)


def _text(container: Container, most_tenants: int | None = None) -> str:
    with giving_way:
        return as_yaml(_configuration(container, most_tenants))


PAGES = (system_page, configuration_page, configuration_file)
API = (system, configuration_facts)
