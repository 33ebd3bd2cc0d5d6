"""
What is wrong here, and what is to be done?

Exit 0: nothing is bad (there may be warnings); 1: something is; 2: the command was not understood.
"""

import asyncio
import json
import os
import sys

import rich_click as click

from perpetuo.entrypoints.doctor.examination import examine
from perpetuo.entrypoints.doctor.findings import Finding, Level, worst

MARKS: dict[Level, tuple[str, str]] = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red")}
SUMMARIES: dict[Level, str] = {
    "ok": "All is well.",
    "warn": "It works; look at the warnings.",
    "bad": "Something is wrong.",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object.")
@click.option("--calls", is_flag=True, help="Also ask each provider for its models (GET /models), with our credential.")
def doctor(*, as_json: bool, calls: bool) -> None:
    """
    Examine variables, configuration, Redis, database, providers and the gateway, and say what to do.

    Looks at what PERPETUO_CONFIG_PATH, REDIS_URL and DATABASE_URL name; changes nothing and sends no prompt.
    """
    found, ahead = examine(calls=calls)
    loop = asyncio.new_event_loop()
    begun = loop.time()
    examined = loop.run_until_complete(ahead.examine())
    found += examined.findings
    if as_json:
        click.echo(json.dumps(facts(found, loop.time() - begun), indent=2))
    else:
        _tell(found)
    status = 1 if worst(found) == "bad" else 0
    if examined.overdue:  # a thread that waits for a name can't be stopped, and both loop and interpreter would wait
        sys.stdout.flush()
        os._exit(status)
    loop.close()
    sys.exit(status)


def facts(found: list[Finding], took_s: float) -> dict[str, object]:
    """What ``--json`` prints."""
    checks = [{"check": f.check, "level": f.level, "seen": f.seen, "code": f.code, "do": f.todo} for f in found]
    return {"level": worst(found), "took_s": round(took_s, 3), "checks": checks}


def _tell(found: list[Finding]) -> None:
    plain = not sys.stdout.isatty()
    width = max(len(finding.check) for finding in found)
    for finding in found:
        mark, colour = (f"{finding.level:<4}", None) if plain else MARKS[finding.level]
        click.echo(f"{click.style(mark, fg=colour)} {finding.check:<{width}}  {finding.seen}")
        if finding.todo is not None:
            click.echo(f"{'':<{len(mark)}} {'':<{width}}  → {finding.todo} [{finding.code}]")
    level = worst(found)
    click.secho(f"\n{SUMMARIES[level]} Every finding is explained in docs/doctor.md.", fg=MARKS[level][1])
