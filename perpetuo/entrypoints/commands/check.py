"""
Is this configuration right, and what does it say?

Exit 0 with a summary; exit 2 with every problem, one a line, so that editors and CI can jump to it.
"""

import sys
from collections.abc import Sized
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpetuo.adapters.configfile import (
    DEFAULT_FILE,
    ConfigError,
    load_catalogue,
    load_sources,
    published_keys,
    read_sources,
)
from perpetuo.adapters.configfile.sources import LISTS
from perpetuo.adapters.environment import InvalidEnvironmentError, Variables
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Limits

Rows = list[tuple[str, ...]]
MOST_ROWS = 20
"""A summary is for reading; ten thousand tenants are not."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(file: Path | None) -> None:
    """
    Validate a configuration: FILE, or what PERPETUO_CONFIG_PATH names.

    Tells every problem at once and exits with 2; secrets are never shown.
    """
    variables = Variables()
    try:
        path = file or Path(variables.get("PERPETUO_CONFIG_PATH") or DEFAULT_FILE)
        prices = variables.get("PERPETUO_CATALOGUE_PATH")
        sources = read_sources(path, variables)
        settings = load_sources(sources, load_catalogue(Path(prices) if prices else None))
    except (ConfigError, InvalidEnvironmentError) as error:
        raise SystemExit(_failed(list(map(str, error.problems)))) from None
    _summary(path, settings)
    if sources.seen.patterns:
        _print("file", [(source.file, _held(source.document.root)) for source in sources.files])
        for pattern in sources.unmatched:
            click.secho(f"warning: include: {pattern} matches no file yet.", fg="yellow", err=True)
    for warning in published_keys(settings):
        click.secho(f"warning: {warning} `perpetuo serve` refuses to start with it.", fg="yellow", err=True)


def _held(root: Any) -> str:
    """``2 plans, 1 tenant``"""
    lists = {name: len(root.get(name, ())) for name in LISTS} if isinstance(root, dict) else {}
    return ", ".join(_count(n, name.removesuffix("s")) for name, n in lists.items() if n) or "nothing"


def _failed(problems: list[str]) -> int:
    for problem in problems:
        click.echo(problem, err=True)
    click.secho(_count(len(problems), "problem"), fg="red", err=True)
    return 2


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _summary(file: Path, settings: Settings) -> None:
    parts: dict[str, Rows] = {
        "provider": [(p.id, p.kind.value, p.base_url or "built in") for p in settings.providers.values()],
        "model": _models(settings),
        "tenant": _tenants(settings),
    }
    counts = [_count(len(items), what) for what, items in _items(settings).items()]
    click.secho(f"{file} is valid: {', '.join(counts)} (version {settings.version})", fg="green")
    for what, rows in parts.items():
        _print(what, rows)


def _items(settings: Settings) -> dict[str, Sized]:
    return {
        "provider": settings.providers,
        "model": settings.models.by_name,
        "tenant": settings.tenants,
        "key": settings.callers,
    }


def _models(settings: Settings) -> Rows:
    rows: Rows = []
    for model in settings.models.by_name.values():
        for target in model.targets:
            price = target.price
            cost = (
                f"{usd(price.rates.input)} in, {usd(price.rates.output)} out ({price.version})" if price else "unpriced"
            )
            rows.append((model.name, f"{target.provider}/{target.model}", cost))
    return rows


def _tenants(settings: Settings) -> Rows:
    return [
        (t.id, t.plan or "no plan", _limits(t.limits), _count(len(t.keys), "key")) for t in settings.tenants.values()
    ]


def _limits(limits: Limits) -> str:
    named = {
        "{}/min": limits.rate_per_minute,
        "{} at once": limits.concurrency,
        "${} a day": None if limits.budget_day is None else usd(limits.budget_day),
        "${} a month": None if limits.budget_month is None else usd(limits.budget_month),
    }
    return ", ".join(text.format(value) for text, value in named.items() if value is not None) or "no limits"


def _print(what: str, rows: Rows) -> None:
    shown, left = rows[:MOST_ROWS], len(rows) - MOST_ROWS
    if sys.stdout.isatty():
        table = Table(title=f"{what}s", title_justify="left", show_header=False, box=None, padding=(0, 2))
        for row in shown:
            table.add_row(*map(Text, row))
        Console(highlight=False).print(table)
    else:
        for row in shown:
            click.echo(f"  {what}  " + "  ".join(row))
    if left > 0:
        click.echo(f"  … and {left} more")
