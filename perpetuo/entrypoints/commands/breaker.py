"""
Which providers get calls, and how are they taken out or let in again?

A client of ``/admin/api``: what is done here holds for all workers, and is recorded under the name of the key.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import rich_click as click

from perpetuo.adapters.configfile.kinds import duration
from perpetuo.entrypoints.commands.remote import Remote, as_json, asks_a_gateway
from perpetuo.entrypoints.commands.tables import printable, show_pairs, show_table

Facts = Mapping[str, Any]


class Seconds(click.ParamType[int]):
    """A span as the configuration writes them, in whole seconds."""

    name = "SPAN"
    kind = duration("1s", "24h")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            micros: int = self.kind.read(str(value))
        except ValueError:
            self.fail(f"{value!r} is not {self.kind.allowed}", param, ctx)
        return -(-micros // 1_000_000)


@click.group()
def breaker() -> None:
    """Look at providers' circuit breakers, open and reset them."""


@breaker.command("list")
@as_json
@asks_a_gateway
def list_(gateway: Remote, *, json: bool) -> None:
    """Every provider: is its breaker open, since when and why, and how was its last hour?"""
    answer = gateway.get("/providers")
    if json:
        click.echo(answer.raw)
        return
    columns = ("PROVIDER", "BREAKER", "LEFT", "FAILURES", "WHY", "CALLS/H", "FAILED", "P50", "P95")
    rows = [_row(one) for one in answer.facts["items"]]
    show_table(columns, rows, right=("LEFT", "CALLS/H", "FAILED", "P50", "P95"))


def _row(one: Facts) -> tuple[object, ...]:
    found, hour = one["breaker"], one.get("hour")
    left = found["seconds_left"]
    counted = f"{found['failures']} of {found['calls']} in {found['window_s']} s"
    failures = counted if found["state"] == "closed" else None
    latency = (hour or {}).get("latency_ms") or {"p50": None, "p95": None}
    failed = None if hour is None or hour["failed_percent"] is None else f"{hour['failed_percent']} %"
    return (
        one["id"], found["state"], None if left is None else f"{left} s", failures, found["because"],
        None if hour is None else hour["calls"], failed, _ms(latency["p50"]), _ms(latency["p95"]),
    )  # fmt: skip


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} ms"


@breaker.command()
@click.argument("provider")
@as_json
@asks_a_gateway
def show(gateway: Remote, provider: str, *, json: bool) -> None:
    """One provider: its breaker, and when and why that changed."""
    answer = gateway.get(f"/providers/{quote(provider, safe='')}")
    if json:
        click.echo(answer.raw)
        return
    found = answer.facts
    show_pairs(
        [
            ("provider", f"{found['id']} ({found['kind']})"),
            ("models", ", ".join(found["models"]) or "none"),
            ("breaker", found["breaker"]["state"]),
            ("because", found["breaker"]["because"]),
        ]
    )
    changes = found["history"]
    if changes["unavailable"]:
        click.echo(f"\nIts history is not known now: {printable(changes['unavailable'])}")
    elif changes["items"]:
        click.echo()
        show_table(("TIME", "BECAME", "WHY", "UNTIL"), [_change(one) for one in changes["items"]])


def _change(one: Facts) -> tuple[object, ...]:
    return _moment(one["at"]), one["state"], one["because"], _moment(one["until"])


def _moment(instant: str | None) -> str | None:
    return None if instant is None else instant[:19].replace("T", " ")


@breaker.command("open")
@click.argument("provider")
@click.option("--for", "seconds", type=Seconds(), required=True, help="How long: 30s, 5m, 1h; at most 24h.")
@as_json
@asks_a_gateway
def open_(gateway: Remote, provider: str, *, seconds: int, json: bool) -> None:
    """Send no calls to PROVIDER for a while: they go to other targets, or get 503."""
    _order(gateway, {"provider": provider, "action": "open", "seconds": seconds}, json=json)


@breaker.command()
@click.argument("provider")
@as_json
@asks_a_gateway
def reset(gateway: Remote, provider: str, *, json: bool) -> None:
    """Close the breaker of PROVIDER: all workers send calls to it again at once."""
    _order(gateway, {"provider": provider, "action": "close"}, json=json)


def _order(gateway: Remote, order: Mapping[str, Any], *, json: bool) -> None:
    answer = gateway.post("/breaker", order)
    click.echo(answer.raw if json else printable(answer.facts["message"]))
