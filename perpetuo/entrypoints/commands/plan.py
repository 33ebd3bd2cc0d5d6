"""
What would another configuration change, and which calls of the last hours would it have refused?

Exit 0: no call that passed would be refused; 2: some would; 1: it could not be found out. Rule 1: 2 is a verdict and
nothing else, so that CI can tell it from a wrong option, a wrong file and a database that is away.
Rule 2: what a change means needs no database, so it is told also when there is none to judge by.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import attrs
import rich_click as click

from perpetuo.adapters.configfile import DEFAULT_FILE, ConfigError, load, load_catalogue
from perpetuo.adapters.environment import InvalidEnvironmentError, Variables
from perpetuo.adapters.sql.database import Database
from perpetuo.adapters.sql.recorded import RecordedCalls
from perpetuo.adapters.sql.values import micros, moment
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.recorded import Recorded
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.policy.difference import Change, difference
from perpetuo.domain.policy.whatif import Replay, WhatIf, in_order
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.commands.tables import printable, show_table

HOUR_US = 3_600_000_000
WARM_UP_US = 600_000_000
"""Counted, not judged: the longest that a call may take by default, and more than a minute of the rate."""
DECIDED = frozenset(
    reason.value
    for reason in (
        Reason.MODEL_NOT_FOUND, Reason.MODEL_NOT_ALLOWED, Reason.RATE_LIMIT_EXCEEDED, Reason.BUDGET_EXCEEDED,
        Reason.CONCURRENCY_LIMIT_EXCEEDED, Reason.BUDGET_RESERVED, Reason.MODEL_NOT_PRICED, Reason.COST_NOT_BOUNDED,
        Reason.API_KEY_EXPIRED,
    )
)  # fmt: skip
"""Refusals that another configuration may not make."""


@attrs.frozen
class Judged:
    """What the recorded calls would have met with."""

    outcome: WhatIf
    incomplete: dict[str, int]
    """By tenant: calls that were refused, and that this configuration might admit."""


@attrs.frozen
class NotJudged:
    """The recorded calls could not be read."""

    why: str


@attrs.frozen
class Plan:
    """Everything there is to tell."""

    changes: tuple[Change, ...]
    since_us: int
    until_us: int
    verdict: Judged | NotJudged

    @property
    def status(self) -> int:
        match self.verdict:
            case Judged(outcome):
                return 2 if outcome.refused else 0
            case NotJudged():
                return 1


class _AskedWronglyError(click.UsageError):
    exit_code = 1  # rule 1: click's own is 2


class _Plan(click.RichCommand):
    def make_context(self, *args: Any, **named: Any) -> click.Context:
        try:
            return super().make_context(*args, **named)
        except click.UsageError as error:
            raise _AskedWronglyError(error.format_message(), error.ctx) from error


@click.command(cls=_Plan)
@click.argument("new", type=click.Path(path_type=Path), metavar="NEW.yaml")
@click.option("--against", type=click.Path(path_type=Path), help="Compare with this file, not PERPETUO_CONFIG_PATH.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24.0,
    show_default=True,
    help="Judge the calls of so many hours until now.",
)
@click.option("--since", help="Instead of --hours: an instant such as 2026-11-26T08:00:00Z.")
@click.option("--until", help="An instant; now, if left out.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object.")
def plan(*, new: Path, against: Path | None, hours: float, since: str | None, until: str | None, as_json: bool) -> None:
    """
    Say what NEW.yaml would change, and which recorded calls it would have refused.

    Reads the events of DATABASE_URL; sends nothing and changes nothing.

    Exit 0: no call that passed would be refused. 2: some would. 1: not found out, because a file or an option is wrong,
    or because the recorded calls can't be read: what would change is shown all the same.
    """
    try:
        found = _plan(new, against, *_span(hours, since, until), shows=not as_json)
    except (ConfigError, InvalidEnvironmentError) as error:
        _fail([str(problem) for problem in error.problems])
    except (ValueError, OSError) as error:
        _fail([str(error)])
    if as_json:
        click.echo(json.dumps(facts(found), indent=2))
    else:
        _tell(found)
    sys.exit(found.status)


def _fail(reasons: list[str]) -> NoReturn:
    for reason in reasons:
        click.echo(reason, err=True)
    sys.exit(1)


def _span(hours: float, since: str | None, until: str | None) -> tuple[int, int]:
    end = _instant("--until", until) if until else time.time_ns() // 1000
    start = _instant("--since", since) if since else end - round(hours * HOUR_US)
    if start >= end:
        raise ValueError(
            f"There is no time from {moment(start):%Y-%m-%dT%H:%M:%SZ} until {moment(end):%Y-%m-%dT%H:%M:%SZ}."
        )
    return start, end


def _instant(option: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} {text!r} is no instant such as 2026-11-26T08:00:00Z.") from None
    return micros(at if at.tzinfo else at.replace(tzinfo=UTC))


def _plan(new: Path, against: Path | None, since_us: int, until_us: int, *, shows: bool) -> Plan:
    variables = Variables()
    path = against or Path(variables.get("PERPETUO_CONFIG_PATH") or DEFAULT_FILE)
    prices = variables.get("PERPETUO_CATALOGUE_PATH")
    catalogue = load_catalogue(Path(prices) if prices else None)
    before, after = load(path, variables, catalogue), load(new, variables, catalogue)
    verdict = _judged(variables.get("DATABASE_URL"), before, after, (since_us, until_us), shows=shows)
    changes = difference(before, after)
    if not changes and isinstance(verdict, Judged) and not verdict.outcome.refused:
        verdict = attrs.evolve(verdict, incomplete={})  # the same file would refuse the same calls
    return Plan(changes, since_us, until_us, verdict)


def _judged(
    url: str | None, before: Settings, after: Settings, span: tuple[int, int], *, shows: bool
) -> Judged | NotJudged:
    if not url:
        return NotJudged("DATABASE_URL is not set: whose recorded calls should be judged?")
    try:
        database = Database(url)
    except (ValueError, OSError) as error:
        return NotJudged(str(error))
    with asyncio.Runner() as runner:
        try:
            outcome, refused = _replayed(runner, database, before, after, span, shows=shows)
        except StoreUnavailable as error:
            return NotJudged(f"The recorded calls can't be read: {error}")
        finally:
            runner.run(database.close())
    return Judged(outcome, refused)


def _replayed(
    runner: asyncio.Runner, database: Database, before: Settings, after: Settings, span: tuple[int, int], *, shows: bool
) -> tuple[WhatIf, dict[str, int]]:
    since_us, until_us = span
    calls = RecordedCalls(database, since_us - WARM_UP_US, until_us)
    total = runner.run(calls.count())
    spent, raises = runner.run(calls.spent_before()), runner.run(calls.raises())
    replay = Replay(before, after, spent=spent, since_us=since_us, raises=raises)
    refused: dict[str, int] = {}
    for (tenant, reason), number in runner.run(calls.refused(since_us, until_us)).items():
        if reason in DECIDED:
            refused[tenant] = refused.get(tenant, 0) + number
    done = replay.run(in_order(_rows(runner, calls)))
    for _ in _progress(done, total) if shows and sys.stderr.isatty() else done:
        pass
    return replay.outcome, refused


def _rows(runner: asyncio.Runner, calls: RecordedCalls) -> Iterator[Recorded]:
    after: str | None = None
    while True:
        page, after = runner.run(calls.page(after))
        yield from page
        if after is None:
            return


def _progress(done: Iterator[int], total: int) -> Iterator[int]:
    from rich.console import Console  # noqa: PLC0415 - only for a terminal
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Calls", total=total)
        for number in done:
            bar.update(task, completed=number)
            yield number


# --- telling --------------------------------------------------------------------------------------


def facts(found: Plan) -> dict[str, Any]:
    """What ``--json`` prints; money in nano-USD, ``null`` for what is not known."""
    told: dict[str, Any] = {
        "changes": [attrs.asdict(change) for change in found.changes],
        "since": _shown(found.since_us),
        "until": _shown(found.until_us),
        "not_judged": None,
        "calls": None,
        "would_be_refused": None,
        "refusals": None,
        "costs": None,
        "incomplete": None,
        "unknown_keys": None,
    }
    match found.verdict:
        case NotJudged(why):
            return told | {"not_judged": why}
        case Judged(outcome, incomplete):
            return told | _verdict_facts(outcome, incomplete)


def _verdict_facts(outcome: WhatIf, incomplete: dict[str, int]) -> dict[str, Any]:
    return {
        "calls": outcome.calls,
        "would_be_refused": outcome.refused,
        "refusals": [
            {"tenant": tenant, "key": key, "reason": reason, "scope": scope, "limit": one.limit, "calls": one.count,
             "first": _shown(one.first_us), "last": _shown(one.last_us)}
            for (tenant, key, reason, scope), one in sorted(outcome.refusals.items())
        ],
        "costs": [
            {"tenant": tenant, "model": model, "calls": one.calls, "would_be_refused": one.refused,
             "cost_nano_usd": one.before, "would_cost_nano_usd": one.after}
            for (tenant, model), one in sorted(outcome.costs.items())
        ],
        "incomplete": [{"tenant": t, "refused_not_recorded": n} for t, n in sorted(incomplete.items())],
        "unknown_keys": [{"tenant": t, "key": k, "calls": n} for (t, k), n in sorted(outcome.unknown.items())],
    }  # fmt: skip


def _shown(us: int) -> str:
    return f"{moment(us):%Y-%m-%dT%H:%M:%SZ}"


def _tell(found: Plan) -> None:
    if found.changes:
        changed = [(c.what, c.field or "–", c.before, c.after) for c in found.changes]
        show_table(("changes", "what", "before", "after"), changed)
    else:
        click.echo("Nothing changes: both configurations mean the same.")
    click.echo()
    match found.verdict:
        case NotJudged(why):
            sys.stdout.flush()  # before what goes to the other stream
            click.echo(f"Which calls that would have refused is not known. {why}", err=True)
        case Judged(outcome, incomplete):
            _tell_verdict(outcome, incomplete, f"from {_shown(found.since_us)} until {_shown(found.until_us)}")


def _tell_verdict(outcome: WhatIf, incomplete: dict[str, int], span: str) -> None:
    if not outcome.calls:
        which = "No call that could be judged" if outcome.unknown else "No call"
        click.echo(f"{which} is recorded {span}, so nothing can be said of what it would have done.")
    elif outcome.refused:
        click.echo(f"{outcome.refused} of {outcome.calls} calls that passed {span} would have been refused:")
        show_table(("tenant", "key", "refused as", "limit", "calls", "first", "last"), _refusal_rows(outcome))
    else:
        click.echo(f"None of the {outcome.calls} calls that passed {span} would have been refused.")
    for (tenant, key), number in sorted(outcome.unknown.items()):
        calls = "1 call" if number == 1 else f"{number} calls"
        click.echo(f"{printable(tenant)}: not judged: {calls} with the key {printable(key)}, which neither file knows")
    for tenant, number in sorted(incomplete.items()):
        click.echo(f"{tenant}: incomplete: {number} refused calls were not recorded one by one")
    rows = [
        (tenant, model, one.calls, usd(one.before), usd(one.after), usd(one.after - one.before))
        for (tenant, model), one in sorted(outcome.costs.items())
        if one.before != one.after
    ]
    if rows:
        click.echo("\nWhat would have cost something else, in USD (a refused call costs nothing):")
        numbers = ("calls", "cost", "would have cost", "difference")
        show_table(("tenant", "model", *numbers), rows, right=numbers)
    elif outcome.calls:
        click.echo("Nothing would have cost more or less.")


def _refusal_rows(outcome: WhatIf) -> list[tuple[object, ...]]:
    return [
        (
            t,
            key,
            reason,
            f"{one.limit} ({scope})" if scope else one.limit,
            one.count,
            _shown(one.first_us),
            _shown(one.last_us),
        )
        for (t, key, reason, scope), one in sorted(outcome.refusals.items())
    ]
