"""What do tenants use of their limits now? The running gateway says it, as on its page ``/admin/tenants``."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import rich_click as click

from perpetuo.entrypoints.commands.remote import Remote, as_json, asks_a_gateway
from perpetuo.entrypoints.commands.tables import show_table

COLUMNS = ("tenant", "budget", "limit", "spent", "held", "left", "raised", "last minute", "in flight")


@click.group()
def tenants() -> None:
    """What tenants use of their limits."""


@tenants.command()
@click.argument("tenant", required=False)
@click.option("--search", metavar="TEXT", help="Only tenants with this in their id or plan.")
@click.option(
    "--sort", type=click.Choice(["near", "id"]), default="near", help="Nearest to a limit first, or by id: whole lists."
)
@click.option("--page", type=click.IntRange(1), default=1, help="The list comes in pages.")
@as_json
@asks_a_gateway
def usage(gateway: Remote, tenant: str | None, search: str | None, sort: str, page: int, json: bool) -> None:
    """Budgets, rate and calls in flight of TENANT and its keys, or of one page of all tenants."""
    if tenant is None:
        answer = gateway.get("/tenants", {"q": search, "sort": sort, "page": page})
    else:
        answer = gateway.get(f"/tenants/{quote(tenant, safe='')}")
    if json:
        click.echo(answer.raw)
        return
    facts = answer.facts
    if facts["unavailable"]:
        click.echo(f"Not known now: {facts['unavailable']}", err=True)
    items = facts["items"] if tenant is None else [facts]
    shown = [row for one in items for row in _rows(one["id"], one)]
    if tenant is not None:
        shown += [row for key in facts["keys"] for row in _rows(f"{tenant}/{key['name']}", key)]
    show_table(COLUMNS, shown, right=COLUMNS[2:])
    if tenant is None and facts["pages"] > 1:
        click.echo(f"Page {facts['page']} of {facts['pages']}, {facts['total']:,} tenants; --page shows others.")


def _rows(scope: str, facts: Mapping[str, Any]) -> list[list[object]]:
    """A line for each budget; calls stand in the first."""
    limits, budgets = facts["limits"], facts.get("budgets", [])
    calls: list[object] = [
        _of(facts.get("requests_last_minute"), limits["rate_per_minute"]),
        _of(facts.get("in_flight"), limits["concurrency"]),
    ]
    money = [
        [b["period"], b["limit_usd"], b["spent_usd"], b["held_usd"], b["left_usd"], b["raised_usd"]] for b in budgets
    ]
    rows: list[list[object]] = [[scope, *row, None, None] for row in money or [[None] * 6]]
    rows[0][-2:] = calls
    return rows


def _of(used: int | None, limit: int | None) -> str | None:
    return None if used is None or limit is None else f"{used} of {limit}"
