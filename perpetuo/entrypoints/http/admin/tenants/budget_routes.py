"""``/admin/budget/…`` and ``/admin/api/budget/…``: raise, end a raise, adjust."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from litestar import Response, get, post

from perpetuo.entrypoints.http.admin import asked
from perpetuo.entrypoints.http.admin.door import AnyRequest, Door, Operator
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.shown import operator_page
from perpetuo.entrypoints.http.admin.signing import TheDoor, TheOperator, check_form, check_role, read_form, see
from perpetuo.entrypoints.http.admin.tenants import acting, orders
from perpetuo.entrypoints.http.errors import status_of
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.wired import Container

# --- JSON ----------------------------------------------------------------------------------------


@get("/budget/raises")
async def raises_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    return listed(await acting.in_force(container, asked.text(request.query_params, "tenant")))


@post("/budget/raise", status_code=200)
async def raise_facts(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Facts:
    check_role(operator)
    order = _known(asked.json_object(await request.body()), "tenant", "key", "usd", "window", "until", "reason", "id")
    return await _raise(container, door, request, operator, order)


@post("/budget/end", status_code=200)
async def end_facts(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Facts:
    check_role(operator)
    order = _known(asked.json_object(await request.body()), "raise", "reason", "id")
    return await _end(container, door, request, operator, order)


@post("/budget/adjust", status_code=200)
async def adjust_facts(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Facts:
    check_role(operator)
    order = _known(asked.json_object(await request.body()), "tenant", "key", "usd", "day", "reason", "id")
    return await _adjust(container, door, request, operator, order)


def _known(order: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in order.keys() - set(names):
        raise asked.wrong(f"{name:.60}", f"is not known here; there are {', '.join(names)}")
    return order


# --- forms ---------------------------------------------------------------------------------------


@get("/budget/{action:str}", sync_to_thread=False)
def nothing_to_see(action: str, operator: TheOperator) -> Response[str]:
    """The address of a form's answer, asked for by itself."""
    return see("/admin/tenants")


@post("/budget/raise", status_code=200)
async def raise_form(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Response[str]:
    form = await _form(request, operator)
    try:
        order = orders.raise_order(form, container.settings, container.system.now_us())
        if form.get("confirmed") == "yes":
            return _back("raise", await _raise(container, door, request, operator, form))
        orders.operation(form, door.actor(request, operator), container.system)
        acting.check(container, order)
    except RefusedError as error:
        return _again("raise", operator, container, form, error)
    before, after = await acting.before_and_after(container, order)
    means = [
        acting.sentence(order),
        f"Its limit is then {after} USD instead of {before} USD, on all workers within a second.",
    ]
    return _ask("raise", operator, container, form, means)


@post("/budget/end", status_code=200)
async def end_form(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Response[str]:
    form = await _form(request, operator)
    one = next((each for each in await acting.in_force(container) if each["id"] == form.get("raise")), None)
    if one is None and form.get("tenant") in container.settings.tenants:
        return see(_tenant_page(form["tenant"], "gone"))
    if one is not None and form.get("confirmed") != "yes":
        whose = one["tenant"] if one["key"] is None else f"the key {one['key']} of {one['tenant']}"
        means = [f"The {one['window']} budget of {whose} is no longer higher by {one['usd']} USD, from now on."]
        return _ask("end", operator, container, {**form, "tenant": one["tenant"]}, means)
    return _back("end", await _end(container, door, request, operator, form))


@post("/budget/adjust", status_code=200)
async def adjust_form(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Response[str]:
    form = await _form(request, operator)
    try:
        order = orders.adjust_order(form, container.settings)
        if form.get("confirmed") == "yes":
            return _back("adjust", await _adjust(container, door, request, operator, form))
        orders.operation(form, door.actor(request, operator), container.system)
        acting.check(container, order)
    except RefusedError as error:
        return _again("adjust", operator, container, form, error)
    means = [acting.adjusted_sentence(order), "The books get a row that says so; nothing else is changed."]
    return _ask("adjust", operator, container, form, means)


async def _form(request: AnyRequest, operator: Operator) -> dict[str, str]:
    form = await read_form(request)
    check_form(request, operator, form)
    check_role(operator)
    return form


def _ask(
    action: str, operator: Operator, container: Container, form: Mapping[str, str], means: list[str]
) -> Response[str]:
    """The same form once more, to be confirmed; with an id, so that sending it twice does it once."""
    fields = {name: form.get(name, "") for name in FIELDS[action]} | {"id": form.get("id") or container.system.new_id()}
    return operator_page("tenants_confirm", operator, action=action, title=TITLES[action], fields=fields, means=means)


def _again(
    action: str, operator: Operator, container: Container, form: Mapping[str, str], error: RefusedError
) -> Response[str]:
    """The form with what was typed, and what is wrong with it."""
    tenant = container.settings.tenants.get(form.get("tenant", ""))
    if tenant is None:
        raise error
    values = {name: form.get(name, "") for name in FIELDS[action]}
    page = operator_page(
        "tenants_again", operator, action=action, title=TITLES[action], values=values,
        problem=_for_people(error.refusal.message), param=error.refusal.param or "", tenant=tenant.id,
        keys=[key.name for key in tenant.keys],
    )  # fmt: skip
    page.status_code = status_of(error.refusal)
    return page


def _back(action: str, done: Facts) -> Response[str]:
    """To the tenant, which says what was done: a word of ours, nothing that was typed."""
    return see(_tenant_page(done["tenant"], "again" if done["repeated"] else action))


def _tenant_page(tenant: str, done: str) -> str:
    return f"/admin/tenants/{quote(tenant, safe='')}?{urlencode({'done': done})}"


def _for_people(text: str) -> str:
    """What scripts are told, with the names that the form has."""
    for name, label in LABELS.items():
        text = text.replace(f"`{name}`", f"“{label}”")
    return text.replace("`", "")


TITLES = {"raise": "Raise a budget", "adjust": "Adjust what was spent", "end": "End a raise"}
LABELS = {
    "usd": "By how many USD", "until": "Until", "window": "Which budget", "key": "Whose budget", "day": "Day",
    "reason": "Reason",
}  # fmt: skip
FIELDS = {
    "raise": ("tenant", "key", "usd", "window", "until", "reason"),
    "adjust": ("tenant", "key", "usd", "day", "reason"),
    "end": ("tenant", "raise", "reason"),
}

# --- both ----------------------------------------------------------------------------------------


async def _raise(
    container: Container, door: Door, request: AnyRequest, operator: Operator, order: Mapping[str, Any]
) -> Facts:
    read = orders.raise_order(order, container.settings, container.system.now_us())
    operation = orders.operation(order, door.actor(request, operator), container.system)
    return await acting.carry_out_raise(container, operation, read)


async def _end(
    container: Container, door: Door, request: AnyRequest, operator: Operator, order: Mapping[str, Any]
) -> Facts:
    operation = orders.operation(order, door.actor(request, operator), container.system)
    return await acting.carry_out_end(container, operation, str(order.get("raise", "")))


async def _adjust(
    container: Container, door: Door, request: AnyRequest, operator: Operator, order: Mapping[str, Any]
) -> Facts:
    read = orders.adjust_order(order, container.settings)
    operation = orders.operation(order, door.actor(request, operator), container.system)
    return await acting.carry_out_adjustment(container, operation, read)


PAGES = (nothing_to_see, raise_form, end_form, adjust_form)
API = (raises_facts, raise_facts, end_facts, adjust_facts)
