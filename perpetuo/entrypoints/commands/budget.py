"""
What can an operator do to a tenant's budget from a terminal?

Rule 1: the running gateway does it, so that roles, events and limits are those of ``/admin``.
Rule 2: each order has an id, made here. Where the reply was lost, the id is said: asked again by it, it is done once.
"""

from collections.abc import Mapping
from typing import Any

import rich_click as click

from perpetuo.adapters.system import RealSystem
from perpetuo.entrypoints.commands.remote import Answer, Remote, RemoteError, as_json, asks_a_gateway
from perpetuo.entrypoints.commands.tables import printable, show_table

A_NEGATIVE_AMOUNT = {"ignore_unknown_options": True}
"""``-12.50`` is no option."""
key_option = click.option("--key", metavar="NAME", help="The budget of this key. Default: the tenant's own.")
id_option = click.option("--id", "name", metavar="ID", help="Repeat an order whose reply was lost: it is done once.")


@click.group()
def budget() -> None:
    """Raise a budget for a while, or adjust what was spent."""


@budget.command("raise")
@click.argument("tenant")
@click.argument("usd")
@click.option("--until", required=True, help="midnight (the tenant's), 2h, 3d, or 2026-11-27T18:00 on its clock.")
@click.option("--window", type=click.Choice(["day", "month"]), default="day", show_default=True)
@key_option
@click.option("--reason", metavar="TEXT", help="Kept with the event.")
@id_option
@as_json
@asks_a_gateway
def raise_(gateway: Remote, name: str | None, json: bool, **order: str | None) -> None:
    """Let TENANT's budget be higher by USD until an instant."""
    _told(_ordered(gateway, "raise", name, order), json)


@budget.command(context_settings=A_NEGATIVE_AMOUNT)
@click.argument("tenant")
@click.argument("usd")
@click.option("--reason", metavar="TEXT", required=True, help="Kept with the event: whoever reads the books will ask.")
@click.option("--day", metavar="DATE", help="A day of the running month, or yesterday. Default: today.")
@key_option
@id_option
@as_json
@asks_a_gateway
def adjust(gateway: Remote, name: str | None, json: bool, **order: str | None) -> None:
    """
    Change what TENANT has spent by USD: -12.50 takes off what was charged too much.

    The day and its month change together, and a row of kind `admin` says so.
    """
    _told(_ordered(gateway, "adjust", name, order), json)


@budget.command()
@click.argument("tenant", required=False)
@as_json
@asks_a_gateway
def raises(gateway: Remote, tenant: str | None, json: bool) -> None:
    """Which budgets are raised now (of TENANT)?"""
    answer = gateway.get("/budget/raises", {"tenant": tenant})
    if json:
        click.echo(answer.raw)
    elif not answer.facts["items"]:
        click.echo("No budget is raised.")
    else:
        names = ("tenant", "key", "window", "usd", "until", "actor", "reason", "id")
        show_table(names, [[one[column] for column in names] for one in answer.facts["items"]], right=("usd",))


@budget.command()
@click.argument("raise_id", metavar="RAISE")
@click.option("--reason", metavar="TEXT", help="Kept with the event.")
@as_json
@asks_a_gateway
def end(gateway: Remote, raise_id: str, reason: str | None, json: bool) -> None:
    """End a raise before its time; RAISE is its id, which `perpetuo budget raises` shows."""
    _told(_ordered(gateway, "end", None, {"raise": raise_id, "reason": reason}), json)


def _ordered(gateway: Remote, action: str, name: str | None, order: Mapping[str, str | None]) -> Answer:
    name = name or RealSystem().new_id()
    given: dict[str, Any] = {field: value for field, value in order.items() if value is not None}
    try:
        return gateway.post(f"/budget/{action}", {**given, "id": name})
    except RemoteError as error:
        if error.passing and action != "end":
            text = f"{error}\nIt may have been done. The same command with --id {name} does it once, within an hour."
            raise RemoteError(text, error.status, passing=True) from error
        raise


def _told(answer: Answer, json: bool) -> None:
    click.echo(answer.raw if json else printable(answer.facts["message"]))
